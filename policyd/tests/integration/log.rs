//! What is written about an answer.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::world::{Client, World, arrival};

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
        "elapsed_ms=",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}
