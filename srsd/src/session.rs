//! One connection: reads, lets the [`Conversation`] answer, writes.
//!
//! All requests that arrived together are answered with one write. A connection without a request for
//! `limits.idle_timeout` is closed, whether nothing or half a request was sent.

use crate::conversation::{Conversation, Flow, Lookup};
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

/// Room offered to one read: several requests as Postfix sends them. Hundreds of connections wait with it for their next
/// one.
const READ: usize = 1024;
/// How much of what a client still sends is read and thrown away after we have closed our side.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    /// Time without a request after which the connection is closed.
    pub(crate) idle: Duration,
    /// Time for the client to take its answers.
    pub(crate) request: Duration,
}

/// Serves one connection until the client closes it, a bound is exceeded or `stop` completes. `lookup` is called
/// for each batch of requests, so that new settings take effect on connections that stay open.
pub(crate) async fn serve<S, L, F>(
    mut stream: S,
    mut conversation: Conversation,
    lookup: impl Fn() -> F,
    limits: SessionLimits,
    stop: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    L: Lookup,
    F: Future<Output = L>,
{
    match talk(&mut stream, &mut conversation, lookup, limits, stop).await {
        Ok(End::Quiet) => {}
        // Boxed: every connection would hold its buffer otherwise.
        Ok(End::Refused) => Box::pin(linger(stream)).await,
        Err(error) => tracing::debug!(%error, "connection ended"),
    }
}

enum End {
    /// The client has gone, or nothing of it is unread.
    Quiet,
    /// We want no more of what the client sends.
    Refused,
}

async fn talk<S, L, F>(
    stream: &mut S,
    conversation: &mut Conversation,
    lookup: impl Fn() -> F,
    limits: SessionLimits,
    stop: impl Future<Output = ()>,
) -> io::Result<End>
where
    S: AsyncRead + AsyncWrite + Unpin,
    L: Lookup,
    F: Future<Output = L>,
{
    let mut stop = pin!(stop);
    let (mut buffer, mut out) = (BytesMut::with_capacity(READ), BytesMut::new());
    let mut active = Instant::now();
    // One timer for the life of the connection: it is looked at when it fires, not moved at each request.
    let mut idle = pin!(sleep_until(active + limits.idle));
    loop {
        buffer.reserve(READ);
        tokio::select! {
            biased;
            read = stream.read_buf(&mut buffer) => if read? == 0 {
                return Ok(End::Quiet);
            },
            () = &mut stop => return Ok(End::Quiet),
            () = &mut idle => {
                let deadline = active + limits.idle;
                if deadline <= Instant::now() {
                    return Ok(End::Quiet);
                }
                idle.as_mut().reset(deadline);
                continue;
            }
        }
        let flow = conversation.feed(&mut buffer, &mut out, &lookup().await).await;
        if !out.is_empty() {
            active = Instant::now();
            timeout(limits.request, stream.write_all(&out)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            out.clear();
        }
        if flow == Flow::Close {
            return Ok(End::Refused);
        }
    }
}

/// Closes our side and reads what the client still sends: closing with unread bytes would make the kernel
/// reset the connection, and the client might lose the last answer.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES;
        loop {
            match stream.read(&mut scratch).await? {
                0 => return io::Result::Ok(()),
                read if read >= left => return Ok(()),
                read => left -= read,
            }
        }
    };
    // Best effort towards a client that broke the protocol.
    let _ = timeout(LINGER_TIME, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Direction;
    use outrider_core::forwarding::{Forward, Reverse};
    use outrider_core::srs::Reversed;
    use std::future::pending;

    struct Echo;

    impl Lookup for Echo {
        async fn forward(&self, key: &str) -> Forward {
            Forward::Rewritten(key.to_owned())
        }

        async fn reverse(&self, key: &str) -> Reverse {
            Reverse::Original(Reversed { address: key.to_owned(), srs1: false })
        }

        fn defers(&self) -> bool {
            false
        }
    }

    const LIMITS: SessionLimits =
        SessionLimits { idle: Duration::from_secs(310), request: Duration::from_secs(2) };

    fn connect(
        buffer: usize,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(buffer);
        let conversation = Conversation::new(Direction::Forward);
        let task = tokio::spawn(serve(far, conversation, || async { Echo }, LIMITS, stop));
        (near, task)
    }

    async fn to_end(near: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_answered() {
        let (mut near, task) = connect(1024, pending());
        near.write_all(b"get a\nget b\nge").await.unwrap();
        let mut got = [0; 12];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"200 a\n200 b\n");
        near.write_all(b"t c\n").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(to_end(&mut near).await, "200 c\n");
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_client_gets_its_answer_and_may_finish_sending() {
        let (mut near, task) = connect(16 * 1024, pending());
        near.write_all(b"get ").await.unwrap();
        near.write_all(&[b'a'; 10_000]).await.unwrap();
        let begin = Instant::now();
        assert_eq!(to_end(&mut near).await, "500 Request too long.\n");
        near.write_all(&[b'a'; 10_000]).await.unwrap();
        task.await.unwrap();
        assert!(begin.elapsed() <= LINGER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_and_dripping_clients_are_closed() {
        let (mut near, _task) = connect(1024, pending());
        let begin = Instant::now();
        tokio::time::sleep(Duration::from_secs(300)).await;
        near.write_all(b"get a\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        near.write_all(b"g").await.unwrap();
        assert_eq!(to_end(&mut near).await, "200 a\n");
        assert_eq!(begin.elapsed().as_secs(), 610);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let begin = Instant::now();
        let (mut near, task) = connect(8, pending());
        near.write_all(b"get aaaaaaaaaaaaaaaaaaaaaa\n").await.unwrap();
        task.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_closes_idle_connections() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (mut near, task) = connect(1024, async { drop(stopped.await) });
        near.write_all(b"get a\n").await.unwrap();
        let mut got = [0; 6];
        near.read_exact(&mut got).await.unwrap();
        drop(stop);
        assert_eq!(to_end(&mut near).await, "");
        task.await.unwrap();
    }
}
