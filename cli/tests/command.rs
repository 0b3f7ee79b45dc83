//! The `outrider` command as an administrator calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn outrider() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    outrider().args(arguments).output().unwrap()
}

/// `outrider serve` with the settings and the state of a folder, ended with the test.
struct Served {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Served {
    fn start(folder: &Path, daemons: &[&str]) -> Served {
        let mut command = outrider();
        command.arg("serve").arg("--config").arg(folder).arg("--state-directory").arg(folder.join("state"));
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = command.args(daemons).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Served { child, lines }
    }

    /// The next ready line: the daemon and the addresses of its listeners by role.
    fn ready(&mut self) -> (String, Vec<(String, SocketAddr)>) {
        let line = self.lines.next().expect("the process ended early").unwrap();
        let mut words = line.strip_prefix("ready ").expect("a ready line").split(' ');
        let service = words.next().unwrap().strip_prefix("service=").unwrap().to_owned();
        let listeners = words.map(|word| word.split_once('=').unwrap());
        (service, listeners.map(|(role, address)| (role.to_owned(), address.parse().unwrap())).collect())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the process did not end");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    let mut byte = [0];
    while !reply.ends_with("\n\n") && stream.read(&mut byte).unwrap() == 1 {
        reply.push(char::from(byte[0]));
    }
    reply
}

fn wait_for_log(folder: &Path, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(folder.join("log")).unwrap().contains(text) {
        assert!(Instant::now() < deadline, "no {text:?} in the log");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn help_and_version_are_no_errors_and_nonsense_is() {
    for (arguments, code) in
        [(&["--help"][..], 0), (&["--version"], 0), (&["serve", "--help"], 0), (&["nonsense"], 64), (&[], 64)]
    {
        assert_eq!(output(arguments).status.code(), Some(code), "{arguments:?}");
    }
    let version = String::from_utf8(output(&["--version"]).stdout).unwrap();
    assert_eq!(version, format!("outrider {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_names_file_and_line_of_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("policyd.toml"), "# fine so far\nlistn = [\"127.0.0.1:7777\"]\n")
        .unwrap();
    std::fs::write(folder.path().join("srsd.toml"), "hash_length = 99\n").unwrap();
    let output = output(&["check", "--config", config]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("policyd.toml:2: error: listn"), "{text}");
    assert!(text.contains("did you mean \"listen\""), "{text}");
    assert!(text.contains("srsd.toml:1: error: hash_length"), "{text}");
    assert!(text.contains("contentfilter.toml: ok, no such file"), "{text}");
}

#[test]
fn check_of_chosen_daemons_looks_at_those_only() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("policyd.toml"), "nonsense\n").unwrap();
    let output = output(&["check", "--json", "--config", config, "srsd", "quota-status"]);
    assert_eq!(output.status.code(), Some(0));
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        reports.as_array().unwrap().iter().map(|one| one["daemon"].as_str().unwrap()).collect();
    assert_eq!(names, ["srsd", "quota-status"]);
}

#[test]
fn the_example_settings_of_all_daemons_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("mlmmjadmin-token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        // The only file that an example needs at the start.
        let here = token.to_str().unwrap();
        let text =
            std::fs::read_to_string(&path).unwrap().replace("/etc/outrider/secrets/mlmmjadmin-token", here);
        std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
    }
    let output = output(&["check", "--config", folder.path().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with(".toml: ok")).count(), 5, "{text}");
}

#[test]
fn serve_refuses_wrong_settings_before_it_opens_anything() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("quota-status.toml"), "listen = [\"127.0.0.1:0\"]\nno_such = 1\n")
        .unwrap();
    let mut served = Served::start(folder.path(), &["quota-status"]);
    assert_eq!(served.exit_code(), Some(78));
    assert!(served.lines.next().is_none(), "no ready line");
    assert!(std::fs::read_to_string(folder.path().join("log")).unwrap().contains("quota-status.toml:2"));
}

#[test]
fn serve_runs_chosen_daemons_reloads_them_and_stops_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let policyd = folder.path().join("policyd.toml");
    let settings = "listen = [\"127.0.0.1:0\"]\nplugins = [\"reject_null_sender\"]\n";
    std::fs::write(&policyd, settings).unwrap();
    std::fs::write(folder.path().join("quota-status.toml"), "listen = [\"127.0.0.1:0\"]\n").unwrap();
    let mut served = Served::start(folder.path(), &["quota-status", "policyd"]);
    let (first, listeners) = served.ready();
    assert_eq!(first, "policyd");
    assert_eq!(served.ready().0, "quota-status");
    let policy = listeners[0].1;
    let forged = "protocol_state=RCPT\nsender=\nrecipient=a@b.example\nsasl_username=c@d.example\nclient_address=192.0.2.1\n\n";
    assert_eq!(ask(policy, forged), "action=REJECT Policy rejection due to null sender\n\n");

    std::fs::write(&policyd, "plugins = 7\n").unwrap();
    served.signal(Signal::SIGHUP);
    wait_for_log(folder.path(), "reload failed");
    assert_eq!(
        ask(policy, forged),
        "action=REJECT Policy rejection due to null sender\n\n",
        "the old settings stay"
    );

    std::fs::write(&policyd, settings.replace("reject_null_sender", "throttle")).unwrap();
    served.signal(Signal::SIGHUP);
    wait_for_log(folder.path(), "settings reloaded");
    assert_eq!(ask(policy, forged), "action=DUNNO\n\n");

    served.signal(Signal::SIGTERM);
    assert_eq!(served.exit_code(), Some(0));
}

/// `outrider srs` with the settings in a folder; standard output and exit status.
fn srs(folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = outrider();
    command
        .arg("srs")
        .args(arguments)
        .arg("--config")
        .arg(folder)
        .arg("--state-directory")
        .arg(folder.join("state"));
    let output = command.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn srs_folder(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = "srs_domain = \"srs.example.net\"\nmyhostname = \"mail.example.net\"\ndomains = [\"local.example\"]\n\
                    directory_domains = false\nexclude_table = false\n";
    std::fs::write(folder.path().join("srsd.toml"), format!("{settings}{more}")).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    folder
}

#[test]
fn srs_answers_as_the_daemon_would() {
    let folder = srs_folder("secrets = [\"secretOne\", \"secretOld\"]\n");
    let ask = |arguments: &[&str]| srs(folder.path(), arguments);
    let (rewritten, code) = ask(&["forward", "user@gmail.com"]);
    assert_eq!(code, Some(0));
    let rewritten = rewritten.trim_end();
    assert!(
        rewritten.starts_with("SRS0=") && rewritten.ends_with("=gmail.com=user@srs.example.net"),
        "{rewritten}"
    );
    assert_eq!(ask(&["reverse", rewritten]), ("user@gmail.com\n".to_owned(), Some(0)));
    for (question, address) in [
        ("forward", "x@local.example"),
        ("reverse", "x@local.example"),
        ("reverse", &rewritten.replace("user@", "other@")),
    ] {
        assert_eq!(ask(&[question, address]), (String::new(), Some(1)), "{question} {address}");
    }
    let (text, code) = ask(&["explain", rewritten]);
    assert_eq!(code, Some(0));
    for part in [
        "host         gmail.com\n",
        "the secret that signs",
        "made         today",
        "as recipient becomes user@gmail.com",
        "as sender    stays: its domain is srs_domain",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let (text, _) = ask(&["explain", "x@local.example"]);
    assert!(text.contains("as sender    stays: its domain is local"), "{text}");
    let (text, _) = ask(&["explain", "\u{1b}[2Jx@local.example"]);
    assert!(
        text.starts_with("address      \\x1b[2Jx@local.example\n"),
        "no command for the terminal: {text}"
    );
    let (text, code) = ask(&["table", "mysql"]);
    assert!(code == Some(0) && text.starts_with("CREATE TABLE srs_envelope"), "{text}");
}

#[test]
fn srs_secrets_are_rotated_and_the_old_ones_go_when_nothing_needs_them() {
    let folder = srs_folder("");
    let file = folder.path().join("state/srs.secret");
    let (before, _) = srs(folder.path(), &["forward", "user@gmail.com"]);
    let lines = || std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let first = lines();
    assert_eq!(srs(folder.path(), &["rotate"]).1, Some(0));
    assert_eq!(lines().len(), 2);
    assert_eq!(lines()[1], first[0]);
    let rights = std::fs::metadata(&file).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&rights) & 0o777, 0o600);
    let (after, _) = srs(folder.path(), &["forward", "user@gmail.com"]);
    assert_ne!(before, after, "the new secret signs");
    for address in [&before, &after] {
        assert_eq!(srs(folder.path(), &["reverse", address.trim_end()]).0, "user@gmail.com\n");
    }
    let (text, code) = srs(folder.path(), &["secrets"]);
    assert!(code == Some(0) && text.contains("secret 1") && text.contains(": signs"), "{text}");
    assert!(text.contains("verifies; may go on 20"), "{text}");
    for line in lines() {
        assert!(!text.contains(&line), "a secret is shown");
    }
    assert_eq!(srs(folder.path(), &["rotate", "--expire"]).1, Some(0));
    assert_eq!(lines().len(), 2, "its addresses are still good");

    // As if it had stopped signing 22 days ago.
    let notes = folder.path().join("state/srs.secret.retired");
    let note = std::fs::read_to_string(&notes).unwrap();
    let (time, name) = note.trim_end().split_once(' ').unwrap();
    let time: i64 = time.parse().unwrap();
    std::fs::write(&notes, format!("{} {name}\n", time - 22 * 86_400)).unwrap();
    let (text, code) = srs(folder.path(), &["secrets"]);
    assert!(code == Some(1) && text.contains("may go since"), "{text}");
    assert_eq!(srs(folder.path(), &["rotate", "--expire"]).1, Some(0));
    assert_eq!(lines().len(), 1);
    assert_eq!(srs(folder.path(), &["reverse", before.trim_end()]).1, Some(1));
    assert_eq!(srs(folder.path(), &["reverse", after.trim_end()]).1, Some(0));

    let inline = srs_folder("secrets = [\"secretOne\"]\n");
    assert_eq!(srs(inline.path(), &["rotate"]).1, Some(78));
}
