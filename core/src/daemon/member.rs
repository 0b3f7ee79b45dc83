//! A daemon as the process around it sees it: the same work for each, whatever its settings are.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tracing::Instrument;

use super::run::{Running, launch_on, service_span};
use super::sockets::{self, Sockets};
use super::{Daemon, DependencyHealth, Environment, StartError, Workers};
use crate::net::{BindError, Inherited, Shutdown};
use crate::settings::{self, DaemonSettings, ListenerSpec, Loaded, LogSettings, SettingsError, Severity};

/// A daemon whose settings are good and which has not been started.
pub(super) trait Candidate: Send {
    /// How many connections it may serve at once.
    fn connections(&self) -> usize;

    /// Opens its sockets, while the process may still be root.
    fn open(&mut self, inherited: Inherited) -> Result<(), BindError>;

    /// Starts it on its sockets; clients can connect when the future is done.
    fn launch(
        self: Box<Self>,
        env: Environment,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<Box<dyn Member>, StartError>>;

    /// Its short name.
    fn name(&self) -> &'static str;

    /// Threads that serve its connections where the settings leave it open.
    fn workers(&self) -> Workers;
}

/// A daemon at work.
pub(super) trait Member: Send + Sync {
    /// Returns when it has stopped. Once it has returned it must not be called again.
    fn wait(&mut self) -> BoxFuture<'_, ()>;

    /// Loads and applies its settings anew and gives what they say about logging; on error nothing has changed.
    fn reload(&self) -> BoxFuture<'_, Result<LogSettings, String>>;

    /// The state of its dependencies.
    fn health(&self) -> Vec<DependencyHealth>;

    /// What it was given.
    fn environment(&self) -> &Environment;

    /// The number of its open connections.
    fn connections(&self) -> usize;

    /// The line that tells where clients can connect.
    fn ready_line(&self) -> String;
}

/// The settings of a daemon and where they came from.
pub(super) struct Applicant<D: Daemon> {
    loaded: Loaded<D::Settings>,
    config: Option<PathBuf>,
    sockets: Option<Sockets>,
}

impl<D: Daemon> Applicant<D> {
    /// `config` is the file that is read again on reload; the usual one if `None`.
    pub(super) fn new(loaded: Loaded<D::Settings>, config: Option<PathBuf>) -> Applicant<D> {
        Applicant { loaded, config, sockets: None }
    }
}

impl<D: Daemon> Candidate for Applicant<D> {
    fn connections(&self) -> usize {
        self.loaded.settings.frame().limits.max_connections
    }

    fn open(&mut self, inherited: Inherited) -> Result<(), BindError> {
        self.sockets = Some(sockets::open(&self.loaded.settings, inherited)?);
        Ok(())
    }

    fn launch(
        self: Box<Self>,
        env: Environment,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<Box<dyn Member>, StartError>> {
        let work = async move {
            for finding in self.loaded.findings.iter() {
                tracing::warn!(event = "settings", reason = %finding);
            }
            let settings = self.loaded.settings;
            let sockets = match self.sockets {
                Some(sockets) => sockets,
                None => sockets::open(&settings, Inherited::none())?,
            };
            let listeners = settings.listeners();
            let running = launch_on::<D>(settings, env, shutdown, sockets).await?;
            tracing::info!(
                event = "started",
                version = env!("CARGO_PKG_VERSION"),
                reason = running.ready_line()
            );
            Ok(Box::new(AtWork { running, config: self.config, listeners }) as Box<dyn Member>)
        };
        Box::pin(work.instrument(service_span::<D>()))
    }

    fn name(&self) -> &'static str {
        D::NAME
    }

    fn workers(&self) -> Workers {
        D::WORKERS
    }
}

struct AtWork<D: Daemon> {
    running: Running<D>,
    config: Option<PathBuf>,
    listeners: Vec<ListenerSpec>,
}

impl<D: Daemon> AtWork<D> {
    async fn load_again(&self) -> Result<LogSettings, String> {
        let loaded =
            settings::load::<D::Settings>(self.config.as_deref(), D::NAME).map_err(|error| brief(&error))?;
        for finding in loaded.findings.iter() {
            tracing::warn!(event = "settings", reason = %finding);
        }
        if loaded.settings.listeners() != self.listeners {
            tracing::warn!(event = "settings", reason = "listen addresses change with the next restart only");
        }
        let log = loaded.settings.frame().log.clone();
        self.running.reload(loaded.settings).await.map_err(|error| error.to_string())?;
        Ok(log)
    }
}

impl<D: Daemon> Member for AtWork<D> {
    fn wait(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.running.wait())
    }

    fn reload(&self) -> BoxFuture<'_, Result<LogSettings, String>> {
        let work = async {
            let result = self.load_again().await;
            if let Err(reason) = &result {
                self.running.environment().metrics.reloaded(false);
                tracing::error!(event = "reload failed", reason, action = "the old settings stay in force");
            }
            result
        };
        Box::pin(work.instrument(service_span::<D>()))
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.running.health()
    }

    fn environment(&self) -> &Environment {
        self.running.environment()
    }

    fn connections(&self) -> usize {
        self.running.connections()
    }

    fn ready_line(&self) -> String {
        self.running.ready_line()
    }
}

/// The first problem in one line, and how many there are.
fn brief(error: &SettingsError) -> String {
    let SettingsError::Invalid(findings) = error else { return error.to_string() };
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    let first = errors().next().map(ToString::to_string).unwrap_or_default();
    match errors().count() {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}
