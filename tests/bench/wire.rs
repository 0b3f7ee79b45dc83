//! One question, one answer over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::{Latencies, Phase};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a protocol is spoken with one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What ends an answer.
    pub(crate) end: &'static [u8],
    /// What a right answer begins with, one of them.
    pub(crate) good: &'static [&'static str],
}

impl Peer {
    /// A policy server (SMTPD_POLICY_README of Postfix).
    pub(crate) fn policy(address: SocketAddr, good: &'static [&'static str]) -> Self {
        Self { address, end: b"\n\n", good }
    }

    /// A `tcp_table` server (tcp_table(5)).
    pub(crate) fn tcp_table(address: SocketAddr) -> Self {
        Self { address, end: b"\n", good: &["200 "] }
    }

    fn check(&self, answer: &[u8]) -> Result<()> {
        if self.good.iter().any(|start| answer.starts_with(start.as_bytes())) {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(answer);
        bail!("{} answered {answer:?}, expected one of {:?}", self.address, self.good)
    }
}

/// Writes the question of a number into an empty buffer.
pub(crate) type Question = Box<dyn FnMut(u64, &mut Vec<u8>) + Send>;

/// What one connection says to whom.
pub(crate) struct Dialogue {
    pub(crate) peer: Peer,
    pub(crate) question: Question,
}

impl Dialogue {
    /// The same question over and over.
    pub(crate) fn constant(peer: Peer, question: impl Into<Vec<u8>>) -> Self {
        let question = question.into();
        Self { peer, question: Box::new(move |_, out| out.extend_from_slice(&question)) }
    }

    /// A question for each number.
    pub(crate) fn new(peer: Peer, question: impl FnMut(u64, &mut Vec<u8>) + Send + 'static) -> Self {
        Self { peer, question: Box::new(question) }
    }
}

/// Talks on so many connections until the point is over; the latencies of all in microseconds.
pub(crate) fn talk(
    connections: usize,
    dialogue: &(dyn Fn(usize) -> Dialogue + Sync),
    phase: &Arc<Phase>,
) -> Result<Vec<u32>> {
    if connections == 1 {
        return talk_alone(dialogue(0), phase);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|number| tokio::spawn(talk_in_turn(dialogue(number), Arc::clone(phase))))
            .collect();
        while !phase.is_over() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut all = Vec::new();
        for task in tasks {
            let latencies = tokio::time::timeout(PATIENCE, task).await;
            all.extend(latencies.context("an answer did not come")???);
        }
        Ok(all)
    })
}

/// Asks `questions` questions, one after the other, without measuring anything.
pub(crate) fn ask(mut dialogue: Dialogue, questions: u64) -> Result<()> {
    let mut connection = Blocking::connect(&dialogue.peer)?;
    for count in 0..questions {
        connection.exchange(&mut dialogue, count)?;
    }
    Ok(())
}

fn talk_alone(mut dialogue: Dialogue, phase: &Phase) -> Result<Vec<u32>> {
    let mut connection = Blocking::connect(&dialogue.peer)?;
    let mut latencies = Latencies::new();
    for count in 0.. {
        if phase.is_over() {
            break;
        }
        connection.exchange(&mut dialogue, count)?;
        latencies.answered(phase);
    }
    Ok(latencies.into_micros())
}

/// A connection for blocking calls.
struct Blocking {
    stream: TcpStream,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Blocking {
    fn connect(peer: &Peer) -> Result<Self> {
        let stream =
            TcpStream::connect(peer.address).with_context(|| format!("connecting to {}", peer.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, question: Vec::with_capacity(2048), answer: vec![0; 16_384] })
    }

    fn exchange(&mut self, dialogue: &mut Dialogue, count: u64) -> Result<()> {
        let peer = dialogue.peer;
        self.question.clear();
        (dialogue.question)(count, &mut self.question);
        self.stream.write_all(&self.question)?;
        let mut filled = 0;
        while !self.answer[..filled].ends_with(peer.end) {
            let size = self.stream.read(&mut self.answer[filled..])?;
            if size == 0 {
                bail!("{} closed the connection", peer.address);
            }
            filled += size;
        }
        peer.check(&self.answer[..filled])
    }
}

/// The same among others in one event loop.
async fn talk_in_turn(mut dialogue: Dialogue, phase: Arc<Phase>) -> Result<Vec<u32>> {
    let peer = dialogue.peer;
    let mut stream = tokio::net::TcpStream::connect(peer.address)
        .await
        .with_context(|| format!("connecting to {}", peer.address))?;
    stream.set_nodelay(true)?;
    let (mut question, mut answer) = (Vec::with_capacity(2048), vec![0; 16_384]);
    let mut latencies = Latencies::new();
    for count in 0.. {
        if phase.is_over() {
            break;
        }
        question.clear();
        (dialogue.question)(count, &mut question);
        stream.write_all(&question).await?;
        let mut filled = 0;
        while !answer[..filled].ends_with(peer.end) {
            let size = stream.read(&mut answer[filled..]).await?;
            if size == 0 {
                bail!("{} closed the connection", peer.address);
            }
            filled += size;
        }
        peer.check(&answer[..filled])?;
        latencies.answered(&phase);
    }
    Ok(latencies.into_micros())
}
