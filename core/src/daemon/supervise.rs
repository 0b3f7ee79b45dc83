//! What signals do to a process of daemons: stop, reload, reopen the log, dump the state; and signs of life.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use super::member::Member;
use crate::log::LogHandle;
use crate::net::ShutdownTrigger;
use crate::settings::LogSettings;
use crate::systemd;

/// How often the status text of the service manager is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Asked on reload for the settings of the log.
pub(super) type LogSource = Box<dyn Fn() -> Result<LogSettings, String> + Send>;

/// The signals that a daemon understands.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
    dump: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            dump: signal(SignalKind::user_defined2())?,
        })
    }
}

/// The daemons of a process under one set of signals.
pub(super) struct Supervisor {
    pub(super) members: Vec<Box<dyn Member>>,
    pub(super) trigger: ShutdownTrigger,
    pub(super) log: LogHandle,
    /// Who has the say about the log; the only member if `None`.
    pub(super) log_source: Option<LogSource>,
}

impl Supervisor {
    /// Listens to signals until all daemons have stopped.
    pub(super) async fn run(mut self, mut signals: Signals) {
        systemd::ready(&self.status());
        let watchdog = systemd::watchdog_interval();
        // Two signs of life within the time that the service manager allows.
        let mut alive = tokio::time::interval(watchdog.map_or(STATUS_EVERY, |interval| interval / 2));
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut status_at = Instant::now() + STATUS_EVERY;
        let mut stopping = false;
        while let Some(last) = self.members.last_mut() {
            tokio::select! {
                () = last.wait() => drop(self.members.pop()),
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
        tracing::info!(event = "stopping", connections = self.connections());
        systemd::stopping();
        self.trigger.request();
    }

    /// Each daemon takes its new settings or keeps its old ones; the log follows only if all could.
    async fn reload(&self) {
        systemd::reloading();
        let mut log = None;
        let mut failed = 0;
        for member in &self.members {
            match member.reload().await {
                Ok(settings) => log = Some(settings),
                Err(_) => failed += 1,
            }
        }
        if failed == 0 {
            let settings = match &self.log_source {
                Some(source) => source().map(Some),
                None => Ok(log),
            };
            let applied = settings.and_then(|settings| match settings {
                Some(settings) => self.log.apply(&settings).map_err(|error| error.to_string()),
                None => Ok(()),
            });
            match applied {
                Ok(()) => tracing::info!(event = "settings reloaded"),
                Err(reason) => {
                    tracing::error!(event = "reload failed", reason, action = "the log stays as it was")
                }
            }
        }
        systemd::ready(&self.status());
    }

    fn reopen_log(&self) {
        match self.log.reopen() {
            Ok(()) => tracing::info!(event = "log reopened"),
            Err(error) => tracing::error!(event = "log not reopened", reason = %error),
        }
    }

    /// Writes the state of everything to the log.
    fn dump(&self) {
        for member in &self.members {
            let (env, health) = (member.environment(), member.health());
            let service = env.name;
            let connections = member.connections();
            tracing::info!(event = "state", service, connections, version = env!("CARGO_PKG_VERSION"));
            for dependency in &health {
                let (name, up) = (dependency.name, dependency.up);
                tracing::info!(event = "dependency", service, name, up, reason = dependency.detail);
            }
            env.metrics.dependencies(&health);
            let metrics = env.metrics.render();
            for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")) {
                if let Some((name, value)) = line.rsplit_once(' ') {
                    tracing::info!(event = "metric", service, name, value);
                }
            }
        }
    }

    fn connections(&self) -> usize {
        self.members.iter().map(|member| member.connections()).sum()
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let health: Vec<_> = self.members.iter().flat_map(|member| member.health()).collect();
        let mut down: Vec<&str> = health.iter().filter(|one| !one.up).map(|one| one.name).collect();
        down.sort_unstable();
        down.dedup();
        let connections = self.connections();
        match down.is_empty() {
            true => format!("{connections} connections"),
            false => format!("{connections} connections, degraded: no {}", down.join(", ")),
        }
    }
}
