//! MySQL and MariaDB: connecting, binding, decoding.

use super::error::mysql_number;
use super::pool::Server;
use super::url::TlsMode;
use super::value::{single, text_or_bytes};
use super::{DbUrl, Done, IDLE_TRANSACTION, Row, Value, prepared};
use sqlx::mysql::{
    MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode, MySqlValueRef,
};
use sqlx::{Arguments, Column, ConnectOptions, Decode, Executor, MySql, Row as _, Type, TypeInfo, ValueRef};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct MySqlServer {
    options: MySqlConnectOptions,
    statement_timeout: Duration,
}

impl MySqlServer {
    pub(crate) fn new(url: &DbUrl, statement_timeout: Duration) -> MySqlServer {
        let mode = match url.tls {
            TlsMode::Disable => MySqlSslMode::Disabled,
            TlsMode::Prefer => MySqlSslMode::Preferred,
            TlsMode::Unverified => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
        };
        let mut options = MySqlConnectOptions::new()
            .host(&url.host)
            .port(url.port)
            .username(&url.user)
            .ssl_mode(mode)
            // The server's own zone: the defaults of `created` and its like are local time.
            .timezone(None)
            .disable_statement_logging();
        if !url.password.is_empty() {
            options = options.password(&url.password);
        }
        if !url.database.is_empty() {
            options = options.database(&url.database);
        }
        if let Some(socket) = &url.socket {
            options = options.socket(socket);
        }
        if let Some(ca) = &url.tls_ca {
            options = options.ssl_ca(ca);
        }
        if let Some(certificate) = &url.tls_certificate {
            options = options.ssl_client_cert(certificate);
        }
        if let Some(key) = &url.tls_key {
            options = options.ssl_client_key(key);
        }
        MySqlServer { options, statement_timeout }
    }
}

impl Server for MySqlServer {
    type Connection = MySqlConnection;

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        for choices in session_variables(self.statement_timeout.as_secs() + 1) {
            for choice in choices {
                let set = format!("SET SESSION {choice}");
                match connection.execute(sqlx::raw_sql(prepared(Cow::Owned(set)))).await {
                    Err(sqlx::Error::Database(error)) => {
                        tracing::debug!(%error, "the server is another kind")
                    }
                    outcome => {
                        outcome?;
                        break;
                    }
                }
            }
        }
        Ok(connection)
    }

    async fn fetch(
        connection: &mut MySqlConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let foreign = |value: &Value| matches!(value, Value::Text(text) if !text.is_ascii());
        let reads = sql.trim_start_matches('(').starts_with("SELECT");
        let second = (reads && args.iter().any(|value| foreign(value))).then(|| sql.clone());
        let outcome = sqlx::query_with(prepared(sql), bind(args)?).fetch_all(&mut *connection).await;
        let rows = match (outcome, second) {
            (Err(error), Some(sql)) if is_charset_conflict(&error) => {
                // A text with letters that the column's character set lacks (latin1 in old installations) equals nothing in it;
                // NULL says so.
                let args: Vec<&Value> =
                    args.iter().map(|&value| if foreign(value) { &Value::Null } else { value }).collect();
                sqlx::query_with(prepared(sql), bind(&args)?).fetch_all(connection).await?
            }
            (outcome, _) => outcome?,
        };
        Ok(decode_rows(&rows))
    }

    async fn execute(
        connection: &mut MySqlConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Done, sqlx::Error> {
        let done = sqlx::query_with(prepared(sql), bind(args)?).execute(connection).await?;
        let last_insert_id = i64::try_from(done.last_insert_id()).unwrap_or(i64::MAX);
        Ok(Done { rows_affected: done.rows_affected(), last_insert_id })
    }

    async fn script(connection: &mut MySqlConnection, sql: Cow<'static, str>) -> Result<(), sqlx::Error> {
        connection.execute(sqlx::raw_sql(prepared(sql))).await?;
        Ok(())
    }
}

/// What a session is set to, each as MariaDB spells it and then as MySQL does.
fn session_variables(seconds: u64) -> [Vec<String>; 3] {
    let idle = IDLE_TRANSACTION.as_secs();
    let isolation = |name| {
        format!("{name} = IF(@@log_bin AND @@binlog_format = 'STATEMENT', @@{name}, 'READ-COMMITTED')")
    };
    [
        // The server ends on its own what we no longer wait for, so that it does not hold locks (MySQL: reads only).
        vec![
            format!("innodb_lock_wait_timeout = {seconds}, max_statement_time = {seconds}"),
            format!("innodb_lock_wait_timeout = {seconds}, max_execution_time = {seconds}000"),
            format!("innodb_lock_wait_timeout = {seconds}"),
        ],
        // So it does what a host that is gone has left open.
        vec![format!("idle_transaction_timeout = {idle}")],
        // Reads see what is committed, as on PostgreSQL: looking at rows within a write locks none of them. A binary log of
        // statements does not allow that.
        vec![isolation("tx_isolation"), isolation("transaction_isolation")],
    ]
}

/// Whether texts of two character sets could not be compared: errors 1267, 1270 and 1271.
fn is_charset_conflict(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(mysql_number(error.as_ref()), 1267 | 1270 | 1271))
}

fn bind(args: &[&Value]) -> Result<MySqlArguments, sqlx::Error> {
    let mut bound = MySqlArguments::default();
    for value in args {
        match value {
            Value::Null | Value::List(_) | Value::Rows(_) => bound.add(None::<i64>),
            Value::Int(number) => bound.add(*number),
            Value::Real(number) => bound.add(*number),
            Value::Text(text) | Value::Time(text) => bound.add(text.as_str()),
            Value::Bytes(bytes) => bound.add(bytes.as_slice()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

fn decode_rows(rows: &[MySqlRow]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let names: Arc<[Box<str>]> = first.columns().iter().map(|column| column.name().into()).collect();
    let decode_row = |row: &MySqlRow| {
        let values = (0..names.len()).map(|at| row.try_get_raw(at).map_or(Value::Null, decode)).collect();
        Row::new(Arc::clone(&names), values)
    };
    rows.iter().map(decode_row).collect()
}

/// One value of the binary protocol. What cannot be understood becomes NULL; nothing here fails.
fn decode(raw: MySqlValueRef<'_>) -> Value {
    let kind = raw.type_info().into_owned();
    let Ok(bytes) = <&[u8] as Decode<'_, MySql>>::decode(raw) else { return Value::Null };
    match kind.name() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "INT" | "MEDIUMINT" | "BIGINT" | "TINYINT UNSIGNED"
        | "SMALLINT UNSIGNED" | "INT UNSIGNED" | "MEDIUMINT UNSIGNED" | "BIGINT UNSIGNED" | "YEAR" => {
            integer(bytes, <u64 as Type<MySql>>::compatible(&kind))
        }
        "BIT" => Value::Int(bytes.iter().fold(0, |sum, byte| (sum << 8) | i64::from(*byte))),
        "FLOAT" => bytes.try_into().map_or(Value::Null, |four| single(f32::from_le_bytes(four))),
        "DOUBLE" => bytes.try_into().map_or(Value::Null, |eight| Value::Real(f64::from_le_bytes(eight))),
        "DATE" => date_and_time(bytes, false),
        "DATETIME" | "TIMESTAMP" => date_and_time(bytes, true),
        "TIME" => time_of_day(bytes),
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" | "GEOMETRY" => {
            Value::Bytes(bytes.to_vec())
        }
        // Text, and DECIMAL, which comes as its digits.
        _ => text_or_bytes(bytes),
    }
}

/// Little-endian, 1 to 8 octets. Numbers beyond 63 bits stay at the largest.
fn integer(bytes: &[u8], unsigned: bool) -> Value {
    let mut wide = [0u8; 8];
    let Some(low) = wide.get_mut(..bytes.len()) else { return Value::Null };
    low.copy_from_slice(bytes);
    if unsigned {
        return Value::from(u64::from_le_bytes(wide));
    }
    let Some(last) = bytes.last() else { return Value::Null };
    if *last >= 0x80 {
        wide[bytes.len()..].fill(0xff);
    }
    Value::Int(i64::from_le_bytes(wide))
}

/// Length, year (two octets), month, day and, unless they are all zero, hour, minute, second, microseconds.
/// The zero date, which old installations have in place of NULL, is NULL.
fn date_and_time(bytes: &[u8], with_time: bool) -> Value {
    let [_, low, high, month, day, rest @ ..] = bytes else { return Value::Null };
    let year = u16::from_le_bytes([*low, *high]);
    if (year, *month, *day) == (0, 0, 0) {
        return Value::Null;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if !with_time {
        return Value::Text(date);
    }
    let [hour, minute, second] = match rest {
        [hour, minute, second, ..] => [*hour, *minute, *second],
        _ => [0, 0, 0],
    };
    Value::Text(format!("{date} {hour:02}:{minute:02}:{second:02}"))
}

/// Length, sign, days (four octets), hour, minute, second, microseconds.
fn time_of_day(bytes: &[u8]) -> Value {
    let [_, negative, d0, d1, d2, d3, hour, minute, second, ..] = bytes else {
        return Value::Text("00:00:00".to_owned());
    };
    let hours = u64::from(u32::from_le_bytes([*d0, *d1, *d2, *d3])) * 24 + u64::from(*hour);
    let sign = if *negative == 0 { "" } else { "-" };
    Value::Text(format!("{sign}{hours:02}:{minute:02}:{second:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width() {
        let cases: [(&[u8], bool, i64); 7] = [
            (&[0xff], false, -1),
            (&[0xff], true, 255),
            (&[0x00, 0x80], false, -32768),
            (&[0xff, 0xff, 0xff, 0x7f], false, i64::from(i32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff], true, i64::from(u32::MAX)),
            (&[0xff; 8], false, -1),
            (&[0xff; 8], true, i64::MAX),
        ];
        for (bytes, unsigned, expected) in cases {
            assert_eq!(integer(bytes, unsigned), Value::Int(expected), "{bytes:?}");
        }
        assert_eq!(integer(&[0; 9], true), Value::Null);
        assert_eq!(integer(&[], false), Value::Null);
    }

    #[test]
    fn dates_of_every_length() {
        let cases: [(&[u8], bool, Option<&str>); 5] = [
            (&[0], true, None),
            (&[4, 0xe9, 0x07, 3, 15], true, Some("2025-03-15 00:00:00")),
            (&[7, 0xe9, 0x07, 3, 15, 9, 8, 7], true, Some("2025-03-15 09:08:07")),
            (&[11, 0x0f, 0x27, 12, 31, 23, 59, 59, 1, 0, 0, 0], true, Some("9999-12-31 23:59:59")),
            (&[4, 1, 0, 1, 1], false, Some("0001-01-01")),
        ];
        for (bytes, with_time, expected) in cases {
            let expected = expected.map_or(Value::Null, Value::from);
            assert_eq!(date_and_time(bytes, with_time), expected, "{bytes:?}");
        }
    }
}
