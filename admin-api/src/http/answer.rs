//! Answers: JSON of a few fixed shapes, and short pages for everything that never reached a call.

use std::io;

use hyper::StatusCode;
use serde_json::Value;

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status; 200 also for a failed operation, as clients of these APIs expect.
    pub(crate) status: StatusCode,
    /// The media type of the body.
    pub(crate) content_type: &'static str,
    /// The body.
    pub(crate) body: String,
    /// A cookie to set.
    pub(crate) cookie: Option<String>,
    /// What the log says about it: `ok` or the code of the failure.
    pub(crate) result: String,
}

impl Answer {
    fn json(shape: &Shape<'_>, result: &str) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body: to_ascii_json(shape),
            cookie: None,
            result: result.to_owned(),
        }
    }

    /// `{"_success": true}`
    pub(crate) fn success() -> Self {
        Self::json(&Shape { success: true, msg: None, data: None }, "ok")
    }

    /// `{"_success": true, "_data": DATA}`
    pub(crate) fn data(data: impl Into<Value>) -> Self {
        Self::json(&Shape { success: true, msg: None, data: Some(data.into()) }, "ok")
    }

    /// `{"_success": false, "_msg": CODE}`
    pub(crate) fn failure(code: &str) -> Self {
        Self::json(&Shape { success: false, msg: Some(code), data: None }, code)
    }

    /// `{"_success": false}`: a plain no.
    pub(crate) fn no() -> Self {
        Self::json(&Shape { success: false, msg: None, data: None }, "no")
    }

    /// A page of one line.
    pub(crate) fn page(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            body: text.to_owned(),
            cookie: None,
            result: text.to_owned(),
        }
    }

    /// 404
    pub(crate) fn not_found() -> Self {
        Self::page(StatusCode::NOT_FOUND, "not found")
    }

    /// 405
    pub(crate) fn method_not_allowed() -> Self {
        Self::page(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    /// 500
    pub(crate) fn internal_error() -> Self {
        Self::page(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
    }

    /// 400
    pub(crate) fn bad_request(reason: &str) -> Self {
        Self::page(StatusCode::BAD_REQUEST, reason)
    }
}

/// The members of every JSON answer, in the order clients have always seen them.
#[derive(serde::Serialize)]
struct Shape<'a> {
    #[serde(rename = "_success")]
    success: bool,
    #[serde(rename = "_msg", skip_serializing_if = "Option::is_none")]
    msg: Option<&'a str>,
    #[serde(rename = "_data", skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// JSON in ASCII with a space after `:` and `,`, as these APIs always wrote it.
fn to_ascii_json(value: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    // Writing a tree of values into memory cannot fail.
    let _ = value.serialize(&mut serializer);
    let text = String::from_utf8(bytes).unwrap_or_default();
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            ascii.push(character);
        } else {
            // Outside ASCII there are only strings, where such an escape means the character.
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes() {
        for (answer, body) in [
            (Answer::success(), r#"{"_success": true}"#),
            (Answer::no(), r#"{"_success": false}"#),
            (Answer::failure("NO_SUCH_ACCOUNT"), r#"{"_success": false, "_msg": "NO_SUCH_ACCOUNT"}"#),
            (Answer::data(json!(["a", "b"])), r#"{"_success": true, "_data": ["a", "b"]}"#),
            (
                Answer::data("Gr\u{f6}\u{df}e \u{1f600}\n"),
                r#"{"_success": true, "_data": "Gr\u00f6\u00dfe \ud83d\ude00\n"}"#,
            ),
        ] {
            assert_eq!(answer.body, body);
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
}
