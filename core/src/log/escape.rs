//! Making text safe for a log line.
//!
//! Names and values in a log come from mail: a line end in an address must not begin a second line, an escape
//! sequence must not reach a terminal, and a quotation mark must not end the value early and forge the next field.

/// The longest value in a line, in bytes before escaping; what is longer is cut and ends in `…`.
pub const LONGEST_VALUE: usize = 512;

/// Appends `value` with everything that is not printable text as `\xNN`.
///
/// Quotation marks are escaped too. A backslash is left alone where it already begins such an escape, because
/// codecs escape bytes that are not UTF-8 in the same way before they put them into a text.
pub fn escape(value: &[u8], out: &mut String) {
    // Nearly every value is such: taken as a whole it costs a tenth.
    let harmless = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.len() <= LONGEST_VALUE
        && value.iter().all(harmless)
        && let Ok(text) = std::str::from_utf8(value)
    {
        out.push_str(text);
        return;
    }
    let (value, cut) = match value.len() > LONGEST_VALUE {
        true => (cut_at_character(value, LONGEST_VALUE), true),
        false => (value, false),
    };
    for chunk in value.utf8_chunks() {
        let text = chunk.valid();
        for (index, character) in text.char_indices() {
            match character {
                '"' => hex(b'"', out),
                '\\' if !is_escape(&text.as_bytes()[index..]) => hex(b'\\', out),
                character if is_printable(character) => out.push(character),
                character => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hex(byte, out)),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(*byte, out));
    }
    if cut {
        out.push('…');
    }
}

/// Appends `value` as a value of a `key=value` line: escaped, and in quotation marks where a reader could
/// otherwise not see its end.
pub fn quote(value: &[u8], out: &mut String) {
    let plain = !value.is_empty() && value.iter().all(|byte| !matches!(byte, b' ' | b'=' | b','));
    if !plain {
        out.push('"');
    }
    escape(value, out);
    if !plain {
        out.push('"');
    }
}

fn hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Whether the bytes begin with `\x` and two hexadecimal digits.
fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// Not a control character, and none of those that break lines or turn the direction of writing.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The first `most` bytes, less if that would cut a character in two.
fn cut_at_character(value: &[u8], most: usize) -> &[u8] {
    let mut end = most;
    while end > most - 4 && (value[end] & 0xc0) == 0x80 {
        end -= 1;
    }
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &[u8]) -> String {
        let mut out = String::new();
        quote(value, &mut out);
        out
    }

    #[test]
    fn hostile_values_stay_within_their_field() {
        let table: [(&[u8], &str); 14] = [
            (b"user@example.com", "user@example.com"),
            (b"", "\"\""),
            (b"two words", "\"two words\""),
            (b"a\nclient=1.2.3.4", "\"a\\x0aclient=1.2.3.4\""),
            (b"a\" client=\"1.2.3.4", "\"a\\x22 client=\\x221.2.3.4\""),
            (b"\x1b[31mred", "\\x1b[31mred"),
            (b"nul\0", "nul\\x00"),
            (b"caf\xc3\xa9", "café"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\\", "a\\x5c"),
            (b"a\\xe9", "a\\xe9"),
            ("a\u{2028}b".as_bytes(), "a\\xe2\\x80\\xa8b"),
            ("a\u{202e}b".as_bytes(), "a\\xe2\\x80\\xaeb"),
            ("a\u{85}b".as_bytes(), "a\\xc2\\x85b"),
        ];
        for (value, expected) in table {
            assert_eq!(quoted(value), expected, "{value:?}");
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let exact = "x".repeat(LONGEST_VALUE);
        assert_eq!(quoted(exact.as_bytes()), exact);
        let long = quoted("x".repeat(LONGEST_VALUE + 1).as_bytes());
        assert_eq!(long, format!("{exact}…"));
        let wide = quoted("é".repeat(LONGEST_VALUE).as_bytes());
        assert_eq!(wide, format!("{}…", "é".repeat(LONGEST_VALUE / 2)));
        let shifted = quoted(format!("x{}", "é".repeat(LONGEST_VALUE)).as_bytes());
        assert_eq!(shifted, format!("x{}…", "é".repeat(LONGEST_VALUE / 2 - 1)));
    }

    proptest::proptest! {
        #[test]
        fn one_line_of_printable_text(value: Vec<u8>) {
            let line = quoted(&value);
            proptest::prop_assert!(line.chars().all(|character| !character.is_control()));
            let inner = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(&line);
            proptest::prop_assert!(!inner.contains('"'));
        }
    }
}
