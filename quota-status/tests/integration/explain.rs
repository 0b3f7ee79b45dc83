//! `explain`: the same answer as Postfix gets, and why.

use crate::{accounts, settings};
use outrider_core::sql::Stmt;
use outrider_quota_status::{Settings, explain};

#[tokio::test]
async fn each_answer_has_its_reason() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    const ROWS: [Stmt; 4] = [
        Stmt::same(
            "INSERT INTO mailbox (username, domain, quota, active) VALUES ('off@d.example', 'd.example', 1, 0)",
        ),
        Stmt::same(
            "INSERT INTO mailbox (username, domain, quota) VALUES ('wrong@d.example', 'd.example', -1)",
        ),
        Stmt::same(
            "INSERT INTO forwardings (address, forwarding, domain) VALUES ('list@d.example', 'full@d.example', 'd.example')",
        ),
        Stmt::same(
            "INSERT INTO forwardings (address, forwarding, domain) VALUES ('out@d.example', 'x@far.example', 'd.example')",
        ),
    ];
    for stmt in &ROWS {
        db.execute(stmt, &[]).await.expect("inserted");
    }
    let plain = settings();
    let resolving = Settings { resolve_aliases: true, ..settings() };
    let full = "552 5.2.2 Mailbox is full";
    let defer = "DEFER_IF_PERMIT Temporary internal error";
    for (settings, recipient, size, action, what, because) in [
        (&plain, "<Full+box@D.example>", 1, full, "mailbox", "does not fit into the mailbox full@d.example"),
        (&plain, "room@d.example", 1, "DUNNO", "mailbox", "taken"),
        (&plain, "room@d.example", 2_000_000, full, "mailbox", "not even fit"),
        (&plain, "off@d.example", 1, "DUNNO", "not checked", "no mailbox to look at"),
        (&plain, "nobody@d.example", 1, "DUNNO", "no such mailbox", "no mailbox to look at"),
        (&plain, "u@elsewhere.example", 1, "DUNNO", "not hosted here", "no mailbox to look at"),
        (&plain, "full@a.example", 1, "DUNNO", "resolve_aliases is off", "no mailbox to look at"),
        (&plain, "list@d.example", 1, "DUNNO", "resolve_aliases is off", "no mailbox to look at"),
        (&plain, "a/b@d.example", 1, "DUNNO", "auth_username_chars", "no mailbox to look at"),
        (&plain, "wrong@d.example", 1, defer, "mailbox", "negative"),
        (&resolving, "full@a.example", 1, full, "leads to others", "full@d.example"),
        (&resolving, "list@d.example", 1, full, "leads to others", "full@d.example"),
        (&resolving, "out@d.example", 1, "DUNNO", "leads to others", "taken"),
        (&resolving, "nobody@d.example", 1, "DUNNO", "no such mailbox", "no mailbox to look at"),
    ] {
        let told = explain(settings, state.path(), recipient, size).await.expect("explained");
        assert_eq!(told.action, action, "{told:#?}");
        assert!(told.because.contains(because), "{told:#?}");
        assert!(told.addresses[0].what.contains(what), "{told:#?}");
    }
    let told = explain(&resolving, state.path(), "list@d.example", 1).await.expect("explained");
    assert_eq!((told.addresses.len(), told.addresses[1].depth), (2, 1), "{told:#?}");
    let room = told.addresses[1].mailbox.as_ref().expect("a mailbox");
    assert_eq!((room.limit_bytes, room.used_bytes, room.message), (1 << 20, Some(2_000_000), "full"));
    assert_eq!(
        (room.grace_bytes, room.limit_source, room.used_source),
        (104_857, "mailbox.quota", "table used_quota")
    );
    for nothing in ["", "<>", "u@"] {
        let told = explain(&plain, state.path(), nothing, 1).await.expect("explained");
        assert_eq!((told.action.as_str(), told.name.as_deref()), ("DUNNO", None), "{told:#?}");
    }
    // Nobody to ask is an answer as well.
    let mut nowhere = settings();
    nowhere.database.vmail = Some("mysql://vmail@127.0.0.1:1/vmail".parse().expect("a URL"));
    let told = explain(&nowhere, state.path(), "full@d.example", 1).await.expect("explained");
    assert_eq!(told.action, defer, "{told:#?}");
    assert!(told.because.contains("127.0.0.1:1"), "{told:#?}");
}
