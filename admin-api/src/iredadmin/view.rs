//! Rows as JSON objects.

use outrider_core::sql::{Row, Value as SqlValue};
use serde_json::{Map, Value};

/// All columns of a row but the hidden ones.
pub(crate) fn object(row: &Row, hidden: &[String]) -> Map<String, Value> {
    row.names()
        .enumerate()
        .filter(|(_, name)| !hidden.iter().any(|hidden| hidden.eq_ignore_ascii_case(name)))
        .map(|(at, name)| (name.to_owned(), row.value_at(at).map_or(Value::Null, json)))
        .collect()
}

fn json(value: &SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Int(number) => Value::from(*number),
        SqlValue::Real(number) => Value::from(*number),
        SqlValue::Text(text) | SqlValue::Time(text) => Value::from(text.as_str()),
        SqlValue::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes)),
        SqlValue::List(values) => Value::from(values.iter().map(json).collect::<Vec<_>>()),
        SqlValue::Rows(rows) => Value::from(rows.iter().flatten().map(json).collect::<Vec<_>>()),
    }
}
