//! One SMTP connection to a next hop.

use super::connect::Link;
use bytes::BytesMut;
use outrider_core::codec::smtp::capability::Capability;
use outrider_core::codec::smtp::data::Stuffer;
use outrider_core::codec::smtp::reply::{self, NextHopReply, ReplyError};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

/// Why a delivery did not come to a decision. All of them are temporary for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// The next hop said something that makes no sense here.
    #[error("{0}")]
    Protocol(&'static str),
    /// Its reply could not be read.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// No decision within the time for one message.
    #[error("timed out")]
    Timeout,
    /// Our own copy of the mail could not be read.
    #[error("{0}")]
    Store(String),
    /// Nothing was asked for this recipient, because another one was deferred.
    #[error("other recipients deferred")]
    Abandoned,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Broken(error.to_string())
    }
}

/// A connection after its greeting.
pub(super) struct Connection {
    link: Box<dyn Link>,
    input: BytesMut,
    capabilities: Vec<Capability>,
    /// Nothing is known to be wrong with it.
    sound: bool,
    used: Instant,
}

impl Connection {
    /// Reads the greeting and says EHLO (HELO to a server that does not know EHLO).
    pub(super) async fn greet(link: Box<dyn Link>, name: &str) -> Result<Connection, Trouble> {
        let mut connection = Connection {
            link,
            input: BytesMut::new(),
            capabilities: Vec::new(),
            sound: true,
            used: Instant::now(),
        };
        if connection.reply().await?.code != 220 {
            return Err(Trouble::Protocol("greeting is not 220"));
        }
        let ehlo = connection.commands(&[format!("EHLO {name}").into_bytes()]).await?.remove(0);
        if ehlo.class() == 2 {
            connection.capabilities = ehlo.capabilities();
            return Ok(connection);
        }
        let helo = connection.commands(&[format!("HELO {name}").into_bytes()]).await?.remove(0);
        if helo.class() == 2 { Ok(connection) } else { Err(Trouble::Protocol("HELO refused")) }
    }

    pub(super) fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    pub(super) fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// True when the connection may serve another message.
    pub(super) fn is_sound(&self) -> bool {
        self.sound && self.input.is_empty()
    }

    /// When it last served a message.
    pub(super) fn used(&self) -> Instant {
        self.used
    }

    /// Marks the connection as not to be used again.
    pub(super) fn spoil(&mut self) {
        self.sound = false;
    }

    /// Sends commands, in one write if the next hop allows pipelining, and reads one reply for each.
    pub(super) async fn commands(&mut self, commands: &[Vec<u8>]) -> Result<Vec<NextHopReply>, Trouble> {
        let mut replies = Vec::with_capacity(commands.len());
        // Without PIPELINING each command waits for the reply to the one before.
        let group = if self.has(&Capability::Pipelining) { commands.len().max(1) } else { 1 };
        for group in commands.chunks(group) {
            if !self.input.is_empty() {
                return Err(Trouble::Protocol("reply without a command"));
            }
            let mut wire = Vec::with_capacity(group.iter().map(|command| command.len() + 2).sum());
            for command in group {
                wire.extend_from_slice(command);
                wire.extend_from_slice(b"\r\n");
            }
            // The replies to a long group can fill the pipe while we still write; so both go on at the same time.
            let (mut reader, mut writer) = tokio::io::split(&mut self.link);
            let write = async {
                writer.write_all(&wire).await?;
                writer.flush().await
            };
            let read = read_replies(&mut reader, &mut self.input, group.len());
            let (written, read) = tokio::join!(write, read);
            // What the next hop said counts more than that it hung up afterwards.
            let read = read?;
            written?;
            self.sound &= read.iter().all(|reply| reply.code != 421);
            replies.extend(read);
        }
        self.used = Instant::now();
        Ok(replies)
    }

    /// Reads one reply.
    pub(super) async fn reply(&mut self) -> Result<NextHopReply, Trouble> {
        let replies = read_replies(&mut self.link, &mut self.input, 1).await?;
        self.used = Instant::now();
        let reply = replies.into_iter().next().ok_or(Trouble::Protocol("no reply"))?;
        self.sound &= reply.code != 421;
        Ok(reply)
    }

    /// Looks, without waiting, whether a reply or the end of the connection has come unasked.
    pub(super) async fn expect_silence(&mut self) -> Result<(), Trouble> {
        if self.input.is_empty() {
            self.peek().await?;
        }
        if self.input.is_empty() { Ok(()) } else { Err(Trouble::Protocol("reply without a command")) }
    }

    /// Takes what is there to be read, without waiting.
    async fn peek(&mut self) -> Result<(), Trouble> {
        let mut octets = [0; 512];
        let mut buffer = ReadBuf::new(&mut octets);
        let link = &mut self.link;
        let closed = poll_fn(|context| match Pin::new(&mut *link).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().is_empty())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        })
        .await?;
        if closed {
            return Err(Trouble::Broken("connection closed".to_owned()));
        }
        self.input.extend_from_slice(buffer.filled());
        Ok(())
    }
}

async fn read_replies(
    reader: &mut (impl AsyncReadExt + Unpin),
    input: &mut BytesMut,
    count: usize,
) -> Result<Vec<NextHopReply>, Trouble> {
    let mut replies = Vec::with_capacity(count);
    while replies.len() < count {
        match reply::decode(input)? {
            Some(reply) => replies.push(reply),
            None => {
                if reader.read_buf(input).await? == 0 {
                    return Err(Trouble::Broken("connection closed".to_owned()));
                }
            }
        }
    }
    Ok(replies)
}

/// Writes the mail: small pieces are gathered, large ones go out from where they lie.
pub(super) struct Wire<'a> {
    connection: &'a mut Connection,
    gathered: Vec<u8>,
    stuffer: Stuffer,
    /// Something has been written.
    flushed: bool,
}

/// Pieces below this size are worth a copy to save a write.
const SMALL: usize = 8 * 1024;
const GATHER: usize = 64 * 1024;

impl<'a> Wire<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Wire<'a> {
        Wire {
            connection,
            gathered: Vec::with_capacity(SMALL * 2),
            stuffer: Stuffer::default(),
            flushed: false,
        }
    }

    /// Text of the mail, not stuffed yet.
    pub(super) async fn text(&mut self, text: &[u8]) -> Result<(), Trouble> {
        for piece in self.stuffer.stuff(text) {
            if piece.len() >= SMALL {
                self.flush().await?;
                self.connection.link.write_all(piece).await?;
                self.flushed = true;
            } else {
                self.gathered.extend_from_slice(piece);
                if self.gathered.len() >= GATHER {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        if !self.gathered.is_empty() {
            self.connection.link.write_all(&self.gathered).await?;
            self.gathered.clear();
            self.flushed = true;
        }
        Ok(())
    }

    /// Writes the final dot, unless the next hop has replied already: then that reply is returned and the mail has
    /// no end.
    ///
    /// A short mail goes out in one write with its dot. Of a longer one everything else goes first, so that a reply
    /// sent while it was on its way is seen before the dot and never taken for the reply to it.
    pub(super) async fn finish(
        mut self,
        committed: &(dyn Fn() + Sync),
    ) -> Result<Option<NextHopReply>, Trouble> {
        if self.flushed || self.gathered.len() > SMALL {
            self.flush().await?;
            self.connection.link.flush().await?;
        }
        if self.connection.input.is_empty() {
            self.connection.peek().await?;
        }
        if !self.connection.input.is_empty() {
            self.connection.spoil();
            return self.connection.reply().await.map(Some);
        }
        let end = self.stuffer.finish();
        self.gathered.extend_from_slice(end);
        committed();
        self.flush().await?;
        self.connection.link.flush().await?;
        Ok(None)
    }
}
