//! `outrider check`: reads the settings of the daemons and says what is wrong with them. No network, no database.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrider_core::daemon::Daemon;
use outrider_core::settings::{self, Finding, SettingsError, Severity};
use serde::Serialize;

use crate::config::{self, file_of};
use crate::daemons::{Name, Visitor, selected};
use crate::exit;
use crate::failure::Failure;

/// Reads the settings files and reports every problem with file, line and the way out.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with the settings files
    #[arg(long, value_name = "DIR", default_value = config::FOLDER)]
    config: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Daemons to check; all of them if none is named
    #[arg(value_enum)]
    daemons: Vec<Name>,
}

/// What was found in the settings of one daemon.
#[derive(Debug, Serialize)]
struct Report {
    daemon: &'static str,
    file: PathBuf,
    /// False if the file does not exist: the daemon then runs on its defaults.
    exists: bool,
    valid: bool,
    findings: Vec<String>,
}

/// Runs the verb. Exit status 78 if one daemon could not start with its settings.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.config != Path::new(config::FOLDER) && !arguments.config.is_dir() {
        let text =
            format!("{} is no folder: name the one with the settings files", arguments.config.display());
        return ExitCode::from(Failure::new(exit::NO_INPUT, text).tell());
    }
    let reports: Vec<Report> = selected(&arguments.daemons)
        .into_iter()
        .map(|name| name.accept(Check { folder: &arguments.config }))
        .collect();
    if arguments.json {
        // The report holds strings and booleans only; there is nothing that JSON could not express.
        println!("{}", serde_json::to_string_pretty(&reports).unwrap_or_default());
    } else {
        for report in &reports {
            print(report);
        }
    }
    if reports.iter().all(|report| report.valid) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::CONFIGURATION)
    }
}

struct Check<'a> {
    folder: &'a Path,
}

impl Visitor for Check<'_> {
    type Output = Report;

    fn visit<D: Daemon>(self) -> Report {
        let file = file_of::<D>(self.folder);
        let exists = file.exists();
        let (valid, findings) = match settings::load::<D::Settings>(exists.then_some(&*file), D::NAME) {
            Ok(loaded) => (true, lines(loaded.findings.iter())),
            Err(SettingsError::Invalid(findings)) => (false, lines(findings.iter())),
            Err(error) => (false, vec![error.to_string()]),
        };
        Report { daemon: D::NAME, file, exists, valid, findings }
    }
}

/// Errors first, warnings behind them.
fn lines<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<String> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.partition(|finding| finding.severity == Severity::Error);
    errors.into_iter().chain(warnings).map(ToString::to_string).collect()
}

fn print(report: &Report) {
    let state = match (report.valid, report.exists) {
        (true, true) => "ok",
        (true, false) => "ok, no such file: built-in defaults",
        (false, _) => "cannot start",
    };
    println!("{:<14} {}: {state}", report.daemon, report.file.display());
    for line in &report.findings {
        println!("  {line}");
    }
}
