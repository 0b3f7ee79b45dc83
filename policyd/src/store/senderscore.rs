//! Table `senderscore_cache`: reputation scores of client addresses.

use outrider_core::sql::{Db, DbError, Stmt};

const SCORE: Stmt = Stmt::same("SELECT score FROM senderscore_cache WHERE client_address = ?");

const REMEMBER: Stmt = Stmt::per_engine(
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?)",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
);

/// The table is small and `time` has an index.
const OLD: Stmt = Stmt::same("DELETE FROM senderscore_cache WHERE time < ?").repeatable();

/// The table. Cheap to clone.
#[derive(Clone)]
pub struct SenderscoreStore {
    db: Db,
}

impl SenderscoreStore {
    /// The table in this database.
    pub fn new(db: Db) -> SenderscoreStore {
        SenderscoreStore { db }
    }

    /// The score of a client, however old.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn score(&self, client_address: &str) -> Result<Option<i64>, DbError> {
        let row = self.db.fetch_optional(&SCORE, &[client_address.into()]).await?;
        Ok(row.and_then(|row| row.int("score")))
    }

    /// Remembers a score found at `now` (Unix seconds); one that is there already stays.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn remember(&self, client_address: &str, score: i64, now: i64) -> Result<(), DbError> {
        match self.db.execute(&REMEMBER, &[client_address.into(), score.into(), now.into()]).await {
            Err(error) if error.is_duplicate_key() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Forgets scores found before `time` (Unix seconds); how many.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn forget_before(&self, time: i64) -> Result<u64, DbError> {
        self.db.execute(&OLD, &[time.into()]).await.map(|done| done.rows_affected)
    }
}
