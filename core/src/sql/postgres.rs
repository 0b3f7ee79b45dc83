//! PostgreSQL: connecting, binding, decoding.

use super::pool::Server;
use super::url::TlsMode;
use super::value::{single, text_or_bytes};
use super::{DbUrl, Done, IDLE_TRANSACTION, Row, Value, prepared};
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, date};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgRow, PgSslMode, PgTypeInfo, PgValueRef,
};
use sqlx::{Arguments, Column, ConnectOptions, Encode, Executor, Postgres, Row as _, Type, ValueRef};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct PostgresServer {
    options: PgConnectOptions,
    statement_timeout: Duration,
    /// The time zone for the session: local time, as the defaults of `created` and its like want it.
    zone: Option<String>,
}

impl PostgresServer {
    pub(crate) fn new(url: &DbUrl, statement_timeout: Duration) -> PostgresServer {
        let mode = match url.tls {
            TlsMode::Disable => PgSslMode::Disable,
            TlsMode::Prefer => PgSslMode::Prefer,
            TlsMode::Unverified => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&url.host)
            .port(url.port)
            .username(&url.user)
            .database(&url.database)
            .ssl_mode(mode)
            .application_name("outrider")
            .disable_statement_logging();
        if !url.password.is_empty() {
            options = options.password(&url.password);
        }
        if let Some(socket) = &url.socket {
            options = options.socket(socket);
        }
        if let Some(ca) = &url.tls_ca {
            options = options.ssl_root_cert(ca);
        }
        if let Some(certificate) = &url.tls_certificate {
            options = options.ssl_client_cert(certificate);
        }
        if let Some(key) = &url.tls_key {
            options = options.ssl_client_key(key);
        }
        let zone = jiff::tz::TimeZone::system().iana_name().map(str::to_owned);
        PostgresServer { options, statement_timeout, zone }
    }
}

impl Server for PostgresServer {
    type Connection = PgConnection;

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        // The server ends on its own what we no longer wait for, and what a host that is gone has left open, so that it does
        // not hold locks. Not as an option of the connection: poolers in between refuse those.
        let limit = (self.statement_timeout + Duration::from_secs(1)).as_millis();
        let idle = IDLE_TRANSACTION.as_millis();
        let set = format!(
            "SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {idle}; \
             SET default_transaction_isolation = 'read committed'"
        );
        connection.execute(sqlx::raw_sql(prepared(Cow::Owned(set)))).await?;
        // The driver begins every session in UTC.
        if let Some(zone) = &self.zone
            && zone != "UTC"
        {
            let set = sqlx::query("SELECT set_config('TimeZone', $1, false)").bind(zone);
            if let Err(sqlx::Error::Database(error)) = set.execute(&mut connection).await {
                tracing::warn!(%zone, %error, "the database does not know the local time zone; using UTC");
            }
        }
        Ok(connection)
    }

    async fn fetch(
        connection: &mut PgConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = sqlx::query_with(prepared(sql), bind(args)?).fetch_all(connection).await?;
        Ok(decode_rows(&rows))
    }

    async fn execute(
        connection: &mut PgConnection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Done, sqlx::Error> {
        let done = sqlx::query_with(prepared(sql), bind(args)?).execute(connection).await?;
        Ok(Done { rows_affected: done.rows_affected(), last_insert_id: 0 })
    }

    async fn script(connection: &mut PgConnection, sql: Cow<'static, str>) -> Result<(), sqlx::Error> {
        connection.execute(sqlx::raw_sql(prepared(sql))).await?;
        Ok(())
    }
}

fn bind(args: &[&Value]) -> Result<PgArguments, sqlx::Error> {
    let mut bound = PgArguments::default();
    for value in args {
        match value {
            // Rendered as the word NULL, never bound.
            Value::Null | Value::List(_) | Value::Rows(_) => Ok(()),
            Value::Int(number) => Arguments::add(&mut bound, *number),
            Value::Real(number) => Arguments::add(&mut bound, *number),
            // The server refuses NUL in text; U+FFFD equals nothing that it can hold by itself.
            Value::Text(text) if text.contains('\0') => {
                Arguments::add(&mut bound, text.replace('\0', "\u{fffd}"))
            }
            Value::Text(text) => Arguments::add(&mut bound, text.as_str()),
            Value::Bytes(bytes) => Arguments::add(&mut bound, bytes.as_slice()),
            Value::Time(text) => parse_time(text).and_then(|time| Arguments::add(&mut bound, time)),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

/// Microseconds since the beginning of 2000, the binary form of `timestamp`.
struct Timestamp(i64);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1114))
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend(self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

const EPOCH: DateTime = date(2000, 1, 1).at(0, 0, 0, 0);

fn parse_time(text: &str) -> Result<Timestamp, BoxDynError> {
    let time = match text.parse::<DateTime>() {
        Ok(time) => time,
        Err(_) => text.parse::<Date>().map_err(|_| format!("{text:?} is no date and time"))?.at(0, 0, 0, 0),
    };
    let micros = time.duration_since(EPOCH).as_micros();
    Ok(Timestamp(i64::try_from(micros)?))
}

fn decode_rows(rows: &[PgRow]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let names: Arc<[Box<str>]> = first.columns().iter().map(|column| column.name().into()).collect();
    let kinds: Vec<u32> =
        first.columns().iter().map(|column| column.type_info().oid().map_or(0, |oid| oid.0)).collect();
    let decode_row = |row: &PgRow| {
        let values = kinds
            .iter()
            .enumerate()
            .map(|(at, kind)| row.try_get_raw(at).map_or(Value::Null, |raw| decode(*kind, raw)))
            .collect();
        Row::new(Arc::clone(&names), values)
    };
    rows.iter().map(decode_row).collect()
}

fn decode(kind: u32, raw: PgValueRef<'_>) -> Value {
    if raw.is_null() {
        return Value::Null;
    }
    raw.as_bytes().map_or(Value::Null, |bytes| decode_bytes(kind, bytes))
}

/// One value of the binary protocol, by the number of its type in `pg_type`. What cannot be understood
/// becomes NULL; nothing here fails.
fn decode_bytes(kind: u32, bytes: &[u8]) -> Value {
    match kind {
        16 => Value::Int(i64::from(bytes.first().is_some_and(|byte| *byte != 0))),
        17 => Value::Bytes(bytes.to_vec()),
        20 => bytes.try_into().map_or(Value::Null, |it| Value::Int(i64::from_be_bytes(it))),
        21 => bytes.try_into().map_or(Value::Null, |it| Value::from(i32::from(i16::from_be_bytes(it)))),
        23 => bytes.try_into().map_or(Value::Null, |it| Value::from(i32::from_be_bytes(it))),
        26 => bytes.try_into().map_or(Value::Null, |it| Value::from(u32::from_be_bytes(it))),
        700 => bytes.try_into().map_or(Value::Null, |it| single(f32::from_be_bytes(it))),
        701 => bytes.try_into().map_or(Value::Null, |it| Value::Real(f64::from_be_bytes(it))),
        1082 => bytes.try_into().map_or(Value::Null, |it| day(i32::from_be_bytes(it))),
        1083 => bytes.try_into().map_or(Value::Null, |it| clock(i64::from_be_bytes(it))),
        1114 | 1184 => bytes.try_into().map_or(Value::Null, |it| moment(i64::from_be_bytes(it))),
        1700 => numeric(bytes),
        2950 => uuid(bytes),
        // jsonb begins with the version of its form.
        3802 => text_or_bytes(bytes.get(1..).unwrap_or_default()),
        _ => text_or_bytes(bytes),
    }
}

/// Days since the beginning of 2000. `infinity` reads as the last day of the year 9999.
fn day(days: i32) -> Value {
    let date = EPOCH.date().checked_add(SignedDuration::from_hours(i64::from(days) * 24));
    let edge = if days < 0 { Date::MIN } else { Date::MAX };
    Value::Text(date.unwrap_or(edge).strftime("%Y-%m-%d").to_string())
}

/// Microseconds since the beginning of 2000; with a time zone: in UTC.
fn moment(micros: i64) -> Value {
    let time = EPOCH.checked_add(SignedDuration::from_micros(micros));
    let edge = if micros < 0 { DateTime::MIN } else { DateTime::MAX };
    Value::Text(time.unwrap_or(edge).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Microseconds since midnight.
fn clock(micros: i64) -> Value {
    let seconds = micros / 1_000_000;
    Value::Text(format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn uuid(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Value::Text(text)
}

/// NUMERIC: number of digits, weight of the first, sign, digits after the point, then digits to the base 10000.
/// Whole numbers that fit are integers, everything else its decimal text.
fn numeric(bytes: &[u8]) -> Value {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_, weight, sign, scale, digits @ ..] = words.as_slice() else { return Value::Null };
    if !matches!(sign, 0x0000 | 0x4000) {
        return Value::Null;
    }
    let weight = i32::from(*weight as i16);
    let group = |place: i32| -> u16 {
        usize::try_from(weight - place).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0).min(9999)
    };
    let mut text = String::from(if *sign == 0x4000 { "-" } else { "" });
    let mut whole = String::new();
    for place in (0..=weight.max(0)).rev() {
        whole.push_str(&format!("{:04}", group(place)));
    }
    let trimmed = whole.trim_start_matches('0');
    text.push_str(if trimmed.is_empty() { "0" } else { trimmed });
    if *scale == 0 {
        return text.parse().map_or(Value::Text(text), Value::Int);
    }
    let mut fraction = String::new();
    let mut place = -1;
    while fraction.len() < usize::from(*scale) {
        fraction.push_str(&format!("{:04}", group(place)));
        place -= 1;
    }
    fraction.truncate(usize::from(*scale));
    text.push('.');
    text.push_str(&fraction);
    Value::Text(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numerics_read_as_integers_or_decimal_text() {
        let cases: [(&[u16], Value); 6] = [
            (&[0, 0, 0, 0], Value::Int(0)),
            (&[2, 1, 0, 0, 12, 3456], Value::Int(123_456)),
            (&[1, 1, 0x4000, 0, 5], Value::Int(-50_000)),
            (&[2, 0, 0, 2, 12, 5000], Value::from("12.50")),
            (&[1, 0xffff, 0x4000, 4, 25], Value::from("-0.0025")),
            (&[0, 0, 0xc000, 0], Value::Null),
        ];
        for (bytes, expected) in cases {
            assert_eq!(numeric(&words(bytes)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        for text in
            ["1970-01-01 01:01:01", "2025-03-15 12:00:59", "9999-12-31 01:01:01", "0001-01-01 00:00:00"]
        {
            let Ok(Timestamp(micros)) = parse_time(text) else { panic!("{text}") };
            assert_eq!(moment(micros), Value::from(text));
        }
        assert_eq!(day(-365), Value::from("1999-01-01"));
        assert_eq!(moment(i64::MAX), Value::from("9999-12-31 23:59:59"));
        assert!(parse_time("tomorrow").is_err());
        assert!(parse_time("2025-03-15").is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_fail(kind in prop::sample::select(vec![16u32, 17, 20, 21, 23, 25, 26, 700, 701,
            1042, 1082, 1083, 1114, 1184, 1700, 2950, 3802]), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_bytes(kind, &bytes);
        }
    }
}
