//! What is wrong with settings, collected rather than reported one at a time.

use std::fmt;
use std::path::PathBuf;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The daemon starts; the administrator should look.
    Warning,
    /// The daemon does not start.
    Error,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it prevents the start.
    pub severity: Severity,
    /// The file, or the name of the environment variable; `None` for a value that is nowhere written.
    pub file: Option<PathBuf>,
    /// The line in that file, counted from 1.
    pub line: Option<usize>,
    /// The dotted key, such as `greylisting.block`; empty for a whole file.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it; may be empty.
    pub fix: String,
}

impl fmt::Display for Finding {
    /// `FILE:LINE: error: KEY: REASON (FIX)`, the form that editors and continuous integration understand.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(out, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(out, "{line}:")?;
            }
            out.write_str(" ")?;
        }
        out.write_str(match self.severity {
            Severity::Warning => "warning: ",
            Severity::Error => "error: ",
        })?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.reason)?;
        if !self.fix.is_empty() {
            write!(out, " ({})", self.fix)?;
        }
        Ok(())
    }
}

/// The list of everything found so far.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    /// An empty list.
    pub fn new() -> Findings {
        Findings::default()
    }

    /// Notes that the value of `key` prevents the start.
    pub fn error(&mut self, key: impl Into<String>, reason: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, key.into(), reason.into(), fix.into());
    }

    /// Notes that the value of `key` works but deserves a look.
    pub fn warning(&mut self, key: impl Into<String>, reason: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, key.into(), reason.into(), fix.into());
    }

    fn add(&mut self, severity: Severity, key: String, reason: String, fix: String) {
        self.push(Finding { severity, file: None, line: None, key, reason, fix });
    }

    /// Adds a finding that already knows its place.
    pub fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// Whether at least one finding prevents the start.
    pub fn is_fatal(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The findings in the order in which they were made.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    /// The findings, for completing them with file and line.
    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Finding> {
        self.list.iter_mut()
    }
}

impl fmt::Display for Findings {
    /// One finding a line.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.list.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            finding.fmt(out)?;
        }
        Ok(())
    }
}

/// The name in `candidates` that somebody who wrote `wrong` probably meant.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    // A third of the letters may be wrong: more is another word.
    let most = (wrong.chars().count() / 3).max(1);
    candidates
        .map(|name| (distance(&wrong, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance in which two neighbouring letters in the wrong order count once.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut cost = vec![0; (left.len() + 1) * width];
    for row in 0..=left.len() {
        for column in 0..width {
            let at = row * width + column;
            cost[at] = match (row, column) {
                (0, column) => column,
                (row, 0) => row,
                _ => {
                    let change = usize::from(left[row - 1] != right[column - 1]);
                    let mut best =
                        (cost[at - width] + 1).min(cost[at - 1] + 1).min(cost[at - width - 1] + change);
                    if row > 1
                        && column > 1
                        && left[row - 1] == right[column - 2]
                        && left[row - 2] == right[column - 1]
                    {
                        best = best.min(cost[at - 2 * width - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    cost.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name() {
        let names = ["max_connections", "idle_timeout", "request_timeout", "grace", "log"];
        for (wrong, meant) in [
            ("max_connection", Some("max_connections")),
            ("max-connections", Some("max_connections")),
            ("idel_timeout", Some("idle_timeout")),
            ("gracee", Some("grace")),
            ("lgo", Some("log")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(wrong, names.into_iter()), meant, "{wrong}");
        }
    }

    #[test]
    fn findings_print_like_compiler_messages() {
        let mut findings = Findings::new();
        findings.warning("log.level", "trace shows message bodies", "");
        assert!(!findings.is_fatal());
        findings.push(Finding {
            severity: Severity::Error,
            file: Some("/etc/outrider/policyd.toml".into()),
            line: Some(12),
            key: "greylisting.block".into(),
            reason: "must be shorter than 1d".into(),
            fix: "write \"15m\"".into(),
        });
        assert!(findings.is_fatal());
        assert_eq!(
            findings.to_string(),
            "warning: log.level: trace shows message bodies\n\
             /etc/outrider/policyd.toml:12: error: greylisting.block: must be shorter than 1d (write \"15m\")"
        );
    }
}
