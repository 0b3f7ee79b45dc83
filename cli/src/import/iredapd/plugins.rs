//! Plugins: which of them are rules of ours, and which are somebody's own.

use std::collections::BTreeSet;
use std::path::Path;

use outrider_policyd::Settings;
use outrider_policyd::plugin::Plugin;
use serde_json::{Map, Value};

use super::draft::Draft;
use super::source::Source;
use crate::exit;
use crate::failure::Failure;

/// More files than a folder of plugins has.
const MOST_FILES: usize = 10_000;

/// The names of the plugins that are there; none if the folder is not known.
#[derive(Default)]
pub(super) struct Folder(BTreeSet<String>);

impl Folder {
    /// Reads the names in `given`, or in the folder beside the settings if there is one.
    pub(super) fn read(given: Option<&Path>, settings: &Path) -> Result<Folder, Failure> {
        let beside = settings.with_file_name("plugins");
        let folder = given.unwrap_or(&beside);
        if given.is_none() && (settings == Path::new("-") || !folder.is_dir()) {
            return Ok(Folder::default());
        }
        let failed =
            |error: std::io::Error| Failure::new(exit::NO_INPUT, format!("{}: {error}", folder.display()));
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(folder).map_err(failed)?.take(MOST_FILES) {
            let file = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if let Some(name) = file.strip_suffix(".py").filter(|name| *name != "__init__") {
                names.insert(name.to_owned());
            }
        }
        Ok(Folder(names))
    }
}

#[cfg(test)]
impl Folder {
    pub(super) fn of<const N: usize>(names: [&str; N]) -> Folder {
        Folder(names.map(str::to_owned).into())
    }
}

/// The rules to ask and their priorities.
pub(super) fn rules(source: &Source, folder: &Folder, draft: &mut Draft) {
    let usual = Settings::default().plugins;
    let enabled = match source.value("plugins") {
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(|name| name.trim().to_owned()).collect()
        }
        Some(_) => {
            draft.note(format!("{} is no list; the usual rules are asked", source.place("plugins")));
            usual
        }
        None => {
            draft.note(format!("{}: the usual rules are asked", source.place("plugins")));
            usual
        }
    };
    let is_ours = |name: &&String| Plugin::by_name(name).is_some();
    let (ours, foreign): (Vec<&String>, Vec<&String>) = enabled.iter().partition(is_ours);
    if matches!(source.value("plugins"), Some(Value::Array(_))) {
        let list: Vec<Value> = ours.iter().map(|name| Value::from(name.as_str())).collect();
        draft.set("plugins", list, &source.origin("plugins"));
    }
    if !foreign.is_empty() {
        let names: Vec<&str> = foreign.iter().map(|name| name.as_str()).collect();
        draft.note(format!(
            "{}: no rules of ours, left out: {}. Custom plugins can be kept by running them in a policy server of their \
             own, such as iRedAPD with these plugins only at another port, which policyd asks: see the setting forward. \
             That second iRedAPD needs srs_secrets = [], or it holds the ports of srsd, and LOG_SMTP_SESSIONS = False, or \
             there are two rows for each session",
            source.place("plugins"),
            names.join(", ")
        ));
    }
    let idle = |name: &&String| Plugin::by_name(name).is_none() && !enabled.contains(*name);
    let idle: Vec<&str> = folder.0.iter().filter(idle).map(String::as_str).collect();
    if !idle.is_empty() {
        draft.note(format!(
            "plugins that are there but not enabled, and no rules of ours: {}",
            idle.join(", ")
        ));
    }
    priorities(source, &ours, draft);
}

fn priorities(source: &Source, ours: &[&String], draft: &mut Draft) {
    let name = "PLUGIN_PRIORITIES";
    let Some(value) = source.value(name) else { return };
    let Some(all) = value.as_object() else {
        draft.note(format!("{} is no dictionary; not taken over", source.place(name)));
        return;
    };
    let (mut kept, mut left) = (Map::new(), Vec::new());
    for (plugin, priority) in all {
        let number = priority.as_i64().or_else(|| priority.as_str()?.trim().parse().ok());
        match number.or_else(|| Some(priority.as_f64()?.round() as i64)).filter(|_| ours.contains(&plugin)) {
            Some(number) => drop(kept.insert(plugin.clone(), Value::from(number))),
            None => left.push(plugin.as_str()),
        }
    }
    if !left.is_empty() {
        draft.note(format!(
            "{}: left out, for these are no rules that are asked, or the priority is no number: {}",
            source.place(name),
            left.join(", ")
        ));
    }
    if !kept.is_empty() {
        draft.set("plugin_priorities", kept, &source.origin(name));
    }
}
