//! The senders behind tokens, in a database that several hosts may share.
//!
//! On MySQL and PostgreSQL they are in a table of their own, `srs_envelope`, which the administrator makes
//! ([`create_statements`]); nothing is ever created on a server. In an SQLite file they are in the table `kv` that
//! PostSRSd 2 has there, so its file can be taken over and given back; a file without that table gets it.
//!
//! A sender is written once a day at most, however often it is seen. New senders beyond a limit are refused, so that a
//! flood of forged ones cannot fill the disk; expired ones are removed in small batches.

use crate::sql::{Db, DbError, DbUrl, Engine, PoolOptions, Stmt, Value};
use crate::srs::Token;
use lru::LruCache;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Tokens remembered as written, so that a busy sender costs no statement.
const REMEMBERED: usize = 4096;
/// Attempts to write while others write.
const ATTEMPTS: u32 = 4;
/// Rows removed with one statement, and statements in one clean-up: no lock is held for long.
const BATCH: u64 = 1000;
const BATCHES: u32 = 100;
const DAY: i64 = 86_400;
/// How often rows are counted and expired ones removed.
const CLEANUP: i64 = 300;

const PUT: Stmt = Stmt::per_engine(
    "INSERT INTO srs_envelope (token, sender, expires) VALUES (?, ?, ?) \
     ON DUPLICATE KEY UPDATE expires = GREATEST(expires, VALUES(expires))",
    "INSERT INTO srs_envelope (token, sender, expires) VALUES (?, ?, ?) \
     ON CONFLICT (token) DO UPDATE SET expires = GREATEST(srs_envelope.expires, EXCLUDED.expires)",
    "INSERT INTO kv (k, v, lt) VALUES (?, ?, ?) ON CONFLICT (k) DO UPDATE SET lt = max(lt, excluded.lt)",
)
.repeatable();
const TOUCH: Stmt = Stmt::per_engine(
    "UPDATE srs_envelope SET expires = GREATEST(expires, ?) WHERE token = ?",
    "UPDATE srs_envelope SET expires = GREATEST(expires, ?) WHERE token = ?",
    "UPDATE kv SET lt = max(lt, ?) WHERE k = ?",
)
.repeatable();
const FIND: Stmt = Stmt::per_engine(
    "SELECT sender FROM srs_envelope WHERE token = ? AND expires > ?",
    "SELECT sender FROM srs_envelope WHERE token = ? AND expires > ?",
    "SELECT v FROM kv WHERE k = ? AND lt > ?",
);
const COUNT: Stmt = Stmt::per_engine(
    "SELECT COUNT(*) AS n FROM srs_envelope",
    "SELECT COUNT(*) AS n FROM srs_envelope",
    "SELECT COUNT(*) AS n FROM kv",
);
const EXPIRE: Stmt = Stmt::per_engine(
    "DELETE FROM srs_envelope WHERE expires <= ? LIMIT 1000",
    "DELETE FROM srs_envelope WHERE token IN (SELECT token FROM srs_envelope WHERE expires <= ? LIMIT 1000)",
    "DELETE FROM kv WHERE rowid IN (SELECT rowid FROM kv WHERE lt <= ? LIMIT 1000)",
)
.repeatable();

/// The statements that make the table, to be run one by one by the administrator of a database server.
pub fn create_statements(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::MySql => &["CREATE TABLE srs_envelope (
  token VARCHAR(34) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  sender VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  expires BIGINT NOT NULL,
  PRIMARY KEY (token),
  KEY srs_envelope_expires_idx (expires)
) ENGINE=InnoDB"],
        Engine::Postgres => &[
            "CREATE TABLE srs_envelope (
  token VARCHAR(34) NOT NULL PRIMARY KEY,
  sender VARCHAR(512) NOT NULL,
  expires BIGINT NOT NULL
)",
            "CREATE INDEX srs_envelope_expires_idx ON srs_envelope (expires)",
        ],
        Engine::Sqlite => &[
            "CREATE TABLE kv (k TEXT UNIQUE ON CONFLICT REPLACE, v TEXT, lt INTEGER)",
            "CREATE INDEX kv_lt_idx ON kv (lt)",
        ],
    }
}

/// Why a sender was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum KeepError {
    /// There are as many as there may be.
    #[error("{0} senders are kept already (envelope_database_limit)")]
    Full(u64),
    /// The database did not take it.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// The database of senders.
pub(super) struct Originals {
    db: Db,
    /// Days for which an address is good.
    validity_days: i64,
    limit: u64,
    /// As counted last, and those written since.
    rows: AtomicU64,
    /// When rows were counted last, in seconds since 1970.
    counted: AtomicI64,
    /// Until when senders are known to be kept.
    written: Mutex<LruCache<Token, i64>>,
}

/// Where the senders are kept and how many of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) url: Option<&'a DbUrl>,
    pub(super) password_file: Option<&'a PathBuf>,
    pub(super) state: &'a Path,
    pub(super) options: &'a PoolOptions,
    pub(super) validity_days: i64,
    pub(super) limit: u64,
}

impl Originals {
    /// Never waits for a server. An SQLite file is made if there is none.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for a URL or password file that cannot be used, and what SQLite says of its file.
    pub(super) async fn open(place: Place<'_>) -> Result<Originals, DbError> {
        let own = DbUrl::sqlite(&place.state.join("envelopes.db"));
        let mut url = place.url.unwrap_or(&own).clone();
        if let Some(file) = place.password_file.filter(|_| place.url.is_some()) {
            url.read_password(file)?;
        }
        let db = match url.engine() {
            Engine::Sqlite => Db::open_file(Path::new(url.database()), place.options),
            _ => Db::open(&url, place.options)?,
        };
        db.watch();
        if db.engine() == Engine::Sqlite {
            make_table(&db, Path::new(url.database())).await?;
        }
        Ok(Originals {
            db,
            validity_days: place.validity_days,
            limit: place.limit,
            rows: AtomicU64::new(0),
            counted: AtomicI64::new(i64::MIN),
            // Bounded by hand below: a bounded cache would take the room for all at once.
            written: Mutex::new(LruCache::unbounded()),
        })
    }

    /// The database itself, for its state of health.
    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Keeps a sender until the last address made with its token has expired.
    pub(super) async fn keep(&self, token: &Token, sender: &str, now: i64) -> Result<(), KeepError> {
        // An address made today is good to the end of its last day.
        let expires = (now.div_euclid(DAY) + self.validity_days + 1) * DAY;
        if self.written().get(token).is_some_and(|until| *until >= expires) {
            return Ok(());
        }
        let key = Value::from(token.key());
        if self.rows.load(Ordering::Relaxed) < self.limit {
            self.write(&PUT, &[key, sender.into(), expires.into()]).await?;
            self.rows.fetch_add(1, Ordering::Relaxed);
        } else if self.write(&TOUCH, &[expires.into(), key]).await? == 0 {
            return Err(KeepError::Full(self.limit));
        }
        let mut written = self.written();
        written.put(token.clone(), expires);
        if written.len() > REMEMBERED {
            written.pop_lru();
        }
        Ok(())
    }

    /// Writes, again if others were in the way.
    async fn write(&self, stmt: &Stmt, args: &[Value]) -> Result<u64, DbError> {
        let mut attempt = 1;
        loop {
            match self.db.execute(stmt, args).await {
                Err(DbError::TryAgain(_) | DbError::Busy { .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(20) * attempt).await;
                    attempt += 1;
                }
                outcome => return outcome.map(|done| done.rows_affected),
            }
        }
    }

    /// The sender behind a token, unless it is unknown or has expired.
    pub(super) async fn find(&self, token: &Token, now: i64) -> Result<Option<String>, DbError> {
        let row = self.db.fetch_optional(&FIND, &[token.key().into(), now.into()]).await?;
        Ok(row.and_then(|row| row.text_at(0).map(str::to_owned)))
    }

    /// Removes expired senders and counts the others, if that was not done in the last minutes.
    pub(super) async fn clean(&self, now: i64) -> Result<(), DbError> {
        let last = self.counted.load(Ordering::Relaxed);
        if last <= now && now < last.saturating_add(CLEANUP) {
            return Ok(());
        }
        for _ in 0..BATCHES {
            if self.db.execute(&EXPIRE, &[now.into()]).await?.rows_affected < BATCH {
                break;
            }
        }
        let rows = self.db.fetch_optional(&COUNT, &[]).await?.and_then(|row| row.int("n")).unwrap_or(0);
        self.rows.store(u64::try_from(rows).unwrap_or(0), Ordering::Relaxed);
        self.counted.store(now, Ordering::Relaxed);
        Ok(())
    }

    fn written(&self) -> std::sync::MutexGuard<'_, LruCache<Token, i64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make_table(db: &Db, file: &Path) -> Result<(), DbError> {
    const TABLE: Stmt = Stmt::same("SELECT 1 AS n FROM sqlite_master WHERE type = 'table' AND name = 'kv'");
    if db.fetch_optional(&TABLE, &[]).await?.is_some() {
        return Ok(());
    }
    let mut transaction = db.begin().await?;
    // Another process may have been faster.
    if transaction.fetch_optional(&TABLE, &[]).await?.is_none() {
        for statement in create_statements(Engine::Sqlite) {
            transaction.execute_script(*statement).await?;
        }
    }
    transaction.commit().await?;
    crate::sql::hide_file(file);
    Ok(())
}
