//! MySQL/MariaDB, PostgreSQL and SQLite behind one interface, chosen by URL.
//!
//! A [`Stmt`] holds one statement in the spelling of each server, with `?` for every value on all of them; values are
//! always bound, never written into the text. Rows come back as [`Row`]: one integer type for all widths, text
//! for text, dates as `YYYY-MM-DD HH:MM:SS`, so that the callers know nothing of the server.
//!
//! Opening never waits: connections are made when a statement needs one, and made again when the server comes back.
//! Reads, and writes marked [`Stmt::repeatable`], are tried once more when their connection breaks. Limits: the number of
//! connections, the wait for one (`acquire_timeout`), the wait for an answer (`statement_timeout`).

mod databases;
mod error;
mod group_commit;
mod mysql;
mod pool;
mod postgres;
pub mod reconnect;
mod sqlite;
mod stmt;
#[cfg(test)]
mod tests;
mod transaction;
mod url;
mod value;

pub(crate) use databases::hide_file;
pub use databases::{DatabaseSettings, Databases};
pub use error::{DbError, FailureCounts};
pub use pool::PoolOptions;
pub use stmt::{Stmt, escape_like};
pub use transaction::Transaction;
pub use url::DbUrl;
pub use value::{Row, Value};

use crate::daemon::PoolFigures;
use group_commit::GroupCommit;
use mysql::MySqlServer;
use pool::{Pool, Server};
use postgres::PostgresServer;
use sqlite::SqliteServer;
use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A transaction in which nothing has been done for so long is ended by the server.
const IDLE_TRANSACTION: Duration = Duration::from_secs(15);
/// Connections for reading an SQLite file; they never wait for the writer.
const SQLITE_READERS: usize = 4;
/// The longest wait for a script that creates tables.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Which kind of server a database runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// MySQL or MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
    /// An SQLite file.
    Sqlite,
}

impl Engine {
    /// The first word of its URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Engine::MySql => "mysql",
            Engine::Postgres => "postgresql",
            Engine::Sqlite => "sqlite",
        }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Rows inserted, deleted or matched by an update. `INSERT ... ON DUPLICATE KEY UPDATE` counts 2 for an update on
    /// MySQL.
    pub rows_affected: u64,
    /// The id of the last row inserted, or on MySQL the argument of `LAST_INSERT_ID()`. Always 0 on PostgreSQL: use
    /// `RETURNING` there.
    pub last_insert_id: i64,
}

/// A database. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub enum Db {
    /// MySQL or MariaDB.
    MySql(MySqlDb),
    /// PostgreSQL.
    Postgres(PostgresDb),
    /// An SQLite file.
    Sqlite(SqliteDb),
}

/// The connections to a MySQL or MariaDB database.
#[derive(Clone)]
pub struct MySqlDb(Arc<Pool<MySqlServer>>);

/// The connections to a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresDb(Arc<Pool<PostgresServer>>);

/// The connections to an SQLite file: many that read, one that writes. With several writers they would wait for
/// each other inside SQLite, where waiting is polling.
#[derive(Clone)]
pub struct SqliteDb {
    readers: Arc<Pool<SqliteServer>>,
    writer: Arc<Pool<SqliteServer>>,
    writes: GroupCommit,
}

impl SqliteDb {
    fn open(file: &Path, create: bool, options: &PoolOptions) -> SqliteDb {
        let place = DbUrl::sqlite(file).place();
        let pool = |server, count| {
            let options = PoolOptions { max_connections: count, ..options.clone() };
            Pool::new(server, place.clone(), options)
        };
        let server = || SqliteServer::new(file, create);
        let writer = pool(server().writing(), 1);
        let readers = pool(server(), SQLITE_READERS);
        SqliteDb { readers, writes: GroupCommit::new(writer.clone()), writer }
    }
}

/// Runs `$body` with `$pool` bound to the pool of whatever server this is; `$writes` picks SQLite's writer.
macro_rules! with_pool {
    ($db:expr, $writes:expr, |$pool:ident| $body:expr) => {
        match $db {
            Db::MySql(MySqlDb($pool)) => $body,
            Db::Postgres(PostgresDb($pool)) => $body,
            Db::Sqlite(SqliteDb { readers, writer, .. }) => {
                let $pool = if $writes { writer } else { readers };
                $body
            }
        }
    };
}

impl Db {
    /// A database by its URL. Opens no connection and never waits.
    ///
    /// # Errors
    /// [`DbError::Unusable`] when the URL lacks the name of a database.
    pub fn open(url: &DbUrl, options: &PoolOptions) -> Result<Db, DbError> {
        if url.database().is_empty() {
            return Err(DbError::Unusable(format!("{url} names no database")));
        }
        let place = url.place();
        let limit = options.statement_timeout;
        Ok(match url.engine() {
            Engine::MySql => {
                Db::MySql(MySqlDb(Pool::new(MySqlServer::new(url, limit), place, options.clone())))
            }
            Engine::Postgres => {
                Db::Postgres(PostgresDb(Pool::new(PostgresServer::new(url, limit), place, options.clone())))
            }
            Engine::Sqlite => Db::Sqlite(SqliteDb::open(Path::new(url.database()), false, options)),
        })
    }

    /// An SQLite file that is created when it is not there.
    pub fn open_file(file: &Path, options: &PoolOptions) -> Db {
        Db::Sqlite(SqliteDb::open(file, true, options))
    }

    /// Which kind of server it is.
    pub fn engine(&self) -> Engine {
        match self {
            Db::MySql(_) => Engine::MySql,
            Db::Postgres(_) => Engine::Postgres,
            Db::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// All rows of a statement.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn fetch_all(&self, stmt: &Stmt, args: &[Value]) -> Result<Vec<Row>, DbError> {
        let engine = self.engine();
        if let Db::Sqlite(SqliteDb { writes, .. }) = self
            && !stmt.only_reads(engine)
        {
            let (sql, bound) = stmt.render(engine, args);
            return writes.fetch(sql, &bound).await;
        }
        with_pool!(self, false, |pool| fetch(pool, stmt, engine, args).await)
    }

    /// The first row of a statement, if it has any.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn fetch_optional(&self, stmt: &Stmt, args: &[Value]) -> Result<Option<Row>, DbError> {
        Ok(self.fetch_all(stmt, args).await?.into_iter().next())
    }

    /// Runs a statement that gives no rows.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn execute(&self, stmt: &Stmt, args: &[Value]) -> Result<Done, DbError> {
        let engine = self.engine();
        if let Db::Sqlite(SqliteDb { writes, .. }) = self {
            let (sql, bound) = stmt.render(engine, args);
            return writes.execute(sql, &bound).await;
        }
        with_pool!(self, true, |pool| execute(pool, stmt, engine, args).await)
    }

    /// Runs statements of the program's own, without values: what creates tables and triggers.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn execute_script(&self, sql: impl Into<Cow<'static, str>>) -> Result<(), DbError> {
        with_pool!(self, true, |pool| pool.lease().await?.script(sql.into(), SCRIPT_TIMEOUT).await)
    }

    /// Begins a transaction; on SQLite it holds the only writing connection until it ends.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn begin(&self) -> Result<Transaction, DbError> {
        Transaction::begin(self).await
    }

    /// Whether the server was there when it was last used. True before the first use.
    pub fn is_up(&self) -> bool {
        with_pool!(self, true, |pool| pool.is_up())
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ping(&self) -> Result<(), DbError> {
        const PING: Stmt = Stmt::same("SELECT 1");
        let engine = self.engine();
        with_pool!(self, true, |pool| {
            let outcome = fetch(pool, &PING, engine, &[]).await;
            if matches!(outcome, Err(DbError::Timeout { .. } | DbError::Broken { .. })) {
                pool.set_up(false);
            }
            outcome.map(drop)
        })
    }

    /// A handle that does not keep the connections open; `None` for SQLite, which needs no watching.
    pub(crate) fn downgrade(&self) -> Option<WeakDb> {
        match self {
            Db::MySql(MySqlDb(pool)) => Some(WeakDb::MySql(Arc::downgrade(pool))),
            Db::Postgres(PostgresDb(pool)) => Some(WeakDb::Postgres(Arc::downgrade(pool))),
            Db::Sqlite(_) => None,
        }
    }

    /// Connections at most; 1 on SQLite, which has one writer.
    pub fn most_connections(&self) -> usize {
        with_pool!(self, true, |pool| pool.most_connections())
    }

    /// Its connections and failures. On SQLite those of the writer.
    pub fn figures(&self) -> PoolFigures {
        with_pool!(self, true, |pool| pool.figures())
    }

    /// Where it is, without user and password.
    pub fn place(&self) -> &str {
        with_pool!(self, true, |pool| pool.place())
    }
}

/// A [`Db`] as long as somebody else holds it.
pub(crate) enum WeakDb {
    MySql(Weak<Pool<MySqlServer>>),
    Postgres(Weak<Pool<PostgresServer>>),
}

impl WeakDb {
    pub(crate) fn upgrade(&self) -> Option<Db> {
        Some(match self {
            WeakDb::MySql(pool) => Db::MySql(MySqlDb(pool.upgrade()?)),
            WeakDb::Postgres(pool) => Db::Postgres(PostgresDb(pool.upgrade()?)),
        })
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Db({})", self.place())
    }
}

async fn fetch<S: Server>(
    pool: &Arc<Pool<S>>,
    stmt: &Stmt,
    engine: Engine,
    args: &[Value],
) -> Result<Vec<Row>, DbError> {
    let (sql, bound) = stmt.render(engine, args);
    match pool.lease().await?.fetch(sql.clone(), &bound).await {
        Err(error) if error.is_broken() && stmt.may_repeat(engine) => {
            pool.lease().await?.fetch(sql, &bound).await
        }
        outcome => outcome,
    }
}

async fn execute<S: Server>(
    pool: &Arc<Pool<S>>,
    stmt: &Stmt,
    engine: Engine,
    args: &[Value],
) -> Result<Done, DbError> {
    let (sql, bound) = stmt.render(engine, args);
    match pool.lease().await?.execute(sql.clone(), &bound).await {
        Err(error) if error.is_broken() && stmt.may_repeat(engine) => {
            pool.lease().await?.execute(sql, &bound).await
        }
        outcome => outcome,
    }
}

/// The one place where text made at run time becomes a statement. It only ever comes from a [`Stmt`] whose
/// placeholders were multiplied or numbered, or from a script of the program's own: no value is ever part of it.
fn prepared(sql: Cow<'static, str>) -> sqlx::AssertSqlSafe<Cow<'static, str>> {
    sqlx::AssertSqlSafe(sql)
}
