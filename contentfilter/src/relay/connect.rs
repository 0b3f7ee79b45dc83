//! Opening a stream to a next hop; simulations put their own next hop here.

use crate::hop::{NextHop, Target};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Remembers whether the last attempt to reach a next hop succeeded, for health checks.
pub struct Watched {
    inner: Arc<dyn Connect>,
    failure: Mutex<Option<String>>,
}

impl Watched {
    /// Watches another way to connect.
    pub fn new(inner: Arc<dyn Connect>) -> Watched {
        Watched { inner, failure: Mutex::default() }
    }

    /// Why the last attempt failed; `None` after a success and before the first attempt.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Connect for Watched {
    fn connect<'a>(&'a self, hop: &'a NextHop) -> Connecting<'a> {
        Box::pin(async move {
            let result = self.inner.connect(hop).await;
            let failure = result.as_ref().err().map(|error| format!("{hop}: {error}"));
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_attempt_is_remembered() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let hop = NextHop::local(listener.local_addr().expect("an address").port());
        let watched = Watched::new(Arc::new(SystemConnect));
        assert_eq!(watched.failure(), None);
        assert!(watched.connect(&hop).await.is_ok());
        assert_eq!(watched.failure(), None);
        drop(listener);
        assert!(watched.connect(&hop).await.is_err());
        let failure = watched.failure().expect("a failure");
        assert!(failure.starts_with(&hop.to_string()), "{failure}");
    }
}
