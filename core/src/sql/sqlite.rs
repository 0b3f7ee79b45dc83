//! SQLite: connecting, binding, decoding.

use super::pool::Server;
use super::value::text_or_bytes;
use super::{Done, Row, Value, prepared};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
    SqliteValueRef,
};
use sqlx::{Arguments, Column, ConnectOptions, Decode, Executor, Row as _, Sqlite, TypeInfo, ValueRef};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long SQLite itself waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of 4 KiB in the write-ahead log before they are moved to the file, which everybody who writes waits for: 64 MiB. With
/// SQLite's 1000 a busy log of sessions would do that many times a second, and write the same page each time.
const WAL_PAGES: &str = "16384";

/// KiB of pages kept by the connection that writes: the pages of many indexes at once, else they are written twice.
const WRITER_CACHE: &str = "-16000";

pub(crate) struct SqliteServer {
    options: SqliteConnectOptions,
}

impl SqliteServer {
    /// `create`: make the file if there is none; only the embedded databases do.
    pub(crate) fn new(file: &Path, create: bool) -> SqliteServer {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        SqliteServer { options }
    }

    /// The same for the connection that writes.
    pub(crate) fn writing(self) -> SqliteServer {
        let options = self.options.pragma("wal_autocheckpoint", WAL_PAGES).pragma("cache_size", WRITER_CACHE);
        SqliteServer { options }
    }
}

impl Server for SqliteServer {
    type Connection = SqliteConnection;

    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.options.connect().await
    }

    async fn fetch(
        connection: &mut SqliteConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = sqlx::query_with(prepared(sql), bind(args)?).fetch_all(connection).await?;
        Ok(decode_rows(&rows))
    }

    async fn execute(
        connection: &mut SqliteConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Done, sqlx::Error> {
        let done = sqlx::query_with(prepared(sql), bind(args)?).execute(connection).await?;
        Ok(Done { rows_affected: done.rows_affected(), last_insert_id: done.last_insert_rowid() })
    }

    async fn script(connection: &mut SqliteConnection, sql: Cow<'static, str>) -> Result<(), sqlx::Error> {
        connection.execute(sqlx::raw_sql(prepared(sql))).await?;
        Ok(())
    }
}

fn bind(args: &[&Value]) -> Result<SqliteArguments, sqlx::Error> {
    let mut bound = SqliteArguments::default();
    for value in args {
        match value {
            Value::Null | Value::List(_) | Value::Rows(_) => Arguments::add(&mut bound, None::<i64>),
            Value::Int(number) => Arguments::add(&mut bound, *number),
            Value::Real(number) => Arguments::add(&mut bound, *number),
            Value::Text(text) | Value::Time(text) => Arguments::add(&mut bound, text.as_str()),
            Value::Bytes(bytes) => Arguments::add(&mut bound, bytes.as_slice()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

fn decode_rows(rows: &[SqliteRow]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let names: Arc<[Box<str>]> = first.columns().iter().map(|column| column.name().into()).collect();
    let decode_row = |row: &SqliteRow| {
        let values = (0..names.len()).map(|at| row.try_get_raw(at).map_or(Value::Null, decode)).collect();
        Row::new(Arc::clone(&names), values)
    };
    rows.iter().map(decode_row).collect()
}

/// One value by what the file holds, not by what the column is declared to hold.
fn decode(raw: SqliteValueRef<'_>) -> Value {
    if raw.is_null() {
        return Value::Null;
    }
    let kind = raw.type_info().into_owned();
    match kind.name() {
        "INTEGER" => <i64 as Decode<'_, Sqlite>>::decode(raw).map_or(Value::Null, Value::Int),
        "REAL" => <f64 as Decode<'_, Sqlite>>::decode(raw).map_or(Value::Null, Value::Real),
        "BLOB" => <Vec<u8> as Decode<'_, Sqlite>>::decode(raw).map_or(Value::Null, Value::Bytes),
        _ => <&[u8] as Decode<'_, Sqlite>>::decode(raw).map_or(Value::Null, text_or_bytes),
    }
}
