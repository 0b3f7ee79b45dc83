//! Reading settings: the main file, the fragments beside it, the environment.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::findings::nearest;
use super::{DaemonSettings, Finding, Findings, Key, Severity, check, keys};

/// The largest settings file that is read, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Where each value was written: dotted key to file (or `$VARIABLE`) and line.
pub type Origins = BTreeMap<String, (PathBuf, Option<usize>)>;

/// Settings that passed all checks.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values.
    pub settings: T,
    /// Warnings; never errors.
    pub findings: Findings,
    /// Where values that are not defaults came from.
    pub origins: Origins,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Why settings could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file that was asked for does not exist.
    #[error("settings file {0} does not exist")]
    Missing(PathBuf),
    /// A file or folder cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// At least one value is wrong; warnings are in the list as well.
    #[error("{0}")]
    Invalid(Findings),
}

impl SettingsError {
    /// The exit status of a daemon that cannot start because of this (conventions: 66, 74, 77, 78).
    pub fn exit_code(&self) -> u8 {
        match self {
            SettingsError::Missing(_) => 66,
            SettingsError::Unreadable(_, error) if error.kind() == io::ErrorKind::PermissionDenied => 77,
            SettingsError::Unreadable(..) => 74,
            SettingsError::Invalid(_) => 78,
        }
    }
}

/// The file that a daemon reads when none is named.
pub fn default_path(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/outrider/{name}.toml"))
}

/// `OUTRIDER_<SERVICE>_`, in front of keys in the environment.
pub(crate) fn environment_prefix(name: &str) -> String {
    format!("OUTRIDER_{}_", name.to_ascii_uppercase().replace('-', "_"))
}

/// Loads the settings of daemon `name` from `path`, or from its default file, which may be missing.
///
/// Fragments `<name>.d/*.toml` beside the file and the process environment are applied on top.
pub fn load<T: DaemonSettings>(path: Option<&Path>, name: &str) -> Result<Loaded<T>, SettingsError> {
    let environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect::<Vec<_>>();
    load_from(path, name, &environment)
}

/// As [`load`], with the environment given by the caller.
pub fn load_from<T: DaemonSettings>(
    path: Option<&Path>,
    name: &str,
    environment: &[(String, String)],
) -> Result<Loaded<T>, SettingsError> {
    let main = path.map_or_else(|| default_path(name), Path::to_path_buf);
    let mut files = Vec::new();
    if main.exists() {
        files.push(main.clone());
    } else if path.is_some() {
        return Err(SettingsError::Missing(main));
    }
    files.extend(fragments(&main, name)?);

    let mut reading = Reading::<T>::new();
    for file in &files {
        reading.file(file)?;
    }
    reading.environment(&environment_prefix(name), environment);
    reading.finish(files)
}

/// The files `<name>.d/*.toml` beside the main file, in byte order of their names.
fn fragments(main: &Path, name: &str) -> Result<Vec<PathBuf>, SettingsError> {
    let folder = main.with_file_name(format!("{name}.d"));
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SettingsError::Unreadable(folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| SettingsError::Unreadable(folder.clone(), error))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The state of loading: values so far, where they came from, what was wrong.
struct Reading<T> {
    known: Vec<Key>,
    merged: toml::Table,
    origins: Origins,
    findings: Findings,
    settings: std::marker::PhantomData<T>,
}

impl<T: DaemonSettings> Reading<T> {
    fn new() -> Reading<T> {
        Reading {
            known: keys::<T>(),
            merged: toml::Table::new(),
            origins: Origins::new(),
            findings: Findings::new(),
            settings: std::marker::PhantomData,
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let unreadable = |error| SettingsError::Unreadable(path.to_path_buf(), error);
        let meta = std::fs::metadata(path).map_err(unreadable)?;
        if meta.len() > LONGEST {
            return Err(unreadable(io::Error::other("larger than 4 MiB")));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        if meta.mode() & 0o002 != 0 && meta.is_file() {
            // Whoever may write the settings decides what the daemon does.
            let fix = format!("chmod o-w {}", path.display());
            self.report(path, None, "", "may be written by every user of this machine", &fix);
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                    .iter()
                    .filter(|b| **b == b'\n')
                    .count();
                self.report(path, Some(line), "", "is not UTF-8 text", "");
                return Ok(());
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let line = error.span().map(|span| line_of(&text, span.start));
            self.report(path, line, "", error.message(), "");
        }
        if errors.is_empty() {
            self.table(path, &text, table, meta.mode());
        }
        Ok(())
    }

    /// Checks one file's table on its own, so that errors carry its lines, and merges what is right.
    fn table(&mut self, path: &Path, text: &str, mut table: Spanned<DeTable<'_>>, mode: u32) {
        let mut bare_secrets = Vec::new();
        rename_secret_files(table.get_mut(), &mut Vec::new(), &self.known, &mut bare_secrets);
        while let Err(error) = T::deserialize(toml::de::Deserializer::from(table.clone())) {
            let place = error.span().and_then(|span| take_out(table.get_mut(), &span));
            let line = error.span().map(|span| line_of(text, span.start));
            let (reason, fix) = explain(error.message());
            let key = place.as_ref().map_or(String::new(), |path| path.join("."));
            self.report(path, line, &key, &reason, &fix);
            if place.is_none() {
                return;
            }
        }
        if mode & 0o004 != 0 {
            for (key, span) in bare_secrets {
                self.findings.push(Finding {
                    severity: Severity::Warning,
                    file: Some(path.to_path_buf()),
                    line: Some(line_of(text, span.start)),
                    reason: "is a secret in a file that everybody may read".to_owned(),
                    fix: format!("chmod o-r {} or use {key}_file", path.display()),
                    key,
                });
            }
        }
        note_origins(table.get_ref(), &mut Vec::new(), path, text, &mut self.origins);
        // Cannot fail: any TOML table is a toml::Table.
        if let Ok(values) = deserialize::<toml::Table>(table) {
            merge(&mut self.merged, values);
        }
    }

    fn environment(&mut self, prefix: &str, environment: &[(String, String)]) {
        let mut variables: Vec<_> = environment.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        variables.sort();
        for (name, text) in variables {
            let origin = PathBuf::from(format!("${name}"));
            let spelled = |key: &Key| key.path.join("_").to_ascii_uppercase();
            let wanted = &name[prefix.len()..];
            let plain = || self.known.iter().filter(|key| !key.section);
            let found =
                plain().find(|key| spelled(key) == wanted).cloned().map(|key| (key, false)).or_else(|| {
                    let base = wanted.strip_suffix("_FILE")?;
                    plain().find(|key| key.secret && spelled(key) == base).cloned().map(|key| (key, true))
                });
            let Some((key, from_file)) = found else {
                let names: Vec<String> = plain().map(|key| spelled(key).to_ascii_lowercase()).collect();
                let meant = nearest(wanted, names.iter().map(String::as_str));
                let fix = meant
                    .map_or(String::new(), |m| format!("did you mean {prefix}{}?", m.to_ascii_uppercase()));
                self.report(&origin, None, "", "names no setting", &fix);
                continue;
            };
            let text = if from_file { format!("file:{text}") } else { text.clone() };
            if key.secret && !text.starts_with("file:") {
                self.findings.push(Finding {
                    severity: Severity::Warning,
                    file: Some(origin.clone()),
                    line: None,
                    key: key.dotted(),
                    reason: "is a secret in the environment, where other programs can see it".to_owned(),
                    fix: format!("use ${name}_FILE"),
                });
            }
            match from_environment::<T>(&key.path, &text) {
                Ok(values) => {
                    self.origins.insert(key.dotted(), (origin, None));
                    merge(&mut self.merged, values);
                }
                Err(error) => {
                    let (reason, fix) = explain(&error);
                    self.report(&origin, None, &key.dotted(), &reason, &fix);
                }
            }
        }
    }

    fn finish(mut self, files: Vec<PathBuf>) -> Result<Loaded<T>, SettingsError> {
        match T::deserialize(self.merged) {
            Ok(settings) => {
                let mut found = Findings::new();
                check(&settings, &mut found);
                for finding in found.iter_mut() {
                    if let Some((file, line)) = origin_of(&self.origins, &finding.key) {
                        (finding.file, finding.line) = (Some(file), line);
                    }
                    self.findings.push(finding.clone());
                }
                if self.findings.is_fatal() {
                    return Err(SettingsError::Invalid(self.findings));
                }
                Ok(Loaded { settings, findings: self.findings, origins: self.origins, files })
            }
            Err(error) => {
                let (reason, fix) = explain(error.message());
                self.findings.error("", reason, fix);
                Err(SettingsError::Invalid(self.findings))
            }
        }
    }

    fn report(&mut self, file: &Path, line: Option<usize>, key: &str, reason: &str, fix: &str) {
        self.findings.push(Finding {
            severity: Severity::Error,
            file: Some(file.to_path_buf()),
            line,
            key: key.to_owned(),
            reason: reason.to_owned(),
            fix: fix.to_owned(),
        });
    }
}

fn deserialize<T: DeserializeOwned>(table: Spanned<DeTable<'_>>) -> Result<T, toml::de::Error> {
    T::deserialize(toml::de::Deserializer::from(table))
}

/// The line, counted from 1, of a byte of the text.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Turns `password_file = "/x"` into `password = "file:/x"` and notes secrets written in the file itself.
fn rename_secret_files(
    table: &mut DeTable<'_>,
    path: &mut Vec<String>,
    known: &[Key],
    bare: &mut Vec<(String, Range<usize>)>,
) {
    let names: Vec<_> = table.keys().cloned().collect();
    for name in names {
        path.push(name.get_ref().to_string());
        if let Some(DeValue::Table(below)) = table.get_mut(&name).map(Spanned::get_mut) {
            rename_secret_files(below, path, known, bare);
        } else {
            let secret = known.iter().find(|key| key.path == *path && key.secret);
            let text = table.get(&name).and_then(|value| value.get_ref().as_str().map(str::to_owned));
            if let (Some(_), Some(text)) = (secret, &text) {
                if !text.starts_with("file:") && !text.is_empty() {
                    bare.push((path.join("."), name.span()));
                }
            } else if let (Some(base), Some(text)) = (name.get_ref().strip_suffix("_file"), text) {
                let base = base.to_owned();
                path.pop();
                path.push(base.clone());
                let is_known = known.iter().any(|key| key.path == *path && key.secret);
                let is_given = table.keys().any(|key| key.get_ref().as_ref() == base);
                if is_known && !is_given {
                    let value_span = table.remove(&name).map_or(name.span(), |value| value.span());
                    let value = DeValue::String(format!("file:{text}").into());
                    table.insert(Spanned::new(name.span(), base.into()), Spanned::new(value_span, value));
                }
            }
        }
        path.pop();
    }
}

/// Removes the key that an error points at, so that the rest can be checked, and returns its path.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let names: Vec<_> = table.keys().cloned().collect();
    for name in &names {
        let below = match table.get_mut(name).map(Spanned::get_mut) {
            Some(DeValue::Table(below)) => take_out(below, span),
            Some(DeValue::Array(items)) => items.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(below) => take_out(below, span),
                _ => None,
            }),
            _ => None,
        };
        if let Some(mut path) = below {
            path.insert(0, name.get_ref().to_string());
            return Some(path);
        }
    }
    // Not inside a key of a section: the key itself, its value, or the head of its section.
    let hit = names
        .into_iter()
        .find(|name| covers(name.span()) || table.get(name).is_some_and(|value| covers(value.span())))?;
    table.remove(&hit);
    Some(vec![hit.get_ref().to_string()])
}

/// Makes a message of serde or toml readable: the reason, and what to write instead.
fn explain(message: &str) -> (String, String) {
    for (start, what) in [("unknown field `", "unknown key"), ("unknown variant `", "unknown value")] {
        if let Some(rest) = message.strip_prefix(start)
            && let Some((wrong, rest)) = rest.split_once('`')
        {
            let accepted: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
            let reason = format!("{what} {wrong:?}");
            let list = accepted.join(", ");
            let fix = match nearest(wrong, accepted.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}? accepted: {list}"),
                None if accepted.is_empty() => "nothing is accepted here".to_owned(),
                None => format!("accepted: {list}"),
            };
            return (reason, fix);
        }
    }
    (message.trim().replace('\n', ", "), String::new())
}

fn note_origins(table: &DeTable<'_>, path: &mut Vec<String>, file: &Path, text: &str, origins: &mut Origins) {
    for (name, value) in table {
        path.push(name.get_ref().to_string());
        origins.insert(path.join("."), (file.to_path_buf(), Some(line_of(text, name.span().start))));
        if let DeValue::Table(below) = value.get_ref() {
            note_origins(below, path, file, text, origins);
        }
        path.pop();
    }
}

/// The place of a key, or of the closest section around it that was written somewhere.
fn origin_of(origins: &Origins, key: &str) -> Option<(PathBuf, Option<usize>)> {
    // `profiles[2].name` and `profiles.2.name` both point at `profiles`.
    let mut key = key.split('[').next().unwrap_or(key);
    loop {
        if let Some(origin) = origins.get(key) {
            return Some(origin.clone());
        }
        key = key.rsplit_once('.')?.0;
    }
}

/// Later values replace earlier ones; sections are merged key by key.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The value of an environment variable in the type that the key wants: TOML if that fits, else plain text, else a
/// list separated by commas.
fn from_environment<T: DeserializeOwned>(path: &[String], text: &str) -> Result<toml::Table, String> {
    let as_toml = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    let as_toml = as_toml.and_then(|mut table| table.remove("value"));
    let as_text = toml::Value::String(text.to_owned());
    let as_list = text.split(',').map(|item| toml::Value::String(item.trim().to_owned())).collect();
    let mut complaint = None;
    for value in as_toml.into_iter().chain([as_text, toml::Value::Array(as_list)]) {
        let table = nest(path, value);
        match T::deserialize(table.clone()) {
            Ok(_) => return Ok(table),
            Err(error) => complaint = complaint.or(Some(error.message().to_owned())),
        }
    }
    Err(complaint.unwrap_or_default())
}

fn nest(path: &[String], value: toml::Value) -> toml::Table {
    let (first, rest) = match path.split_first() {
        Some((first, rest)) => (first.clone(), rest),
        None => return toml::Table::new(),
    };
    let value = if rest.is_empty() { value } else { toml::Value::Table(nest(rest, value)) };
    toml::Table::from_iter([(first, value)])
}
