//! The whole daemon, in this process, on free ports and the embedded database.

mod postsrsd;
mod threats;

use outrider_core::clock::TestClock;
use outrider_core::daemon::{BoundListener, Environment, Running, Shutdown, ShutdownTrigger, launch};
use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::forwarding::{GENERATED, OnFailure};
use outrider_core::schema::Database;
use outrider_core::settings::{Interval, ListenAddress, Secret};
use outrider_core::sql::{Stmt, Value};
use outrider_srsd::{Settings, Srsd};
use outrider_tests::slapd::Slapd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// 2025-03-15 12:00 UTC, time stamp `WC`.
const NOW: i64 = 1_742_040_000;

fn settings() -> Settings {
    Settings {
        listen_forward: vec![ListenAddress::local(0)],
        listen_reverse: vec![ListenAddress::local(0)],
        srs_domain: Some("srs.example.net".into()),
        myhostname: Some("mail.example.net".into()),
        secrets: vec![Secret::new("secretOne"), Secret::new("secretOld")],
        ..Settings::default()
    }
}

struct Server {
    running: Running<Srsd>,
    stop: ShutdownTrigger,
}

impl Server {
    async fn start(settings: Settings, state: &Path) -> Server {
        let env = Environment {
            clock: Arc::new(TestClock::new(NOW)),
            ..Environment::system("srsd", state.to_path_buf())
        };
        Server::start_in(settings, env).await
    }

    async fn start_in(settings: Settings, env: Environment) -> Server {
        let (stop, shutdown) = Shutdown::new();
        let running = Box::pin(launch::<Srsd>(settings, env, shutdown)).await.expect("starts");
        Server { running, stop }
    }

    async fn connect(&self, role: &str) -> TcpStream {
        let find = |bound: &&BoundListener| bound.role == role;
        let bound = self.running.bound.iter().find(find).expect("a listener of the role");
        TcpStream::connect(bound.address.to_string()).await.expect("connects")
    }

    /// One question on a connection of its own.
    async fn ask(&self, role: &str, question: &str) -> String {
        let mut stream = self.connect(role).await;
        stream.write_all(question.as_bytes()).await.expect("sends");
        stream.shutdown().await.expect("half closes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("receives");
        answer
    }

    async fn stop(self) {
        self.stop.request();
        self.running.finished().await;
    }
}

async fn add_rows(state: &Path, settings: &Settings) {
    const DOMAIN: Stmt = Stmt::same("INSERT INTO domain (domain, active) VALUES (?, ?)");
    const ALIAS: Stmt =
        Stmt::same("INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES (?, ?, 0)");
    const EXCLUDE: Stmt = Stmt::same("INSERT INTO srs_exclude_domains (domain) VALUES (?)");
    let vmail = settings.database.open(Database::Vmail, state).await.expect("vmail");
    let text = |text: &str| Value::from(text.to_owned());
    vmail.execute(&DOMAIN, &[text("local.example"), Value::from(1)]).await.expect("inserted");
    vmail.execute(&DOMAIN, &[text("disabled.example"), Value::from(0)]).await.expect("inserted");
    vmail.execute(&ALIAS, &[text("alias.example"), text("local.example")]).await.expect("inserted");
    let iredapd = settings.database.open(Database::Iredapd, state).await.expect("iredapd");
    iredapd.execute(&EXCLUDE, &[text(".excluded.example")]).await.expect("inserted");
}

#[tokio::test]
async fn both_protocols_on_both_ports() {
    let state = tempfile::tempdir().expect("a folder");
    add_rows(state.path(), &settings()).await;
    let server = Server::start(settings(), state.path()).await;
    let table = [
        ("forward", "get user@gmail.com\n", "200 SRS0=lnpB=WC=gmail.com=user@srs.example.net\n"),
        ("forward", "get x@Local.Example\n", "500 Domain is a local mail domain, bypassed.\n"),
        ("forward", "get x@alias.example\n", "500 Domain is a local mail domain, bypassed.\n"),
        ("forward", "get x@mail.example.net\n", "500 Domain is server hostname, bypassed.\n"),
        ("forward", "get x@SRS.example.net\n", "500 Domain is srs_domain, bypassed.\n"),
        ("forward", "get x@a.excluded.example\n", "500 Domain is explicitly excluded, bypassed.\n"),
        ("forward", "get x@disabled.example\n", "200 SRS0=nwyd=WC=disabled.example=x@srs.example.net\n"),
        ("reverse", "get SRS0=O7sc=WC=gmail.com=user@srs.example.net\n", "200 user@gmail.com\n"),
        ("reverse", "get user@gmail.com\n", "500 Not a valid SRS address, bypassed.\n"),
        ("reverse", "22:forward user@gmail.com,", "46:OK SRS0=lnpB=WC=gmail.com=user@srs.example.net,"),
        ("forward", "25:reverse x@srs.example.net,", "28:NOTFOUND Not an SRS address.,"),
        ("forward", "23:forward x@local.example,", "39:NOTFOUND Need not rewrite local domain.,"),
    ];
    for (role, question, answer) in table {
        assert_eq!(server.ask(role, question).await, answer, "{role} {question}");
    }
    assert!(server.running.health().iter().all(|dependency| dependency.up));
    server.stop().await;
}

#[tokio::test]
async fn a_first_start_needs_no_settings() {
    let state = tempfile::tempdir().expect("a folder");
    let bare = || Settings { secrets: Vec::new(), ..settings() };
    let server = Server::start(bare(), state.path()).await;
    let first = server.ask("forward", "get user@gmail.com\n").await;
    assert!(
        first.starts_with("200 SRS0=") && first.ends_with("=WC=gmail.com=user@srs.example.net\n"),
        "{first}"
    );
    server.stop().await;
    assert!(state.path().join(GENERATED).exists());
    let server = Server::start(bare(), state.path()).await;
    assert_eq!(server.ask("forward", "get user@gmail.com\n").await, first);
    let address = first.trim_start_matches("200 ");
    assert_eq!(server.ask("reverse", &format!("get {address}")).await, "200 user@gmail.com\n");
    server.stop().await;
}

#[tokio::test]
async fn an_unreachable_database_never_stops_mail() {
    let state = tempfile::tempdir().expect("a folder");
    let down = |on_failure| {
        let mut settings = Settings { on_failure, ..settings() };
        // Nothing listens on port 1, so connections are refused at once.
        settings.database.vmail = Some("mysql://vmail@127.0.0.1:1/vmail".parse().expect("a URL"));
        settings
    };
    let server = Server::start(down(OnFailure::Pass), state.path()).await;
    assert_eq!(server.ask("forward", "get user@gmail.com\n").await, "500 \n");
    let original = "SRS0=lnpB=WC=gmail.com=user@srs.example.net";
    assert_eq!(server.ask("reverse", &format!("get {original}\n")).await, "200 user@gmail.com\n");
    let health = server.running.health();
    assert!(health.iter().any(|dependency| dependency.name == "vmail" && !dependency.up));

    server.running.reload(down(OnFailure::Defer)).await.expect("reloads");
    assert!(server.ask("forward", "get user@gmail.com\n").await.starts_with("400 "));
    assert!(server.ask("forward", "22:forward user@gmail.com,").await.contains(":TEMP "));
    server.running.reload(settings()).await.expect("reloads");
    assert!(server.ask("forward", "get user@gmail.com\n").await.starts_with("200 "));
    // Once known, the domains outlive the database.
    server.running.reload(down(OnFailure::Defer)).await.expect("reloads");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.ask("forward", "get user@gmail.com\n").await.starts_with("200 "));
    server.stop().await;
}

#[tokio::test]
async fn new_settings_reach_connections_that_stay_open() {
    let state = tempfile::tempdir().expect("a folder");
    // Whoever waits for the end of the grace waits too long.
    let mut patient = settings();
    patient.limits.grace = Interval::seconds(300);
    let server = Server::start(patient.clone(), state.path()).await;
    let mut stream = server.connect("forward").await;
    let mut ask = async |expected: &str| {
        stream.write_all(b"get user@gmail.com\n").await.expect("sends");
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await.expect("receives");
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    };
    ask("200 SRS0=lnpB=WC=gmail.com=user@srs.example.net\n").await;
    let rotated = Settings { secrets: vec![Secret::new("secretOld")], ..patient };
    server.running.reload(rotated).await.expect("reloads");
    ask("200 SRS0=O7sc=WC=gmail.com=user@srs.example.net\n").await;
    // An idle connection does not hold up the stop.
    tokio::time::timeout(Duration::from_secs(60), server.stop()).await.expect("stops");
}

/// The example settings as shipped, and with every line that is commented out put in force.
#[test]
fn the_example_settings_load() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/srsd.toml");
    let text = std::fs::read_to_string(example).expect("the example");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("srsd.toml");
    let all = text.lines().map(|line| match line.strip_prefix('#') {
        // Prose has a blank behind its number sign, a setting has not.
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    for text in [text.clone(), all.collect::<Vec<_>>().join("\n")] {
        std::fs::write(&path, &text).expect("written");
        let loaded = outrider_core::settings::load_from::<Settings>(Some(&path), "srsd", &[]);
        assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
    }
    let keys = outrider_core::settings::keys::<Settings>();
    for key in keys.iter().filter(|key| key.path.len() == 1 && !key.section) {
        assert!(text.contains(&format!("\n#{} =", key.name())), "{} is missing", key.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_domains_of_an_ldap_tree_survive_its_outage() {
    if !Slapd::is_installed() {
        return;
    }
    let mut tree = Slapd::start().expect("started");
    let state = tempfile::tempdir().expect("folder");
    let settings = Settings {
        accounts: AccountSource::Ldap,
        ldap: LdapSettings {
            uri: tree.uri().parse().expect("an address"),
            base_dn: Slapd::BASE_DN.to_owned(),
            bind_dn: Slapd::BIND_DN.to_owned(),
            bind_password: Secret::new(Slapd::BIND_PASSWORD),
            ..LdapSettings::default()
        },
        ..settings()
    };
    let server = Server::start(settings.clone(), state.path()).await;
    let all = async || {
        for domain in ["example.com", "Second.example", "backup.example"] {
            let answer = server.ask("forward", &format!("get user@{domain}\n")).await;
            assert!(answer.starts_with("500 "), "{domain}: {answer}");
        }
        for domain in ["off.example", "lost.example", "remote.example"] {
            let answer = server.ask("forward", &format!("get user@{domain}\n")).await;
            assert!(answer.starts_with("200 SRS0="), "{domain}: {answer}");
        }
    };
    all().await;
    tree.stop().expect("stopped");
    all().await;
    server.stop().await;
    // One that never saw the tree knows no domain, and says so or lets mail pass.
    for (on_failure, begin) in [(OnFailure::Pass, "500 "), (OnFailure::Defer, "400 ")] {
        let server = Server::start(Settings { on_failure, ..settings.clone() }, state.path()).await;
        let answer = server.ask("forward", "get user@remote.example\n").await;
        assert!(answer.starts_with(begin), "{answer}");
        server.stop().await;
    }
}
