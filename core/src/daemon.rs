//! What a daemon is, seen from its frame.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::net::{BoundListener, Connection, Local, Peer, Shutdown, ShutdownTrigger, Stream};
pub use crate::settings::{DaemonSettings, Findings, FrameSettings, ListenerSpec};

use crate::clock::{SharedClock, SystemClock};
use crate::metrics::Metrics;
use crate::random::{SharedRandom, SystemRandom};

mod command;
mod house;
mod man;
mod member;
mod process;
mod run;
mod sockets;
mod supervise;

pub use command::main;
pub use house::House;
pub use run::{Running, launch};

/// A daemon: settings, state, and what to do with a connection.
///
/// Everything else - sockets, limits, signals, reload, logs, metrics - is the frame's.
pub trait Daemon: Sized + Send + Sync + 'static {
    /// The short name, for example `policyd`; the settings are in `/etc/outrider/policyd.toml`.
    const NAME: &'static str;

    /// One sentence for `--help` and the man page.
    const ABOUT: &'static str = "companion daemon for Postfix and Dovecot";

    /// Threads that serve connections where the settings leave it open and the daemon is alone in its process.
    const WORKERS: Workers = Workers::PerProcessor;

    /// The settings.
    type Settings: DaemonSettings;

    /// Builds the state. It must neither wait for nor fail because of a dependency that is down.
    fn start(
        settings: Arc<Self::Settings>,
        env: Environment,
    ) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Takes new settings (SIGHUP). Requests that began keep those with which they began. On error the old ones stay.
    fn reload(&self, settings: Arc<Self::Settings>) -> impl Future<Output = Result<(), StartError>> + Send;

    /// Serves one connection until the peer closes it, a bound is hit, or `shutdown` asks: then the request in
    /// progress is finished and no new one begun.
    fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) -> impl Future<Output = ()> + Send;

    /// Work beside the connections, such as clean-up; returns when `shutdown` asks.
    fn background(self: Arc<Self>, shutdown: Shutdown) -> impl Future<Output = ()> + Send {
        async move { shutdown.wait().await }
    }

    /// The state of each dependency, from memory: it is asked often and must not wait.
    fn health(&self) -> Vec<DependencyHealth> {
        Vec::new()
    }
}

/// How many threads serve connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each processor.
    PerProcessor,
    /// One for two processors: what waits for a database on the same machine most of the time leaves it the other one.
    PerTwoProcessors,
    /// What needs some microseconds for an answer and waits for nobody is quicker with one, which wakes no other.
    One,
}

impl Workers {
    /// Their number on a machine with so many processors; at least 1.
    pub fn number(self, processors: usize) -> usize {
        match self {
            Workers::PerProcessor => processors.max(1),
            Workers::PerTwoProcessors => processors.div_ceil(2).max(1),
            Workers::One => 1,
        }
    }
}

/// Whether something that a daemon depends on is working.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DependencyHealth {
    /// A fixed short name: `"vmail"`, `"dns"`, `"clamd"`.
    pub name: &'static str,
    /// Whether it answered the last time it was asked.
    pub up: bool,
    /// The reason in words; no secrets, no addresses of mail.
    pub detail: String,
    /// Its connections, where they are pooled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolFigures>,
}

/// Connections to a database, and how often it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PoolFigures {
    /// Connections in use.
    pub used: usize,
    /// Open connections that nobody uses.
    pub idle: usize,
    /// Failures by class since the pool was made: `unavailable`, `busy`, `timeout`, `broken`, `try_again`, `refused`.
    pub errors: Vec<(&'static str, u64)>,
}

/// What a daemon gets from outside instead of reaching for it.
#[derive(Clone)]
pub struct Environment {
    /// The time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The folder for files of the daemon's own, which exists.
    pub state_directory: PathBuf,
    /// The short name of the daemon.
    pub name: &'static str,
}

impl Environment {
    /// The real clock and randomness, fresh metrics.
    pub fn system(name: &'static str, state_directory: PathBuf) -> Environment {
        Environment {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: Arc::new(Metrics::new(name)),
            state_directory,
            name,
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Environment")
            .field("name", &self.name)
            .field("state_directory", &self.state_directory)
            .finish_non_exhaustive()
    }
}

/// Why a daemon cannot start or take new settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot work (exit 78).
    #[error("{0}")]
    Settings(String),
    /// A socket could not be opened (exit 71).
    #[error(transparent)]
    Bind(#[from] crate::net::BindError),
    /// The account cannot be used (exit 77 or 78).
    #[error(transparent)]
    Privilege(#[from] crate::privilege::PrivilegeError),
    /// A file or folder of the daemon cannot be used (exit 74).
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// Something else failed for good (exit 70).
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StartError {
    /// The exit status (sysexits.h, as conventions list them).
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Settings(_) => 78,
            StartError::Bind(error) => error.exit_code(),
            StartError::Privilege(error) => error.exit_code(),
            StartError::File(_, error) if error.kind() == std::io::ErrorKind::PermissionDenied => 77,
            StartError::File(..) => 74,
            StartError::Other(_) => 70,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_worker() {
        for (processors, each, half) in [(0, 1, 1), (1, 1, 1), (2, 2, 1), (3, 3, 2), (8, 8, 4)] {
            let numbers = [Workers::PerProcessor, Workers::PerTwoProcessors, Workers::One]
                .map(|workers| workers.number(processors));
            assert_eq!(numbers, [each, half, 1], "{processors} processors");
        }
    }
}
