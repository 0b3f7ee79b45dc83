//! xtext (RFC 3461 section 4): how ORCPT, ENVID and XFORWARD carry octets that SMTP parameters cannot hold.

/// Decodes xtext. `None` when a `+` is not followed by two upper-case hexadecimal digits.
///
/// Lower-case digits are accepted as well: Postfix accepts them, and refusing them would bounce mail for nothing.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, tail)) = rest.split_first() {
        if octet == b'+' {
            let (high, low) = (hex(*tail.first()?)?, hex(*tail.get(1)?)?);
            out.push(high << 4 | low);
            rest = &tail[2..];
        } else {
            out.push(octet);
            rest = tail;
        }
    }
    Some(out)
}

/// Encodes octets as xtext: everything outside `!`..`~`, and `+` and `=`, becomes `+HH`.
pub fn encode(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(octets.len());
    for &octet in octets {
        if octet.is_ascii_graphic() && octet != b'+' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            out.push('+');
            out.push(char::from(DIGITS[usize::from(octet >> 4)]));
            out.push(char::from(DIGITS[usize::from(octet & 15)]));
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes() {
        let table: [(&str, Option<&[u8]>); 7] = [
            ("plain", Some(b"plain")),
            ("a+2Bb", Some(b"a+b")),
            ("a+0D+0Ab", Some(b"a\r\nb")),
            ("", Some(b"")),
            ("a+", None),
            ("a+2", None),
            ("a+zz", None),
        ];
        for (input, expected) in table {
            assert_eq!(decode(input.as_bytes()).as_deref(), expected, "{input}");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = encode(&octets);
            prop_assert!(text.bytes().all(|octet| octet.is_ascii_graphic()));
            prop_assert_eq!(decode(text.as_bytes()), Some(octets));
        }
    }
}
