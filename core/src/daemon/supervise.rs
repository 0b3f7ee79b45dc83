//! The process of a daemon from its settings to its exit status: privileges, runtime, signals.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use super::command::Arguments;
use super::run::{Running, launch_on, service_span};
use super::{Daemon, Environment, StartError, process, sockets};
use crate::clock::TestClock;
use crate::log::{self, LogHandle};
use crate::net::{Inherited, Shutdown, ShutdownTrigger};
use crate::privilege::Account;
use crate::settings::{self, DaemonSettings, ListenerSpec, Loaded, SettingsError, Severity};
use crate::systemd;

/// How often the status text of the service manager is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Runs the daemon until it is stopped and gives the exit status.
pub(super) fn run<D: Daemon>(loaded: Loaded<D::Settings>, arguments: &Arguments) -> ExitCode {
    process::harden();
    let log = match log::install(loaded.settings.frame().log, D::NAME) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{}: {error}", D::NAME);
            return ExitCode::from(73);
        }
    };
    let result = start::<D>(loaded, arguments, &log);
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            // Also where the start was typed: the log may be elsewhere.
            tracing::error!(event = "not started", reason = %error);
            eprintln!("outrider-{}: {error}", D::NAME);
            error.exit_code()
        }
    };
    log.flush();
    ExitCode::from(code)
}

fn start<D: Daemon>(
    loaded: Loaded<D::Settings>,
    arguments: &Arguments,
    log: &LogHandle,
) -> Result<(), StartError> {
    let frame = loaded.settings.frame();
    for finding in loaded.findings.iter() {
        tracing::warn!(event = "settings", reason = %finding);
    }
    process::raise_descriptors(frame.limits.max_connections);
    let account = Account::from_settings(frame.process)?;
    let state = arguments.state_directory.clone().unwrap_or_else(|| state_directory(D::NAME));
    process::prepare_state(&state, account.as_ref())?;
    let sockets = sockets::open(&loaded.settings, Inherited::from_environment()?)?;
    if let Some(account) = account {
        account.become_it()?;
    }
    // From here on there may be threads.
    log.start_writer().map_err(|error| StartError::Other(Box::new(error)))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if frame.process.worker_threads > 0 {
        builder.worker_threads(frame.process.worker_threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| StartError::Other(Box::new(error)))?;

    let mut env = Environment::system(D::NAME, state);
    if let Some(seconds) = arguments.test_clock {
        env.clock = Arc::new(TestClock::new(seconds));
    }
    let config = arguments.config.clone();
    let serve = async {
        // Before the daemon starts, so that no signal is lost.
        let signals = Signals::new().map_err(|error| StartError::Other(Box::new(error)))?;
        let (trigger, shutdown) = Shutdown::new();
        let listeners = loaded.settings.listeners();
        let running = launch_on::<D>(loaded.settings, env, shutdown, sockets).await?;
        let line = running.ready_line();
        // Nobody may be reading: that is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{line}");
        tracing::info!(event = "started", version = env!("CARGO_PKG_VERSION"), reason = line);
        let supervisor = Supervisor { running, trigger, log: log.clone(), config, listeners };
        supervisor.run(signals).await;
        Ok(())
    };
    let result = runtime.block_on(serve.instrument(service_span::<D>()));
    // Blocking work such as a password check is not worth waiting for.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Where the daemon keeps its files: what systemd made for it, or the usual place.
fn state_directory(name: &str) -> PathBuf {
    let given = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    match given.split(':').next() {
        Some(first) if first.starts_with('/') => PathBuf::from(first),
        _ => PathBuf::from("/var/lib/outrider").join(name),
    }
}

/// The signals that a daemon understands.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
    dump: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            dump: signal(SignalKind::user_defined2())?,
        })
    }
}

struct Supervisor<D: Daemon> {
    running: Running<D>,
    trigger: ShutdownTrigger,
    log: LogHandle,
    config: Option<PathBuf>,
    listeners: Vec<ListenerSpec>,
}

impl<D: Daemon> Supervisor<D> {
    /// Listens to signals until the daemon has stopped.
    async fn run(mut self, mut signals: Signals) {
        systemd::ready(&self.status());
        let watchdog = systemd::watchdog_interval();
        // Two signs of life within the time that the service manager allows.
        let mut alive = tokio::time::interval(watchdog.map_or(STATUS_EVERY, |interval| interval / 2));
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut status_at = Instant::now() + STATUS_EVERY;
        let mut stopping = false;
        loop {
            tokio::select! {
                () = self.running.wait() => return,
                _ = signals.terminate.recv() => self.stop(&mut stopping, 143),
                _ = signals.interrupt.recv() => self.stop(&mut stopping, 130),
                _ = signals.reload.recv() => self.reload().await,
                _ = signals.reopen.recv() => self.reopen_log(),
                _ = signals.dump.recv() => self.dump(),
                _ = alive.tick() => {
                    if let Some(interval) = watchdog {
                        systemd::prove_progress(interval / 2).await;
                    }
                    if Instant::now() >= status_at {
                        status_at = Instant::now() + STATUS_EVERY;
                        systemd::status(&self.status());
                    }
                }
            }
        }
    }

    /// Begins an orderly stop; asked a second time, leaves at once.
    fn stop(&self, stopping: &mut bool, code: i32) {
        if *stopping {
            tracing::warn!(event = "stopped at once", reason = "second signal");
            self.log.flush();
            std::process::exit(code);
        }
        *stopping = true;
        tracing::info!(event = "stopping", connections = self.running.connections());
        systemd::stopping();
        self.trigger.request();
    }

    async fn reload(&self) {
        systemd::reloading();
        match self.load_again().await {
            Ok(()) => tracing::info!(event = "settings reloaded"),
            Err(reason) => {
                self.running.environment().metrics.reloaded(false);
                tracing::error!(event = "reload failed", reason, action = "the old settings stay in force");
            }
        }
        systemd::ready(&self.status());
    }

    /// Loads and applies settings; on error nothing has changed.
    async fn load_again(&self) -> Result<(), String> {
        let loaded =
            settings::load::<D::Settings>(self.config.as_deref(), D::NAME).map_err(|error| brief(&error))?;
        for finding in loaded.findings.iter() {
            tracing::warn!(event = "settings", reason = %finding);
        }
        if loaded.settings.listeners() != self.listeners {
            tracing::warn!(event = "settings", reason = "listen addresses change with the next restart only");
        }
        let log_settings = loaded.settings.frame().log.clone();
        self.running.reload(loaded.settings).await.map_err(|error| error.to_string())?;
        self.log.apply(&log_settings).map_err(|error| error.to_string())
    }

    fn reopen_log(&self) {
        match self.log.reopen() {
            Ok(()) => tracing::info!(event = "log reopened"),
            Err(error) => tracing::error!(event = "log not reopened", reason = %error),
        }
    }

    /// Writes the state of everything to the log.
    fn dump(&self) {
        tracing::info!(
            event = "state",
            connections = self.running.connections(),
            version = env!("CARGO_PKG_VERSION")
        );
        let health = self.running.health();
        for dependency in &health {
            tracing::info!(
                event = "dependency",
                name = dependency.name,
                up = dependency.up,
                reason = dependency.detail
            );
        }
        let metrics = &self.running.environment().metrics;
        metrics.dependencies(&health);
        for line in
            metrics.render().lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
        {
            if let Some((name, value)) = line.rsplit_once(' ') {
                tracing::info!(event = "metric", name, value);
            }
        }
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let down: Vec<&str> =
            self.running.health().iter().filter(|one| !one.up).map(|one| one.name).collect();
        let connections = self.running.connections();
        match down.is_empty() {
            true => format!("{connections} connections"),
            false => format!("{connections} connections, degraded: no {}", down.join(", ")),
        }
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
