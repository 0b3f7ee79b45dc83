//! Conversations written down as data, in `tests/conversations/*.txt`:
//!
//! ```text
//! # a remark
//! T: plugins = ["reject_null_sender"]    a line of settings (TOML)
//! I: INSERT INTO throttle ...            a statement for the database iredapd
//! A: INSERT INTO wblist ...              the same for the database amavisd
//! C: sender=                             a line of the client
//! S: action=DUNNO                        a line of the server
//! ---                                    the next connection
//! X:                                     the server closes the connection
//! ```
//!
//! `\xNN` stands for a byte. Each connection is played in one piece, byte by byte, and cut at chance: the answers must be
//! the same.

use std::sync::Arc;

use outrider_core::random::{Random, SeededRandom};
use outrider_core::schema::Database;
use outrider_policyd::{Policyd, Settings};

use crate::world::{Client, World};

struct Dialogue {
    client: Vec<u8>,
    server: Vec<String>,
    closes: bool,
}

struct Conversation {
    settings: String,
    rows: Vec<(Database, String)>,
    dialogues: Vec<Dialogue>,
}

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

fn parse(text: &str) -> Conversation {
    let mut settings = String::new();
    let mut rows = Vec::new();
    let mut dialogues = Vec::new();
    for part in text.split("\n---\n") {
        let mut dialogue = Dialogue { client: Vec::new(), server: Vec::new(), closes: false };
        for line in part.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let value = line.get(3..).unwrap_or_default();
            match &line[..2] {
                "T:" => settings.push_str(&format!("{value}\n")),
                "I:" => rows.push((Database::Iredapd, value.to_owned())),
                "A:" => rows.push((Database::Amavisd, value.to_owned())),
                "C:" => {
                    dialogue.client.extend(bytes(value));
                    dialogue.client.push(b'\n');
                }
                "S:" if !value.is_empty() => {
                    dialogue.server.push(value.strip_prefix("action=").expect("an action").to_owned());
                }
                "S:" => {}
                "X:" => dialogue.closes = true,
                other => panic!("{other:?} begins no line of a conversation"),
            }
        }
        dialogues.push(dialogue);
    }
    Conversation { settings, rows, dialogues }
}

async fn play(name: &str, daemon: &Arc<Policyd>, dialogue: &Dialogue, cut: &mut dyn FnMut(usize) -> usize) {
    let mut client = Client::connect(daemon);
    let mut rest = dialogue.client.as_slice();
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        client.send(piece).await;
        tokio::task::yield_now().await;
        rest = next;
    }
    for expected in &dialogue.server {
        let answer = client.answer().await;
        assert_eq!(answer.as_deref(), Some(expected.as_str()), "{name}");
    }
    if dialogue.closes {
        assert_eq!(client.answer().await, None, "{name}");
    }
}

#[tokio::test]
async fn conversations_go_as_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conversations");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).expect("text");
        let conversation = parse(&text);
        let world = World::sqlite().await;
        for (database, sql) in &conversation.rows {
            let db = if *database == Database::Iredapd { &world.iredapd } else { &world.amavisd };
            // Statements are constants everywhere else, and so the type asks for one.
            world.script(db, sql.clone().leak()).await;
        }
        let wanted: Settings =
            toml::from_str(&conversation.settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        let plugins: Vec<&str> = wanted.plugins.iter().map(String::as_str).collect();
        let daemon = world
            .daemon_with(&plugins, |settings| {
                settings.invalid_address = wanted.invalid_address;
                settings.recipient_delimiters = wanted.recipient_delimiters.clone();
            })
            .await;
        let random = SeededRandom::new(played);
        for dialogue in &conversation.dialogues {
            play(&name, &daemon, dialogue, &mut |length| length).await;
            play(&name, &daemon, dialogue, &mut |_| 1).await;
            play(&name, &daemon, dialogue, &mut |_| 1 + (random.next_u64() % 40) as usize).await;
        }
        played += 1;
    }
    assert!(played >= 4, "only {played} conversations were found");
}
