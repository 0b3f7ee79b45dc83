//! A name server that answers as no real one does: whatever bytes a script makes of a question, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::dns_server::encoded_name;

/// Record types.
pub const A: u16 = 1;
/// An alias.
pub const CNAME: u16 = 5;
/// Text.
pub const TXT: u16 = 16;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name in lower case, without the final dot.
    pub name: String,
    /// The type.
    pub kind: u16,
    /// How it came.
    pub transport: Transport,
    id: [u8; 2],
    question: Vec<u8>,
}

impl Question {
    fn read(packet: &[u8], transport: Transport) -> Option<Question> {
        let (mut labels, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        Some(Question {
            name: labels.join("."),
            kind: u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]),
            transport,
            id: [packet[0], packet[1]],
            question: packet.get(12..at + 4)?.to_vec(),
        })
    }

    /// An answer to it, without any record so far.
    pub fn reply(&self) -> Reply {
        Reply {
            id: self.id,
            flags: [0x85, 0x80],
            question: self.question.clone(),
            sections: Default::default(),
        }
    }
}

/// The sections of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who would know.
    Authority,
    /// What may be of use.
    Additional,
}

/// An answer under construction.
#[derive(Clone, Debug)]
pub struct Reply {
    id: [u8; 2],
    flags: [u8; 2],
    question: Vec<u8>,
    sections: [Vec<Vec<u8>>; 3],
}

impl Reply {
    /// Another number than that of the question.
    pub fn wrong_id(mut self) -> Self {
        self.id[0] ^= 0x55;
        self
    }

    /// As if another name had been asked for.
    pub fn about(mut self, name: &str) -> Self {
        let rest = self.question.split_off(self.question.len() - 4);
        self.question = [encoded_name(name), rest].concat();
        self
    }

    /// Says that it is not whole.
    pub fn truncated(mut self) -> Self {
        self.flags[0] |= 2;
        self
    }

    /// The name does not exist.
    pub fn no_such_name(mut self) -> Self {
        self.flags[1] |= 3;
        self
    }

    /// A record with these data.
    pub fn record(mut self, section: Section, name: &str, kind: u16, data: &[u8]) -> Self {
        let mut record = encoded_name(name);
        record.extend(kind.to_be_bytes());
        // Class IN, a minute.
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        record.extend(data);
        self.sections[section as usize].push(record);
        self
    }

    /// A text in the answer section.
    pub fn txt(self, name: &str, text: &str) -> Self {
        self.record(Section::Answer, name, TXT, &text_data(text))
    }

    /// An alias in the answer section.
    pub fn cname(self, name: &str, target: &str) -> Self {
        self.record(Section::Answer, name, CNAME, &encoded_name(target))
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.id, self.flags, [0, 1]].concat();
        for section in &self.sections {
            bytes.extend(u16::try_from(section.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
        bytes.extend(&self.question);
        self.sections.iter().flatten().for_each(|record| bytes.extend(record));
        bytes
    }
}

/// The data of a TXT record: strings of at most 255 bytes.
pub fn text_data(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(255)
        .flat_map(|piece| [&[u8::try_from(piece.len()).unwrap_or(255)], piece].concat())
        .collect()
}

type Script = dyn Fn(&Question) -> Vec<Vec<u8>> + Send + Sync;

struct State {
    script: Box<Script>,
    asked: Mutex<Vec<Question>>,
    closing: AtomicBool,
}

impl State {
    fn answers(&self, packet: &[u8], transport: Transport) -> Vec<Vec<u8>> {
        let Some(question) = Question::read(packet, transport) else { return Vec::new() };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
        (self.script)(&question)
    }
}

/// The server; ends on drop.
pub struct HostileDns {
    address: SocketAddr,
    state: Arc<State>,
}

impl HostileDns {
    /// Listens on a free port of 127.0.0.1, over UDP and TCP. The script gives the packets sent in answer to a
    /// question, one after the other; none at all over TCP ends the connection.
    pub fn start(script: impl Fn(&Question) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Result<Self> {
        let (listener, socket) = (0..100)
            .find_map(|_| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let socket = UdpSocket::bind(listener.local_addr().ok()?).ok()?;
                Some((listener, socket))
            })
            .context("no port that is free for both UDP and TCP")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        listener.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let state = Arc::new(State {
            script: Box::new(script),
            asked: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut packet = [0_u8; 4096];
            while !shared.closing.load(Ordering::SeqCst) {
                let Ok((size, peer)) = socket.recv_from(&mut packet) else { continue };
                for answer in shared.answers(&packet[..size], Transport::Udp) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            while !shared.closing.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        std::thread::spawn(move || converse(stream, &shared));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The questions so far whose names end with this.
    pub fn asked(&self, end: &str) -> Vec<Question> {
        let asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|question| question.name.ends_with(end)).cloned().collect()
    }
}

impl Drop for HostileDns {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
    }
}

/// Messages over TCP have their length in front (RFC 1035, 4.2.2).
fn converse(mut stream: TcpStream, state: &State) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut packet).is_err() {
            return;
        }
        let answers = state.answers(&packet, Transport::Tcp);
        if answers.is_empty() {
            return;
        }
        for answer in answers {
            let Ok(size) = u16::try_from(answer.len()) else { return };
            if stream.write_all(&[&size.to_be_bytes()[..], &answer].concat()).is_err() {
                return;
            }
        }
    }
}
