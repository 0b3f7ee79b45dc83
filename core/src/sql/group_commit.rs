//! Writes to an SQLite file that come at the same moment share one commit.
//!
//! SQLite has one writer at a time and every commit waits for the disk. So the writes that gather while one commit is
//! under way become one transaction; each of them is answered after that transaction is on the disk, so nothing is promised
//! that a power cut could take back. A statement that is refused (a duplicate key, a missing table) undoes only itself.
//! Anything worse undoes the transaction, and each write is tried alone.

use std::borrow::Cow;
use std::sync::Arc;

use super::pool::{Lease, Pool};
use super::sqlite::SqliteServer;
use super::{DbError, Done, Row, Value};
use crate::gather::{Gather, Lanes};

/// Writes of one transaction at most.
const MOST: usize = 128;

/// One write without its answer.
struct Write {
    sql: Cow<'static, str>,
    args: Vec<Value>,
    /// Whether it gives rows (`RETURNING`).
    returning: bool,
}

/// What a write did, and the rows it gives.
#[derive(Default)]
struct Written {
    done: Done,
    rows: Vec<Row>,
}

/// The way to the writing connection of a file.
#[derive(Clone)]
pub(crate) struct GroupCommit(Arc<Gather<Write, Result<Written, DbError>>>);

impl GroupCommit {
    pub(crate) fn new(writer: Arc<Pool<SqliteServer>>) -> GroupCommit {
        GroupCommit(Arc::new(Gather::new(MOST, Lanes::ONE, move |writes: Vec<Write>| {
            let writer = writer.clone();
            async move { write(&writer, &writes).await }
        })))
    }

    /// Runs one statement that gives no rows.
    pub(crate) async fn execute(&self, sql: Cow<'static, str>, args: &[&Value]) -> Result<Done, DbError> {
        Ok(self.ask(sql, args, false).await?.done)
    }

    /// Runs one statement that gives rows.
    pub(crate) async fn fetch(&self, sql: Cow<'static, str>, args: &[&Value]) -> Result<Vec<Row>, DbError> {
        Ok(self.ask(sql, args, true).await?.rows)
    }

    async fn ask(
        &self,
        sql: Cow<'static, str>,
        args: &[&Value],
        returning: bool,
    ) -> Result<Written, DbError> {
        let args = args.iter().map(|&value| value.clone()).collect();
        let lost = || DbError::TryAgain("the write was given up".to_owned());
        self.0.ask(Write { sql, args, returning }).await.ok_or_else(lost)?
    }
}

async fn write(writer: &Arc<Pool<SqliteServer>>, writes: &[Write]) -> Vec<Result<Written, DbError>> {
    if writes.len() > 1 {
        match together(writer, writes).await {
            Ok(answers) => return answers,
            Err(error) => tracing::debug!(%error, "writes that gathered are tried one by one"),
        }
    }
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        answers.push(match writer.lease().await {
            Ok(mut lease) => run(&mut lease, write).await,
            Err(error) => Err(error),
        });
    }
    answers
}

/// All in one transaction; an error means that none of them took place. Where that is not known, as after a commit that the
/// disk keeps waiting, each has the error: done again it could be done twice.
async fn together(
    writer: &Arc<Pool<SqliteServer>>,
    writes: &[Write],
) -> Result<Vec<Result<Written, DbError>>, DbError> {
    let mut lease = writer.lease().await?;
    let limit = lease.statement_timeout();
    lease.script(Cow::Borrowed("BEGIN IMMEDIATE"), limit).await?;
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        let answer = run(&mut lease, write).await;
        // Until the commit the connection must not go back to the pool: dropped here, it closes and SQLite undoes all.
        lease.unsettle();
        match answer {
            // SQLite's ABORT: the statement is undone, the transaction stands.
            Ok(_) | Err(DbError::DuplicateKey(_) | DbError::Refused(_)) => answers.push(answer),
            Err(error) => return Err(error),
        }
    }
    let committed = lease.script(Cow::Borrowed("COMMIT"), limit).await;
    lease.unsettle();
    match committed {
        Ok(()) => lease.settle(),
        Err(error @ (DbError::Timeout { .. } | DbError::Broken { .. })) => {
            answers.iter_mut().for_each(|answer| *answer = Err(error.clone()));
        }
        Err(error) => return Err(error),
    }
    Ok(answers)
}

async fn run(lease: &mut Lease<SqliteServer>, write: &Write) -> Result<Written, DbError> {
    let args: Vec<&Value> = write.args.iter().collect();
    let mut written = Written::default();
    match write.returning {
        true => written.rows = lease.fetch(write.sql.clone(), &args).await?,
        false => written.done = lease.execute(write.sql.clone(), &args).await?,
    }
    Ok(written)
}
