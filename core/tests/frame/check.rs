//! The command line: checks with exact lines, listings, exit statuses.

use std::os::unix::fs::PermissionsExt;

use crate::harness::Place;

#[test]
fn check_reports_all_problems_with_their_lines_and_opens_nothing() {
    let place = Place::new(
        "# a comment\n\
         prefx = \"x\"\n\
         listen = [\"0.0.0.0:7007\"]\n\
         \n\
         [answer]\n\
         delay = \"2h\"\n\
         longest = \"soon\"\n\
         \n\
         [log]\n\
         levle = \"info\"\n",
    );
    let (status, stdout, stderr) = place.output(&["--check"]);
    let stderr = stderr.replace(&format!("{}/", place.folder.path().display()), "");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((status, stdout.as_str()), (78, ""));
    for start in [
        "echod.toml:2: error: prefx: unknown key \"prefx\" (did you mean \"prefix\"?",
        "echod.toml:7: error: answer.longest: \"soon\" is no time",
        "echod.toml:10: error: log.levle: unknown key \"levle\" (did you mean \"level\"?",
        "error: limits.allow: 0.0.0.0:7007 can be reached from other machines",
        "echod.toml:6: error: answer.delay: must not be longer than answer.longest (write \"0s\")",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}\nis missing in\n{stderr}");
    }
    assert_eq!(lines.len(), 5, "{stderr}");
    assert_eq!(place.output(&["-t"]).0, 78);
    assert!(!place.path("state").exists(), "a check makes no folder");

    // The start itself refuses the same way.
    assert_eq!(place.output(&[]).0, 78);
}

#[test]
fn good_settings_pass_with_their_warnings() {
    let place = Place::new("prefix = \"refuse\"\n");
    let (status, stdout, stderr) = place.output(&["--check"]);
    assert_eq!((status, stdout.as_str()), (0, "echod: settings are good (1 files read)\n"));
    assert!(stderr.ends_with("echod.toml:1: warning: prefix: looks odd\n"), "{stderr}");
}

#[test]
fn listings() {
    let place = Place::new(
        "prefix = \"> \"\npassword = \"hush\"\n[limits]\ngrace = \"3s\"\nmax_connections = 1000\n",
    );
    let (status, stdout, _) = place.output(&["--show-config", "--non-default"]);
    assert_eq!(
        (status, stdout.as_str()),
        (0, "password = \"<hidden>\"\nprefix = \"> \"\n\n[limits]\ngrace = \"3s\"\n")
    );
    let (_, all, _) = place.output(&["--show-config"]);
    assert!(
        all.contains("grace = \"3s\"") && all.contains("max_connections = 1000") && !all.contains("hush")
    );
    let (_, defaults, _) = place.output(&["--show-defaults"]);
    assert!(defaults.contains("grace = \"10s\"") && defaults.starts_with("listen = [\"127.0.0.1:7007\"]"));
    // What --show-config prints can be used as a settings file.
    place.write("echod.toml", &all.replace("password", "#password"));
    assert_eq!(place.output(&["--check"]).0, 0);
    let (_, docs, _) = place.output(&["--config-docs"]);
    assert!(
        docs.contains("\n# The longest delay that `sleep` may ask for.\n#longest = \"60s\"\n")
            || docs.contains("#longest = \"1m\"\n")
    );
    let (_, version, _) = place.output(&["--version"]);
    assert_eq!(version, format!("outrider-echod {}\n", env!("CARGO_PKG_VERSION")));
    let (status, help, _) = place.output(&["--help"]);
    assert!(status == 0 && help.contains("--show-config") && !help.contains("--test-clock"));
}

#[test]
fn exit_statuses() {
    let place = Place::new("");
    assert_eq!(place.output(&["--no-such-option"]).0, 64);
    assert_eq!(place.output(&["--non-default"]).0, 64);
    std::fs::remove_file(place.path("echod.toml")).unwrap();
    let (status, _, stderr) = place.output(&["--check"]);
    assert!(status == 66 && stderr.contains("does not exist"), "{status} {stderr}");
    place.write("echod.toml", "prefix = \"no start\"\nlisten = [\"127.0.0.1:0\"]\n");
    let (status, _, stderr) = place.output(&[]);
    assert!(status == 78 && stderr.contains("asked not to start"), "{status} {stderr}");
    place.write(
        "echod.toml",
        "listen = [\"127.0.0.1:0\"]\n[log]\ntarget = \"file\"\npath = \"/nonexistent/log\"\n",
    );
    assert_eq!(place.output(&[]).0, 73);
    place.write("echod.toml", "listen = [\"127.0.0.1:0\"]\n");
    std::fs::set_permissions(place.path("echod.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    let (status, _, stderr) = place.output(&[]);
    assert!(status == 78 && stderr.contains("may be written by every user"), "{stderr}");
}

#[test]
fn environment_overrides_the_file() {
    let place = Place::new("prefix = \"file \"\nlisten = [\"127.0.0.1:0\"]\n");
    let mut command = place.command();
    command.env("OUTRIDER_ECHOD_PREFIX", "environment ");
    let running = place.start_command(command);
    assert_eq!(running.client().ask("x"), "environment x");
    let output = place.command().arg("--check").env("OUTRIDER_ECHOD_PREFXI", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean OUTRIDER_ECHOD_PREFIX?"));
}
