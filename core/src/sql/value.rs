//! Values bound to statements and rows read back, the same for every server.

use std::borrow::Cow;
use std::sync::Arc;

/// A value bound to a statement or read from a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Any integer column, whatever its width and sign; also booleans (0, 1).
    Int(i64),
    /// Floating point columns.
    Real(f64),
    /// Text columns. PostgreSQL cannot hold NUL in text: there it is bound as U+FFFD.
    Text(String),
    /// Binary columns, such as the addresses in the amavisd tables. On SQLite and PostgreSQL bytes never equal
    /// text: bind bytes to binary columns and text to text columns.
    Bytes(Vec<u8>),
    /// A point in time `YYYY-MM-DD HH:MM:SS` (or a date) bound to a date or time column. Rows give it as `Text`.
    Time(String),
    /// The right side of `IN (?)`. Never NULL inside; an empty list matches nothing. Lists may be repeated at
    /// their end, so that few different statements have to be prepared.
    List(Vec<Value>),
    /// The right side of `VALUES ?`, or what a part in braces is repeated for: one row or more, all of one length.
    Rows(Vec<Vec<Value>>),
}

impl Value {
    /// The values of an `IN (?)`.
    pub fn list<T: Into<Value>>(values: impl IntoIterator<Item = T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }

    /// Octets for a binary column, from text or bytes.
    pub fn bytes(octets: impl AsRef<[u8]>) -> Value {
        Value::Bytes(octets.as_ref().to_vec())
    }

    /// The values of an `IN (?)` over a binary column.
    pub fn bytes_list<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>) -> Value {
        Value::List(values.into_iter().map(Value::bytes).collect())
    }

    /// Text, or bytes that are UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Time(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A point in time for a date or time column, `YYYY-MM-DD HH:MM:SS`.
    pub fn time(text: impl Into<String>) -> Value {
        Value::Time(text.into())
    }
}

macro_rules! value_from {
    ($($type:ty => |$it:ident| $make:expr;)+) => {
        $(impl From<$type> for Value {
            fn from($it: $type) -> Value { $make }
        })+
    };
}

value_from! {
    i64 => |it| Value::Int(it);
    i32 => |it| Value::Int(i64::from(it));
    u8 => |it| Value::Int(i64::from(it));
    u16 => |it| Value::Int(i64::from(it));
    u32 => |it| Value::Int(i64::from(it));
    u64 => |it| Value::Int(i64::try_from(it).unwrap_or(i64::MAX));
    usize => |it| Value::Int(i64::try_from(it).unwrap_or(i64::MAX));
    bool => |it| Value::Int(i64::from(it));
    f64 => |it| Value::Real(it);
    &str => |it| Value::Text(it.to_owned());
    &String => |it| Value::Text(it.clone());
    String => |it| Value::Text(it);
    Cow<'_, str> => |it| Value::Text(it.into_owned());
    Vec<u8> => |it| Value::Bytes(it);
    &[u8] => |it| Value::Bytes(it.to_vec());
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// One row of a result. Every accessor answers `None` for NULL, for a column that is not there and for a value
/// that does not fit, so that one odd row never stops the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    names: Arc<[Box<str>]>,
    values: Vec<Value>,
}

impl Row {
    pub(crate) fn new(names: Arc<[Box<str>]>, values: Vec<Value>) -> Row {
        Row { names, values }
    }

    /// The value of a column by its name, without regard to case.
    pub fn value(&self, column: &str) -> Option<&Value> {
        let at = self.names.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.values.get(at)
    }

    /// All values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a column by its place, counted from 0.
    pub fn value_at(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }

    /// Text, or bytes that are UTF-8.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.value(column)?.as_text()
    }

    /// As [`Row::text`], by place.
    pub fn text_at(&self, index: usize) -> Option<&str> {
        self.value_at(index)?.as_text()
    }

    /// Any value but NULL as text: numbers in decimal, bytes with what is not UTF-8 replaced.
    pub fn string(&self, column: &str) -> Option<String> {
        string_of(self.value(column)?)
    }

    /// An integer; also a number held as text, and a fraction cut to its whole part.
    pub fn int(&self, column: &str) -> Option<i64> {
        int_of(self.value(column)?)
    }

    /// As [`Row::int`], by place.
    pub fn int_at(&self, index: usize) -> Option<i64> {
        int_of(self.value_at(index)?)
    }

    /// A number with a fraction; also an integer or a number held as text.
    pub fn real(&self, column: &str) -> Option<f64> {
        match self.value(column)? {
            Value::Int(number) => Some(*number as f64),
            Value::Real(number) => Some(*number),
            other => other.as_text()?.trim().parse().ok(),
        }
    }

    /// The octets of a binary or text column.
    pub fn bytes(&self, column: &str) -> Option<&[u8]> {
        match self.value(column)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Text(text) | Value::Time(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Whether an integer, or a number held as text, is there and not zero.
    pub fn flag(&self, column: &str) -> bool {
        self.int(column).is_some_and(|number| number != 0)
    }

    /// Whether the column holds NULL (or is not there).
    pub fn is_null(&self, column: &str) -> bool {
        self.value(column).is_none_or(|value| *value == Value::Null)
    }

    /// The names of the columns in the order of the statement.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

fn string_of(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::List(_) | Value::Rows(_) => None,
        Value::Int(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) | Value::Time(text) => Some(text.clone()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn int_of(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        // `as` saturates and takes NaN as 0; the column is then not what the schema says anyway.
        Value::Real(number) => Some(*number as i64),
        other => {
            let text = other.as_text()?.trim();
            let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
            whole.parse().ok()
        }
    }
}

/// Text from a server: bytes that are not UTF-8 stay bytes.
pub(crate) fn text_or_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Bytes(bytes.to_vec()),
    }
}

/// A 32-bit float as the number its decimal text names: 6.2, not 6.19999981.
pub(crate) fn single(number: f32) -> Value {
    Value::Real(number.to_string().parse().unwrap_or_else(|_| f64::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: Vec<Value>) -> Row {
        let names: Vec<Box<str>> = (0..values.len()).map(|n| format!("c{n}").into()).collect();
        Row::new(names.into(), values)
    }

    #[test]
    fn integers_come_out_of_whatever_holds_them() {
        let cases: [(Value, Option<i64>); 9] = [
            (Value::Null, None),
            (Value::Int(-3), Some(-3)),
            (Value::Real(2.9), Some(2)),
            (Value::Text(" 42 ".into()), Some(42)),
            (Value::Text("17.00".into()), Some(17)),
            (Value::Text("many".into()), None),
            (Value::Text(String::new()), None),
            (Value::Bytes(b"7".to_vec()), Some(7)),
            (Value::Bytes(vec![0xff]), None),
        ];
        for (value, expected) in cases {
            assert_eq!(row(vec![value.clone()]).int("C0"), expected, "{value:?}");
        }
    }

    #[test]
    fn odd_bytes_are_no_text_but_still_readable() {
        let row = row(vec![Value::Bytes(vec![b'a', 0xff]), Value::Null]);
        assert_eq!(row.text("c0"), None);
        assert_eq!(row.string("c0").as_deref(), Some("a\u{fffd}"));
        assert_eq!(row.bytes("c0"), Some(&[b'a', 0xff][..]));
        assert!(row.is_null("c1") && row.is_null("nowhere") && !row.is_null("c0"));
    }

    #[test]
    fn single_precision_keeps_its_decimal_text() {
        assert_eq!(single(6.2), Value::Real(6.2));
    }
}
