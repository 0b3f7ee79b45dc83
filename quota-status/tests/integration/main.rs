//! The whole daemon, in this process, on a free port and the embedded database.

mod explain;
mod extras;
mod threat;
mod usage;

use outrider_core::daemon::{Environment, Running, Shutdown, ShutdownTrigger, launch};
use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::schema::Database;
use outrider_core::settings::{Interval, ListenAddress, Secret};
use outrider_core::sql::{Db, DbUrl, Stmt, Value};
use outrider_quota_status::{OnFailure, QuotaStatus, Settings};
use outrider_tests::slapd::Slapd;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEFER: &str = "action=DEFER_IF_PERMIT Temporary internal error\n\n";
const UNREAD: &str = "action=DEFER_IF_PERMIT Internal quota calculation error\n\n";
const FULL: &str = "action=552 5.2.2 Mailbox is full\n\n";
const DUNNO: &str = "action=DUNNO\n\n";

fn settings() -> Settings {
    Settings { listen: vec![ListenAddress::local(0)], ..Settings::default() }
}

struct Server {
    running: Running<QuotaStatus>,
    stop: ShutdownTrigger,
}

impl Server {
    async fn start(settings: Settings, state: &Path) -> Server {
        let env = Environment::system("quota-status", state.to_path_buf());
        let (stop, shutdown) = Shutdown::new();
        let running = launch::<QuotaStatus>(settings, env, shutdown).await.expect("starts");
        Server { running, stop }
    }

    /// Sends the text on a connection of its own and reads to the end.
    async fn ask(&self, text: &str) -> String {
        ask(&self.running.bound[0].address.to_string(), text.as_bytes()).await
    }

    async fn stop(self) {
        self.stop.request();
        self.running.finished().await;
    }
}

async fn ask(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes).await.expect("sends");
    stream.shutdown().await.expect("half closes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("receives");
    answer
}

fn request(recipient: &str, rest: &str) -> String {
    format!("request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient={recipient}\n{rest}\n")
}

/// Mailboxes full (1 MB, full) and room (1 MB, empty) in d.example, alias domain a.example.
async fn accounts(state: &Path) -> Db {
    let db = settings().database.open(Database::Vmail, state).await.expect("vmail");
    const MAILBOX: Stmt =
        Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES (?, 'd.example', 1)");
    const REST: [Stmt; 3] = [
        Stmt::same("INSERT INTO domain (domain) VALUES ('d.example')"),
        Stmt::same(
            "INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('a.example', 'd.example')",
        ),
        Stmt::same(
            "INSERT INTO used_quota (username, bytes, domain) VALUES ('full@d.example', 2000000, 'd.example')",
        ),
    ];
    for name in ["full@d.example", "room@d.example"] {
        db.execute(&MAILBOX, &[Value::from(name)]).await.expect("inserted");
    }
    for stmt in &REST {
        db.execute(stmt, &[]).await.expect("inserted");
    }
    db
}

#[tokio::test]
async fn an_empty_settings_file_serves_an_iredmail_server() {
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path()).await;
    let server = Server::start(settings(), state.path()).await;
    let both = request("full@d.example", "size=1\n") + &request("room@d.example", "size=1\n");
    assert_eq!(server.ask(&both).await, format!("{FULL}{DUNNO}"));
    assert_eq!(server.ask(&request("nobody@d.example", "")).await, DUNNO);
    assert_eq!(server.ask(&request("full@a.example", "")).await, DUNNO);
    assert_eq!(
        server.ask("protocol_state=END-OF-MESSAGE\nrecipient=full@d.example\n\n\n").await,
        DUNNO.repeat(2)
    );
    // The size of the first request is not that of the second.
    let two = request("room@d.example", "size=9999999\n") + &request("room@d.example", "");
    assert_eq!(server.ask(&two).await, format!("{FULL}{DUNNO}"));
    assert!(server.running.health()[0].up);
    server.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_fills_up_or_is_emptied_is_noticed_in_time() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    let settings = Settings { cache_life: Interval::seconds(1), ..settings() };
    let server = Server::start(settings, state.path()).await;
    assert_eq!(server.ask(&request("full@d.example", "")).await, FULL);
    assert_eq!(server.ask(&request("room@d.example", "")).await, DUNNO);
    const EMPTY: Stmt = Stmt::same("UPDATE used_quota SET bytes = 0 WHERE username = 'full@d.example'");
    const FILL: Stmt = Stmt::same(
        "INSERT INTO used_quota (username, bytes, domain) VALUES ('room@d.example', 2000000, 'd.example')",
    );
    db.execute(&EMPTY, &[]).await.expect("updated");
    db.execute(&FILL, &[]).await.expect("inserted");
    assert_eq!(server.ask(&request("full@d.example", "")).await, DUNNO);
    // What would not fit by the remembered usage is looked up again at once.
    assert_eq!(server.ask(&request("room@d.example", "size=2000000\n")).await, FULL);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server.ask(&request("room@d.example", "")).await, FULL);
    server.stop().await;
}

#[tokio::test]
async fn aliases_are_followed_when_asked_for() {
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path()).await;
    let server = Server::start(settings(), state.path()).await;
    assert_eq!(server.ask(&request("full@a.example", "")).await, DUNNO);
    let resolving = Settings { resolve_aliases: true, ..settings() };
    server.running.reload(resolving).await.expect("reloads");
    assert_eq!(server.ask(&request("Full+x@A.example", "")).await, FULL);
    assert_eq!(server.ask(&request("room@a.example", "")).await, DUNNO);
    server.stop().await;
}

#[tokio::test]
async fn usage_that_cannot_be_read_is_told_from_an_unknown_user() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    const DROP: Stmt = Stmt::same("DROP TABLE used_quota");
    const UNLIMITED: Stmt =
        Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES ('free@d.example', 'd.example', 0)");
    const RESTORE: Stmt = Stmt::same("CREATE TABLE used_quota (username VARCHAR(255), bytes BIGINT)");
    const SWITCH_OFF: Stmt =
        Stmt::same("UPDATE mailbox SET \"enablequota-status\" = 0 WHERE username = 'full@d.example'");
    for stmt in [&UNLIMITED, &DROP] {
        db.execute(stmt, &[]).await.expect("prepared");
    }
    let nouser = "action=REJECT Unknown user\n\n";
    let settings = Settings { quota_status_nouser: "REJECT Unknown user".to_owned(), ..settings() };
    let server = Server::start(settings.clone(), state.path()).await;
    let expectations = [
        ("room@d.example", UNREAD),
        ("full@d.example", UNREAD),
        ("free@d.example", DUNNO),
        ("nobody@d.example", nouser),
        ("room@a.example", nouser),
    ];
    for (recipient, expected) in expectations {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, expected, "{recipient}");
    }
    let resolving = Settings { resolve_aliases: true, ..settings.clone() };
    server.running.reload(resolving).await.expect("reloads");
    assert_eq!(server.ask(&request("room@a.example", "")).await, UNREAD);
    assert_eq!(server.ask(&request("free@a.example", "")).await, DUNNO);
    let passing = Settings { on_failure: OnFailure::Pass, ..settings.clone() };
    server.running.reload(passing).await.expect("reloads");
    assert_eq!(server.ask(&request("room@d.example", "")).await, DUNNO);
    server.running.reload(settings).await.expect("reloads");
    // Once the table is back, so are the answers, and who is switched off still is.
    for stmt in [&RESTORE, &SWITCH_OFF] {
        db.execute(stmt, &[]).await.expect("restored");
    }
    assert_eq!(server.ask(&request("room@d.example", "")).await, DUNNO);
    assert_eq!(server.ask(&request("full@d.example", "")).await, nouser);
    server.stop().await;
}

#[tokio::test]
async fn without_accounts_the_answer_comes_in_time() {
    let state = tempfile::tempdir().expect("a folder");
    // A server that accepts connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_url = format!("mysql://vmail@{}/vmail", silent.local_addr().expect("an address"));
    for (url, on_failure, expected) in [
        ("mysql://vmail@127.0.0.1:1/vmail", OnFailure::Defer, DEFER),
        ("postgresql://vmail@127.0.0.1:1/vmail", OnFailure::Pass, DUNNO),
        (silent_url.as_str(), OnFailure::Defer, DEFER),
    ] {
        let mut settings = Settings { on_failure, ..settings() };
        settings.database.vmail = Some(url.parse().expect("a URL"));
        let server = Server::start(settings, state.path()).await;
        let begin = Instant::now();
        assert_eq!(server.ask(&request("u@d.example", "")).await, expected, "{url}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{url}: {:?}", begin.elapsed());
        assert!(!server.running.health()[0].up);
        // What needs no account is answered all the same.
        assert_eq!(server.ask("protocol_state=DATA\n\n").await, DUNNO);
        server.stop().await;
    }
}

/// The example settings as shipped, and with every line that is commented out put in force.
#[test]
fn the_example_settings_load() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/quota-status.toml");
    let text = std::fs::read_to_string(example).expect("the example");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("quota-status.toml");
    let all = text.lines().map(|line| match line.strip_prefix('#') {
        // Prose has a blank behind its number sign, a setting has not.
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    for text in [text.clone(), all.collect::<Vec<_>>().join("\n")] {
        std::fs::write(&path, &text).expect("written");
        let loaded = outrider_core::settings::load_from::<Settings>(Some(&path), "quota-status", &[]);
        assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
    }
    let keys = outrider_core::settings::keys::<Settings>();
    for key in keys.iter().filter(|key| key.path.len() == 1 && !key.section) {
        assert!(text.contains(&format!("\n#{} =", key.name())), "{} is missing", key.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_an_ldap_tree_and_usage_of_a_database() {
    if !Slapd::is_installed() {
        return;
    }
    let mut tree = Slapd::start().expect("started");
    let state = tempfile::tempdir().expect("folder");
    // iRedMail keeps used_quota in iredadmin when the accounts are in LDAP; the table is the same.
    let usage = settings().database.open(Database::Vmail, state.path()).await.expect("a database");
    const USED: Stmt = Stmt::same("INSERT INTO used_quota (username, bytes) VALUES (?, 1073741824)");
    for name in ["alice@example.com", "bob@example.com", "noquota@example.com"] {
        usage.execute(&USED, &[name.into()]).await.expect("inserted");
    }
    let mut settings = Settings {
        accounts: AccountSource::Ldap,
        ldap: LdapSettings {
            uri: tree.uri().parse().expect("an address"),
            base_dn: Slapd::BASE_DN.to_owned(),
            bind_dn: Slapd::BIND_DN.to_owned(),
            bind_password: Secret::new(Slapd::BIND_PASSWORD),
            ..LdapSettings::default()
        },
        cache_life: Interval::seconds(0),
        ..settings()
    };
    settings.database.iredadmin = Some(DbUrl::sqlite(&state.path().join("vmail.db")));
    let server = Server::start(settings, state.path()).await;
    for (recipient, expected) in [
        ("alice@example.com", FULL),
        ("Alice+box@Example.com", FULL),
        // Her further addresses lead to her mailbox without any setting, unlike those of SQL accounts.
        ("nick@example.com", FULL),
        ("alice@alias.example", FULL),
        ("bob@example.com", DUNNO),
        ("carol@example.com", DUNNO),
        ("noquota@example.com", DUNNO),
        ("sales@example.com", DUNNO),
        ("nobody@example.com", DUNNO),
        ("*@example.com", DUNNO),
    ] {
        assert_eq!(server.ask(&request(recipient, "size=1000\n")).await, expected, "{recipient}");
    }
    usage.execute(&Stmt::same("ALTER TABLE used_quota RENAME TO away"), &[]).await.expect("renamed");
    for (recipient, expected) in
        [("alice@example.com", UNREAD), ("noquota@example.com", DUNNO), ("nobody@example.com", DUNNO)]
    {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, expected, "{recipient} without usage");
    }
    usage.execute(&Stmt::same("ALTER TABLE away RENAME TO used_quota"), &[]).await.expect("renamed");
    tree.stop().expect("stopped");
    assert_eq!(server.ask(&request("alice@example.com", "size=1\n")).await, DEFER);
    tree.resume().expect("started");
    let begin = Instant::now();
    while server.ask(&request("alice@example.com", "size=1\n")).await != FULL {
        assert!(begin.elapsed() < Duration::from_secs(15), "the way back was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}
