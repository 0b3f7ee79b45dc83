//! What Dovecot's service does not do and settings switch on.

use crate::{DUNNO, FULL, Server, UNREAD, accounts, request, settings};
use outrider_core::settings::Interval;
use outrider_core::sql::Stmt;
use outrider_quota_status::Settings;

#[tokio::test]
async fn the_true_size_is_looked_at_when_the_message_has_come() {
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path()).await;
    let at_end = |recipient: &str, size: &str| {
        format!("protocol_state=END-OF-MESSAGE\nrecipient={recipient}\nsize={size}\n\n")
    };
    let server = Server::start(settings(), state.path()).await;
    assert_eq!(server.ask(&at_end("room@d.example", "2000000")).await, DUNNO, "not unless asked for");
    let checking = Settings { check_end_of_message: true, ..settings() };
    server.running.reload(checking).await.expect("reloads");
    // A client that did not announce its size at RCPT.
    let whole = request("room@d.example", "") + &at_end("room@d.example", "2000000");
    assert_eq!(server.ask(&whole).await, format!("{DUNNO}{FULL}"));
    assert_eq!(server.ask(&at_end("room@d.example", "1000")).await, DUNNO);
    assert_eq!(server.ask(&at_end("full@d.example", "1")).await, FULL);
    // Several recipients, of which Postfix names none.
    assert_eq!(server.ask(&at_end("", "2000000")).await, DUNNO);
    assert_eq!(server.ask("protocol_state=END-OF-MESSAGE\nsize=2000000\n\n").await, DUNNO);
    assert_eq!(server.ask("protocol_state=DATA\nrecipient=full@d.example\n\n").await, DUNNO);
    server.stop().await;
}

#[tokio::test]
async fn a_domain_that_is_full_takes_no_more() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    const FREE: Stmt =
        Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES ('free@d.example', 'd.example', 0)");
    const EMPTY: Stmt = Stmt::same("UPDATE used_quota SET bytes = 1000 WHERE username = 'full@d.example'");
    const FILL: Stmt = Stmt::same(
        "INSERT INTO used_quota (username, bytes, domain) VALUES ('free@d.example', 3145728, 'd.example')",
    );
    const LIMIT: Stmt = Stmt::same("UPDATE domain SET maxquota = 3 WHERE domain = 'd.example'");
    const AWAY: Stmt = Stmt::same("ALTER TABLE used_quota RENAME TO away");
    for stmt in [&FREE, &EMPTY, &FILL] {
        db.execute(stmt, &[]).await.expect("prepared");
    }
    let fresh = Settings { cache_life: Interval::seconds(0), ..settings() };
    let server = Server::start(fresh.clone(), state.path()).await;
    assert_eq!(server.ask(&request("room@d.example", "size=1\n")).await, DUNNO);
    let checking = Settings { domain_quota: true, ..fresh };
    server.running.reload(checking).await.expect("reloads");
    assert_eq!(server.ask(&request("room@d.example", "size=1\n")).await, DUNNO, "no limit");
    db.execute(&LIMIT, &[]).await.expect("updated");
    for recipient in ["room@d.example", "free@d.example"] {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, FULL, "{recipient}");
    }
    assert_eq!(server.ask(&request("nobody@d.example", "size=1\n")).await, DUNNO);
    const ROOM: Stmt = Stmt::same("UPDATE used_quota SET bytes = 2000000 WHERE username = 'free@d.example'");
    db.execute(&ROOM, &[]).await.expect("updated");
    for recipient in ["room@d.example", "free@d.example"] {
        assert_eq!(server.ask(&request(recipient, "size=1\n")).await, DUNNO, "{recipient}");
    }
    // 1.4 MiB fit into neither the small mailbox nor, with the grace, into what is left of the domain.
    assert_eq!(server.ask(&request("free@d.example", "size=1470000\n")).await, FULL);
    assert_eq!(server.ask(&request("free@d.example", "size=1450000\n")).await, DUNNO);
    db.execute(&AWAY, &[]).await.expect("renamed");
    assert_eq!(server.ask(&request("free@d.example", "size=1\n")).await, UNREAD);
    server.stop().await;
}
