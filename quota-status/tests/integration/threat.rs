//! Hostile input (threats T11, T12, T13, T18): every request gets its answer, and the next one too.

use crate::{DUNNO, FULL, Server, accounts, request, settings};
use outrider_core::settings::Interval;
use outrider_core::sql::{Stmt, Value};
use outrider_quota_status::Settings;

async fn ask(server: &Server, bytes: &[u8]) -> String {
    crate::ask(&server.running.bound[0].address.to_string(), bytes).await
}

#[tokio::test]
async fn threat_t11_attributes_are_taken_for_what_they_are() {
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path()).await;
    let server = Server::start(settings(), state.path()).await;
    let table: &[(&[u8], &str)] = &[
        // The first recipient and state, the last size.
        (b"recipient=full@d.example\nrecipient=room@d.example\n\n", FULL),
        (b"recipient=room@d.example\nrecipient=full@d.example\n\n", DUNNO),
        (b"protocol_state=DATA\nprotocol_state=RCPT\nrecipient=full@d.example\n\n", DUNNO),
        (b"protocol_state=RCPT\nprotocol_state=DATA\nrecipient=full@d.example\n\n", FULL),
        (b"recipient=room@d.example\nsize=2000000\nsize=1\n\n", DUNNO),
        (b"recipient=room@d.example\nsize=1\nsize=2000000\n\n", FULL),
        // Missing and wrong request=, lines without =, other spellings of names, = in a value.
        (b"request=something_else\nrecipient=full@d.example\n\n", FULL),
        (b"junk\n=full@d.example\nrecipient=full@d.example\n\n", FULL),
        (b"Recipient=full@d.example\n\n", DUNNO),
        (b"recipient=full@d.example=x\n\n", DUNNO),
        (b"recipient==full@d.example\n\n", DUNNO),
        (b"protocol_state=\nrecipient=full@d.example\n\n", DUNNO),
        (b"protocol_state=rcpt\r\nrecipient=full@d.example\r\n\r\n", FULL),
        (b"\n", DUNNO),
        // NUL and control bytes are of no address.
        (b"recipient=full@d.example\0\n\n", DUNNO),
        (b"recipient=\0full@d.example\n\n", DUNNO),
        (b"recipient=full\x1b[2J@d.example\n\n", DUNNO),
        (b"recipient=full@d.example\rrecipient=room@d.example\n\n", DUNNO),
    ];
    for (bytes, expected) in table {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let twice = [bytes, request("full@d.example", "").as_bytes()].concat();
        assert_eq!(ask(&server, &twice).await, format!("{expected}{FULL}"), "{shown:?}");
    }
    // Longer than Postfix sends them, but no longer than a request may be.
    for rest in [format!("helo_name={}\n", "y".repeat(60_000)), "x=y\n".repeat(4000)] {
        assert_eq!(server.ask(&request("full@d.example", &rest)).await, FULL);
    }
    // As many attributes as Postfix never sends: the connection ends, what came before it is answered, others go on.
    let crowd = request("full@d.example", "") + &"x=y\n".repeat(100_000) + "\n";
    let address = server.running.bound[0].address.to_string();
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connects");
    let mut answer = Vec::new();
    // It may be closed while we still write.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, crowd.as_bytes()).await;
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert!(FULL.as_bytes().starts_with(&answer), "{answer:?}");
    assert_eq!(server.ask(&request("full@d.example", "")).await, FULL);
    server.stop().await;
}

#[tokio::test]
async fn threat_t12_nothing_of_a_request_comes_back() {
    let state = tempfile::tempdir().expect("a folder");
    accounts(state.path()).await;
    let server = Server::start(Settings { resolve_aliases: true, ..settings() }, state.path()).await;
    let hostile = [
        "full@d.example\rX: y",
        "\"a\raction=OK\"@d.example",
        "\"a\\\raction=OK\"@d.example",
        "action=OK@d.example",
        "$(reboot)@d.example",
        "%n%n@d.example",
    ];
    for text in hostile {
        for attribute in ["recipient", "sender", "helo_name", "size", "protocol_state", "request"] {
            let attack = format!("{attribute}={text}\n");
            let whole = format!("{attack}{}", request("full@d.example", ""));
            let answer = ask(&server, whole.as_bytes()).await;
            assert!(answer == FULL || answer == DUNNO, "{attribute}={text:?}: {answer:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn threat_t13_long_and_quoting_values_reach_nothing() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    // All characters reach the database: the statements themselves have to be safe.
    let open = Settings {
        auth_username_chars: String::new(),
        resolve_aliases: true,
        cache_life: Interval::seconds(0),
        quota_status_nouser: "REJECT nobody".to_owned(),
        ..settings()
    };
    const ODD: Stmt = Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES (?, 'd.example', 1)");
    const ODD_USED: Stmt =
        Stmt::same("INSERT INTO used_quota (username, bytes, domain) VALUES (?, 2000000, 'd.example')");
    let odd = Value::from("o'x\"%_\\*()#&@d.example".to_owned());
    for stmt in [&ODD, &ODD_USED] {
        db.execute(stmt, std::slice::from_ref(&odd)).await.expect("inserted");
    }
    let server = Server::start(open, state.path()).await;
    // A mailbox that really has such a name is found, as itself.
    assert_eq!(server.ask(&request("\"o'x\\\"%_\\\\*()#&\"@d.example", "")).await, FULL);
    let nobody = "action=REJECT nobody\n\n";
    for local in [
        "full' OR '1'='1",
        "%",
        "f_ll",
        "full%",
        "*",
        "full*)(mail=*",
        "\\",
        "x'; DROP TABLE mailbox; --",
        "o'x",
    ] {
        let quoted = format!("\"{}\"@d.example", local.replace('\\', "\\\\"));
        assert_eq!(server.ask(&request(&quoted, "")).await, nobody, "{local}");
    }
    let long = "x".repeat(8100);
    assert_eq!(server.ask(&request(&format!("{long}@d.example"), "")).await, nobody);
    assert_eq!(server.ask(&request(&format!("u@{long}"), "")).await, nobody);
    let filled: String = (0..7).map(|number| format!("attribute{number}={long}\n")).collect();
    assert_eq!(server.ask(&request("full@d.example", &filled)).await, FULL);
    for bytes in [&b"recipient=\xff\xfe@d.example\n\n"[..], b"recipient=full\xc3@d.example\n\n"] {
        assert_eq!(ask(&server, bytes).await, DUNNO);
    }
    assert_eq!(server.ask(&request("full@d.example", "")).await, FULL, "the tables are still there");
    server.stop().await;
}

#[tokio::test]
async fn threat_t18_no_recipient_no_end_and_no_sense_are_answered() {
    let state = tempfile::tempdir().expect("a folder");
    let db = accounts(state.path()).await;
    const FORWARD: Stmt =
        Stmt::same("INSERT INTO forwardings (address, forwarding, domain) VALUES (?, ?, 'd.example')");
    let forward = async |address: &str, target: &str| {
        db.execute(&FORWARD, &[address.into(), target.into()]).await.expect("inserted");
    };
    forward("ping@d.example", "pong@d.example").await;
    forward("pong@d.example", "ping@d.example").await;
    forward("pong@d.example", "full@d.example").await;
    for step in 0..20 {
        forward(&format!("step{step}@d.example"), &format!("step{}@d.example", step + 1)).await;
    }
    // Ten thousand members in one statement.
    const CROWD: Stmt = Stmt::same(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
         INSERT INTO forwardings (address, forwarding, domain) \
         SELECT 'crowd@d.example', 'member' || i || '@d.example', 'd.example' FROM n",
    );
    db.execute(&CROWD, &[]).await.expect("inserted");
    let following = Settings {
        resolve_aliases: true,
        check_end_of_message: true,
        quota_status_nouser: "REJECT nobody".to_owned(),
        ..settings()
    };
    let server = Server::start(following.clone(), state.path()).await;
    assert_eq!(server.ask("protocol_state=END-OF-MESSAGE\nrecipient=\nsize=99999999999\n\n").await, DUNNO);
    assert_eq!(server.ask(&request("", "")).await, DUNNO);
    assert_eq!(server.ask(&request("ping@d.example", "")).await, FULL);
    assert_eq!(server.ask(&request("step0@d.example", "")).await, DUNNO, "too many in a row: no opinion");
    assert_eq!(server.ask(&request("crowd@d.example", "")).await, DUNNO, "too many at all: no opinion");
    let nobody = "action=REJECT nobody\n\n";
    assert_eq!(server.ask(&request("u@unknown.example", "")).await, nobody);
    assert_eq!(server.ask(&request("anybody@d.example", "")).await, nobody);
    // A catch-all address, once what was remembered of there being none is forgotten.
    forward("d.example", "full@d.example").await;
    server.running.reload(following).await.expect("reloads");
    assert_eq!(server.ask(&request("somebody-else@d.example", "")).await, FULL);
    for size in ["", "size=\n", "size=-1\n", "size=x\n", "size=18446744073709551616\n"] {
        assert_eq!(server.ask(&request("room@d.example", size)).await, DUNNO, "{size:?} counts as one byte");
    }
    assert_eq!(server.ask(&request("room@d.example", "size=18446744073709551615\n")).await, FULL);
    server.stop().await;
}
