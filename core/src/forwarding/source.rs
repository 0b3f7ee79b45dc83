//! Domains out of the databases of an iRedMail server.

use super::SrsSettings;
use super::domains::{DomainSource, Known};
use crate::daemon::{DependencyHealth, Environment};
use crate::directory::{self, AccountSource, BoxFuture, Directory};
use crate::schema::Database;
use crate::sql::{Db, DbError, Stmt};
use crate::srs::{DomainList, ListStyle};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Reads local domains from the accounts and exclusions from iRedAPD's table, either of which may be switched off.
///
/// These tables are others' to fill. An embedded database that nobody has made is none: it is looked for again with
/// every reading.
pub(super) struct SqlSource {
    settings: SrsSettings,
    state: PathBuf,
    accounts: OnceCell<Arc<dyn Directory>>,
    iredapd: OnceCell<Db>,
}

const EXCLUDED: Stmt = Stmt::same("SELECT domain FROM srs_exclude_domains");

impl SqlSource {
    /// Nothing is open before the first [`SqlSource::open`].
    pub(super) fn new(settings: &SrsSettings, env: &Environment) -> SqlSource {
        let (settings, state) = (settings.clone(), env.state_directory.clone());
        SqlSource { settings, state, accounts: OnceCell::new(), iredapd: OnceCell::new() }
    }

    /// Opens what is wanted and there. Never waits for a server.
    ///
    /// # Errors
    /// As [`crate::sql::DatabaseSettings::open`] and [`directory::open`].
    pub(super) async fn open(&self) -> Result<(), DbError> {
        let SrsSettings { accounts, ldap, database, .. } = &self.settings;
        let is_there = |name| database.is_there(name, &self.state);
        if self.settings.directory_domains && (*accounts == AccountSource::Ldap || is_there(Database::Vmail))
        {
            let open = || directory::open(*accounts, ldap, database, &self.state);
            self.accounts.get_or_try_init(open).await?;
        }
        if self.settings.exclude_table && is_there(Database::Iredapd) {
            self.iredapd.get_or_try_init(|| database.open(Database::Iredapd, &self.state)).await?;
        }
        Ok(())
    }

    /// Whether each database is there.
    pub(super) fn health(&self) -> Vec<DependencyHealth> {
        let mut health = self.accounts.get().map_or(Vec::new(), |accounts| accounts.health());
        health.extend(self.iredapd.get().map(|db| db.health("iredapd")));
        health
    }

    async fn read_all(&self) -> Result<Known, String> {
        self.open().await.map_err(|error| error.to_string())?;
        let mut known = Known::default();
        if let Some(accounts) = self.accounts.get() {
            let names = accounts.local_domains().await.map_err(|error| error.to_string())?;
            known.local = names.into_iter().map(|name| name.to_lowercase()).collect();
        }
        if let Some(db) = self.iredapd.get() {
            let rows = db.fetch_all(&EXCLUDED, &[]).await;
            let rows = rows.map_err(|error| format!("reading srs_exclude_domains: {error}"))?;
            known.excluded =
                DomainList::new(ListStyle::Iredapd, rows.iter().filter_map(|row| row.text("domain")));
        }
        Ok(known)
    }
}

impl DomainSource for Arc<SqlSource> {
    fn read(&self) -> BoxFuture<'_, Result<Known, String>> {
        Box::pin(self.read_all())
    }
}
