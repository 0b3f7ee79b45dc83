//! The connection loop of a policy server, shared by policyd and quota-status.
//!
//! - Requests are answered in order. All requests that arrived together are answered with one
//!   write, but an answer that is ready never waits for a later request that is not.
//! - A request has a deadline ([`SessionLimits::request`]); when it is over, or when the handler
//!   panics, the peer gets [`PolicyHandler::overdue`] and the connection goes on.
//! - A connection on which no request was completed for [`SessionLimits::idle`] is closed, whether
//!   nothing or half a request was sent; Postfix itself closes after 300 s.
//! - A request beyond [`SessionLimits::codec`] ends the connection without an answer, upon which Postfix
//!   uses its `smtpd_policy_service_default_action`.
//! - When `stop` fires, the request in progress is answered, then the connection is closed.
//!
//! The quick path (request complete, handler ready at once) takes one read and one write a batch, sets
//! no timer and allocates once a request.

use crate::codec::policy::{self, Decoder, Limits, Request};
use bytes::BytesMut;
use futures_util::FutureExt;
use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

/// The text after `action=` of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action(pub Cow<'static, str>);

impl Action {
    /// `DUNNO`: no opinion.
    pub const DUNNO: Action = Action(Cow::Borrowed("DUNNO"));
}

impl From<&'static str> for Action {
    fn from(text: &'static str) -> Self {
        Action(Cow::Borrowed(text))
    }
}

impl From<String> for Action {
    fn from(text: String) -> Self {
        Action(Cow::Owned(text))
    }
}

/// What decides about a request.
pub trait PolicyHandler: Send + Sync {
    /// What the handler wants to know about the other end of the connection.
    type Peer: Send + Sync;

    /// Decides about one request. Left alone when the deadline is over.
    fn answer(&self, request: &Request, peer: &Self::Peer) -> impl Future<Output = Action> + Send;

    /// The answer when [`PolicyHandler::answer`] took too long or panicked.
    fn overdue(&self) -> Action;

    /// Told of each request that [`PolicyHandler::overdue`] answered, and of each connection that broke
    /// the protocol's bounds; for metrics.
    fn failed(&self, failure: Failure) {
        let _ = failure;
    }

    /// Told of each request that was answered with `action` from [`PolicyHandler::overdue`] after `elapsed`; for the log.
    fn given_up(&self, request: &Request, action: &Action, failure: Failure, elapsed: Duration) {
        let _ = (request, action, failure, elapsed);
    }
}

/// What went wrong in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A request was not answered within [`SessionLimits::request`].
    Deadline,
    /// The handler panicked.
    Panic,
    /// A request exceeded [`SessionLimits::codec`]; the connection was closed.
    Protocol,
}

/// Bounds of one connection.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// Bounds of one request.
    pub codec: Limits,
    /// Time without a completed request after which the connection is closed.
    pub idle: Duration,
    /// Time to answer one request, and to hand a batch of answers to the peer.
    pub request: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            codec: Limits::default(),
            idle: Duration::from_secs(310),
            request: Duration::from_secs(5),
        }
    }
}

/// Answers collected before they are written although more requests are waiting.
const BATCH: usize = 16 * 1024;
/// Room offered to one read.
const READ: usize = 8 * 1024;

/// Serves one connection until the peer closes it, a bound is exceeded or `stop` completes.
///
/// I/O errors of the peer end the session quietly: a client may leave whenever it likes.
pub async fn serve<S, H>(
    stream: S,
    peer: H::Peer,
    handler: &H,
    limits: &SessionLimits,
    stop: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: PolicyHandler,
{
    let mut session = Session { stream, peer, handler, limits, out: BytesMut::new() };
    if let Err(error) = session.run(stop).await {
        tracing::debug!(%error, "policy connection ended");
    }
}

struct Session<'a, S, H: PolicyHandler> {
    stream: S,
    peer: H::Peer,
    handler: &'a H,
    limits: &'a SessionLimits,
    out: BytesMut,
}

impl<S, H> Session<'_, S, H>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: PolicyHandler,
{
    async fn run(&mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut stop = pin!(stop);
        let mut decoder = Decoder::new(self.limits.codec.clone());
        let mut buffer = BytesMut::with_capacity(READ);
        let mut active = Instant::now();
        // One timer for the life of the connection: it is looked at when it fires, not moved at each request.
        let mut idle = pin!(sleep_until(active + self.limits.idle));
        loop {
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(request)) => {
                        self.answer(request).await?;
                        active = Instant::now();
                        if stop.as_mut().now_or_never().is_some() {
                            return self.flush().await;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "policy connection closed");
                        self.handler.failed(Failure::Protocol);
                        return self.flush().await;
                    }
                }
            }
            self.flush().await?;
            buffer.reserve(READ);
            loop {
                tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut buffer) => {
                        if read? == 0 {
                            return Ok(());
                        }
                        break;
                    }
                    () = &mut stop => return Ok(()),
                    () = &mut idle => {
                        let deadline = active + self.limits.idle;
                        if deadline <= Instant::now() {
                            return Ok(());
                        }
                        idle.as_mut().reset(deadline);
                    }
                }
            }
        }
    }

    /// Appends the answer to one request to what is to be written.
    async fn answer(&mut self, request: Request) -> io::Result<()> {
        // `AssertUnwindSafe`: after a panic nothing of this request is used again; what the handler
        // shares between requests is behind locks, which tell by poisoning.
        let (handler, peer) = (self.handler, &self.peer);
        let started = Instant::now();
        let mut decision = pin!(AssertUnwindSafe(handler.answer(&request, peer)).catch_unwind());
        let first = std::future::poll_fn(|context| Poll::Ready(decision.as_mut().poll(context))).await;
        let decided = match first {
            Poll::Ready(decided) => Ok(decided),
            Poll::Pending => {
                flush(&mut self.stream, &mut self.out, self.limits.request).await?;
                let left = self.limits.request.saturating_sub(started.elapsed());
                timeout(left, decision).await
            }
        };
        let action = match decided {
            Ok(Ok(action)) => action,
            Ok(Err(_panic)) => give_up(handler, &request, Failure::Panic, started.elapsed()),
            Err(_elapsed) => give_up(handler, &request, Failure::Deadline, started.elapsed()),
        };
        policy::encode(&action.0, &mut self.out);
        if self.out.len() < BATCH {
            return Ok(());
        }
        flush(&mut self.stream, &mut self.out, self.limits.request).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.stream, &mut self.out, self.limits.request).await
    }
}

fn give_up(handler: &impl PolicyHandler, request: &Request, failure: Failure, elapsed: Duration) -> Action {
    tracing::error!(?failure, "policy request answered without a decision");
    handler.failed(failure);
    let action = handler.overdue();
    // What made the handler panic may do so again, and still costs one request only.
    let told = AssertUnwindSafe(|| handler.given_up(request, &action, failure, elapsed));
    if std::panic::catch_unwind(told).is_err() {
        tracing::error!("a request that was given up could not be noted");
    }
    action
}

/// Writes and empties `out`. A peer that does not read its answers within `patience` is given up.
async fn flush(
    stream: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    patience: Duration,
) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let mut write = pin!(async {
        stream.write_all(out).await?;
        stream.flush().await
    });
    // Nearly always the socket takes everything at once; only otherwise is a timer needed.
    let first = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
    match first {
        Poll::Ready(written) => written?,
        Poll::Pending => timeout(patience, write).await.map_err(|_| io::ErrorKind::TimedOut)??,
    }
    out.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::Mutex;
    use tokio::io::DuplexStream;

    /// Answers with the value of `say`; `wait=MILLISECONDS` delays, `panic=` panics.
    #[derive(Default)]
    struct Parrot {
        failures: Mutex<Vec<Failure>>,
        given_up: Mutex<Vec<(String, Failure, Duration)>>,
    }

    impl PolicyHandler for Parrot {
        type Peer = ();

        async fn answer(&self, request: &Request, (): &()) -> Action {
            let text = |name| request.last(name).map(|v| String::from_utf8_lossy(v).into_owned());
            if let Some(wait) = text("wait") {
                tokio::time::sleep(Duration::from_millis(wait.parse().expect("number"))).await;
            }
            assert!(request.last("panic").is_none(), "asked to panic");
            text("say").map_or(Action::DUNNO, Action::from)
        }

        fn overdue(&self) -> Action {
            "DUNNO overdue".into()
        }

        fn failed(&self, failure: Failure) {
            self.failures.lock().unwrap().push(failure);
        }

        fn given_up(&self, request: &Request, action: &Action, failure: Failure, elapsed: Duration) {
            assert!(request.last("wait").is_some(), "asked to panic again");
            self.given_up.lock().unwrap().push((action.0.to_string(), failure, elapsed));
        }
    }

    fn connect(buffer: usize, stop: impl Future<Output = ()> + Send + 'static) -> Connected {
        let (near, far) = tokio::io::duplex(buffer);
        let task = tokio::spawn(async move {
            let handler = Parrot::default();
            serve(far, (), &handler, &SessionLimits::default(), stop).await;
            let late = ("DUNNO overdue".to_owned(), Failure::Deadline, SessionLimits::default().request);
            assert!(handler.given_up.into_inner().unwrap().iter().all(|noted| *noted == late));
            handler.failures.into_inner().unwrap()
        });
        Connected { near, task }
    }

    struct Connected {
        near: DuplexStream,
        task: tokio::task::JoinHandle<Vec<Failure>>,
    }

    impl Connected {
        async fn send(&mut self, text: &str) {
            self.near.write_all(text.as_bytes()).await.unwrap();
        }

        async fn receive(&mut self, length: usize) -> String {
            let mut got = vec![0; length];
            self.near.read_exact(&mut got).await.unwrap();
            String::from_utf8(got).unwrap()
        }

        async fn expect(&mut self, text: &str) {
            assert_eq!(self.receive(text.len()).await, text);
        }

        /// Reads to the end of the connection; returns what came and the failures reported.
        async fn ended(mut self) -> (String, Vec<Failure>) {
            let mut rest = String::new();
            self.near.read_to_string(&mut rest).await.unwrap();
            (rest, self.task.await.unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_in_order_however_the_requests_arrive() {
        let stream = "say=one\n\n\nsay=two\nwait=20\n\nsay=three\n\n";
        let expected = "action=one\n\naction=DUNNO\n\naction=two\n\naction=three\n\n";
        for piece in [1, 2, 7, stream.len()] {
            let mut peer = connect(1024, pending());
            for chunk in stream.as_bytes().chunks(piece) {
                peer.send(std::str::from_utf8(chunk).unwrap()).await;
                tokio::task::yield_now().await;
            }
            peer.expect(expected).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_answer_does_not_wait_for_a_slow_request_behind_it() {
        let mut peer = connect(1024, pending());
        peer.send("say=quick\n\nsay=slow\nwait=3000\n\n").await;
        let begin = Instant::now();
        peer.expect("action=quick\n\n").await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        peer.expect("action=slow\n\n").await;
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_and_panic_cost_one_request_only() {
        let mut peer = connect(1024, pending());
        let begin = Instant::now();
        peer.send("wait=60000\n\npanic=\n\nsay=fine\n\n").await;
        peer.expect("action=DUNNO overdue\n\naction=DUNNO overdue\n\naction=fine\n\n").await;
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        peer.near.shutdown().await.unwrap();
        let (rest, failures) = peer.ended().await;
        assert_eq!((rest.as_str(), failures), ("", vec![Failure::Deadline, Failure::Panic]));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_before_a_broken_one_are_answered() {
        let mut peer = connect(64 * 1024, pending());
        peer.send(&format!("say=one\n\n{}", "x".repeat(9000))).await;
        assert_eq!(peer.ended().await, ("action=one\n\n".to_string(), vec![Failure::Protocol]));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_even_when_they_drip() {
        let begin = Instant::now();
        let mut peer = connect(1024, pending());
        tokio::time::sleep(Duration::from_secs(100)).await;
        peer.send("say=alive\n\n").await;
        peer.expect("action=alive\n\n").await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(100)).await;
            peer.send("x").await;
        }
        assert_eq!(peer.ended().await.0, "");
        assert_eq!(begin.elapsed().as_secs(), 410);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let begin = Instant::now();
        let mut peer = connect(16, pending());
        peer.send("say=a long answer that does not fit\n\n").await;
        peer.task.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_finishes_the_request_in_progress() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut peer = connect(1024, async { drop(stopped.await) });
        peer.send("say=slow\nwait=1000\n\nsay=never\n\n").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(stop);
        assert_eq!(peer.ended().await.0, "action=slow\n\n");

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let peer = connect(1024, async { drop(stopped.await) });
        drop(stop);
        assert_eq!(peer.ended().await.0, "");
    }
}
