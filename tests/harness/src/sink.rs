//! A fake mail exchanger of the rest of the world: records what it is given, and refuses, defers or stalls on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::wait::wait_for;

/// How the exchanger answers from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mood {
    /// 250 to everything.
    #[default]
    Accept,
    /// This reply (`550 5.1.1 no such user`, `451 4.3.0 later`) to every RCPT.
    AnswerRecipients(String),
    /// This reply to a RCPT that contains the text; 250 to all others.
    AnswerRecipient {
        /// Part of the address.
        containing: String,
        /// Code and text.
        reply: String,
    },
    /// This reply to the final dot.
    AnswerData(String),
    /// Reads but never answers the final dot.
    Stall,
}

/// A message as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The reverse path without angle brackets; empty for the null sender.
    pub sender: String,
    /// What followed the reverse path in MAIL.
    pub parameters: String,
    /// The forward paths without angle brackets.
    pub recipients: Vec<String>,
    /// The message, dots unstuffed.
    pub message: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    received: Vec<Received>,
    refused: usize,
}

/// The running exchanger; stops listening on drop.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let closing = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&state), Arc::clone(&closing));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A broken connection ends only itself; the sender's queue shows what was not delivered.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(Self { address, state, closing })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mood.
    pub fn set_mood(&self, mood: Mood) {
        locked(&self.state).mood = mood;
    }

    /// Everything that was accepted so far.
    pub fn received(&self) -> Vec<Received> {
        locked(&self.state).received.clone()
    }

    /// How often it refused or deferred.
    pub fn refused(&self) -> usize {
        locked(&self.state).refused
    }

    /// Waits for the first message whose text contains `mark`.
    pub fn wait_for_text(&self, mark: &str) -> Received {
        wait_for(format_args!("a message with {mark:?} at the outside exchanger"), || {
            let state = locked(&self.state);
            state.received.iter().find(|received| memchr(&received.message, mark.as_bytes())).cloned()
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // One connection wakes the accept call so that the thread sees the flag.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len().max(1)).any(|window| window == needle)
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    writer.write_all(b"220 mx.world.example ESMTP\r\n")?;
    let (mut sender, mut parameters, mut recipients) = (String::new(), String::new(), Vec::new());
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        let mood = locked(state).mood.clone();
        let reply = match verb.as_str() {
            "EHLO" => "250-mx.world.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE".to_owned(),
            "MAIL" => {
                recipients.clear();
                let (path, rest) = path(&line);
                (sender, parameters) = (path, rest);
                "250 2.1.0 Ok".to_owned()
            }
            "RCPT" => {
                let recipient = path(&line).0;
                match mood {
                    Mood::AnswerRecipients(reply) => {
                        locked(state).refused += 1;
                        reply
                    }
                    Mood::AnswerRecipient { containing, reply } if recipient.contains(&containing) => {
                        locked(state).refused += 1;
                        reply
                    }
                    _ => {
                        recipients.push(recipient);
                        "250 2.1.5 Ok".to_owned()
                    }
                }
            }
            "DATA" if recipients.is_empty() => "554 5.5.1 no valid recipients".to_owned(),
            "DATA" => {
                writer.write_all(b"354 go on\r\n")?;
                let message = read_message(&mut reader)?;
                let mut state = locked(state);
                match state.mood.clone() {
                    Mood::AnswerData(reply) => {
                        state.refused += 1;
                        reply
                    }
                    Mood::Stall => continue,
                    Mood::Accept | Mood::AnswerRecipients(_) | Mood::AnswerRecipient { .. } => {
                        state.received.push(Received {
                            sender: std::mem::take(&mut sender),
                            parameters: std::mem::take(&mut parameters),
                            recipients: std::mem::take(&mut recipients),
                            message,
                        });
                        format!("250 2.0.0 Ok: queued as W{:05}", state.received.len())
                    }
                }
            }
            "QUIT" => {
                writer.write_all(b"221 2.0.0 Bye\r\n")?;
                return Ok(());
            }
            "HELO" | "RSET" | "NOOP" => "250 2.0.0 Ok".to_owned(),
            _ => "502 5.5.2 not known".to_owned(),
        };
        writer.write_all(format!("{reply}\r\n").as_bytes())?;
    }
}

/// Path and parameters of `MAIL FROM:<path> parameters`.
fn path(line: &str) -> (String, String) {
    let inner = line.split_once('<').map_or("", |(_, rest)| rest);
    let (path, rest) = inner.split_once('>').unwrap_or((inner, ""));
    (path.to_owned(), rest.trim().to_owned())
}

fn read_message(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let start = message.len();
        if reader.read_until(b'\n', &mut message)? == 0 {
            anyhow::bail!("closed within the message");
        }
        if &message[start..] == b".\r\n" {
            message.truncate(start);
            return Ok(message);
        }
        if message[start] == b'.' {
            message.remove(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, difficult_text};
    use crate::smtp_client::SmtpClient;

    #[test]
    fn records_what_it_was_given() {
        let sink = Sink::start().unwrap();
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        let message =
            Message::new("a@x.example", "b@y.example", "sink-1").body(difficult_text(30_000)).bytes();
        let outcome =
            client.send("a@x.example", " BODY=8BITMIME", &["b@y.example", "c@y.example"], &message).unwrap();
        assert!(outcome.accepted(), "{outcome:?}");
        let received = sink.wait_for_text("sink-1");
        assert_eq!(received.message, message);
        assert_eq!(received.recipients, ["b@y.example", "c@y.example"]);
        assert_eq!(
            (received.sender.as_str(), received.parameters.as_str()),
            ("a@x.example", "BODY=8BITMIME")
        );
    }

    #[test]
    fn answers_as_told() {
        let sink = Sink::start().unwrap();
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        let message = Message::new("a@x.example", "b@y.example", "sink-2").bytes();
        sink.set_mood(Mood::AnswerRecipients("550 5.1.1 nobody".into()));
        assert_eq!(client.send("a@x.example", "", &["b@y.example"], &message).unwrap().decisive().code, 550);
        sink.set_mood(Mood::AnswerData("451 4.3.0 later".into()));
        assert_eq!(client.send("a@x.example", "", &["b@y.example"], &message).unwrap().decisive().code, 451);
        sink.set_mood(Mood::Accept);
        assert!(client.send("a@x.example", "", &["b@y.example"], &message).unwrap().accepted());
        assert_eq!((sink.refused(), sink.received().len()), (2, 1));
    }
}
