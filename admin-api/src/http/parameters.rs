//! The parameters of a request: what the query string and the form body hold, merged.
//!
//! Accepted bodies are `application/x-www-form-urlencoded` and `multipart/form-data`, both UTF-8; a body of
//! another type counts as empty, as it always did on these interfaces. Where a name occurs more than once the last
//! value counts, and the query string counts after the body.

use super::multipart;

/// More fields than this are refused; no call has a hundredth of it.
pub(crate) const MAX_FIELDS: usize = 1000;

/// Names and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

/// Why the parameters of a request cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ParameterError {
    /// More than [`MAX_FIELDS`] fields.
    #[error("more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// A name or value that is not UTF-8 after decoding.
    #[error("a field is not UTF-8")]
    NotUtf8,
    /// A multipart body that does not follow RFC 7578.
    #[error("malformed multipart body")]
    Multipart,
}

impl Parameters {
    /// Reads both sources. `content_type` is the value of the header, if there is one.
    pub(crate) fn decode(
        query: Option<&str>,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ParameterError> {
        let mut fields = Vec::new();
        let media_type = content_type.map(|value| value.split(';').next().unwrap_or("").trim());
        match (media_type, content_type) {
            (Some(kind), _) if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") => {
                decode_form(body, &mut fields)?;
            }
            (Some(kind), Some(value)) if kind.eq_ignore_ascii_case("multipart/form-data") => {
                multipart::decode(value, body, &mut fields)?;
            }
            _ => {}
        }
        decode_form(query.unwrap_or("").as_bytes(), &mut fields)?;
        if fields.len() > MAX_FIELDS { Err(ParameterError::TooManyFields) } else { Ok(Self(fields)) }
    }

    /// The last value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` was sent, with whatever value.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the value of `name` is exactly `yes`.
    pub(crate) fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some("yes")
    }

    /// `Some(true)` for `yes`, `Some(false)` for `no`, `None` for anything else.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        }
    }

    /// Adds a value unless the name is there already.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        if !self.contains(name) {
            self.set(name, value);
        }
    }

    /// Sets a value over whatever was sent.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The names that were sent.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Parameters {
    fn from(fields: [(&str, &str); N]) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Decodes `a=b&c=d`. Bad percent sequences stay as they are; bytes that are not UTF-8 are refused.
fn decode_form(text: &[u8], fields: &mut Vec<(String, String)>) -> Result<(), ParameterError> {
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() >= MAX_FIELDS {
            return Err(ParameterError::TooManyFields);
        }
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or(b""));
        fields.push((decode_component(name)?, decode_component(value)?));
    }
    Ok(())
}

fn decode_component(text: &[u8]) -> Result<String, ParameterError> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
    String::from_utf8(decoded).map_err(|_| ParameterError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(query: Option<&str>, body: &str) -> Parameters {
        Parameters::decode(query, Some("application/x-www-form-urlencoded; charset=utf-8"), body.as_bytes())
            .unwrap()
    }

    #[test]
    fn query_and_body_are_merged() {
        let merged = form(Some("b=2&c=%5Bx%5D"), "a=1+2&b=1&d&=e");
        for (name, value) in [("a", "1 2"), ("b", "2"), ("c", "[x]"), ("d", ""), ("", "e")] {
            assert_eq!(merged.get(name), Some(value), "{name}");
        }
        assert_eq!(merged.get("missing"), None);
    }

    #[test]
    fn other_bodies_count_as_empty() {
        for kind in [None, Some("application/json"), Some("text/plain")] {
            assert_eq!(
                Parameters::decode(Some("a=1"), kind, b"b=2").unwrap(),
                [("a", "1")].into(),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn flags_are_exact() {
        for (value, flag) in
            [("yes", Some(true)), ("no", Some(false)), ("YES", None), ("1", None), ("", None)]
        {
            assert_eq!(Parameters::from([("x", value)]).flag("x"), flag, "{value}");
        }
    }

    #[test]
    fn bounds_and_bad_bytes() {
        let many = "a=1&".repeat(MAX_FIELDS + 1);
        let kind = Some("application/x-www-form-urlencoded");
        assert_eq!(Parameters::decode(None, kind, many.as_bytes()), Err(ParameterError::TooManyFields));
        assert_eq!(Parameters::decode(None, kind, b"a=%ff"), Err(ParameterError::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(name in "\\PC{1,20}", value in "\\PC{0,40}") {
            let body: String = form_urlencoded::Serializer::new(String::new()).append_pair(&name, &value).finish();
            let read = form(None, &body);
            prop_assert_eq!(read.get(&name), Some(value.as_str()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Parameters::decode(None, Some("application/x-www-form-urlencoded"), &body);
            let _ = Parameters::decode(None, Some("multipart/form-data; boundary=x"), &body);
        }
    }
}
