//! Postfix `tcp_table(5)`: one line a look-up.
//!
//! ```text
//! C: get SP KEY LF
//! S: 200 SP VALUE LF    500 SP TEXT LF (not found)    400 SP TEXT LF (temporary failure)
//! ```
//!
//! In keys and values `%`, white space, control and non-ASCII bytes are written `%XX`. The texts of
//! 400 and 500 replies go to the log only and keep their blanks, as the servers that iRedMail and
//! docker-mailserver use send them. A request and a reply have at most [`MAX_LINE`] bytes, line end
//! included. CR LF is accepted for LF.

use bytes::{Buf, BytesMut};
use memchr::memchr;

/// Largest request and largest reply in bytes, LF included.
pub const MAX_LINE: usize = 4096;

/// A request without a line end within [`MAX_LINE`] bytes: answer 500 and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tcp_table request longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

/// One line from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Look up this key (decoded bytes).
    Get(Vec<u8>),
    /// Anything else; it must be answered all the same, as Postfix would wait 100 s.
    Malformed {
        /// The line without its line end.
        line: Vec<u8>,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// Why a line is no look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The line is empty.
    Empty,
    /// The line does not begin with `get` and a blank.
    UnknownCommand,
    /// A `%` is not followed by two hexadecimal digits.
    BadEncoding,
}

/// Answer to one look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 200: the value, not yet encoded.
    Found(Vec<u8>),
    /// 500: no such key.
    NotFound(String),
    /// 400: the look-up failed for now; Postfix defers the message.
    Temporary(String),
}

/// Removes the next complete line from the front of `buffer`. An overlong line stays there; the
/// connection is to be closed.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Request>, LineTooLong> {
    let window = &buffer[..buffer.len().min(MAX_LINE)];
    let Some(end) = memchr(b'\n', window) else {
        return if buffer.len() >= MAX_LINE { Err(LineTooLong) } else { Ok(None) };
    };
    let line = &buffer[..end];
    let request = parse(line.strip_suffix(b"\r").unwrap_or(line));
    buffer.advance(end + 1);
    Ok(Some(request))
}

fn parse(line: &[u8]) -> Request {
    let malformed = |problem| Request::Malformed { line: line.to_vec(), problem };
    if line.is_empty() {
        return malformed(Problem::Empty);
    }
    match line.strip_prefix(b"get ").map(unquote) {
        Some(Some(key)) => Request::Get(key),
        Some(None) => malformed(Problem::BadEncoding),
        None => malformed(Problem::UnknownCommand),
    }
}

/// Decodes `%XX`; `None` if a `%` is not followed by two hexadecimal digits.
fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(percent) = memchr(b'%', rest) {
        out.extend_from_slice(&rest[..percent]);
        let digit = |at: usize| rest.get(percent + at).and_then(|b| (*b as char).to_digit(16));
        out.push((digit(1)? * 16 + digit(2)?) as u8);
        rest = &rest[percent + 3..];
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Appends `reply`. A value that would make the reply longer than [`MAX_LINE`] is replaced by a 500;
/// a text is cut.
pub fn encode(reply: &Reply, out: &mut BytesMut) {
    match reply {
        Reply::Found(value) => {
            let start = out.len();
            out.extend_from_slice(b"200 ");
            quote(value, |b| b <= b' ', out);
            if out.len() - start >= MAX_LINE {
                out.truncate(start);
                out.extend_from_slice(b"500 Reply too long");
            }
        }
        Reply::NotFound(text) => encode_text(b"500 ", text, out),
        Reply::Temporary(text) => encode_text(b"400 ", text, out),
    }
    out.extend_from_slice(b"\n");
}

/// Texts keep their blanks and are cut to what fits even if every byte has to be encoded.
fn encode_text(code: &[u8], text: &str, out: &mut BytesMut) {
    out.extend_from_slice(code);
    let fits = &text.as_bytes()[..text.len().min((MAX_LINE - 5) / 3)];
    quote(fits, |b| b < b' ', out);
}

fn quote(bytes: &[u8], blank_or_control: impl Fn(u8) -> bool, out: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len());
    let special = |b: &u8| *b == b'%' || *b >= 0x7f || blank_or_control(*b);
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(special) {
        let b = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests() {
        let get = |key: &[u8]| Request::Get(key.to_vec());
        let bad = |line: &[u8], problem| Request::Malformed { line: line.to_vec(), problem };
        let table: &[(&[u8], Request)] = &[
            (b"get user@gmail.com\n", get(b"user@gmail.com")),
            (b"get user@gmail.com\r\n", get(b"user@gmail.com")),
            (b"get user%40gmail.com\n", get(b"user@gmail.com")),
            (b"get %c3%BC%25%0a\n", get(b"\xC3\xBC%\n")),
            (b"get  x\n", get(b" x")),
            (b"get \n", get(b"")),
            (b"get a\0b\xFF\n", get(b"a\0b\xFF")),
            (b"\n", bad(b"", Problem::Empty)),
            (b"\r\n", bad(b"", Problem::Empty)),
            (b"get\n", bad(b"get", Problem::UnknownCommand)),
            (b"GET x\n", bad(b"GET x", Problem::UnknownCommand)),
            (b"put a b\n", bad(b"put a b", Problem::UnknownCommand)),
            (b"get %zz\n", bad(b"get %zz", Problem::BadEncoding)),
            (b"get %4\n", bad(b"get %4", Problem::BadEncoding)),
            (b"get %\n", bad(b"get %", Problem::BadEncoding)),
            (b"get %+4\n", bad(b"get %+4", Problem::BadEncoding)),
        ];
        for (input, expected) in table {
            let mut buffer = BytesMut::from(*input);
            assert_eq!(decode(&mut buffer), Ok(Some(expected.clone())));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn length_of_a_line() {
        let line = |length: usize| format!("get {}\n", "a".repeat(length - 5));
        assert!(matches!(decode(&mut BytesMut::from(line(MAX_LINE).as_str())), Ok(Some(_))));
        assert_eq!(decode(&mut BytesMut::from(line(MAX_LINE + 1).as_str())), Err(LineTooLong));
        assert_eq!(decode(&mut BytesMut::from(&line(MAX_LINE)[..MAX_LINE - 1])), Ok(None));
        assert_eq!(decode(&mut BytesMut::from(&line(MAX_LINE + 1)[..MAX_LINE])), Err(LineTooLong));
    }

    #[test]
    fn replies() {
        let table = [
            (Reply::Found(b"a b@x".to_vec()), "200 a%20b@x\n"),
            (Reply::Found("\u{fc}%\x7f".as_bytes().to_vec()), "200 %c3%bc%25%7f\n"),
            (Reply::NotFound(String::new()), "500 \n"),
            (Reply::NotFound("Not found, sorry.".into()), "500 Not found, sorry.\n"),
            (Reply::NotFound("a\r\nb%".into()), "500 a%0d%0ab%25\n"),
            (Reply::Temporary("later".into()), "400 later\n"),
            (Reply::Found(vec![b'a'; MAX_LINE]), "500 Reply too long\n"),
            (Reply::Found(vec![b'%'; MAX_LINE / 3]), "500 Reply too long\n"),
        ];
        for (reply, expected) in table {
            let mut out = BytesMut::from("x");
            encode(&reply, &mut out);
            assert_eq!(String::from_utf8_lossy(&out[1..]), expected);
        }
        let mut out = BytesMut::new();
        encode(&Reply::Found(vec![b'a'; MAX_LINE - 5]), &mut out);
        assert_eq!(out.len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_requests(
            stream in "(get |put|[%a-f0-9 \r\n]){0,60}",
            cut in 1usize..10,
        ) {
            let collect = |cut: usize| {
                let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
                for piece in stream.as_bytes().chunks(cut) {
                    buffer.extend_from_slice(piece);
                    while let Ok(Some(request)) = decode(&mut buffer) {
                        got.push(request);
                    }
                }
                got
            };
            prop_assert_eq!(collect(cut), collect(1 << 20));
        }

        #[test]
        fn a_value_survives_both_directions(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = BytesMut::new();
            encode(&Reply::Found(value.clone()), &mut out);
            let mut line = BytesMut::from(&b"get "[..]);
            line.extend_from_slice(&out[4..]);
            prop_assert_eq!(decode(&mut line), Ok(Some(Request::Get(value))));
        }

        #[test]
        fn a_reply_is_one_short_printable_line(text in any::<String>(), long in 0usize..3000) {
            for reply in [
                Reply::NotFound(text.clone() + &"%".repeat(long)),
                Reply::Temporary(text.clone()),
                Reply::Found((text + &"\n".repeat(long)).into_bytes()),
            ] {
                let mut out = BytesMut::new();
                encode(&reply, &mut out);
                prop_assert!(out.len() <= MAX_LINE && out.ends_with(b"\n"));
                prop_assert!(out[..out.len() - 1].iter().all(|b| (0x20..0x7f).contains(b)));
            }
        }
    }
}
