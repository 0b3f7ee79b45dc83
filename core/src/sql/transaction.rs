//! Transactions.

use super::mysql::MySqlServer;
use super::pool::{Lease, Server};
use super::postgres::PostgresServer;
use super::sqlite::SqliteServer;
use super::{Db, DbError, Done, Engine, MySqlDb, PostgresDb, Row, SqliteDb, Stmt, Value};
use std::borrow::Cow;

/// A transaction. Dropped without [`Transaction::commit`] it is rolled back: its connection is closed, and the
/// server undoes what it did.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction(Inner);

enum Inner {
    MySql(Lease<MySqlServer>),
    Postgres(Lease<PostgresServer>),
    Sqlite(Lease<SqliteServer>),
}

macro_rules! with_lease {
    ($transaction:expr, |$lease:ident| $body:expr) => {
        match &mut $transaction.0 {
            Inner::MySql($lease) => $body,
            Inner::Postgres($lease) => $body,
            Inner::Sqlite($lease) => $body,
        }
    };
}

impl Transaction {
    pub(crate) async fn begin(db: &Db) -> Result<Transaction, DbError> {
        Ok(Transaction(match db {
            Db::MySql(MySqlDb(pool)) => Inner::MySql(begin(pool.lease().await?, "BEGIN").await?),
            Db::Postgres(PostgresDb(pool)) => {
                // Whatever the database's default: what is decided in it rests on what others have just committed.
                Inner::Postgres(begin(pool.lease().await?, "BEGIN ISOLATION LEVEL READ COMMITTED").await?)
            }
            // The right to write at once: a transaction that reads first could not get it later.
            Db::Sqlite(SqliteDb { writer, .. }) => {
                Inner::Sqlite(begin(writer.lease().await?, "BEGIN IMMEDIATE").await?)
            }
        }))
    }

    /// Which kind of server it runs on.
    pub fn engine(&self) -> Engine {
        match self.0 {
            Inner::MySql(_) => Engine::MySql,
            Inner::Postgres(_) => Engine::Postgres,
            Inner::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// All rows of a statement.
    ///
    /// # Errors
    /// See [`DbError`]. On PostgreSQL a refused statement ends the transaction: only a roll-back is left.
    pub async fn fetch_all(&mut self, stmt: &Stmt, args: &[Value]) -> Result<Vec<Row>, DbError> {
        let (sql, bound) = stmt.render(self.engine(), args);
        with_lease!(self, |lease| {
            let outcome = lease.fetch(sql, &bound).await;
            lease.unsettle();
            outcome
        })
    }

    /// The first row of a statement, if it has any.
    ///
    /// # Errors
    /// As [`Transaction::fetch_all`].
    pub async fn fetch_optional(&mut self, stmt: &Stmt, args: &[Value]) -> Result<Option<Row>, DbError> {
        Ok(self.fetch_all(stmt, args).await?.into_iter().next())
    }

    /// Runs a statement that gives no rows.
    ///
    /// # Errors
    /// As [`Transaction::fetch_all`].
    pub async fn execute(&mut self, stmt: &Stmt, args: &[Value]) -> Result<Done, DbError> {
        let (sql, bound) = stmt.render(self.engine(), args);
        with_lease!(self, |lease| {
            let outcome = lease.execute(sql, &bound).await;
            lease.unsettle();
            outcome
        })
    }

    /// Runs statements of the program's own, without values.
    ///
    /// # Errors
    /// As [`Transaction::fetch_all`]. MySQL ends the transaction by itself when a table is created.
    pub async fn execute_script(&mut self, sql: impl Into<Cow<'static, str>>) -> Result<(), DbError> {
        with_lease!(self, |lease| {
            let limit = lease.statement_timeout();
            let outcome = lease.script(sql.into(), limit).await;
            lease.unsettle();
            outcome
        })
    }

    /// Makes everything done in it last.
    ///
    /// # Errors
    /// See [`DbError`]; after [`DbError::Broken`] or [`DbError::Timeout`] it is unknown whether it lasts.
    pub async fn commit(mut self) -> Result<(), DbError> {
        with_lease!(self, |lease| finish(lease, "COMMIT").await)
    }

    /// Undoes everything done in it.
    ///
    /// # Errors
    /// See [`DbError`]; it is undone all the same.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        with_lease!(self, |lease| finish(lease, "ROLLBACK").await)
    }
}

async fn begin<S: Server>(mut lease: Lease<S>, sql: &'static str) -> Result<Lease<S>, DbError> {
    let limit = lease.statement_timeout();
    let outcome = lease.script(Cow::Borrowed(sql), limit).await;
    lease.unsettle();
    outcome.map(|()| lease)
}

async fn finish<S: Server>(lease: &mut Lease<S>, sql: &'static str) -> Result<(), DbError> {
    let limit = lease.statement_timeout();
    let outcome = lease.script(Cow::Borrowed(sql), limit).await;
    // A refused COMMIT (a deferred constraint, a busy file) leaves the transaction open: that connection is closed.
    lease.unsettle();
    if outcome.is_ok() {
        lease.settle();
    }
    outcome
}
