//! `outrider import iredapd`: policyd.toml and srsd.toml from iRedAPD's settings.py.
//!
//! Our defaults are those of iRedAPD (a test of policyd sees to it), so only what settings.py assigns is written, and the
//! log, which goes where iRedAPD's went. The file is read and never run.

mod draft;
mod installation;
mod plugins;
mod source;
mod srs;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use outrider_policyd::Settings;
use outrider_policyd::settings::iredapd::{self as names, Meaning};
use serde_json::{Map, Value};

use super::{Target, read_text};
use crate::failure::Outcome;
use draft::Draft;
use plugins::Folder;
use source::Source;

/// The longest settings.py that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// Passwords are in both files.
const MODE: u32 = 0o600;

/// Writes policyd.toml from iRedAPD's settings, which are read and never run, with comments that tell where each value
/// comes from, and names what cannot be taken over. Passwords are in what is written.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("files").args(["output", "srsd_output"]).multiple(true)))]
pub(crate) struct Arguments {
    /// iRedAPD's settings, "-" for standard input
    #[arg(value_name = "SETTINGS.PY", default_value = "/opt/iredapd/settings.py")]
    settings: PathBuf,
    /// Folder with iRedAPD's plugins, to name those that are no rules of policyd; "plugins" beside SETTINGS.PY if not given
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// policyd.toml to write; standard output if neither file is given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// srsd.toml to write: domain, secrets and ports of SRS, and where the local domains are
    #[arg(long, value_name = "FILE")]
    srsd_output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, requires = "files")]
    overwrite: bool,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let text = read_text(&arguments.settings, LONGEST)?;
    let folder = Folder::read(arguments.plugins.as_deref(), &arguments.settings)?;
    let source = Source::read(&text);
    let Arguments { output, srsd_output, overwrite, .. } = arguments;
    // What is wrong with one file does not keep the other from being written.
    let mut policyd_written = Ok(0);
    if output.is_some() || srsd_output.is_none() {
        let mut draft = policyd(&source, &folder);
        if srsd_output.is_none() && srs::is_on(&source) {
            draft.note("SRS is on: --srsd-output FILE writes the settings of srsd, which does it");
        }
        let head = "Settings of policyd, taken over from iRedAPD by `outrider import iredapd`.\n\
                    Before it can start, stop iredapd, which holds the port.";
        policyd_written = write(&draft, head, output.as_deref(), *overwrite, "policyd");
    }
    if let Some(file) = srsd_output {
        let head = "Settings of srsd, taken over from iRedAPD by `outrider import iredapd`.\n\
                    Before it can start, stop iredapd, or set its srs_secrets = [] and restart it: it holds the ports.";
        write(&srs::srsd(&source), head, Some(file), *overwrite, "srsd")?;
    }
    policyd_written
}

fn write(draft: &Draft, head: &str, output: Option<&Path>, overwrite: bool, daemon: &str) -> Outcome {
    let target = Target { output: output.map(Path::to_path_buf), overwrite };
    target.write(&draft.text(head), &draft.notes, MODE, daemon)
}

/// The settings of policyd.
fn policyd(source: &Source, folder: &Folder) -> Draft {
    let mut draft = Draft::default();
    source.note_problems(|_| true, &mut draft);
    installation::listen(source, &[("listen", "listen_port", 7777)], &mut draft);
    installation::log(source, &mut draft);
    installation::accounts(source, &mut draft);
    for database in ["vmail", "amavisd", "iredapd"] {
        installation::database(source, database, &mut draft);
    }
    plugins::rules(source, folder, &mut draft);
    plain(source, &mut draft);
    draft.settle::<Settings>();
    draft
}

/// What has one counterpart, as the table of names says.
fn plain(source: &Source, draft: &mut Draft) {
    let (mut unknown, mut dropped) = (Vec::new(), Vec::new());
    for (name, assigned) in source.assigned() {
        let meaning = names::NAMES.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning);
        // The plugins have been looked at, and the name of the host is none of iRedAPD's settings.
        let is_done =
            meaning == Some(Meaning::Installation) || ["plugins", "PLUGIN_PRIORITIES"].contains(&name);
        if is_done || srs::NAMES.contains(&name) {
            continue;
        }
        let one = Map::from_iter([(name.to_owned(), assigned.value.clone())]);
        let translation = names::translate(&one);
        if name == "hostname" || !translation.unknown.is_empty() {
            unknown.push(format!("{name} (line {})", assigned.line));
        }
        let is_dropped = matches!(meaning, None | Some(Meaning::Dropped(_)));
        for remark in translation.remarks {
            match is_dropped {
                true => dropped.push(remark.replacen(": ", " (", 1) + ")"),
                false => draft.note(format!("line {}, {remark}; not taken over", assigned.line)),
            }
        }
        for note in translation.notes {
            draft.note(format!("line {}, {note}", assigned.line));
        }
        if name != "hostname" {
            for (key, value) in flat(translation.settings) {
                draft.set(&key, value, &source.origin(name));
            }
        }
    }
    if !unknown.is_empty() {
        draft.note(format!(
            "unknown to iRedAPD itself, perhaps read by custom plugins: {}",
            unknown.join(", ")
        ));
    }
    if !dropped.is_empty() {
        draft.note(format!("without a counterpart: {}", dropped.join(", ")));
    }
}

/// `{"log": {"level": 1}}` as `log.level`; the values of settings are no sections.
fn flat(settings: Map<String, Value>) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (key, value) in settings {
        match value {
            Value::Object(section) => {
                all.extend(section.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => all.push((key, value)),
        }
    }
    all
}
