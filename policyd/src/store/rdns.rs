//! Table `wblist_rdns`: reverse names of clients that are always or never accepted.
//!
//! Names are asked for in lower case. Rows with capitals are found on MySQL only: folding the column as well
//! (`LOWER(rdns) IN (?)`) would keep the other servers from using its index. So names are written in lower case.

use outrider_core::sql::{Db, DbError, Stmt, Value};

use crate::cache::{Cache, CacheMeter};
use crate::settings::CacheSettings;

const LISTED: Stmt = Stmt::same("SELECT wb FROM wblist_rdns WHERE rdns IN (?)");

const ALL: Stmt = Stmt::same("SELECT rdns, wb FROM wblist_rdns ORDER BY rdns");
const SET: Stmt = Stmt::per_engine(
    "INSERT INTO wblist_rdns (rdns, wb) VALUES (?, ?) ON DUPLICATE KEY UPDATE wb = VALUES(wb)",
    "INSERT INTO wblist_rdns (rdns, wb) VALUES (?, ?) ON CONFLICT (rdns) DO UPDATE SET wb = EXCLUDED.wb",
    "INSERT INTO wblist_rdns (rdns, wb) VALUES (?, ?) ON CONFLICT (rdns) DO UPDATE SET wb = EXCLUDED.wb",
)
.repeatable();
const FORGET: Stmt = Stmt::same("DELETE FROM wblist_rdns WHERE rdns = ?").repeatable();

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

    /// All names with their letters, `W` or `B`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, DbError> {
        let rows = self.db.fetch_all(&ALL, &[]).await?;
        Ok(rows.iter().filter_map(|row| Some((row.string("rdns")?, row.string("wb")?))).collect())
    }

    /// Puts a name, in lower case, on the white- or the blacklist, and so takes it off the other.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn set(&self, name: &str, white: bool) -> Result<(), DbError> {
        let letter = if white { "W" } else { "B" };
        self.db.execute(&SET, &[name.to_lowercase().into(), letter.into()]).await.map(drop)
    }

    /// Takes a name off its list; whether it was on one.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn forget(&self, name: &str) -> Result<bool, DbError> {
        Ok(self.db.execute(&FORGET, &[name.into()]).await?.rows_affected > 0)
    }
}
