//! Netstrings: `LENGTH ':' BYTES ','`, the frame of socketmap.
//!
//! Leading zeros in the length are accepted, as Postfix' peers accept them, up to ten digits. A
//! length above the caller's maximum is refused as soon as it is announced, so nothing is buffered
//! for it.

use bytes::{Buf, Bytes, BytesMut};
use nom::{
    IResult, Parser,
    bytes::streaming::{tag, take_while_m_n},
    sequence::terminated,
};

/// A stream that is no netstring, or one that is too long. The connection cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetstringError {
    /// Something else than one to ten digits and a colon.
    #[error("netstring without a length")]
    BadLength,
    /// The announced length is above the maximum.
    #[error("netstring longer than {0} bytes announced")]
    TooLong(usize),
    /// The byte after the content is not a comma.
    #[error("netstring without its closing comma")]
    NoComma,
}

/// Digits that a length may have, leading zeros included.
const MAX_DIGITS: usize = 10;

/// `LENGTH ':'`; at most ten digits, so the number fits into 64 bits.
fn length(input: &[u8]) -> IResult<&[u8], u64> {
    terminated(take_while_m_n(1, MAX_DIGITS, |b: u8| b.is_ascii_digit()), tag(&b":"[..]))
        .map(|digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
        .parse(input)
}

/// Removes the next complete netstring from the front of `buffer` and returns its content.
/// `maximum` bounds the content in bytes.
pub fn decode(buffer: &mut BytesMut, maximum: usize) -> Result<Option<Bytes>, NetstringError> {
    let (rest, announced) = match length(buffer) {
        Ok(found) => found,
        Err(nom::Err::Incomplete(_)) => return Ok(None),
        Err(_) => return Err(NetstringError::BadLength),
    };
    let header = buffer.len() - rest.len();
    let content = usize::try_from(announced).ok().filter(|n| *n <= maximum);
    let content = content.ok_or(NetstringError::TooLong(maximum))?;
    match rest.get(content) {
        None => Ok(None),
        Some(b',') => {
            buffer.advance(header);
            let bytes = buffer.split_to(content).freeze();
            buffer.advance(1);
            Ok(Some(bytes))
        }
        Some(_) => Err(NetstringError::NoComma),
    }
}

/// Appends `parts`, one after the other, as one netstring.
pub fn encode(parts: &[&[u8]], out: &mut BytesMut) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(length + 22);
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut left = length;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b":");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b",");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Frame<'a> = Result<Option<&'a [u8]>, NetstringError>;

    #[test]
    fn frames() {
        let table: &[(&[u8], Frame<'_>)] = &[
            (b"0:,", Ok(Some(b""))),
            (b"3:abc,", Ok(Some(b"abc"))),
            (b"0000000003:abc,", Ok(Some(b"abc"))),
            (b"3:a,c,", Ok(Some(b"a,c"))),
            (b"10:0123456789,", Ok(Some(b"0123456789"))),
            (b"", Ok(None)),
            (b"3", Ok(None)),
            (b"3:", Ok(None)),
            (b"3:abc", Ok(None)),
            (b"11:", Err(NetstringError::TooLong(10))),
            (b"9999999999:", Err(NetstringError::TooLong(10))),
            (b"00000000003:abc,", Err(NetstringError::BadLength)),
            (b"-1:", Err(NetstringError::BadLength)),
            (b":,", Err(NetstringError::BadLength)),
            (b"3;abc,", Err(NetstringError::BadLength)),
            (b"x3:abc,", Err(NetstringError::BadLength)),
            (b"3:abcd", Err(NetstringError::NoComma)),
            (b"0:x", Err(NetstringError::NoComma)),
        ];
        for (input, expected) in table {
            let mut buffer = BytesMut::from(*input);
            let got = decode(&mut buffer, 10);
            assert_eq!(got.as_ref().map(|o| o.as_deref()), expected.as_ref().map(|o| *o), "{input:?}");
            assert_eq!(buffer.is_empty(), matches!(got, Ok(Some(_))) || input.is_empty());
        }
    }

    #[test]
    fn parts_are_joined() {
        let mut out = BytesMut::new();
        encode(&[b"OK ", b"", b"user@example.com"], &mut out);
        encode(&[], &mut out);
        assert_eq!(&out[..], b"19:OK user@example.com,0:,");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_strings(
            strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1usize..20,
        ) {
            let mut stream = BytesMut::new();
            for string in &strings {
                encode(&[string], &mut stream);
            }
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(string) = decode(&mut buffer, 40).unwrap() {
                    got.push(string.to_vec());
                }
            }
            prop_assert_eq!(got, strings);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut buffer = BytesMut::from(&input[..]);
            while let Ok(Some(content)) = decode(&mut buffer, 20) {
                prop_assert!(content.len() <= 20);
            }
        }
    }
}
