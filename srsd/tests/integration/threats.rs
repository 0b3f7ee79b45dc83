//! Hostile input: each class of the list of threats that srsd meets.

#![allow(non_snake_case, reason = "tests carry the numbers of their threats")]

use super::{Server, settings};
use outrider_core::forwarding::OriginalEnvelope;
use outrider_srsd::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OURS: &str = "SRS0=lnpB=WC=gmail.com=user@srs.example.net";

fn alone() -> Settings {
    Settings { directory_domains: false, exclude_table: false, ..settings() }
}

/// Sends in pieces and reads to the end.
async fn send(server: &Server, role: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = server.connect(role).await;
    for piece in pieces {
        // The daemon may have closed already, and rightly so.
        let _ = stream.write_all(piece).await;
    }
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn threat_t16_hostile_requests_are_answered_and_bounded() {
    let state = tempfile::tempdir().expect("a folder");
    let server = Server::start(alone(), state.path()).await;
    let million = [b"get ".as_slice(), &[b'a'; 1_000_000]].concat();
    let many = b"get user@gmail.com\n".repeat(2000);
    let table: &[(&[u8], &[u8])] = &[
        // tcp_table: what is no key is not found, and the connection stays.
        (
            b"get %G1\nget user@local\n",
            b"500 Invalid encoding of the key.\n500 Not a valid email address, bypassed.\n",
        ),
        (b"get %\nget %4\n", b"500 Invalid encoding of the key.\n500 Invalid encoding of the key.\n"),
        (b"get user@gmail.com", b""),
        (&million, b"500 Request too long.\n"),
        // socketmap: what is no netstring ends the connection.
        (b"99999999:", b"19:PERM Invalid query.,"),
        (b"0000001:x,", b"17:PERM Invalid map.,"),
        (b"5:forwa;", b"19:PERM Invalid query.,"),
        (b"12:forward", b""),
        (b"1x:", b"19:PERM Invalid query.,"),
        // A length of -1 is none, so this is tcp_table.
        (b"-1:\n", b"500 Unexpected input: -1:\n"),
    ];
    for (input, expected) in table {
        let shown = String::from_utf8_lossy(&input[..input.len().min(60)]).into_owned();
        let got = send(&server, "forward", &[input]).await;
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected), "{shown}");
        for cut in [1, input.len() / 2] {
            let (a, b) = input.split_at(cut.min(input.len()));
            assert_eq!(send(&server, "forward", &[a, b]).await, *expected, "{shown} cut at {cut}");
        }
    }
    let answers = send(&server, "forward", &[&many]).await;
    assert_eq!(answers, format!("200 {OURS}\n").repeat(2000).into_bytes());
    // The longest key that fits gives a reply that fits.
    let key = format!("get {}@gmail.com\n", "%41".repeat(1300));
    let reply = send(&server, "forward", &[key.as_bytes()]).await;
    assert!(reply.len() <= 4096 && reply.ends_with(b"\n"), "{} bytes", reply.len());
    server.stop().await;
}

#[tokio::test]
async fn threat_t17_addresses_that_are_not_ours_are_not_believed() {
    let state = tempfile::tempdir().expect("a folder");
    let server = Server::start(alone(), state.path()).await;
    let long_stamp = format!("SRS0=lnpB={}=gmail.com=user@srs.example.net", "W".repeat(3000));
    let forged = [
        "SRS0=lnpC=WC=gmail.com=user@srs.example.net",
        "SRS0=l=WC=gmail.com=user@srs.example.net",
        "SRS0==WC=gmail.com=user@srs.example.net",
        "SRS0=lnpB=WD=gmail.com=user@srs.example.net",
        "SRS0=lnpB=WC=gmail.com=victim@srs.example.net",
        "SRS0=lnpB=WC=victim.example=user@srs.example.net",
        "SRS0=lnpB=WCC=gmail.com=user@srs.example.net",
        "SRS0=lnpB=W=gmail.com=user@srs.example.net",
        "SRS0=lnpB=WC=gmail.com@srs.example.net",
        "SRS0=lnpB@srs.example.net",
        "SRS1=lnpB=gmail.com==user@srs.example.net",
        "SRS1=lnpB=first.example==SRS0=lnpB=WC=gmail.com=user@srs.example.net",
        &long_stamp,
    ];
    for address in forged {
        let got = server.ask("reverse", &format!("get {address}\n")).await;
        assert!(got.starts_with("500 "), "{}: {got}", &address[..60.min(address.len())]);
    }
    // Every guess of four characters but one (and its other spellings) fails.
    let guesses: String =
        (0..4000).map(|n| format!("get SRS0=z{n:03x}=WC=gmail.com=user@srs.example.net\n")).collect();
    let answers = send(&server, "reverse", &[guesses.as_bytes()]).await;
    assert_eq!(answers, b"500 \n".repeat(4000));
    // What is ours is believed in any case, with any separator, at any domain: as by all programs of old.
    let stamp_of_day = [
        OURS.to_owned(),
        OURS.to_lowercase(),
        OURS.replace("SRS0=", "SRS0+"),
        OURS.replace("SRS0=", "srs0-"),
    ];
    for address in stamp_of_day {
        let got = server.ask("reverse", &format!("get {address}\n")).await;
        assert_eq!(got, "200 user@gmail.com\n", "{address}");
    }
    let foreign = format!("get {}\n", OURS.replace("srs.example.net", "foreign.example"));
    assert_eq!(server.ask("reverse", &foreign).await, "200 user@gmail.com\n");
    server.running.reload(Settings { reverse_only_srs_domain: true, ..alone() }).await.expect("reloads");
    assert!(server.ask("reverse", &foreign).await.starts_with("500 "));
    assert_eq!(server.ask("reverse", &format!("get {OURS}\n")).await, "200 user@gmail.com\n");
    // Nesting is followed one level, however deep it is.
    let mut address = "a@deep.example".to_owned();
    for _ in 0..3 {
        let got = server
            .ask("forward", &format!("get {}\n", address.replace("@srs.example.net", "@other.example")))
            .await;
        address = got.trim_start_matches("200 ").trim_end().to_owned();
    }
    assert!(address.starts_with("SRS1="), "{address}");
    let got = server.ask("reverse", &format!("get {address}\n")).await;
    assert!(got.starts_with("200 SRS0="), "{got}");
    server.stop().await;
}

#[tokio::test]
async fn threat_t12_no_answer_has_a_second_line() {
    let state = tempfile::tempdir().expect("a folder");
    let server = Server::start(alone(), state.path()).await;
    for key in ["a%0a200%20b@gmail.com", "a%0d%0ab@gmail.com", "%0a", "a@b.example%0a200 x", "put x%0a200"] {
        for request in [format!("get {key}\n"), format!("{key}\n")] {
            let got = server.ask("forward", &request).await;
            assert_eq!(got.matches('\n').count(), 1, "{request}: {got:?}");
            assert!(
                got.starts_with("500 ") && got.bytes().all(|b| b == b'\n' || (0x20..0x7f).contains(&b)),
                "{got:?}"
            );
        }
    }
    server.stop().await;
}

/// Everything of a sender that reaches a database is a bound value.
#[tokio::test]
async fn threat_t13_senders_with_metacharacters_are_kept_as_they_are() {
    let state = tempfile::tempdir().expect("a folder");
    let tokens = Settings { original_envelope: OriginalEnvelope::Database, ..alone() };
    let server = Server::start(tokens, state.path()).await;
    for sender in [
        "o'brien'--drop$table|kv@gmail.com",
        "%_`*{x}~?!@gmail.com",
        "\u{fc}ml\u{e4}ut@m\u{fc}nchen.example",
        "a\u{1f4e7}b@gmail.com",
    ] {
        let request = format!("get {}\n", percent(sender));
        let got = server.ask("forward", &request).await;
        let address =
            got.strip_prefix("200 ").unwrap_or_else(|| panic!("{sender}: {got}")).trim_end().to_owned();
        assert!(address.contains("=1="), "{address}");
        let got = server.ask("reverse", &format!("get {address}\n")).await;
        assert_eq!(got, format!("200 {}\n", percent(sender)), "{sender}");
    }
    for hostile in [&b"get \xff\xfe@gmail.com\n"[..], b"get nul%00@gmail.com\n", b"get a%3b@gmail.com\n"] {
        let got = send(&server, "forward", &[hostile]).await;
        assert!(got.starts_with(b"500 "), "{}", String::from_utf8_lossy(&got));
    }
    server.stop().await;
}

/// As Postfix encodes a key.
fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'%' => "%25".to_owned(),
        0x21..0x7f => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}
