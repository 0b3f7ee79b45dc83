//! Postfix socketmap (`socketmap_table(5)`): netstrings in both directions.
//!
//! ```text
//! C: LEN:NAME SP KEY,
//! S: LEN:OK SP DATA,   NOTFOUND SP   TEMP SP REASON   TIMEOUT SP REASON   PERM SP REASON
//! ```
//!
//! The key is 8-bit clean. The blank after `NOTFOUND` is required. Postfix treats TEMP, TIMEOUT and
//! PERM alike as a failed look-up and defers the message. Requests and replies are bounded by
//! [`MAX_LENGTH`].

use super::netstring::{self, NetstringError};
use bytes::{Bytes, BytesMut};

/// Largest request and reply in bytes without the netstring frame: Postfix'
/// `socketmap_max_reply_size`.
pub const MAX_LENGTH: usize = 100_000;

/// One look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Name of the map, case-sensitive.
    pub map: Bytes,
    /// What to look up, as sent; empty when the request is a map name only.
    pub key: Bytes,
}

/// Answer to one look-up. Texts are for the log of Postfix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The key was found with this value.
    Ok(Vec<u8>),
    /// The key is not in the map. Postfix ignores the text.
    NotFound(String),
    /// Temporary failure.
    Temp(String),
    /// The map did not answer in time.
    Timeout(String),
    /// Permanent failure; Postfix defers the message all the same.
    Perm(String),
}

/// Removes the next complete look-up from the front of `buffer`. After an error the connection must
/// be closed, as the beginning of the next request is unknown.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Query>, NetstringError> {
    let Some(mut content) = netstring::decode(buffer, MAX_LENGTH)? else { return Ok(None) };
    Ok(Some(match memchr::memchr(b' ', &content) {
        Some(blank) => {
            let map = content.split_to(blank);
            Query { map, key: content.slice(1..) }
        }
        None => Query { map: content, key: Bytes::new() },
    }))
}

/// Appends `reply`. A value that would exceed [`MAX_LENGTH`] is replaced by a permanent failure; line
/// ends and other control characters in texts become blanks.
pub fn encode(reply: &Reply, out: &mut BytesMut) {
    let (code, text): (&[u8], &str) = match reply {
        Reply::Ok(value) if value.len() + 3 > MAX_LENGTH => (b"PERM ", "Too big."),
        Reply::Ok(value) => return netstring::encode(&[b"OK ", value], out),
        Reply::NotFound(text) => (b"NOTFOUND ", text),
        Reply::Temp(text) => (b"TEMP ", text),
        Reply::Timeout(text) => (b"TIMEOUT ", text),
        Reply::Perm(text) => (b"PERM ", text),
    };
    let clean: Vec<u8> =
        text.bytes().take(MAX_TEXT).map(|b| if b.is_ascii_control() { b' ' } else { b }).collect();
    netstring::encode(&[code, &clean], out);
}

/// Bytes of a reason text; it goes into one log line.
const MAX_TEXT: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b"22:forward user@gmail.com,", b"forward", b"user@gmail.com"),
            (b"7:forward,", b"forward", b""),
            (b"8:forward ,", b"forward", b""),
            (b"0:,", b"", b""),
            (b"11:forward a b,", b"forward", b"a b"),
            (b"9: forward ,", b"", b"forward "),
            (b"9:m \xC3\xBC\0\n:,x,", b"m", b"\xC3\xBC\0\n:,x"),
        ];
        for (input, map, key) in table {
            let mut buffer = BytesMut::from(*input);
            let query = decode(&mut buffer);
            if let Ok(Some(query)) = query {
                assert_eq!((&query.map[..], &query.key[..]), (*map, *key));
                assert!(buffer.is_empty());
            } else {
                panic!("{input:?}: {query:?}");
            }
        }
    }

    #[test]
    fn frames_that_end_the_connection() {
        for input in ["100001:", "22:forward user@gmail.com;", "x:", ":"] {
            assert!(decode(&mut BytesMut::from(input)).is_err(), "{input}");
        }
        assert_eq!(decode(&mut BytesMut::from("100000:forward")), Ok(None));
    }

    #[test]
    fn replies() {
        let table = [
            (Reply::Ok(b"a b\xFF".to_vec()), &b"7:OK a b\xFF,"[..]),
            (Reply::NotFound(String::new()), b"9:NOTFOUND ,"),
            (Reply::Temp("x".into()), b"6:TEMP x,"),
            (Reply::Timeout("x".into()), b"9:TIMEOUT x,"),
            (Reply::Perm("a\nb".into()), b"8:PERM a b,"),
            (Reply::Ok(vec![b'x'; MAX_LENGTH]), b"13:PERM Too big.,"),
        ];
        for (reply, expected) in table {
            let mut out = BytesMut::new();
            encode(&reply, &mut out);
            assert_eq!(&out[..], expected);
        }
        let mut out = BytesMut::new();
        encode(&Reply::Ok(vec![b'x'; MAX_LENGTH - 3]), &mut out);
        assert!(out.starts_with(b"100000:OK xxx"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut buffer = BytesMut::from(&input[..]);
            while let Ok(Some(query)) = decode(&mut buffer) {
                prop_assert!(query.map.len() + query.key.len() <= input.len());
            }
        }
    }
}
