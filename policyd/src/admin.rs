//! What an administrator asks of the policy service's tables, without the daemon: the same settings, the same
//! databases and Valkey server, the same decisions.

mod explain;
pub mod tracking;

use std::path::Path;
use std::sync::Arc;

use outrider_core::clock::SharedClock;
use outrider_core::daemon::StartError;
use outrider_core::directory::write::{AccountError, AccountKey, Rules, ThrottleKind};
use outrider_core::metrics::Metrics;
use outrider_core::sql::{Db, DbError, Row, Stmt};

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
use tracking::{Answer, Whose};

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

    /// The newest contacts of somebody, at most `limit`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn tracked(&self, whose: &Whose, limit: u32) -> Result<Answer, DbError> {
        tracking::tracked(&self.snapshot.context, &self.snapshot.iredapd, whose, limit).await
    }

    /// Where counters and contacts are kept, without a password.
    pub fn counters_place(&self) -> String {
        match &self.snapshot.context.stores.valkey {
            Some(valkey) => valkey.server.place().to_owned(),
            None => self.snapshot.iredapd.place().to_owned(),
        }
    }

    /// Forgets what limits of these kinds have counted under a key (a user, a client, `a.b.c.*`); how many counters there
    /// were.
    ///
    /// # Errors
    /// If the limits or the counters cannot be reached.
    pub async fn reset_throttle(&self, key: &str, kinds: &[ThrottleKind]) -> Result<u64, AccountError> {
        let Some(valkey) = &self.snapshot.context.stores.valkey else {
            return self.rules().reset_throttle(key, kinds).await;
        };
        let of_kind =
            |row: &Row| row.text("kind").is_some_and(|kind| kinds.iter().any(|wanted| wanted.name() == kind));
        let limits = self.rules().throttles().await?;
        let tids: Vec<i64> =
            limits.iter().filter(|row| of_kind(row)).filter_map(|row| row.int("id")).collect();
        Ok(valkey.counters.forget(&tids, key).await?)
    }

    /// Removes the limits of an account with what was counted under them; how many limits there were.
    ///
    /// # Errors
    /// If the limits or the counters cannot be reached. Counters without their limit go when their period is over.
    pub async fn remove_throttle(
        &self,
        account: &AccountKey,
        kind: ThrottleKind,
    ) -> Result<u64, AccountError> {
        let Some(valkey) = &self.snapshot.context.stores.valkey else {
            return self.rules().remove_throttle(account, kind).await;
        };
        let limits = self.rules().throttles().await?;
        let same = |row: &&Row| {
            row.text("account") == Some(account.as_str()) && row.text("kind") == Some(kind.name())
        };
        let tids: Vec<i64> = limits.iter().filter(same).filter_map(|row| row.int("id")).collect();
        let removed = self.rules().remove_throttle(account, kind).await?;
        for tid in tids {
            valkey.counters.forget_limit(tid).await?;
        }
        Ok(removed)
    }
}
