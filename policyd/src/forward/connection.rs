//! One connection to a policy server.

use std::io;

use bytes::BytesMut;
use outrider_core::codec::policy_answer;
use outrider_core::net::Stream;
use outrider_core::settings::ListenAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::Cause;

/// Room offered to one read: nearly every answer.
const READ: usize = 512;

pub(super) struct Connection {
    stream: Stream,
    read: BytesMut,
    spoken: bool,
}

impl Connection {
    /// Opens one.
    pub(super) async fn open(address: &ListenAddress) -> io::Result<Connection> {
        let stream = match address {
            ListenAddress::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
            ListenAddress::Unix(path) => Stream::unix(UnixStream::connect(path).await?),
        };
        Ok(Connection { stream, read: BytesMut::new(), spoken: false })
    }

    /// Sends a question and reads the answer. After an error, or if the future is dropped, the connection must be closed.
    pub(super) async fn ask(&mut self, question: &[u8]) -> Result<String, Cause> {
        self.spoken = false;
        self.stream.write_all(question).await?;
        loop {
            self.read.reserve(READ);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(Cause::Closed);
            }
            self.spoken = true;
            if let Some(answer) = policy_answer::decode(&mut self.read)? {
                return Ok(answer);
            }
        }
    }

    /// Whether something came back after the last question.
    pub(super) fn has_spoken(&self) -> bool {
        self.spoken
    }

    /// Whether nothing came behind the answer.
    pub(super) fn is_finished(&self) -> bool {
        self.read.is_empty()
    }

    /// Whether, between two questions, nothing was said and the other end is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }
}
