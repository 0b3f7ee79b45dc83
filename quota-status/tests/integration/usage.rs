//! Usage read from a real Dovecot: its `maildirsize` and its HTTP interface.

use crate::{DUNNO, FULL, Server, UNREAD, request, settings};
use outrider_core::schema::Database;
use outrider_core::settings::{Interval, LimitSettings, Secret};
use outrider_core::sql::{Stmt, Value};
use outrider_quota_status::{DoveadmSettings, Settings, UsageSource};
use outrider_tests::mail_store::MailStore;
use std::path::Path;
use std::time::{Duration, Instant};

const ANNA: &str = "anna@d.example";
const FREE: &str = "free@d.example";
/// In the accounts, but not known to Dovecot.
const GHOST: &str = "ghost@d.example";
const NOBODY: &str = "nobody@d.example";

fn store(encrypted: bool) -> Option<MailStore> {
    if !MailStore::is_possible() {
        return None;
    }
    Some(MailStore::start(&[(ANNA, 1 << 20), (FREE, 0)], encrypted).expect("Dovecot starts"))
}

fn letter(bytes: usize) -> Vec<u8> {
    let head = "From: bob@world.example\nTo: anna@d.example\nSubject: large\n\n";
    let line = "0123456789012345678901234567890123456789012345678901234567890123\n";
    format!("{head}{}", line.repeat(bytes / line.len())).into_bytes()
}

async fn accounts(state: &Path, store: &MailStore) {
    let db = settings().database.open(Database::Vmail, state).await.expect("vmail");
    const DOMAIN: Stmt = Stmt::same("INSERT INTO domain (domain) VALUES ('d.example')");
    const MAILBOX: Stmt = Stmt::same(
        "INSERT INTO mailbox (username, domain, quota, storagebasedirectory, storagenode, maildir) \
         VALUES (?, 'd.example', ?, ?, ?, ?)",
    );
    // What is here must not be looked at.
    const USED: Stmt = Stmt::same("INSERT INTO used_quota (username, bytes) VALUES (?, 999999999)");
    db.execute(&DOMAIN, &[]).await.expect("inserted");
    let (base, node) = store.storage();
    for (name, megabytes) in [(ANNA, 1), (FREE, 0), (GHOST, 1)] {
        let folder = Value::from(format!("{name}/"));
        let args = [name.into(), megabytes.into(), Value::from(base.clone()), node.into(), folder];
        db.execute(&MAILBOX, &args).await.expect("inserted");
        db.execute(&USED, &[name.into()]).await.expect("inserted");
    }
}

fn doveadm(url: String, key: &str, store: &MailStore) -> Settings {
    Settings {
        usage: UsageSource::Doveadm,
        doveadm: DoveadmSettings {
            url: url.parse().expect("an address"),
            api_key: Secret::new(key),
            ca_file: Some(store.authority()),
        },
        // Dovecot starts a process for each question; on a busy machine that takes its time.
        usage_timeout: Interval::seconds(20),
        lookup_timeout: Interval::seconds(30),
        limits: LimitSettings { request_timeout: Interval::seconds(60), ..LimitSettings::default() },
        cache_life: Interval::seconds(0),
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_that_dovecot_keeps_in_a_maildir() {
    let Some(store) = store(false) else { return };
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path(), &store).await;
    let by_file =
        Settings { usage: UsageSource::Maildirsize, cache_life: Interval::seconds(0), ..settings() };
    let server = Server::start(by_file, state.path()).await;
    // Before the first delivery there is no file, and no mailbox at all.
    assert_eq!(server.ask(&request(ANNA, "size=1000000\n")).await, DUNNO);
    assert!(store.deliver(ANNA, &letter(600_000)).expect("runs").success());
    assert_eq!(server.ask(&request(ANNA, "size=400000\n")).await, DUNNO);
    assert_eq!(server.ask(&request(ANNA, "size=600000\n")).await, FULL);
    assert!(store.deliver(ANNA, &letter(500_000)).expect("runs").success(), "within the grace");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, FULL);
    assert!(!store.deliver(ANNA, &letter(100)).expect("runs").success(), "Dovecot says the same");
    assert!(store.deliver(FREE, &letter(2_000_000)).expect("runs").success());
    for recipient in [FREE, GHOST, NOBODY] {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, DUNNO, "{recipient}");
    }
    store.expunge(ANNA).expect("removed");
    assert_eq!(server.ask(&request(ANNA, "size=600000\n")).await, DUNNO);
    // A file that says nothing sensible.
    let (base, node) = store.storage();
    let file = format!("{base}/{node}/{ANNA}/Maildir/maildirsize");
    std::fs::write(&file, "gone wrong\n").expect("written");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, UNREAD);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_dovecot_over_http() {
    let Some(mut store) = store(false) else { return };
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path(), &store).await;
    let plain = doveadm(format!("http://{}", store.doveadm()), MailStore::API_KEY, &store);
    let server = Server::start(plain.clone(), state.path()).await;
    assert_eq!(server.ask(&request(ANNA, "size=1000000\n")).await, DUNNO);
    assert!(store.deliver(ANNA, &letter(1_100_000)).expect("runs").success());
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, FULL);
    for recipient in [FREE, NOBODY] {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, DUNNO, "{recipient}");
    }
    // Whom the accounts have and Dovecot has not: it is not known what he uses.
    assert_eq!(server.ask(&request(GHOST, "size=1\n")).await, UNREAD);
    // More at once than are asked at a time.
    let answers = at_once(&server, &request(ANNA, "size=1\n").repeat(2), 12).await;
    assert!(answers.iter().all(|answer| *answer == FULL.repeat(2)), "{answers:?}");

    let wrong_key = doveadm(format!("http://{}", store.doveadm()), "another key", &store);
    server.running.reload(wrong_key).await.expect("reloads");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, UNREAD);
    server.running.reload(plain).await.expect("reloads");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, FULL);

    // Dovecot goes and comes back.
    store.stop().expect("stops");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, UNREAD);
    store.resume().expect("starts");
    let begin = Instant::now();
    while server.ask(&request(ANNA, "size=1\n")).await != FULL {
        assert!(begin.elapsed() < Duration::from_secs(15), "the way back was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_dovecot_over_https_need_its_true_certificate() {
    let Some(store) = store(true) else { return };
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path(), &store).await;
    assert!(store.deliver(ANNA, &letter(1_100_000)).expect("runs").success());
    let over_tls = doveadm(format!("https://{}", store.doveadm()), MailStore::API_KEY, &store);
    let server = Server::start(over_tls.clone(), state.path()).await;
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, FULL);
    // The certificate is for 127.0.0.1 alone.
    let mut other_name = over_tls.clone();
    other_name.doveadm.url =
        format!("https://localhost:{}", store.doveadm().port()).parse().expect("an address");
    server.running.reload(other_name).await.expect("reloads");
    assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, UNREAD);
    // The authorities of the system have not signed it.
    let mut other_authority = over_tls;
    other_authority.doveadm.ca_file = None;
    if server.running.reload(other_authority).await.is_ok() {
        assert_eq!(server.ask(&request(ANNA, "size=1\n")).await, UNREAD);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doveadm_that_says_nothing_costs_the_deadline_and_no_more() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let state = tempfile::tempdir().expect("a folder");
    crate::accounts(state.path()).await;
    let settings = Settings {
        usage: UsageSource::Doveadm,
        usage_timeout: Interval(Duration::from_millis(300)),
        doveadm: DoveadmSettings {
            url: format!("http://{}", silent.local_addr().expect("an address")).parse().expect("an address"),
            api_key: Secret::new("key"),
            ..DoveadmSettings::default()
        },
        ..settings()
    };
    let server = Server::start(settings, state.path()).await;
    assert_eq!(server.ask(&request("room@d.example", "size=1\n")).await, UNREAD);
    assert_eq!(server.ask(&request(NOBODY, "size=1\n")).await, DUNNO);
    server.stop().await;
}

/// The answers to `text` on `count` connections at once.
async fn at_once(server: &Server, text: &str, count: usize) -> Vec<String> {
    let address = server.running.bound[0].address.to_string();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (address, text) = (address.clone(), text.to_owned());
        tasks.spawn(async move { crate::ask(&address, text.as_bytes()).await });
    }
    tasks.join_all().await
}
