//! `outrider import`: settings of ours from the configuration of the program that ours takes over from.
//!
//! An import reads only, says where each value came from, names what cannot be taken over, and never writes over a file
//! without being told.

mod dovecot_config;
mod dovecot_database;
mod dovecot_quota;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::exit;

/// What to import from.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Import {
    /// quota-status.toml from the Dovecot whose quota-status service is to be replaced (2.3 or 2.4)
    DovecotQuota(dovecot_quota::Arguments),
}

/// Where the settings go.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// File to write; standard output if not given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    overwrite: bool,
}

/// Runs the verb.
pub(crate) fn run(import: Import) -> ExitCode {
    match import {
        Import::DovecotQuota(arguments) => dovecot_quota::run(&arguments),
    }
}

impl Target {
    /// Writes the text, and tells what has to be looked at on standard error.
    fn write(&self, text: &str, notes: &[String]) -> ExitCode {
        let written = match &self.output {
            None => std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string()),
            Some(file) => self.write_file(file, text),
        };
        if let Err(error) = written {
            eprintln!("{error}");
            return ExitCode::from(exit::SYSTEM);
        }
        if let Some(file) = &self.output {
            println!("written: {}", file.display());
        }
        for note in notes {
            eprintln!("note: {note}");
        }
        ExitCode::SUCCESS
    }

    fn write_file(&self, file: &Path, text: &str) -> Result<(), String> {
        let mut options = std::fs::OpenOptions::new();
        // It may come to hold passwords later on.
        options.write(true).mode(0o640);
        match self.overwrite {
            true => options.create(true).truncate(true),
            false => options.create_new(true),
        };
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("{} exists: name another file, or say --overwrite", file.display())
            }
            _ => format!("{}: {error}", file.display()),
        };
        options.open(file).and_then(|mut open| open.write_all(text.as_bytes())).map_err(failed)
    }
}
