//! A daemon at work: listeners, connections, background work and the orderly end of all of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::sockets::{self, Sockets};
use super::{Daemon, DependencyHealth, Environment, StartError};
use crate::metrics::{Counter, Gauge};
use crate::net::{self, AcceptPool, BoundListener, Inherited, Shutdown, ShutdownTrigger, accept_loop};
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
    std::fs::create_dir_all(&env.state_directory)
        .map_err(|error| StartError::File(env.state_directory.clone(), error))?;
    let sockets = sockets::open(&settings, Inherited::none())?;
    launch_on(settings, env, shutdown, sockets).await
}

/// As [`launch`], on sockets that are open already.
pub(super) async fn launch_on<D: Daemon>(
    settings: D::Settings,
    env: Environment,
    shutdown: Shutdown,
    sockets: Sockets,
) -> Result<Running<D>, StartError> {
    let frame = settings.frame();
    let pool = Arc::new(AcceptPool::new(frame.limits.max_connections, &frame.limits.allow));
    let grace = frame.limits.grace.duration();
    let settings = Arc::new(settings);
    // Boxed: what the daemons wait for at their start is nested too deep for the compiler to see as one.
    let starting: BoxFuture<'_, _> = Box::pin(D::start(settings.clone(), env.clone()));
    let daemon = Arc::new(starting.await?);

    // Monitoring sees the end: its listener stops after the last connection.
    let (health_end, health_shutdown) = Shutdown::new();
    let metrics_bound =
        serve_health(&daemon, settings.as_ref(), &env, &shutdown, &health_shutdown, sockets.metrics);
    for error in sockets.missing {
        tracing::warn!(event = "no metrics", service = D::NAME, reason = %error);
    }

    let tracker = TaskTracker::new();
    let kill = CancellationToken::new();
    let (mut bound, mut listeners) = (Vec::new(), Vec::new());
    let accepted = env.metrics.counter("connections_accepted_total", "Client connections accepted so far");
    for (listener, socket) in sockets.listeners {
        let role = listener.role;
        bound.push(listener);
        let tasks = (tracker.clone(), kill.clone());
        let serve = connection_starter(daemon.clone(), env.clone(), accepted.clone(), tasks);
        let refused_count = env.metrics.connections("refused");
        let refused = move |peer: &net::Peer| {
            refused_count.inc();
            tracing::warn!(event = "connection refused", client = %peer, reason = "not in limits.allow");
        };
        let accept = accept_loop(socket, role, pool.clone(), shutdown.clone(), refused, serve);
        listeners.push(tokio::spawn(accept.instrument(service_span::<D>())));
    }
    bound.extend(metrics_bound);
    let background = background(daemon.clone(), env.clone(), shutdown.clone());
    let background = tokio::spawn(background.instrument(service_span::<D>()));
    let end = Ending { listeners, background, tracker, kill, grace, health_end };
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
    accepted: Counter,
    (tracker, kill): (TaskTracker, CancellationToken),
) -> impl Fn(net::Connection, Shutdown, net::Place) {
    let open = env.metrics.connections("open");
    move |connection, shutdown, place| {
        // A token of its own: polling the common one would make all connections wait for each other's turn at its lock.
        let (daemon, metrics, kill) = (daemon.clone(), env.metrics.clone(), kill.child_token());
        let open = OpenGauge::new(&open);
        accepted.inc();
        let role = connection.role;
        let peer = connection.peer;
        let task = async move {
            let _held = (place, open);
            // A fault in one connection must not become a fault of the daemon.
            let work = AssertUnwindSafe(daemon.serve(connection, shutdown)).catch_unwind();
            let result = tokio::select! {
                biased;
                result = work => result,
                () = kill.cancelled() => Ok(()),
            };
            if result.is_err() {
                metrics.panic();
                tracing::error!(event = "connection failed", client = %peer, check = role, reason = "program fault");
            }
        };
        tracker.spawn(task.instrument(service_span::<D>()));
    }
}

/// Counts a connection as open until it is dropped.
struct OpenGauge(Gauge);

impl OpenGauge {
    fn new(gauge: &Gauge) -> OpenGauge {
        gauge.inc();
        OpenGauge(gauge.clone())
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Starts the listeners for metrics and health; which.
#[cfg(feature = "http")]
fn serve_health<D: Daemon>(
    daemon: &Arc<D>,
    settings: &D::Settings,
    env: &Environment,
    stopping: &Shutdown,
    end: &Shutdown,
    sockets: Vec<(BoundListener, net::Socket)>,
) -> Vec<BoundListener> {
    use crate::health::{HealthEndpoint, MOST_CONNECTIONS, serve};

    let daemon = daemon.clone();
    let token = settings.frame().metrics.token.clone();
    // With a token everybody may ask; without one the listener is local.
    let everybody = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok());
    let allow: Vec<ipnet::IpNet> = if token.is_some() { everybody.collect() } else { Vec::new() };
    let endpoint = Arc::new(HealthEndpoint {
        service: D::NAME,
        metrics: env.metrics.clone(),
        health: Box::new(move || daemon.health()),
        token,
        stopping: stopping.clone(),
    });
    let pool = Arc::new(AcceptPool::new(MOST_CONNECTIONS, &allow));
    let mut bound = Vec::new();
    for (listener, socket) in sockets {
        let role = listener.role;
        bound.push(listener);
        let endpoint = endpoint.clone();
        let start = move |connection, shutdown, place| {
            let endpoint = endpoint.clone();
            let task = async move {
                let _place = place;
                serve(endpoint, connection, shutdown).await;
            };
            tokio::spawn(task.instrument(service_span::<D>()));
        };
        let refused = |_: &net::Peer| {};
        let accept = accept_loop(socket, role, pool.clone(), end.clone(), refused, start);
        tokio::spawn(accept.instrument(service_span::<D>()));
    }
    bound
}

/// Says that this build cannot serve metrics.
#[cfg(not(feature = "http"))]
fn serve_health<D: Daemon>(
    _: &Arc<D>,
    _: &D::Settings,
    _: &Environment,
    _: &Shutdown,
    _: &Shutdown,
    sockets: Vec<(BoundListener, net::Socket)>,
) -> Vec<BoundListener> {
    if !sockets.is_empty() {
        tracing::warn!(event = "no metrics", service = D::NAME, reason = "built without HTTP");
    }
    Vec::new()
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
    health_end: ShutdownTrigger,
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
            // Its faults were logged where they arose.
            let _ = self.background.await;
        };
        if tokio::time::timeout(self.grace, all).await.is_err() {
            tracing::warn!(
                event = "stop forced",
                reason = "work in progress exceeded limits.grace",
                connections = self.tracker.len()
            );
            self.kill.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tracker.wait()).await;
        }
        self.health_end.request();
        tracing::info!(event = "stopped");
    }
}

/// A daemon that serves clients.
pub struct Running<D: Daemon> {
    /// Where, with the ports that were really taken; listeners of metrics come last.
    pub bound: Vec<BoundListener>,
    daemon: Arc<D>,
    env: Environment,
    pool: Arc<AcceptPool>,
    finished: JoinHandle<()>,
}

impl<D: Daemon> Running<D> {
    /// Returns when the daemon has stopped, which it does after its [`Shutdown`] was requested.
    pub async fn finished(mut self) {
        self.wait().await;
    }

    /// As [`finished`](Running::finished), keeping the handle. Once it has returned it must not be called again.
    pub(super) async fn wait(&mut self) {
        // The task neither panics nor is cancelled.
        let _ = (&mut self.finished).await;
    }

    /// Takes new settings that passed their checks; on error the old ones stay in force. Listeners, the process section
    /// and the number of connections stay as they were until a restart.
    pub async fn reload(&self, settings: D::Settings) -> Result<(), StartError> {
        let allow = settings.frame().limits.allow.clone();
        let work = self.daemon.reload(Arc::new(settings));
        let result = AssertUnwindSafe(work.instrument(service_span::<D>())).catch_unwind().await;
        let result =
            result.unwrap_or_else(|_| Err(StartError::Other("program fault while reloading".into())));
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

    /// What the daemon was given.
    pub fn environment(&self) -> &Environment {
        &self.env
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    /// `ready service=NAME role=address ...`, the line that tells where clients can connect.
    pub fn ready_line(&self) -> String {
        let mut line = format!("ready service={}", D::NAME);
        for listener in &self.bound {
            line.push_str(&format!(" {listener}"));
        }
        line
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

#[cfg(test)]
mod tests;
