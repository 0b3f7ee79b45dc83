//! Postfix policy delegation (`SMTPD_POLICY_README`), as spoken by policyd and quota-status.
//!
//! ```text
//! C: request=smtpd_access_policy LF        a line is split at its first `=`
//! C: recipient=user@example.com LF         lines without `=` are ignored
//! C: LF                                    an empty line ends the request
//! S: action=DUNNO LF LF
//! ```
//!
//! Names are case-sensitive and may be repeated; which of the repeated values counts is the
//! service's decision, hence [`Request::first`] and [`Request::last`]. Attributes never carry over
//! from one request to the next.
//!
//! Bounds ([`Limits`]): 64 KiB a request, 8 KiB a line, 200 attributes. Whoever exceeds them is not
//! Postfix; the connection is to be closed without an answer, upon which Postfix applies its own
//! `smtpd_policy_service_default_action`.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// What one request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole request, its empty line included.
    pub total: usize,
    /// Bytes of one line, its line end not counted.
    pub line: usize,
    /// Number of attributes, repeated ones counted each time.
    pub attributes: usize,
    /// Whether a line may end in CR LF as well as in LF (quota-status accepts both, policyd takes a
    /// CR as part of the value).
    pub strip_carriage_return: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { total: 64 * 1024, line: 8 * 1024, attributes: 200, strip_carriage_return: false }
    }
}

/// A request beyond the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No empty line within [`Limits::total`] bytes.
    #[error("policy request longer than {0} bytes")]
    RequestTooLong(usize),
    /// A line beyond [`Limits::line`] bytes.
    #[error("policy request with a line longer than {0} bytes")]
    LineTooLong(usize),
    /// More than [`Limits::attributes`] attributes.
    #[error("policy request with more than {0} attributes")]
    TooManyAttributes(usize),
}

/// Where one `name=value` line lies in the bytes of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attribute {
    start: u32,
    equals: u32,
    end: u32,
}

/// One policy request: its bytes as received and the places of its attributes in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    bytes: Bytes,
    attributes: Vec<Attribute>,
}

impl Request {
    /// The value of the last attribute called `name`.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.attributes.iter().rev().find(|a| self.name(a) == name.as_bytes()).map(|a| self.value(a))
    }

    /// The value of the first attribute called `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.attributes.iter().find(|a| self.name(a) == name.as_bytes()).map(|a| self.value(a))
    }

    /// All attributes in the order received, as (name, value).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.attributes.iter().map(|a| (self.name(a), self.value(a)))
    }

    /// Whether no line of the request was an attribute.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// How many attributes bear a name that already occurred; worth a metric, as Postfix sends none.
    pub fn repeated(&self) -> usize {
        // For the few names of a request this costs a tenth of a set.
        let came_before = |(at, name)| self.attributes[..at].iter().any(|before| self.name(before) == name);
        self.attributes
            .iter()
            .map(|attribute| self.name(attribute))
            .enumerate()
            .filter(|&name| came_before(name))
            .count()
    }

    /// Appends the request as a client sends it: every attribute in the order received, and nothing else.
    ///
    /// Names and values are pieces of single lines, so none of them can hold a line end and add an attribute.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.bytes.len());
        for (name, value) in self.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b"=");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\n");
        }
        out.extend_from_slice(b"\n");
    }

    fn name(&self, a: &Attribute) -> &[u8] {
        &self.bytes[a.start as usize..a.equals as usize]
    }

    fn value(&self, a: &Attribute) -> &[u8] {
        &self.bytes[a.equals as usize + 1..a.end as usize]
    }
}

/// Typical Postfix requests have 27 to 32 attributes; one allocation holds them.
const USUAL_ATTRIBUTES: usize = 32;

/// Decoder of one connection. It remembers how far it has looked, so that a request arriving in
/// many small pieces costs time linear in its length.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    attributes: Vec<Attribute>,
    line_start: usize,
    scanned: usize,
}

impl Decoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        // Attribute places are kept as `u32`.
        let total = limits.total.min(u32::MAX as usize);
        Decoder { limits: Limits { total, ..limits }, attributes: Vec::new(), line_start: 0, scanned: 0 }
    }

    /// Removes the next complete request from the front of `buffer`.
    ///
    /// While the answer is `Ok(None)` the caller may only append to `buffer`. After an error the
    /// connection must be closed: the rest of the stream has no known beginning.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, PolicyError> {
        while let Some(offset) = memchr(b'\n', &buffer[self.scanned..]) {
            let line_end = self.scanned + offset;
            let next = line_end + 1;
            if next > self.limits.total {
                return Err(PolicyError::RequestTooLong(self.limits.total));
            }
            let mut line = &buffer[self.line_start..line_end];
            if line.len() > self.limits.line {
                return Err(PolicyError::LineTooLong(self.limits.line));
            }
            if self.limits.strip_carriage_return {
                line = line.strip_suffix(b"\r").unwrap_or(line);
            }
            if line.is_empty() {
                self.line_start = 0;
                self.scanned = 0;
                let attributes = std::mem::take(&mut self.attributes);
                return Ok(Some(Request { bytes: buffer.split_to(next).freeze(), attributes }));
            }
            if let Some(equals) = memchr(b'=', line) {
                self.push(self.line_start, equals, line.len())?;
            }
            self.line_start = next;
            self.scanned = next;
        }
        self.scanned = buffer.len();
        if buffer.len() >= self.limits.total {
            return Err(PolicyError::RequestTooLong(self.limits.total));
        }
        if buffer.len() - self.line_start > self.limits.line {
            return Err(PolicyError::LineTooLong(self.limits.line));
        }
        Ok(None)
    }

    fn push(&mut self, start: usize, equals: usize, length: usize) -> Result<(), PolicyError> {
        if self.attributes.len() >= self.limits.attributes {
            return Err(PolicyError::TooManyAttributes(self.limits.attributes));
        }
        if self.attributes.capacity() == 0 {
            self.attributes.reserve(USUAL_ATTRIBUTES.min(self.limits.attributes));
        }
        // In range: `Decoder::new` caps the request length at `u32::MAX`.
        let place = |offset: usize| (start + offset) as u32;
        self.attributes.push(Attribute { start: place(0), equals: place(equals), end: place(length) });
        Ok(())
    }
}

/// Removes the next complete request from the front of `buffer`, looking at it from the start each
/// time. Connections use [`Decoder`], which does not.
pub fn decode(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Request>, PolicyError> {
    Decoder::new(limits.clone()).decode(buffer)
}

/// Appends the reply `action=TEXT`, LF, LF.
///
/// Whatever `action` holds, the reply is one line and an empty line: control characters become
/// blanks, and an empty text becomes `DUNNO`, as Postfix takes an empty action for a broken server.
pub fn encode(action: &str, out: &mut BytesMut) {
    out.reserve(action.len() + 9);
    out.extend_from_slice(b"action=");
    if action.is_empty() {
        out.extend_from_slice(b"DUNNO");
    } else if action.bytes().any(|b| b.is_ascii_control()) {
        out.extend(action.bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
    } else {
        out.extend_from_slice(action.as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(request: &Request) -> Vec<(String, String)> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        request.iter().map(|(n, v)| (text(n), text(v))).collect()
    }

    #[test]
    fn requests() {
        type Attributes<'a> = &'a [(&'a str, &'a str)];
        let table: &[(&str, bool, &[u8], Attributes<'_>)] = &[
            ("empty request", false, b"\n", &[]),
            ("one attribute", false, b"a=b\n\n", &[("a", "b")]),
            ("empty value", false, b"a=\n\n", &[("a", "")]),
            ("empty name", false, b"=x\n\n", &[("", "x")]),
            ("first equals sign splits", false, b"a=b=c\n\n", &[("a", "b=c")]),
            ("line without equals sign", false, b"hello\na=1\n\n", &[("a", "1")]),
            ("only a line without equals sign", false, b"hello\n\n", &[]),
            ("repeated", false, b"a=1\na=2\n\n", &[("a", "1"), ("a", "2")]),
            ("CR kept", false, b"a=1\r\n\n", &[("a", "1\r")]),
            ("CR alone is a line when CR counts", false, b"a=1\n\r\nb=2\n\n", &[("a", "1"), ("b", "2")]),
            ("CR LF", true, b"a=1\r\nb=2\r\n\r\n", &[("a", "1"), ("b", "2")]),
            ("mixed line ends", true, b"a=1\nb=2\r\n\n", &[("a", "1"), ("b", "2")]),
            ("only the last CR is stripped", true, b"a=1\r\r\n\r\n", &[("a", "1\r")]),
            ("empty request with CR LF", true, b"\r\n", &[]),
            ("NUL and bytes above 127", false, b"a=\0\xC3\xBC\n\n", &[("a", "\0\u{fc}")]),
        ];
        for (case, strip, input, expected) in table {
            let limits = Limits { strip_carriage_return: *strip, ..Limits::default() };
            let mut buffer = BytesMut::from(*input);
            let request = decode(&mut buffer, &limits).expect(case).expect(case);
            let expected: Vec<_> = expected.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            assert_eq!(pairs(&request), expected, "{case}");
            assert!(buffer.is_empty(), "{case}");
        }
    }

    #[test]
    fn unfinished_requests_stay_in_the_buffer() {
        for input in ["", "a", "a=", "a=b", "a=b\n", "a=b\nc", "a=b\r\n\r"] {
            let mut buffer = BytesMut::from(input);
            assert_eq!(decode(&mut buffer, &Limits::default()), Ok(None), "{input:?}");
            assert_eq!(&buffer[..], input.as_bytes());
        }
    }

    #[test]
    fn first_last_and_repeated() {
        let mut buffer = BytesMut::from("a=1\nb=2\na=3\nA=4\n\n");
        let request = decode(&mut buffer, &Limits::default()).unwrap().unwrap();
        assert_eq!(request.first("a"), Some(&b"1"[..]));
        assert_eq!(request.last("a"), Some(&b"3"[..]));
        assert_eq!(request.last("A"), Some(&b"4"[..]));
        assert_eq!(request.last("c"), None);
        assert_eq!(request.repeated(), 1);
        assert!(!request.is_empty());
    }

    #[test]
    fn requests_are_sent_on_as_received() {
        let table: &[(&[u8], &[u8])] = &[
            (b"\n", b"\n"),
            (b"b=2\na=1\na=\n=x\n\n", b"b=2\na=1\na=\n=x\n\n"),
            (b"new_in_postfix_9=a=b\n\n", b"new_in_postfix_9=a=b\n\n"),
            (b"a=\0\xff\r\n\n", b"a=\0\xff\r\n\n"),
            (b"no attribute\na=1\nneither\n\n", b"a=1\n\n"),
        ];
        for (received, sent) in table {
            let mut out = BytesMut::new();
            decode(&mut BytesMut::from(*received), &Limits::default()).unwrap().unwrap().encode(&mut out);
            assert_eq!(&out[..], *sent);
        }
    }

    #[test]
    fn bounds() {
        let limits = Limits { total: 32, line: 10, attributes: 3, strip_carriage_return: true };
        let many = "a=1\n".repeat(4);
        let table: &[(&str, &str, Result<bool, PolicyError>)] = &[
            ("line as long as allowed", "a=34567890\n\n", Ok(true)),
            ("line too long", "a=345678901\n\n", Err(PolicyError::LineTooLong(10))),
            ("unfinished line too long", "a=345678901", Err(PolicyError::LineTooLong(10))),
            ("as many attributes as allowed", "a=1\nb=1\nc=1\nd\n\n", Ok(true)),
            ("too many attributes", &many, Err(PolicyError::TooManyAttributes(3))),
            ("as long as allowed", "a=34567\nb=34567\nc=345\nd3456789\n\n", Ok(true)),
            ("too long", "a=34567\nb=34567\nc=345\nd34567890\n\n", Err(PolicyError::RequestTooLong(32))),
            (
                "too long before its end",
                "a=34567\nb=34567\nc=345\nd3456789\ne",
                Err(PolicyError::RequestTooLong(32)),
            ),
            ("short beginning", "a=34567\nb=34567\nc=345\nd3456789\n", Ok(false)),
        ];
        for (case, input, expected) in table {
            let got = decode(&mut BytesMut::from(*input), &limits).map(|r| r.is_some());
            assert_eq!(&got, expected, "{case}");
        }
    }

    #[test]
    fn replies_are_one_line_and_an_empty_line() {
        let table = [
            ("DUNNO", "action=DUNNO\n\n"),
            ("", "action=DUNNO\n\n"),
            ("REJECT a\r\nb\0c\x7f", "action=REJECT a  b c \n\n"),
            ("REJECT f\u{fc}r", "action=REJECT f\u{fc}r\n\n"),
        ];
        for (action, expected) in table {
            let mut out = BytesMut::new();
            encode(action, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    /// Feeds `stream` in pieces of the given lengths (the last one takes the rest) and collects all
    /// requests, until an error.
    fn feed(stream: &[u8], cuts: &[usize], limits: &Limits) -> (Vec<Request>, Option<PolicyError>) {
        let mut decoder = Decoder::new(limits.clone());
        let (mut buffer, mut requests, mut at) = (BytesMut::new(), Vec::new(), 0);
        for length in cuts.iter().copied().chain([stream.len()]) {
            let to = (at + length).min(stream.len());
            buffer.extend_from_slice(&stream[at..to]);
            at = to;
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_requests(
            stream in "[ab=\r\n\u{0}-\u{3}]{0,200}",
            cuts in proptest::collection::vec(0usize..9, 0..60),
            strip in any::<bool>(),
        ) {
            let limits = Limits { total: 60, line: 20, attributes: 6, strip_carriage_return: strip };
            let (whole, error) = feed(stream.as_bytes(), &[], &limits);
            let (pieces, piece_error) = feed(stream.as_bytes(), &cuts, &limits);
            let (single, single_error) = feed(stream.as_bytes(), &vec![1; stream.len()], &limits);
            prop_assert_eq!(&whole, &pieces);
            prop_assert_eq!(&whole, &single);
            prop_assert_eq!(error.is_some(), piece_error.is_some());
            prop_assert_eq!(error.is_some(), single_error.is_some());
        }

        #[test]
        fn what_was_sent_is_what_is_read(
            sent in proptest::collection::vec(("[a-z_]{1,12}", "[^\n]{0,40}"), 0..30),
        ) {
            let mut text = String::new();
            for (name, value) in &sent {
                text.push_str(&format!("{name}={value}\n"));
            }
            text.push('\n');
            let request = decode(&mut BytesMut::from(text.as_str()), &Limits::default()).unwrap().unwrap();
            prop_assert_eq!(pairs(&request), sent);
        }

        #[test]
        fn a_reply_never_holds_a_third_line(action in any::<String>()) {
            let mut out = BytesMut::new();
            encode(&action, &mut out);
            prop_assert!(out.starts_with(b"action=") && out.ends_with(b"\n\n"));
            prop_assert_eq!(out.iter().filter(|b| b.is_ascii_control()).count(), 2);
        }
    }
}
