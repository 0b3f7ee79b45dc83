//! An accepted connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Activity;

/// The bytes of a connection, over TCP (without Nagle's delay) or a UNIX socket.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
    activity: Activity,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A TCP connection. Answers are small and wanted at once, so Nagle's algorithm is turned off.
    pub fn tcp(stream: TcpStream) -> Stream {
        // Fails only on a connection that is already gone, which the next read tells.
        let _ = stream.set_nodelay(true);
        Stream { kind: Kind::Tcp(stream), activity: Activity::new() }
    }

    /// A connection over a UNIX socket.
    pub fn unix(stream: UnixStream) -> Stream {
        Stream { kind: Kind::Unix(stream), activity: Activity::new() }
    }

    /// When bytes were last read or written.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Whether the other end, at this moment, has neither said anything that was not read nor closed.
    pub fn is_quiet(&self) -> bool {
        let descriptor = match &self.kind {
            Kind::Tcp(stream) => stream.as_raw_fd(),
            Kind::Unix(stream) => stream.as_raw_fd(),
        };
        // Asked of the kernel: what the runtime knows is as old as its last look.
        let peeked = recv(descriptor, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        peeked == Err(Errno::EAGAIN)
    }

    fn note<T>(&self, result: Poll<T>) -> Poll<T> {
        if result.is_ready() {
            self.activity.touch();
        }
        result
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        this.note(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        this.note(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        };
        this.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Address and port of a TCP client; an IPv4 client of an IPv6 socket has its IPv4 address.
    Tcp(SocketAddr),
    /// A program of this machine.
    Unix,
}

impl Peer {
    /// The client's address; `None` over a UNIX socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }

    /// The peer of a TCP connection, IPv4-mapped IPv6 addresses taken as IPv4.
    pub fn from_socket(address: SocketAddr) -> Peer {
        Peer::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(out),
            Peer::Unix => out.write_str("unix"),
        }
    }
}

/// Our end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// The address and port that the client connected to.
    Tcp(SocketAddr),
    /// The path of the UNIX socket.
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Tcp(address) => address.fmt(out),
            Local::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// One accepted connection, as a daemon gets it.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// Who connected.
    pub peer: Peer,
    /// Where to.
    pub local: Local,
    /// The role of the listener, see [`ListenerSpec`](crate::settings::ListenerSpec).
    pub role: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use tokio::io::AsyncReadExt as _;

    /// What has just arrived counts, though the runtime has not looked since.
    #[tokio::test]
    async fn quiet_is_what_the_kernel_says() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = Stream::tcp(listener.accept().await.unwrap().0);
        assert!(stream.is_quiet());
        peer.write_all(b"ab").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 2);
        assert!(stream.is_quiet());
        peer.write_all(b"c").unwrap();
        assert!(!stream.is_quiet(), "a byte");
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
        drop(peer);
        assert!(!stream.is_quiet(), "the end");
    }
}
