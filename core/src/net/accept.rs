//! Accepting connections: bounded in number, restricted to known networks, never ended by an error.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::SocketFile;
use super::{Activity, Connection, Local, Peer, Shutdown, ShutdownTrigger, Socket, Stream};

/// First and longest pause after a failed accept.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A connection younger than this is not closed to make room for another.
const YOUNGEST_IDLE: Duration = Duration::from_secs(1);

/// What all listeners of a daemon share: the number of connections, who may connect, who is idle.
pub(crate) struct AcceptPool {
    permits: Arc<Semaphore>,
    most: usize,
    allow: RwLock<Arc<[IpNet]>>,
    open: Mutex<HashMap<u64, (Activity, ShutdownTrigger)>>,
    next: AtomicU64,
}

impl AcceptPool {
    /// A pool for `max_connections` clients from `allow`; an empty list means that the listeners are local.
    pub(crate) fn new(max_connections: usize, allow: &[IpNet]) -> AcceptPool {
        let most = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        AcceptPool {
            permits: Arc::new(Semaphore::new(most)),
            most,
            allow: RwLock::new(allow.into()),
            open: Mutex::new(HashMap::new()),
            next: AtomicU64::new(0),
        }
    }

    /// Takes a new list of client networks for connections accepted from now on.
    pub(crate) fn set_allow(&self, allow: &[IpNet]) {
        *self.allow.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = allow.into();
    }

    /// The number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.most - self.permits.available_permits()
    }

    fn is_allowed(&self, peer: &Peer) -> bool {
        let Some(address) = peer.ip() else { return true };
        let allow = self.allow.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        // This machine itself can always reach the daemon, and an empty list means nobody else can.
        address.is_loopback() || allow.iter().any(|network| network.contains(&address))
    }

    /// Waits for room, asking the connection that is idle for longest to go when there is none.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return Some(permit);
            }
            self.close_oldest_idle();
            let wait = self.permits.clone().acquire_owned();
            match tokio::time::timeout(YOUNGEST_IDLE, wait).await {
                Ok(permit) => return permit.ok(),
                Err(_) => continue,
            }
        }
    }

    fn close_oldest_idle(&self) {
        let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let oldest = open.iter().min_by_key(|(_, (activity, _))| activity.last()).map(|(id, _)| *id);
        if let Some(id) = oldest
            && open.get(&id).is_some_and(|(activity, _)| activity.last().elapsed() >= YOUNGEST_IDLE)
            // Removed from the list so that the next call picks another one if this one takes its time.
            && let Some((_, trigger)) = open.remove(&id)
        {
            tracing::warn!(
                event = "connection limit reached",
                reason = "closing the connection idle for longest"
            );
            trigger.request();
        }
    }

    fn register(self: &Arc<Self>, activity: Activity, shutdown: &Shutdown) -> (OpenConnection, Shutdown) {
        let (trigger, shutdown) = shutdown.child();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(id, (activity, trigger));
        (OpenConnection { pool: self.clone(), id }, shutdown)
    }
}

/// Keeps a connection in the pool's list while it is served.
struct OpenConnection {
    pool: Arc<AcceptPool>,
    id: u64,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.pool.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&self.id);
    }
}

/// A place in the pool: given back when dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Listener> {
        match socket {
            Socket::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Socket::Unix(listener, file) => Ok(Listener::Unix(UnixListener::from_std(listener)?, file)),
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Peer, Local)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let local = stream.local_addr()?;
                Ok((Stream::tcp(stream), Peer::from_socket(peer), Local::Tcp(local)))
            }
            Listener::Unix(listener, file) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::unix(stream), Peer::Unix, Local::Unix(file.path().to_path_buf())))
            }
        }
    }
}

/// Accepts until `shutdown`, then closes the socket. `serve` starts a task for the connection and returns at once.
pub(crate) async fn accept_loop(
    socket: Socket,
    role: &'static str,
    pool: Arc<AcceptPool>,
    shutdown: Shutdown,
    refused: impl Fn(&Peer),
    serve: impl Fn(Connection, Shutdown, Place),
) -> io::Result<()> {
    let listener = Listener::new(socket)?;
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer, local)) => {
                pause = PAUSE.0;
                if !pool.is_allowed(&peer) {
                    refused(&peer);
                    continue;
                }
                // Accepted first, so that a listener without clients occupies no place.
                let permit = tokio::select! {
                    biased;
                    () = shutdown.wait() => return Ok(()),
                    permit = pool.permit() => permit,
                };
                let Some(permit) = permit else { return Ok(()) };
                let (open, shutdown) = pool.register(stream.activity().clone(), &shutdown);
                let place = Place { _permit: permit, _open: open };
                serve(Connection { stream, peer, local, role }, shutdown, place);
            }
            // The client went away while it waited: nothing is wrong with us.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of file descriptors or memory: it passes when other connections end.
                tracing::warn!(event = "accept failed", reason = %error);
                tokio::select! {
                    () = shutdown.wait() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}
