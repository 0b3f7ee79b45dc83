//! Table `wblist_rdns`: reverse names of clients that are always or never accepted.

use outrider_core::sql::{Db, DbError, Stmt, Value};

use crate::cache::{Cache, CacheMeter};
use crate::settings::CacheSettings;

const LISTED: Stmt = Stmt::same("SELECT wb FROM wblist_rdns WHERE rdns IN (?)");

/// What the table says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// At least one of its forms is whitelisted.
    White,
    /// At least one of its forms is blacklisted, and none whitelisted.
    Black,
    /// Nothing.
    No,
}

/// The table.
pub struct RdnsStore {
    db: Db,
    cache: Cache<String, Listed>,
}

impl RdnsStore {
    /// The table in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> RdnsStore {
        RdnsStore { db, cache: Cache::new(cache.entries, cache.lifetime.duration(), cache.stale.duration()) }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.cache.measure(meter);
    }

    /// Looks up `name`, whose forms (itself and the suffixes that cover it) are `forms`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn listed(&self, name: &str, forms: Vec<String>) -> Result<Listed, DbError> {
        let fetch = async {
            let rows = self.db.fetch_all(&LISTED, &[Value::list(forms)]).await?;
            let has = |flag| rows.iter().any(|row| row.text("wb") == Some(flag));
            Ok(match (has("W"), has("B")) {
                (true, _) => Listed::White,
                (false, true) => Listed::Black,
                (false, false) => Listed::No,
            })
        };
        self.cache.get_or_fetch(name.to_owned(), fetch, DbError::is_temporary).await
    }
}
