//! quota-status: refuses mail to full mailboxes at RCPT time, in place of Dovecot's service of that name.
//!
//! # Protocol
//!
//! Postfix' policy delegation: attributes one a line (LF or CR LF), an empty line, and for each request one
//! `action=` line and an empty line. Only `recipient` (the first), `protocol_state` (the first) and `size` (the last)
//! are looked at, in states other than RCPT (with `check_end_of_message` also END-OF-MESSAGE) none. No attribute carries
//! over to the next request.
//!
//! ```text
//! smtpd_recipient_restrictions = ..., check_policy_service inet:127.0.0.1:12340
//! ```
//!
//! # Diagnostics
//!
//! Each refusal is one log line at `info` with mailbox, usage, limit and size. `answers_total{result}` counts all.
//!
//! # Security
//!
//! Whoever reaches the port can find out which mailboxes are full; it listens on loopback only by default. Names are
//! bound as values, never written into SQL.

mod account;
mod answer;
mod cache;
mod counters;
mod explain;
mod limit;
mod recipient;
mod resolve;
mod settings;
mod usage;

pub use explain::{Explained, Explanation, Room, explain};
pub use settings::{DoveadmSettings, DoveadmUrl, Grace, OnFailure, Settings, UsageSource};

use account::Accounts;
use answer::Checker;
use counters::Counters;
use outrider_core::clock::SharedClock;
use outrider_core::daemon::{Connection, Daemon, DependencyHealth, Environment, Shutdown, StartError};
use outrider_core::directory::{self, CachedDirectory, Directory, DirectorySettings};
use outrider_core::policy_session;
use outrider_core::sql::DbError;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// Role of the listener.
pub const QUOTA: &str = "quota";

/// The daemon.
pub struct QuotaStatus {
    env: Environment,
    counters: Arc<Counters>,
    current: RwLock<Current>,
}

/// What is in force.
#[derive(Clone)]
struct Current {
    checker: Arc<Checker>,
    directory: Arc<dyn Directory>,
}

impl QuotaStatus {
    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Current {
    async fn new(
        settings: &Settings,
        env: &Environment,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let opened = open(settings, &env.state_directory, &env.clock).await;
        let accounts = opened.map_err(|error| StartError::Other(Box::new(error)))?;
        let directory = accounts.directory.clone();
        let checker = Arc::new(Checker::new(settings, accounts, counters.clone()));
        Ok(Current { checker, directory })
    }
}

/// The accounts that the settings name. Never waits for a server.
async fn open(settings: &Settings, state: &Path, clock: &SharedClock) -> Result<Accounts, DbError> {
    let mut directory = directory::open(settings.accounts, &settings.ldap, &settings.database, state).await?;
    if settings.resolve_aliases {
        // Following asks for forwardings and domains first, for each recipient again.
        let (cache_life, cache_size) = (settings.cache_life, settings.cache_size);
        let memory = DirectorySettings { cache_life, cache_size, ..DirectorySettings::default() };
        directory = Arc::new(CachedDirectory::new(directory, &memory, clock.clone()));
    }
    Accounts::new(settings, directory)
}

impl Daemon for QuotaStatus {
    const NAME: &'static str = "quota-status";
    const ABOUT: &'static str = "refuses mail to full mailboxes at RCPT time";
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::new(env.metrics.clone()));
        let current = RwLock::new(Current::new(&settings, &env, &counters).await?);
        Ok(QuotaStatus { env, counters, current })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let current = Current::new(&settings, &self.env, &self.counters).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let handler = Latest { daemon: &self };
        let limits = self.current().checker.session.clone();
        policy_session::serve(connection.stream, (), &handler, &limits, shutdown.wait()).await;
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.current().directory.health()
    }
}

/// Gives each request to the settings in force when it begins, as Postfix keeps connections for a long time.
struct Latest<'a> {
    daemon: &'a QuotaStatus,
}

impl policy_session::PolicyHandler for Latest<'_> {
    type Peer = ();

    async fn answer(
        &self,
        request: &outrider_core::codec::policy::Request,
        peer: &(),
    ) -> policy_session::Action {
        self.daemon.current().checker.answer(request, peer).await
    }

    fn overdue(&self) -> policy_session::Action {
        self.daemon.current().checker.overdue()
    }

    fn failed(&self, failure: policy_session::Failure) {
        self.daemon.current().checker.failed(failure);
    }
}
