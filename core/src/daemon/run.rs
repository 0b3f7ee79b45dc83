//! A daemon at work: listeners, connections, background work and the orderly end of all of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Daemon, DependencyHealth, Environment, StartError};
use crate::net::{self, AcceptPool, BoundListener, Inherited, Shutdown, Socket, accept_loop};
use crate::settings::DaemonSettings;

/// Opens the sockets, starts the daemon and serves until `shutdown`; returns as soon as clients can connect.
///
/// For several daemons in one process and for tests. A binary uses [`main`](super::main()), which drops privileges
/// between opening sockets and starting threads.
pub async fn launch<D: Daemon>(
    settings: D::Settings,
    env: Environment,
    shutdown: Shutdown,
) -> Result<Running<D>, StartError> {
    let sockets = net::bind(&settings.listeners(), Inherited::none(), settings.frame().process)?;
    launch_on(settings, env, shutdown, sockets).await
}

/// As [`launch`], on sockets that are open already.
pub(super) async fn launch_on<D: Daemon>(
    settings: D::Settings,
    env: Environment,
    shutdown: Shutdown,
    sockets: Vec<(BoundListener, Socket)>,
) -> Result<Running<D>, StartError> {
    let frame = settings.frame();
    let pool = Arc::new(AcceptPool::new(frame.limits.max_connections, &frame.limits.allow));
    let grace = frame.limits.grace.duration();
    let settings = Arc::new(settings);
    let daemon = Arc::new(D::start(settings, env.clone()).await?);

    let tracker = TaskTracker::new();
    let kill = CancellationToken::new();
    let mut bound = Vec::new();
    let mut listeners = Vec::new();
    for (listener, socket) in sockets {
        let role = listener.role;
        bound.push(listener);
        let serve = connection_starter(daemon.clone(), env.clone(), tracker.clone(), kill.clone());
        let refused_count = env.metrics.connections("refused");
        let refused = move |peer: &net::Peer| {
            refused_count.inc();
            tracing::warn!(event = "connection refused", client = %peer, reason = "not in limits.allow");
        };
        let accept = accept_loop(socket, role, pool.clone(), shutdown.clone(), refused, serve);
        let span = service_span::<D>();
        listeners.push(tokio::spawn(accept.instrument(span)));
    }
    let background = tokio::spawn(
        background(daemon.clone(), env.clone(), shutdown.clone()).instrument(service_span::<D>()),
    );
    let name = D::NAME;
    let end = Ending { listeners, background, tracker, kill, grace, name };
    let finished = tokio::spawn(end.wait(shutdown.clone()).instrument(service_span::<D>()));
    Ok(Running { bound, daemon, env, pool, finished })
}

/// The span that names the daemon in every log line, also when several run in one process.
pub(super) fn service_span<D: Daemon>() -> tracing::Span {
    tracing::error_span!("service", service = D::NAME)
}

/// Makes the function that starts the task of a connection.
fn connection_starter<D: Daemon>(
    daemon: Arc<D>,
    env: Environment,
    tracker: TaskTracker,
    kill: CancellationToken,
) -> impl Fn(net::Connection, Shutdown, net::Place) {
    move |connection, shutdown, place| {
        let (daemon, metrics, kill) = (daemon.clone(), env.metrics.clone(), kill.clone());
        let role = connection.role;
        let peer = connection.peer;
        let task = async move {
            let _place = place;
            let open = metrics.connections("open");
            open.inc();
            // A fault in one connection must not become a fault of the daemon.
            let work = AssertUnwindSafe(daemon.serve(connection, shutdown)).catch_unwind();
            let result = tokio::select! {
                result = work => result,
                () = kill.cancelled() => Ok(()),
            };
            open.dec();
            if result.is_err() {
                metrics.panic();
                tracing::error!(event = "connection failed", client = %peer, check = role, reason = "program fault");
            }
        };
        tracker.spawn(task.instrument(service_span::<D>()));
    }
}

/// Runs the background work, again after a pause if it fails.
async fn background<D: Daemon>(daemon: Arc<D>, env: Environment, shutdown: Shutdown) {
    while !shutdown.requested() {
        let work = AssertUnwindSafe(daemon.clone().background(shutdown.clone())).catch_unwind().await;
        if work.is_ok() {
            return;
        }
        env.metrics.panic();
        tracing::error!(event = "background work failed", reason = "program fault");
        tokio::select! {
            () = shutdown.wait() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// What has to come to an end.
struct Ending {
    listeners: Vec<JoinHandle<std::io::Result<()>>>,
    background: JoinHandle<()>,
    tracker: TaskTracker,
    kill: CancellationToken,
    grace: Duration,
    name: &'static str,
}

impl Ending {
    /// Waits for the wish to stop, then for connections to end, at most for the grace time.
    async fn wait(self, shutdown: Shutdown) {
        shutdown.wait().await;
        for listener in self.listeners {
            match listener.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(event = "listener failed", reason = %error),
                Err(error) => tracing::error!(event = "listener failed", reason = %error),
            }
        }
        self.tracker.close();
        let all = async {
            self.tracker.wait().await;
            // Its result was logged where it arose.
            let _ = self.background.await;
        };
        if tokio::time::timeout(self.grace, all).await.is_err() {
            tracing::warn!(
                event = "stop forced",
                reason = "requests in progress exceeded limits.grace",
                connections = self.tracker.len()
            );
            self.kill.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tracker.wait()).await;
        }
        tracing::info!(event = "stopped", daemon = self.name);
    }
}

/// A daemon that serves clients.
pub struct Running<D: Daemon> {
    /// Where, with the ports that were really taken.
    pub bound: Vec<BoundListener>,
    daemon: Arc<D>,
    env: Environment,
    pool: Arc<AcceptPool>,
    finished: JoinHandle<()>,
}

impl<D: Daemon> Running<D> {
    /// Returns when the daemon has stopped, which it does after its [`Shutdown`] was requested.
    pub async fn finished(self) {
        // The task neither panics nor is cancelled.
        let _ = self.finished.await;
    }

    /// Takes new settings that passed their checks; on error the old ones stay in force.
    pub async fn reload(&self, settings: D::Settings) -> Result<(), StartError> {
        let allow = settings.frame().limits.allow.clone();
        let result = self.daemon.reload(Arc::new(settings)).await;
        if result.is_ok() {
            self.pool.set_allow(&allow);
        }
        self.env.metrics.reloaded(result.is_ok());
        result
    }

    /// The state of the dependencies.
    pub fn health(&self) -> Vec<DependencyHealth> {
        self.daemon.health()
    }

    /// The daemon itself.
    pub fn daemon(&self) -> &Arc<D> {
        &self.daemon
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }
}

impl<D: Daemon> std::fmt::Debug for Running<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Running")
            .field("name", &D::NAME)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}
