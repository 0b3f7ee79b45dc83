//! One log line: its fields, their order, its two spellings.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

use super::escape::{escape, quote};

/// The longest line in bytes; what is longer is cut.
pub(super) const LONGEST_LINE: usize = 8 * 1024;

/// Fields in the order in which every line has them; all others follow in the order in which the code gives them.
/// Programs that read logs rely on places: a forged `client=` inside a later value cannot come before the true one.
const ORDER: [&str; 21] = [
    "service",
    "event",
    "queue_id",
    "instance",
    "message_id",
    "client",
    "helo",
    "sasl",
    "sender",
    "rcpt",
    "nrcpt",
    "size",
    "action",
    "code",
    "dsn",
    "check",
    "reason",
    "elapsed_ms",
    "db_ms",
    "dns_ms",
    "degraded",
];

/// The text that a program of the replaced kind would have logged; see [`LogStyle::Iredapd`](crate::settings::LogStyle).
pub(super) const COMPATIBLE: &str = "line";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(Vec<u8>),
    /// A number or a truth value, which JSON writes without quotation marks.
    Bare(String),
}

/// The fields of an event and of the spans around it.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// Sets a field; the last value of a name counts.
    fn set(&mut self, name: &'static str, value: Value) {
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = value,
            None => self.fields.push((name, value)),
        }
    }

    /// Takes the fields of a span that the event does not have itself.
    pub(super) fn inherit(&mut self, outer: &Record) {
        for (name, value) in &outer.fields {
            if !self.fields.iter().any(|(known, _)| known == name) {
                self.fields.push((name, value.clone()));
            }
        }
    }

    /// Sets a text field that the event does not have itself.
    pub(super) fn default_text(&mut self, name: &'static str, text: &str) {
        if !self.fields.iter().any(|(known, _)| *known == name) {
            self.fields.push((name, Value::Text(text.as_bytes().to_vec())));
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| match value {
            Value::Text(text) => text.as_slice(),
            Value::Bare(text) => text.as_bytes(),
        })
    }

    /// Puts the fields into their fixed order. The text of the event is the field `event` unless there is one.
    pub(super) fn arrange(&mut self) {
        let has_event = self.fields.iter().any(|(name, _)| *name == "event");
        for (name, _) in &mut self.fields {
            if *name == "message" && !has_event {
                *name = "event";
            }
        }
        // Cached: a place is looked for once a field, not once a comparison.
        self.fields.sort_by_cached_key(|(name, _)| {
            ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len())
        });
    }

    /// `key=value key=value`
    pub(super) fn write_plain(&self, out: &mut String) {
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != COMPATIBLE) {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(name);
            out.push('=');
            match value {
                Value::Bare(text) => out.push_str(text),
                Value::Text(text) => quote(text, out),
            }
        }
        cut(out);
    }

    /// One JSON object without its braces.
    pub(super) fn write_json(&self, out: &mut String) {
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != COMPATIBLE) {
            let before = out.len();
            let mut text = String::new();
            match value {
                Value::Bare(text) => {
                    let _ = write!(out, ",\"{name}\":{text}");
                }
                Value::Text(value) => {
                    escape(value, &mut text);
                    // After escaping there is neither a quotation mark nor a control character; what remains to be
                    // doubled are the backslashes of the escapes.
                    let _ = write!(out, ",\"{name}\":\"{}\"", text.replace('\\', "\\\\"));
                }
            }
            if out.len() > LONGEST_LINE {
                // A cut object would be no JSON: leave the field out and say so.
                out.truncate(before);
                out.push_str(",\"cut\":true");
                break;
            }
        }
    }
}

/// Cuts a line to its greatest length.
pub(super) fn cut(line: &mut String) {
    if line.len() > LONGEST_LINE {
        let end = (0..=LONGEST_LINE - '…'.len_utf8()).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::Text(value.as_bytes().to_vec()));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.set(field.name(), Value::Text(value.to_vec()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::Text(format!("{value:?}").into_bytes()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity; three digits are microseconds where the value is in milliseconds.
        self.set(
            field.name(),
            match value.is_finite() {
                true => Value::Bare(format!("{value:.3}")),
                false => Value::Text(value.to_string().into_bytes()),
            },
        );
    }
}
