//! Opening a stream to a next hop; simulations put their own next hop here.

use crate::hop::{NextHop, Target};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest wait for a connection to a next hop.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The bytes of a connection to a next hop.
pub trait Link: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Link for T {}

/// A stream on its way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Link>>> + Send + 'a>>;

/// Opens streams to next hops.
pub trait Connect: Send + Sync {
    /// Opens one.
    fn connect<'a>(&'a self, hop: &'a NextHop) -> Connecting<'a>;
}

/// Real sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemConnect;

impl Connect for SystemConnect {
    fn connect<'a>(&'a self, hop: &'a NextHop) -> Connecting<'a> {
        Box::pin(async move {
            let opening = async {
                Ok(match &hop.target {
                    Target::Tcp(host, port) => {
                        let stream = TcpStream::connect((host.as_str(), *port)).await?;
                        // Each write is a whole step of the dialogue; waiting for more would only cost time.
                        stream.set_nodelay(true)?;
                        Box::new(stream) as Box<dyn Link>
                    }
                    Target::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Link>,
                })
            };
            let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
            tokio::time::timeout(CONNECT_TIMEOUT, opening).await.map_err(timed_out)?
        })
    }
}
