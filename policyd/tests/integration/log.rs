//! What is written about an answer.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use bytes::BytesMut;
use outrider_core::codec::policy::{Decoder, Limits};
use outrider_core::policy_session::{Failure, PolicyHandler};
use outrider_core::settings::ListenAddress;
use outrider_core::sql::{Row, Stmt};
use outrider_policyd::settings::{ForwardSettings, InvalidAddress, OnFailure, ProtocolState};

use crate::world::{Client, World, arrival, submission};

const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";

/// Keeps events as `LEVEL name=value ...`.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("whole").clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("outrider") && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("whole").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Who asks why a mail came through finds its line as well as who asks why one did not.
#[tokio::test]
async fn answers_that_do_something_have_one_line() {
    let world = World::sqlite().await;
    let daemon = world.daemon(&["reject_null_sender"]).await;
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let mut client = Client::connect(&daemon);
    let request = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    let mut of_a_login = arrival("", "pal@remote.test", "203.0.113.11");
    of_a_login.push(("sasl_username", "a@example.com"));
    let mut data = request.clone();
    data.push(("protocol_state", "DATA"));
    for request in [&request, &of_a_login, &data] {
        client.ask(request).await;
    }
    let lines = events.lines();
    let answers: Vec<&String> = lines.iter().filter(|line| line.contains("event=\"answer\"")).collect();
    // Mail that passes without anybody's opinion is left to the level debug.
    let [refused] = answers[..] else { panic!("{lines:?}") };
    for part in [
        "INFO ",
        "action=\"REJECT Policy rejection due to null sender\"",
        "check=\"reject_null_sender\"",
        "state=\"RCPT\"",
        "client=\"203.0.113.11\"",
        "sasl=\"a@example.com\"",
        "rcpt=\"pal@remote.test\"",
        "reason=\"null_sender\"",
        "elapsed_ms=",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    for absent in [" code=", " dsn=", " db_ms=", " dns_ms=", " degraded="] {
        assert!(!refused.contains(absent), "{absent}: {refused}");
    }
}

/// Who asks why an answer took long, or why mail came through that should not, finds it in the same line.
#[tokio::test]
async fn answers_tell_what_they_waited_for_and_what_was_missing() {
    let world = World::sqlite().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world.script(&world.iredapd, "DROP TABLE wblist_rdns").await;
    let daemon = world
        .daemon_with(&["wblist_rdns", "greylisting"], |settings| {
            settings.on_failure.iredapd = OnFailure::Pass;
            settings.greylisting.bypass_spf = true;
        })
        .await;
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let mut client = Client::connect(&daemon);
    let mut request = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    request.retain(|(name, _)| *name != "reverse_client_name");
    request.push(("reverse_client_name", "mx.sender.test"));
    assert!(client.ask(&request).await.starts_with("451 4.7.1 "));
    let lines = answers(&events);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let keys: Vec<&str> =
        line.split(' ').filter_map(|word| word.split_once('=')).map(|(key, _)| key).collect();
    let end = &keys[keys.iter().position(|key| *key == "action").expect("an action")..];
    // No name server answers on the port of the settings.
    let expected =
        ["action", "code", "dsn", "check", "reason", "elapsed_ms", "db_ms", "dns_ms", "degraded", "state"];
    assert_eq!(end, expected, "{line}");
    for part in
        ["code=451 ", "dsn=\"4.7.1\"", "check=\"greylisting\"", "reason=\"greylisted\"", "degraded=true"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    // Mail that passes because a rule could not be asked is worth a line.
    world.script(&world.iredapd, "DELETE FROM greylisting").await;
    assert_eq!(client.ask(&request).await, "DUNNO");
    let lines = answers(&events);
    let [_, line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("check=\"none\" reason=\"pass\"") && line.contains("degraded=true"), "{line}");
}

/// The lines about answers.
fn answers(events: &Events) -> Vec<String> {
    events.lines().into_iter().filter(|line| line.contains("event=\"answer\"")).collect()
}

/// Columns of the rows that appear within a while, oldest first.
async fn rows(world: &World, expected: usize) -> Vec<[String; 4]> {
    const ROWS: Stmt =
        Stmt::same("SELECT action, reason, sender, client_address FROM smtp_sessions ORDER BY id");
    let text = |row: &Row, at| row.text_at(at).unwrap_or_default().to_owned();
    for _ in 0..200 {
        let rows = world.iredapd.fetch_all(&ROWS, &[]).await.expect("read");
        if rows.len() >= expected {
            return rows.iter().map(|row| [0, 1, 2, 3].map(|at| text(row, at))).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Vec::new()
}

/// Such a request skips the rules, not the log: who looks for a missing mail finds what was answered.
#[tokio::test]
async fn requests_with_an_invalid_address_have_line_and_row() {
    let world = World::sqlite().await;
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    for (mode, action, kept) in [
        (InvalidAddress::Pass, "DUNNO Error: Invalid sender address: o'b@sender.test", ["DUNNO", ""]),
        (InvalidAddress::Reject, "REJECT Invalid email address", ["REJECT", "Invalid email address"]),
    ] {
        world.empty().await;
        let daemon = world.daemon_with(&["greylisting"], |settings| settings.invalid_address = mode).await;
        let mut client = Client::connect(&daemon);
        let before = answers(&events).len();
        let at_rcpt = arrival("O'B@Sender.Test", "alice@example.com", "203.0.113.10");
        let mut at_end = submission("o'b@sender.test", "1", "10");
        at_end.retain(|(name, _)| *name != "sasl_username");
        for request in [&at_rcpt, &at_end] {
            assert_eq!(client.ask(request).await, action);
        }
        let lines = answers(&events).split_off(before);
        let [rcpt, end] = &lines[..] else { panic!("{lines:?}") };
        for (line, state, client) in [(rcpt, "RCPT", "203.0.113.10"), (end, "END-OF-MESSAGE", "192.0.2.7")] {
            for part in [
                format!("action={action:?}"),
                "reason=\"invalid sender address: o'b@sender.test\"".to_owned(),
                format!("state={state:?}"),
                format!("client={client:?}"),
                "sender=\"o'b@sender.test\"".to_owned(),
            ] {
                assert!(line.contains(&part), "{part}: {line}");
            }
        }
        // At RCPT a row for everything but DUNNO, at the end of a message for all.
        let expected: &[&str] =
            if mode == InvalidAddress::Pass { &["192.0.2.7"] } else { &["203.0.113.10", "192.0.2.7"] };
        let expected = expected.iter().map(|client| [kept[0], kept[1], "o'b@sender.test", client]);
        let expected: Vec<_> = expected.map(|row| row.map(str::to_owned)).collect();
        assert_eq!(rows(&world, expected.len()).await, expected);
    }
}

/// So does one that took too long, or that made a rule panic.
#[tokio::test]
async fn requests_that_were_given_up_have_line_and_row() {
    let world = World::sqlite().await;
    // The listener takes the connection and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let step = ForwardSettings {
        address: Some(ListenAddress::local(port)),
        states: vec![ProtocolState::EndOfMessage],
        ..ForwardSettings::default()
    };
    let daemon =
        world.daemon_with(&[], |settings| settings.forward = [("silent".to_owned(), step)].into()).await;
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let request = submission("a@example.com", "1", "10");
    let action = DEFER.to_owned();
    let mut client = Client::with_deadline(&daemon, Duration::from_millis(100));
    assert_eq!(client.ask(&request).await, action);
    let request: String = request.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let mut buffer = BytesMut::from(format!("{request}\n").as_str());
    let request = Decoder::new(Limits::default()).decode(&mut buffer).expect("a request").expect("whole");
    daemon.given_up(&request, &action.into(), Failure::Panic, Duration::from_secs(1));

    let lines = answers(&events);
    let [overdue, panicked] = &lines[..] else { panic!("{lines:?}") };
    for (line, reason, result) in
        [(overdue, "not decided in time", "overdue"), (panicked, "a rule panicked", "panic")]
    {
        for part in [
            &format!("action={DEFER:?}"),
            &format!("reason={reason:?}"),
            "client=\"192.0.2.7\"",
            "sender=\"a@example.com\"",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let metric = format!("outrider_policyd_decisions_total{{check=\"none\",action={result:?}}} 1\n");
        assert!(daemon.metrics.render().contains(&metric), "{metric}");
    }
    let row = ["DEFER_IF_PERMIT", "Service temporarily unavailable", "a@example.com", "192.0.2.7"];
    assert_eq!(rows(&world, 2).await, [row, row].map(|row| row.map(str::to_owned)));
}
