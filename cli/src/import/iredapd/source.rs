//! iRedAPD's settings as they were assigned.

use std::collections::BTreeMap;

use outrider_core::python::{Assigned, Module, Problem};
use outrider_policyd::settings::iredapd::{NAMES, default_value};
use serde_json::Value;

use super::draft::Draft;

/// What settings.py says.
pub(super) struct Source {
    assigned: BTreeMap<String, Assigned>,
    problems: Vec<Problem>,
}

impl Source {
    pub(super) fn read(text: &str) -> Source {
        let Module { assigned, problems, .. } = Module::read(text, default_value);
        Source { assigned, problems }
    }

    pub(super) fn assigned(&self) -> impl Iterator<Item = (&str, &Assigned)> {
        self.assigned.iter().map(|(name, assigned)| (name.as_str(), assigned))
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.assigned.get(name).map(|assigned| &assigned.value)
    }

    /// A text, or a number in digits; empty if it is neither or not assigned.
    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// Whether something is switched on, as Python sees the value; `False` is what iRedAPD has for all that is asked here.
    pub(super) fn is_on(&self, name: &str, draft: &mut Draft) -> bool {
        match self.value(name) {
            None | Some(Value::Bool(false) | Value::Null) => false,
            Some(Value::Bool(true)) => true,
            Some(other) => {
                let on = match other {
                    Value::String(text) => !text.is_empty(),
                    Value::Number(number) => number.as_f64() != Some(0.0),
                    Value::Array(list) => !list.is_empty(),
                    Value::Object(dictionary) => !dictionary.is_empty(),
                    Value::Bool(_) | Value::Null => false,
                };
                let counts = if on { "True" } else { "False" };
                let place = self.place(name);
                draft.note(format!(
                    "{place} is neither True nor False; it counts as {counts}, as for iRedAPD"
                ));
                on
            }
        }
    }

    /// A name and where it stands, for notes.
    pub(super) fn place(&self, name: &str) -> String {
        match self.assigned.get(name) {
            Some(assigned) => format!("line {}, {name}", assigned.line),
            None => format!("{name}, which is not assigned or could not be read,"),
        }
    }

    /// Where a value comes from, for the line above it.
    pub(super) fn origin(&self, name: &str) -> String {
        match self.assigned.get(name) {
            Some(assigned) => format!("iRedAPD: {name}, line {}", assigned.line),
            None => format!("iRedAPD: {name} is not assigned, its default"),
        }
    }

    /// Names the lines that were not understood, and of them only those that may concern the names `wanted`.
    pub(super) fn note_problems(&self, wanted: impl Fn(&str) -> bool, draft: &mut Draft) {
        let concerns =
            |problem: &&Problem| problem.names.is_empty() || problem.names.iter().any(|name| wanted(name));
        for Problem { line, names, reason } in self.problems.iter().filter(concerns) {
            // Others are not shown: half of a broken text may look like a name.
            let known: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_known(name)).collect();
            let place = match known.is_empty() {
                true => format!("line {line}"),
                false => format!("line {line}, {}", known.join(", ")),
            };
            draft.note(format!("{place}: {reason}; not taken over"));
        }
    }
}

fn is_known(name: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == name)
}
