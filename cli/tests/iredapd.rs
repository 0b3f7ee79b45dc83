//! `outrider import iredapd`, as an administrator calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn outrider(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with one of the settings files and some plugins, as in /opt/iredapd.
fn installation(flavour: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/iredapd").join(flavour);
    fs::copy(from, folder.path().join("settings.py")).unwrap();
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for name in ["__init__.py", "greylisting.py", "greylisting.pyc", "custom_spam_trap.py", "custom_relay.py"]
    {
        fs::write(plugins.join(name), "").unwrap();
    }
    folder
}

const BOTH: [&str; 7] =
    ["import", "iredapd", "settings.py", "--output", "policyd.toml", "--srsd-output", "srsd.toml"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn both_files_are_written_for_root_alone_and_are_good() {
    for flavour in ["mysql.py", "pgsql.py", "ldap.py"] {
        let folder = installation(flavour);
        let output = outrider(folder.path(), &BOTH);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{flavour}: {said}");
        assert!(!said.contains("Kanarien"), "{said}");
        assert!(said.contains("chgrp outrider-srsd srsd.toml"), "{said}");
        for file in ["policyd.toml", "srsd.toml"] {
            assert_eq!(fs::metadata(folder.path().join(file)).unwrap().mode() & 0o777, 0o600);
        }
        let output = outrider(folder.path(), &["check", "--config", ".", "policyd", "srsd"]);
        assert!(output.status.success(), "{flavour}: {}", text(&output.stdout));
        assert!(!text(&output.stdout).contains("error"), "{flavour}: {}", text(&output.stdout));
    }
}

/// To take a change over: copy what the test shows into tests/iredapd.
#[test]
fn what_is_written_is_what_was_agreed() {
    let folder = installation("mysql.py");
    assert!(outrider(folder.path(), &BOTH).status.success());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/iredapd");
    for file in ["policyd.toml", "srsd.toml"] {
        let written = fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(written == fs::read_to_string(golden.join(file)).unwrap(), "{file}:\n{written}");
    }
    // Without a file the settings of policyd are printed.
    let output = outrider(folder.path(), &["import", "iredapd", "settings.py"]);
    assert!(text(&output.stdout).contains("\nvmail = \"mysql://"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("--srsd-output"), "{}", text(&output.stderr));
}

#[test]
fn files_that_are_there_stay_unless_they_are_to_be_replaced() {
    let folder = installation("mysql.py");
    let file = folder.path().join("srsd.toml");
    fs::write(&file, "# mine\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let only = ["import", "iredapd", "settings.py", "--srsd-output", "srsd.toml"];
    let output = outrider(folder.path(), &only);
    assert!(!output.status.success() && text(&output.stderr).contains("--overwrite"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\n");
    let output = outrider(folder.path(), &with(&only, &["--overwrite"]));
    assert!(output.status.success() && !text(&output.stdout).contains("mysql://"));
    assert!(fs::read_to_string(&file).unwrap().contains("Kanarienvogel-1"));
    // The group may read it as before; everybody may not.
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    let notes = text(&output.stderr);
    assert!(notes.contains("chgrp outrider-srsd srsd.toml"), "the group is not the daemon's: {notes}");
    assert!(!folder.path().join("policyd.toml").exists());
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = installation("mysql.py");
    for (content, part) in [(&b"\xff"[..], "not text"), (&[b'#'; 1_100_000], "longer than 1 MiB")] {
        fs::write(folder.path().join("bad.py"), content).unwrap();
        let output = outrider(folder.path(), &["import", "iredapd", "bad.py"]);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    for arguments in [&["/nonexistent"][..], &["settings.py", "--plugins", "/nonexistent"]] {
        let output = outrider(folder.path(), &with(&["import", "iredapd"], arguments));
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(text(&output.stderr).contains("/nonexistent"), "{}", text(&output.stderr));
    }
    assert_eq!(outrider(folder.path(), &["import", "iredapd", "--overwrite"]).status.code(), Some(64));
}

#[test]
fn standard_input() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command
        .args(["import", "iredapd", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"listen_port = '7776'\nplugins = []\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("listen = [\"127.0.0.1:7776\"]"), "{}", text(&output.stdout));
}
