//! Settings that are to be written: each with the place it comes from, and none that the daemon would refuse.

use std::fmt::Write as _;

use outrider_core::settings::{self, DaemonSettings, Finding, Findings, Severity};
use serde_json::{Map, Value};

use crate::import::text::quoted;
use crate::output::printable;

/// The longest text in a note.
const LONGEST_NOTE: usize = 1500;
/// More notes than anybody reads.
const MOST_NOTES: usize = 200;

/// One setting.
struct Entry {
    /// Such as `log.level`.
    key: String,
    value: Value,
    origin: String,
}

/// The settings of one daemon.
#[derive(Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    /// What has to be looked at.
    pub(super) notes: Vec<String>,
}

impl Draft {
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, origin: &str) {
        self.entries.push(Entry { key: key.to_owned(), value: value.into(), origin: origin.to_owned() });
    }

    pub(super) fn note(&mut self, text: impl AsRef<str>) {
        if self.notes.len() == MOST_NOTES {
            self.notes.push("there is more of this kind; it is not listed".to_owned());
        }
        if self.notes.len() > MOST_NOTES {
            return;
        }
        let mut text = printable(text.as_ref());
        if text.chars().count() > LONGEST_NOTE {
            text = text.chars().take(LONGEST_NOTE).chain("...".chars()).collect();
        }
        self.notes.push(text);
    }

    /// Leaves out what the daemon `S` would refuse, with a note, and notes what it would warn of.
    pub(super) fn settle<S: DaemonSettings>(&mut self) {
        let keys = settings::keys::<S>();
        let place = |entry: &Entry| keys.iter().position(|key| key.dotted() == entry.key);
        self.entries.sort_by_key(place);
        for entry in std::mem::take(&mut self.entries) {
            let is_secret = place(&entry).is_some_and(|index| keys[index].secret);
            match acceptable::<S>(&entry, is_secret) {
                Ok(()) => self.entries.push(entry),
                Err(why) => self.note(format!("{} is not taken over: {why}", entry.origin)),
            }
        }
        // What nothing that is left out cures.
        let mut incurable: Vec<Finding> = Vec::new();
        // Every turn but the last takes one out, or finds one more of these.
        loop {
            let findings = findings::<S>(self.entries.iter());
            let is_next = |found: &&Finding| found.severity == Severity::Error && !incurable.contains(found);
            let Some(fatal) = findings.iter().find(is_next) else {
                for warning in findings.iter().filter(|found| found.severity == Severity::Warning) {
                    self.note(about(warning));
                }
                return;
            };
            let Some(index) = self.cause::<S>(fatal) else {
                self.note(format!("to be set by hand: {}", about(fatal)));
                incurable.push(fatal.clone());
                continue;
            };
            let entry = self.entries.remove(index);
            self.note(format!("{} is not taken over: {}", entry.origin, about(fatal)));
        }
    }

    /// The entry without which all would be well: the one that is named, or one of its section.
    fn cause<S: DaemonSettings>(&self, fatal: &Finding) -> Option<usize> {
        let named = self.entries.iter().position(|entry| entry.key == fatal.key);
        let section = fatal.key.split_once('.').map_or("", |(section, _)| section);
        let beside = |entry: &Entry| entry.key.split_once('.').is_some_and(|(name, _)| name == section);
        let others = (0..self.entries.len()).filter(|index| beside(&self.entries[*index]));
        let is_cured = |left_out: &usize| {
            let rest = self.entries.iter().enumerate().filter(|(index, _)| index != left_out);
            let found = findings::<S>(rest.map(|(_, entry)| entry));
            !found.iter().any(|found| found.severity == Severity::Error && found.key == fatal.key)
        };
        named.into_iter().chain(others).find(is_cured).or(named)
    }

    /// The file, with `head` as its first lines.
    pub(super) fn text(&self, head: &str) -> String {
        let mut text = String::new();
        for line in head.lines() {
            let _ = writeln!(text, "# {line}");
        }
        if !self.notes.is_empty() {
            text.push_str("#\n# To be looked at:\n");
        }
        for note in &self.notes {
            let _ = writeln!(text, "# - {note}");
        }
        let mut written = "";
        // What stands outside of all sections comes first, whatever its place among the keys.
        let (top, sections): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|entry| !entry.key.contains('.'));
        for entry in top.into_iter().chain(sections) {
            let (section, name) = entry.key.split_once('.').unwrap_or(("", &entry.key));
            if section != written {
                let _ = write!(text, "\n[{section}]");
                written = section;
            }
            let _ = write!(text, "\n# {}\n{name} = {}\n", printable(&entry.origin), toml(&entry.value));
        }
        text
    }
}

/// Whether the daemon takes the value, looked at alone.
fn acceptable<S: DaemonSettings>(entry: &Entry, is_secret: bool) -> Result<(), String> {
    if has_null(&entry.value) {
        return Err("it is None".to_owned());
    }
    if is_secret && entry.value.as_str().is_some_and(|text| text.starts_with("file:")) {
        return Err("a secret that begins with \"file:\" has to stand in a file of its own".to_owned());
    }
    match serde_json::from_value::<S>(nested([entry])) {
        Ok(_) => Ok(()),
        // Neither a secret nor a URL with one in it is shown.
        Err(_) if is_secret || entry.key.starts_with("database.") => Err("it cannot be read".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn findings<'a, S: DaemonSettings>(entries: impl IntoIterator<Item = &'a Entry>) -> Findings {
    let mut findings = Findings::new();
    match serde_json::from_value::<S>(nested(entries)) {
        Ok(ours) => settings::check(&ours, &mut findings),
        Err(_) => findings.error("", "the settings do not go together", ""),
    }
    findings
}

fn about(finding: &Finding) -> String {
    let fix = if finding.fix.is_empty() { String::new() } else { format!(" ({})", finding.fix) };
    format!("{}: {}{fix}", finding.key, finding.reason)
}

fn nested<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Value {
    let mut all = Map::new();
    for entry in entries {
        match entry.key.split_once('.') {
            None => {
                all.insert(entry.key.clone(), entry.value.clone());
            }
            Some((section, name)) => {
                let section = all.entry(section).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(section) = section {
                    section.insert(name.to_owned(), entry.value.clone());
                }
            }
        }
    }
    Value::Object(all)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(entries) => entries.values().any(has_null),
        _ => false,
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{} = {}", quoted(key), toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}
