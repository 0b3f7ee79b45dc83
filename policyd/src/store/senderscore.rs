//! Table `senderscore_cache`: reputation scores of client addresses.

use outrider_core::sql::{Db, DbError, Row, Stmt};

use super::PAUSE;

/// The moment of a score that an administrator has set, in a year that no clean-up reaches (Unix seconds).
pub const FOR_EVER: i64 = 4_102_444_799;
/// The best score.
pub const BEST: i64 = 100;

const SCORE: Stmt = Stmt::same("SELECT score FROM senderscore_cache WHERE client_address = ?");

const REMEMBER: Stmt = Stmt::per_engine(
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?)",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
);

/// `time` has an index.
const OLD: Stmt = Stmt::per_engine(
    "DELETE FROM senderscore_cache WHERE time < ? LIMIT ?",
    "DELETE FROM senderscore_cache WHERE client_address IN \
     (SELECT client_address FROM senderscore_cache WHERE time < ? LIMIT ?)",
    "DELETE FROM senderscore_cache WHERE client_address IN \
     (SELECT client_address FROM senderscore_cache WHERE time < ? LIMIT ?)",
)
.repeatable();

const ENTRY: Stmt = Stmt::same("SELECT score, time FROM senderscore_cache WHERE client_address = ?");
const SET: Stmt = Stmt::per_engine(
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) \
     ON DUPLICATE KEY UPDATE score = VALUES(score), time = VALUES(time)",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) \
     ON CONFLICT (client_address) DO UPDATE SET score = EXCLUDED.score, time = EXCLUDED.time",
    "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, ?, ?) \
     ON CONFLICT (client_address) DO UPDATE SET score = EXCLUDED.score, time = EXCLUDED.time",
)
.repeatable();
const FORGET: Stmt = Stmt::same("DELETE FROM senderscore_cache WHERE client_address = ?").repeatable();

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

    /// The score of a client and when it was found (Unix seconds), or [`FOR_EVER`].
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn entry(&self, client_address: &str) -> Result<Option<(i64, i64)>, DbError> {
        let row = self.db.fetch_optional(&ENTRY, &[client_address.into()]).await?;
        let entry = |row: &Row| Some((row.int("score")?, row.int("time")?));
        Ok(row.as_ref().and_then(entry))
    }

    /// Gives a client the best score, whatever was found before, until it is forgotten by hand.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn whitelist(&self, client_address: &str) -> Result<(), DbError> {
        let args = [client_address.into(), BEST.into(), FOR_EVER.into()];
        self.db.execute(&SET, &args).await.map(drop)
    }

    /// Forgets the score of a client; whether there was one.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn forget(&self, client_address: &str) -> Result<bool, DbError> {
        let done = self.db.execute(&FORGET, &[client_address.into()]).await?;
        Ok(done.rows_affected > 0)
    }

    /// Forgets scores found before `time` (Unix seconds), `batch` rows at a time; how many.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn forget_before(&self, time: i64, batch: u32) -> Result<u64, DbError> {
        let mut forgotten = 0;
        loop {
            let done = self.db.execute(&OLD, &[time.into(), batch.into()]).await?;
            forgotten += done.rows_affected;
            if done.rows_affected < u64::from(batch) {
                return Ok(forgotten);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
