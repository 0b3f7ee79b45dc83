//! What an administrator asks of the policy service's tables, without the daemon: the same settings, the same
//! databases, the same decisions.

mod explain;
pub mod tracking;

use std::path::Path;
use std::sync::Arc;

use outrider_core::clock::SharedClock;
use outrider_core::daemon::StartError;
use outrider_core::directory::write::{AccountError, Rules, ThrottleKind};
use outrider_core::metrics::Metrics;
use outrider_core::sql::{Db, DbError, Stmt};

pub use crate::cleanup::Swept;
pub use explain::{Counted, Counter, Effect, Explanation, Part, Subject};

use crate::cleanup;
use crate::context::RuleError;
use crate::daemon::Snapshot;
use crate::metrics::PolicyMetrics;
use crate::settings::Settings;
use crate::store::rdns::RdnsStore;
use crate::store::senderscore::SenderscoreStore;
use crate::whitelist_domains::{self, Domains, Refreshed};
use tracking::{Tracked, Whose};

/// The tables of the policy service, open for an administrator.
pub struct Administration {
    snapshot: Snapshot,
}

impl Administration {
    /// Opens the databases that the settings name, or the embedded ones in `state`. To be called inside the runtime.
    ///
    /// # Errors
    /// As the start of the daemon.
    pub async fn open(
        settings: Arc<Settings>,
        state: &Path,
        clock: SharedClock,
    ) -> Result<Administration, StartError> {
        // Nobody reads these: the daemon has its own.
        let metrics = PolicyMetrics::new(Arc::new(Metrics::new("policyd")));
        Ok(Administration { snapshot: Snapshot::new(settings, state, clock, &metrics).await? })
    }

    /// The database of greylisting and throttling.
    pub fn iredapd(&self) -> &Db {
        &self.snapshot.iredapd
    }

    /// The database of white- and blacklists.
    pub fn amavisd(&self) -> &Db {
        &self.snapshot.amavisd
    }

    /// Rules about accounts.
    pub fn rules(&self) -> &Rules {
        &self.snapshot.rules
    }

    /// Reverse names.
    pub fn rdns(&self) -> &RdnsStore {
        &self.snapshot.context.stores.rdns
    }

    /// Reputation scores.
    pub fn senderscore(&self) -> &SenderscoreStore {
        &self.snapshot.context.stores.senderscore
    }

    /// Now, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.snapshot.context.now()
    }

    /// What separates an address extension from the user's name.
    pub fn recipient_delimiters(&self) -> &[String] {
        &self.snapshot.context.settings.recipient_delimiters
    }

    /// Removes all rows that have had their time, as the daemon does on its schedule.
    pub async fn clean_up(&self) -> Vec<Swept> {
        cleanup::sweep(&self.snapshot.context).await
    }

    /// How many rows one of the tables that are cleaned up has.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn rows_of(&self, table: &str) -> Result<i64, DbError> {
        const COUNTS: [(&str, Stmt); 4] = [
            ("greylisting_tracking", Stmt::same("SELECT COUNT(*) FROM greylisting_tracking")),
            ("throttle_tracking", Stmt::same("SELECT COUNT(*) FROM throttle_tracking")),
            ("senderscore_cache", Stmt::same("SELECT COUNT(*) FROM senderscore_cache")),
            ("smtp_sessions", Stmt::same("SELECT COUNT(*) FROM smtp_sessions")),
        ];
        let Some((_, count)) = COUNTS.iter().find(|(name, _)| *name == table) else { return Ok(0) };
        let row = self.snapshot.iredapd.fetch_optional(count, &[]).await?;
        Ok(row.and_then(|row| row.int_at(0)).unwrap_or(0))
    }

    /// Looks up the mail servers of domains that are never greylisted, as the daemon does on its schedule.
    ///
    /// # Errors
    /// The database's; domains done before stay done.
    pub async fn refresh_whitelist_domains(&self, domains: Domains) -> Result<Vec<Refreshed>, AccountError> {
        let Snapshot { context, rules, iredapd, .. } = &self.snapshot;
        whitelist_domains::refresh(context, rules, iredapd, domains).await
    }

    /// Explains the limits of one kind for a user or a client.
    ///
    /// # Errors
    /// If the accounts or the tables cannot be asked.
    pub async fn explain_throttle(
        &self,
        kind: ThrottleKind,
        subject: &Subject,
    ) -> Result<Explanation, RuleError> {
        explain::explain(&self.snapshot.context, &self.snapshot.rules, kind, subject).await
    }

    /// The newest triplets of somebody, at most `limit`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn triplets(&self, whose: &Whose, limit: u32) -> Result<Vec<Tracked>, DbError> {
        tracking::triplets(&self.snapshot.iredapd, whose, limit).await
    }
}
