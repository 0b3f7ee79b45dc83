//! A new secret in front, the old ones behind it until the last address made with them has expired.
//!
//! The secrets stay in the file that srsd reads, one a line. When each stopped signing is noted beside it, in
//! `FILE.retired`: a line with the time and a fingerprint, which says nothing about the secret.

use crate::exit;
use crate::failure::{Failure, Outcome};
use aws_lc_rs::digest;
use outrider_core::forwarding::{GENERATED, secrets_in};
use outrider_core::random::{Random, SystemRandom};
use outrider_srsd::Settings;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

const DAY: i64 = 86_400;

/// Prints each secret's state. Exit status 1 when one may go.
pub(super) fn report(settings: &Settings, state: &Path, now: i64) -> Outcome {
    let file = secrets_file(settings, state);
    let secrets = Secrets::read(&file)?;
    let before = settings.secrets.len();
    if before > 0 {
        println!("srsd.toml: {before} secrets; the first signs. The command does not change them.");
    }
    let mut may_go = false;
    for (number, secret) in secrets.lines.iter().enumerate() {
        let name = format!("{} secret {} ({})", file.display(), number + 1, fingerprint(secret));
        match (number + before, secrets.good_until(secret, settings)) {
            (0, _) => println!("{name}: signs"),
            (_, Some(until)) if until <= now => {
                may_go = true;
                println!("{name}: may go since {}: outrider srs rotate --expire", date(until));
            }
            (_, Some(until)) => println!("{name}: verifies; may go on {}", date(until)),
            (_, None) => {
                let until = settings_end(now, settings);
                println!(
                    "{name}: verifies; nobody noted when it stopped signing. If that was today it may go on {}",
                    date(until)
                );
            }
        }
    }
    println!("SRS1 addresses carry no date: those made with a secret stop working when it goes.");
    Ok(if may_go { exit::NEGATIVE } else { 0 })
}

/// Changes the file of secrets.
pub(super) fn rotate(settings: &Settings, state: &Path, now: i64, expire: bool) -> Outcome {
    if !settings.secrets.is_empty() || settings.iredapd_settings.is_some() {
        let place = if settings.secrets.is_empty() { "iredapd_settings" } else { "secrets of srsd.toml" };
        let text = format!(
            "the secret that signs stands in {place}: change it there, or move the secrets to secrets_file"
        );
        return Err(Failure::new(exit::CONFIGURATION, text));
    }
    let file = secrets_file(settings, state);
    let mut secrets = Secrets::read(&file)?;
    if expire {
        let count = secrets.lines.len();
        let mut kept: Vec<Vec<u8>> = secrets.lines.drain(..1).collect();
        let rest = std::mem::take(&mut secrets.lines);
        kept.extend(
            rest.into_iter()
                .filter(|secret| secrets.good_until(secret, settings).is_none_or(|until| until > now)),
        );
        secrets.lines = kept;
        secrets.write(&file)?;
        println!(
            "{}: {} secrets removed, {} left",
            file.display(),
            count - secrets.lines.len(),
            secrets.lines.len()
        );
    } else {
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes);
        let fresh: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // `read` gives one secret at least.
        secrets.retired.push((now, fingerprint(&secrets.lines[0])));
        secrets.lines.insert(0, fresh.into_bytes());
        secrets.write(&file)?;
        println!(
            "{}: a new secret signs; the one before may go on {}",
            file.display(),
            date(settings_end(now, settings))
        );
    }
    println!("Copy the file to all servers of the domain, then: systemctl reload outrider-srsd");
    Ok(0)
}

/// The file that srsd reads its secrets from, or has made itself.
fn secrets_file(settings: &Settings, state: &Path) -> PathBuf {
    settings.secrets_file.clone().unwrap_or_else(|| state.join(GENERATED))
}

/// The end of the last day on which an address made at `from` is good.
fn settings_end(from: i64, settings: &Settings) -> i64 {
    let days = settings.srs().srs_options("").validity_days;
    (from.div_euclid(DAY) + days + 1) * DAY
}

struct Secrets {
    lines: Vec<Vec<u8>>,
    /// When a secret stopped signing, by its fingerprint.
    retired: Vec<(i64, String)>,
}

impl Secrets {
    fn read(file: &Path) -> Result<Secrets, Failure> {
        let failed = |error| Failure::file(file, &error);
        if !file.exists() {
            let text = format!("there is no {}: srsd makes it at its first start", file.display());
            return Err(Failure::new(exit::NO_INPUT, text));
        }
        let lines = secrets_in(file)?;
        if lines.is_empty() {
            return Err(Failure::new(exit::CONFIGURATION, format!("{} holds no secret", file.display())));
        }
        let notes = match fs::read_to_string(notes_file(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(failed)?,
        };
        let note = |line: &str| {
            let (time, name) = line.split_once(' ')?;
            Some((time.parse().ok()?, name.to_owned()))
        };
        Ok(Secrets { lines, retired: notes.lines().filter_map(note).collect() })
    }

    /// When the last address made with a retired secret expires.
    fn good_until(&self, secret: &[u8], settings: &Settings) -> Option<i64> {
        let name = fingerprint(secret);
        let last = self.retired.iter().filter(|(_, known)| *known == name).map(|(time, _)| *time).max();
        last.map(|time| settings_end(time, settings))
    }

    fn write(&self, file: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::file(file, &error);
        let present: Vec<String> = self.lines.iter().map(|secret| fingerprint(secret)).collect();
        let notes = self.retired.iter().filter(|(_, name)| present.contains(name));
        let notes: String = notes.map(|(time, name)| format!("{time} {name}\n")).collect();
        // The note first: a secret whose retirement nobody noted would be kept for ever.
        replace(&notes_file(file), notes.as_bytes(), file).map_err(failed)?;
        replace(file, &[self.lines.join(&b'\n'), b"\n".to_vec()].concat(), file).map_err(failed)
    }
}

fn notes_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".retired");
    PathBuf::from(name)
}

/// Replaces a file as a whole, with owner and rights of `model`.
fn replace(file: &Path, content: &[u8], model: &Path) -> io::Result<()> {
    let meta = fs::metadata(model)?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut new = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        new.write_all(content)?;
        new.sync_all()?;
        chown(&temporary, Some(meta.uid()), Some(meta.gid()))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        fs::rename(&temporary, file)
    };
    let outcome = write();
    if outcome.is_err() {
        // It may not have come into being.
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

/// Eight characters that tell secrets apart and say nothing about them.
fn fingerprint(secret: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, secret);
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// `2025-03-15`, in UTC as the days of SRS are.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}
