//! The expressions of a filter in `packaging/fail2ban`, run by the engine that fail2ban uses.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Where the repository keeps a file.
pub(crate) fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

/// The addresses that `filter` finds in log lines, in the order of the lines; `None` where it finds none.
///
/// Each line is tried with everything that may stand in front of it, with one and the same result: as in a file with the time
/// cut off, as syslog writes it, as the journal shows it.
pub(crate) fn hosts(filter: &str, lines: &[String]) -> Result<Vec<Option<String>>> {
    let heads =
        ["", " ", "mail outrider-policyd[77]: ", " mail outrider-admin-api[77]: ", " mail iredapd[77]: "];
    let tried = heads.iter().flat_map(|head| lines.iter().map(move |line| format!("{head}{line}\n")));
    let mut found = run(filter, tried.collect())?;
    for (number, host) in found.iter().enumerate() {
        let line = number % lines.len();
        ensure!(
            *host == found[line],
            "{filter}: {host:?} behind {:?}: {}",
            heads[number / lines.len()],
            lines[line]
        );
    }
    found.truncate(lines.len());
    Ok(found)
}

fn run(filter: &str, lines: String) -> Result<Vec<Option<String>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("operations/failregex.py");
    let mut python = Command::new("python3")
        .arg(script)
        .arg(packaged(&format!("fail2ban/filter.d/{filter}.conf")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3, which tests/run installs")?;
    let count = lines.lines().count();
    python.stdin.take().context("its input")?.write_all(lines.as_bytes())?;
    let output = python.wait_with_output()?;
    if !output.status.success() {
        bail!("{filter}: {}", output.status);
    }
    let found = String::from_utf8(output.stdout)?;
    let found: Vec<_> = found.lines().map(|host| (host != "-").then(|| host.to_owned())).collect();
    ensure!(found.len() == count, "{} answers to {count} lines", found.len());
    Ok(found)
}
