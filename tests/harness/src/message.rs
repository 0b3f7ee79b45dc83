//! Test messages and the comparison of what went in with what came out.

use aws_lc_rs::digest::{SHA256, digest};

/// A message under construction; lines end with CR LF as on the wire.
#[derive(Debug, Clone)]
pub struct Message {
    header: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    /// A small plain text message with From, To, Subject, Date and a Message-ID made of `tag`, by which it is found again.
    pub fn new(from: &str, to: &str, tag: &str) -> Self {
        let field = |name: &str, value: String| (name.to_owned(), value);
        Self {
            header: vec![
                field("From", format!("<{from}>")),
                field("To", format!("<{to}>")),
                field("Subject", format!("Test {tag}")),
                field("Date", "Sat, 15 Mar 2025 12:00:00 +0000".to_owned()),
                field("Message-ID", format!("<{tag}@client.test.example>")),
                field("MIME-Version", "1.0".to_owned()),
                field("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ],
            body: format!("This is message {tag}.\r\n").into_bytes(),
        }
    }

    /// Adds a header field at the end.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.header.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the body; lines must end with CR LF.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes after DATA, without dot-stuffing.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 512);
        for (name, value) in &self.header {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// Text of about `size` bytes in lines of CR LF with everything that has gone wrong in some mail program before: lines that begin with a dot, a dot
/// alone, `From `, trailing blanks, tabs, empty lines, all bytes above 127, and lines of 998 characters. The same for the same size.
pub fn difficult_text(size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 2_000);
    let mut number = 0_u32;
    while out.len() < size {
        number += 1;
        match number % 12 {
            0 => out.extend_from_slice(b"."),
            1 => out.extend_from_slice(b"..two dots"),
            2 => out.extend_from_slice(b"From here on"),
            3 => out.extend_from_slice(b"trailing blanks   \t "),
            4 => {}
            5 => out.extend((0x80..=0xff).collect::<Vec<u8>>()),
            6 => out.extend(std::iter::repeat_n(b'x', 998)),
            7 => out.extend_from_slice(b"\tbegins with a tab"),
            _ => out.extend_from_slice(
                format!(
                    "line {number}: Gr\u{fc}\u{df}e, \u{4f60}\u{597d} {:x}",
                    number.wrapping_mul(2_654_435_761)
                )
                .as_bytes(),
            ),
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Splits into header (with its last line end) and body, at the first empty line, with either line end.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    while let Some(end) = message[start..].iter().position(|&byte| byte == b'\n') {
        let line = &message[start..start + end];
        if line.is_empty() || line == b"\r" {
            return (&message[..start], &message[start + end + 1..]);
        }
        start += end + 1;
    }
    (message, b"")
}

/// The values of all header fields of this name, unfolded, top to bottom.
pub fn fields(message: &[u8], name: &str) -> Vec<String> {
    let (header, _) = split(message);
    let text = String::from_utf8_lossy(header).replace("\r\n", "\n");
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let (true, Some(last)) = (inside, found.last_mut()) {
                last.push(' ');
                last.push_str(line.trim());
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        inside = field.eq_ignore_ascii_case(name);
        if inside {
            found.push(value.trim().to_owned());
        }
    }
    found
}

/// SHA-256 of the body with its line ends made LF (a Maildir stores LF, the wire has CR LF), in hexadecimal.
pub fn body_hash(message: &[u8]) -> String {
    let (_, body) = split(message);
    let mut text = Vec::with_capacity(body.len());
    for (index, &byte) in body.iter().enumerate() {
        if !(byte == b'\r' && body.get(index + 1) == Some(&b'\n')) {
            text.push(byte);
        }
    }
    digest(&SHA256, &text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The message as it goes over the wire after DATA: leading dots doubled, closing dot added.
pub fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 64 + 8);
    let mut at_line_start = true;
    for &byte in message {
        if at_line_start && byte == b'.' {
            out.push(b'.');
        }
        out.push(byte);
        at_line_start = byte == b'\n';
    }
    if !message.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        for (given, wire) in [
            (&b".a\r\nb.c\r\n..\r\n"[..], &b"..a\r\nb.c\r\n...\r\n.\r\n"[..]),
            (b"no end", b"no end\r\n.\r\n"),
            (b"", b"\r\n.\r\n"),
        ] {
            assert_eq!(dot_stuffed(given), wire);
        }
    }

    #[test]
    fn hash_ignores_header_and_kind_of_line_end() {
        assert_eq!(body_hash(b"A: 1\r\n\r\nx\r\ny\r\n"), body_hash(b"B: 2\nC: 3\n\nx\ny\n"));
        assert_ne!(body_hash(b"A: 1\r\n\r\nx\r\n"), body_hash(b"A: 1\r\n\r\nx\r\n\r\n"));
    }

    #[test]
    fn folded_fields_are_joined() {
        let message = b"To: a,\r\n\tb\r\nX: y\r\n more\r\nTO: c\r\n\r\nTo: not me\r\n";
        assert_eq!(fields(message, "to"), ["a, b", "c"]);
    }

    #[test]
    fn difficult_text_is_reproducible_and_long_enough() {
        let text = difficult_text(20_000);
        assert!(text.len() >= 20_000 && text == difficult_text(20_000));
        assert!(text.windows(5).any(|window| window == b"\r\n.\r\n"));
    }
}
