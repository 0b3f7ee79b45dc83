//! `outrider import`: settings of ours from the configuration of the program that ours takes over from.
//!
//! An import reads only, says where each value came from, names what cannot be taken over, and never writes over a file
//! without being told.

mod database_url;
mod dovecot_config;
mod dovecot_database;
mod dovecot_quota;
mod iredapd;
mod text;

use std::fs::Metadata;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{Gid, Group};

use crate::exit;
use crate::failure::{Failure, Outcome};

/// What to import from.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Import {
    /// quota-status.toml from the Dovecot whose quota-status service is to be replaced (2.3 or 2.4)
    DovecotQuota(dovecot_quota::Arguments),
    /// policyd.toml, and srsd.toml for its SRS, from the iRedAPD that is to be replaced; its passwords are in them
    Iredapd(iredapd::Arguments),
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
    let outcome = match import {
        Import::DovecotQuota(arguments) => dovecot_quota::run(&arguments),
        Import::Iredapd(arguments) => iredapd::run(&arguments),
    };
    ExitCode::from(outcome.unwrap_or_else(Failure::tell))
}

impl Target {
    /// Writes the text, and tells what has to be looked at on standard error. A new file gets the permissions `mode`; one
    /// that is there keeps its own, but for those of everybody. Whether `daemon` can read it then is told too.
    fn write(&self, text: &str, notes: &[String], mode: u32, daemon: &str) -> Outcome {
        let written = match &self.output {
            None => {
                std::io::stdout().write_all(text.as_bytes())?;
                None
            }
            Some(file) => Some((file, write_file(file, text, mode, self.overwrite)?)),
        };
        if let Some((file, _)) = &written {
            println!("written: {}", file.display());
        }
        for note in notes {
            eprintln!("note: {note}");
        }
        if let Some((file, about)) = &written {
            // The account of the packages and its group.
            let account = format!("outrider-{daemon}");
            let group = Group::from_name(&account).ok().flatten().map(|group| group.gid);
            if !can_read(group, about) {
                let file = file.display();
                eprintln!(
                    "note: {account} cannot read {file}: chgrp {account} {file} && chmod 640 {file}, for the packaged unit \
                     runs as that account"
                );
            }
        }
        Ok(0)
    }
}

/// Whether the group of a daemon may read a file; what is no file is read by somebody else.
fn can_read(group: Option<Gid>, about: &Metadata) -> bool {
    let is_group = group.is_some_and(|group| group.as_raw() == about.gid());
    !about.is_file() || (is_group && about.mode() & 0o040 != 0)
}

/// Says what the file is like afterwards.
fn write_file(file: &Path, text: &str, mode: u32, overwrite: bool) -> Result<Metadata, Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(mode);
    match overwrite {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let failed = |error: std::io::Error| {
        let text = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("{} exists: name another file, or say --overwrite", file.display())
            }
            _ => format!("{}: {error}", file.display()),
        };
        Failure::new(exit::CANNOT_CREATE, text)
    };
    let write = || {
        let mut open = options.open(file)?;
        let about = open.metadata()?;
        if about.is_file() {
            open.set_permissions(std::fs::Permissions::from_mode(about.permissions().mode() & 0o770))?;
        }
        open.write_all(text.as_bytes())?;
        open.metadata()
    };
    write().map_err(failed)
}

/// Reads all of it, but not much more than `longest` bytes.
fn bounded(from: impl Read, longest: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(longest + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > longest {
        true => Err(std::io::Error::other(format!("longer than {} MiB", longest >> 20))),
        false => Ok(bytes),
    }
}

/// The text in a file, or of standard input if it is "-".
fn read_text(path: &Path, longest: u64) -> Result<String, Failure> {
    match path == Path::new("-") {
        true => text_from("standard input", bounded(std::io::stdin(), longest)),
        false => {
            let bytes = std::fs::File::open(path).and_then(|file| bounded(file, longest));
            text_from(&path.display().to_string(), bytes)
        }
    }
}

fn text_from(place: &str, bytes: std::io::Result<Vec<u8>>) -> Result<String, Failure> {
    let bytes = bytes.map_err(|error| Failure::new(exit::NO_INPUT, format!("{place}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Failure::data(format!("{place}: not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_daemon_can_read_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policyd.toml");
        let about = write_file(&file, "", 0o600, false).unwrap();
        let (own, other) = (Some(Gid::from_raw(about.gid())), Some(Gid::from_raw(about.gid() + 1)));
        assert!(!can_read(own, &about), "a new file is its owner's");
        for (mode, group, expected) in [
            (0o640, own, true),
            (0o660, own, true),
            (0o644, other, false),
            (0o600, own, false),
            (0o604, own, false),
            (0o640, other, false),
            (0o640, None, false),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let about = write_file(&file, "text", 0o600, true).unwrap();
            assert_eq!(can_read(group, &about), expected, "{mode:o} {group:?}");
        }
        let about = write_file(Path::new("/dev/null"), "text", 0o600, true).unwrap();
        assert!(can_read(None, &about), "no file");
    }
}
