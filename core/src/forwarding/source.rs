//! Domains out of the databases of an iRedMail server.

use super::domains::{DomainSource, Known};
use crate::directory::{BoxFuture, Directory};
use crate::sql::{Db, Stmt};
use crate::srs::{DomainList, ListStyle};
use std::sync::Arc;

/// Reads local domains from the accounts and exclusions from iRedAPD's table, either of which may be switched off.
pub(super) struct SqlSource {
    pub(super) accounts: Option<Arc<dyn Directory>>,
    pub(super) iredapd: Option<Db>,
}

const EXCLUDED: Stmt = Stmt::same("SELECT domain FROM srs_exclude_domains");

impl SqlSource {
    async fn read_all(&self) -> Result<Known, String> {
        let mut known = Known::default();
        if let Some(accounts) = &self.accounts {
            let names = accounts.local_domains().await.map_err(|error| error.to_string())?;
            known.local = names.into_iter().map(|name| name.to_lowercase()).collect();
        }
        if let Some(db) = &self.iredapd {
            let rows = db.fetch_all(&EXCLUDED, &[]).await;
            let rows = rows.map_err(|error| format!("reading srs_exclude_domains: {error}"))?;
            known.excluded =
                DomainList::new(ListStyle::Iredapd, rows.iter().filter_map(|row| row.text("domain")));
        }
        Ok(known)
    }
}

impl DomainSource for SqlSource {
    fn read(&self) -> BoxFuture<'_, Result<Known, String>> {
        Box::pin(self.read_all())
    }
}
