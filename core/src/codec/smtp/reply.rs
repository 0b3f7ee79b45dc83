//! SMTP replies: those we write and those a next hop sends us.

use super::capability::Capability;
use bytes::BytesMut;
use std::fmt;

/// Longest reply line we write, with its line end (RFC 5321 section 4.5.3.1.5).
const MAX_WRITTEN_LINE: usize = 512;
/// Longest reply line accepted from a next hop, with its line end.
pub const MAX_REPLY_LINE: usize = 2048;
/// Most lines of one reply accepted from a next hop.
pub const MAX_REPLY_LINES: usize = 100;

/// An enhanced status code (RFC 2034, 3463), `class.subject.detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl Enhanced {
    /// Reads an enhanced code at the beginning of a reply text; returns it with the text after it.
    pub fn parse(text: &str) -> Option<(Enhanced, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.split('.');
        let class = parts.next()?.parse().ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        let mut number = || {
            let digits = parts.next()?;
            let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            plain.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let enhanced = Enhanced(class, number()?, number()?);
        parts.next().is_none().then_some((enhanced, rest))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three-digit code.
    pub code: u16,
    /// Enhanced code; greeting, EHLO and 354 have none.
    pub enhanced: Option<Enhanced>,
    /// One or more lines of text. May hold octets that came from outside: [`Reply::write`] makes them harmless.
    pub text: String,
}

impl Reply {
    /// A reply with an enhanced code.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Reply {
        Reply { code, enhanced: Some(Enhanced(enhanced.0, enhanced.1, enhanced.2)), text: text.into() }
    }

    /// A reply without enhanced code: greeting, EHLO, 354. `\n` separates lines.
    pub fn bare(code: u16, text: impl Into<String>) -> Reply {
        Reply { code, enhanced: None, text: text.into() }
    }

    /// First digit of the code: 2 success, 3 go on, 4 temporary, 5 permanent.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// Appends the reply as it goes on the wire: long text is wrapped at blanks into several lines of at most 512
    /// octets, and a control character in the text becomes a blank, so that nothing in it can be taken for a reply
    /// of its own.
    pub fn write(&self, out: &mut Vec<u8>) {
        let prefix = self.enhanced.map(|code| format!("{code} ")).unwrap_or_default();
        let room = MAX_WRITTEN_LINE - "250-".len() - prefix.len() - "\r\n".len();
        let lines: Vec<String> = self.text.split('\n').flat_map(|line| wrap(&harmless(line), room)).collect();
        for (at, line) in lines.iter().enumerate() {
            let separator = if at + 1 < lines.len() { '-' } else { ' ' };
            out.extend_from_slice(format!("{}{separator}{prefix}{line}\r\n", self.code).as_bytes());
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "{} {enhanced} {}", self.code, self.text),
            None => write!(f, "{} {}", self.code, self.text),
        }
    }
}

fn harmless(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Cuts a line into pieces of at most `room` octets, at a blank where there is one in the second half.
fn wrap(line: &str, room: usize) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), line);
    while rest.len() > room {
        let mut end = room;
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let cut = rest[..end].rfind(' ').filter(|at| *at > room / 2).unwrap_or(end);
        pieces.push(rest[..cut].to_owned());
        rest = rest[cut..].strip_prefix(' ').unwrap_or(&rest[cut..]);
    }
    pieces.push(rest.to_owned());
    pieces
}

/// A reply of a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopReply {
    /// Three-digit code, 200-599.
    pub code: u16,
    /// The text of each line without code and line end, octets that are not UTF-8 replaced. Never empty.
    pub lines: Vec<String>,
}

/// Why a next hop's reply could not be read. All of them mean that its connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// A line beyond [`MAX_REPLY_LINE`].
    #[error("reply line too long")]
    LineTooLong,
    /// More than [`MAX_REPLY_LINES`] lines.
    #[error("reply has too many lines")]
    TooManyLines,
    /// A line without a three-digit code, or two codes in one reply.
    #[error("malformed reply")]
    Malformed,
}

impl NextHopReply {
    /// First digit of the code.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced code at the beginning of the text, if it is there and of the class of the code.
    pub fn enhanced(&self) -> Option<Enhanced> {
        let (enhanced, _) = Enhanced::parse(self.lines.first()?)?;
        (u16::from(enhanced.0) == self.class()).then_some(enhanced)
    }

    /// Code and text on one line, as people quote it: `550 5.1.1 <bob@example.com>: unknown`.
    pub fn one_line(&self) -> String {
        let first = self.lines.first().map(String::as_str).unwrap_or_default();
        let mut text = format!("{} {first}", self.code);
        for line in self.lines.iter().skip(1) {
            text.push(' ');
            // Each line repeats the enhanced code (RFC 2034 section 4); once is enough.
            text.push_str(Enhanced::parse(line).map_or(line.as_str(), |(_, rest)| rest));
        }
        harmless(&text).trim_end().to_owned()
    }

    /// What an EHLO reply announces.
    pub fn capabilities(&self) -> Vec<Capability> {
        self.lines.iter().skip(1).filter_map(|line| Capability::parse(line)).collect()
    }
}

/// Takes one whole reply off `buffer`, or nothing while it is incomplete (the buffer is untouched then).
///
/// A line may end in LF alone; nothing is decided by where a reply line ends.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<NextHopReply>, ReplyError> {
    let (mut at, mut code, mut lines) = (0, None, Vec::new());
    loop {
        let rest = &buffer[at..];
        let Some(newline) = memchr::memchr(b'\n', &rest[..rest.len().min(MAX_REPLY_LINE)]) else {
            return if rest.len() >= MAX_REPLY_LINE { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        let line = rest[..newline].strip_suffix(b"\r").unwrap_or(&rest[..newline]);
        at += newline + 1;
        let (this, last, text) = split_line(line).ok_or(ReplyError::Malformed)?;
        if *code.get_or_insert(this) != this {
            return Err(ReplyError::Malformed);
        }
        lines.push(String::from_utf8_lossy(text).into_owned());
        if last {
            let _ = buffer.split_to(at);
            return Ok(Some(NextHopReply { code: this, lines }));
        }
        if lines.len() >= MAX_REPLY_LINES {
            return Err(ReplyError::TooManyLines);
        }
    }
}

/// `250-text` or `250 text` or `250`: code, whether it is the last line, text.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let digits = line.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&digits[0]) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match line.get(3) {
        None => Some((code, true, b"")),
        Some(b' ') => Some((code, true, &line[4..])),
        Some(b'-') => Some((code, false, &line[4..])),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn writes() {
        assert_eq!(written(&Reply::new(250, (2, 0, 0), "Ok NOOP")), "250 2.0.0 Ok NOOP\r\n");
        assert_eq!(
            written(&Reply::bare(250, "[127.0.0.1]\nVRFY\nDSN")),
            "250-[127.0.0.1]\r\n250-VRFY\r\n250 DSN\r\n"
        );
        assert_eq!(written(&Reply::new(550, (5, 1, 1), "a\r250 ok\tb")), "550 5.1.1 a 250 ok b\r\n");
    }

    #[test]
    fn long_replies_are_wrapped() {
        for text in ["word ".repeat(400), "x".repeat(1500), "é".repeat(700)] {
            let wire = written(&Reply::new(554, (5, 7, 0), text.clone()));
            let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
            assert!(lines.len() > 2);
            for (at, line) in lines.iter().enumerate() {
                assert!(line.len() <= 510, "{} octets", line.len());
                let expected = if at + 1 < lines.len() { "554-5.7.0 " } else { "554 5.7.0 " };
                assert!(line.starts_with(expected), "{line}");
            }
            let joined: String = lines.iter().map(|line| &line[10..]).collect();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn decodes() {
        type Expected = Result<Option<(u16, &'static [&'static str])>, ReplyError>;
        let table: [(&[u8], Expected); 11] = [
            (b"250 2.0.0 Ok\r\n", Ok(Some((250, &["2.0.0 Ok"])))),
            (b"250\r\n", Ok(Some((250, &[""])))),
            (b"250-a\r\n250-b\r\n250 c\r\n", Ok(Some((250, &["a", "b", "c"])))),
            (b"250-a\n250 b\n", Ok(Some((250, &["a", "b"])))),
            (b"250-a\r\n250", Ok(None)),
            (b"", Ok(None)),
            (b"250-a\r\n251 b\r\n", Err(ReplyError::Malformed)),
            (b"hello\r\n", Err(ReplyError::Malformed)),
            (b"999 x\r\n", Err(ReplyError::Malformed)),
            (b"25 x\r\n", Err(ReplyError::Malformed)),
            (b"250x\r\n", Err(ReplyError::Malformed)),
        ];
        for (input, expected) in table {
            let mut buffer = BytesMut::from(input);
            let got = decode(&mut buffer);
            let got = got.map(|reply| reply.map(|reply| (reply.code, reply.lines)));
            let expected = expected.map(|reply| {
                reply.map(|(code, lines)| (code, lines.iter().map(|l| (*l).to_owned()).collect()))
            });
            assert_eq!(got, expected, "{input:?}");
            if expected == Ok(None) {
                assert_eq!(&buffer[..], input, "an incomplete reply stays");
            }
        }
    }

    #[test]
    fn threat_t08_a_next_hop_cannot_fill_our_memory() {
        let mut endless = BytesMut::from(&[b"250-".as_slice(), &[b'x'; MAX_REPLY_LINE]].concat()[..]);
        assert_eq!(decode(&mut endless), Err(ReplyError::LineTooLong));
        let mut many = BytesMut::from(&b"250-x\r\n".repeat(MAX_REPLY_LINES + 1)[..]);
        assert_eq!(decode(&mut many), Err(ReplyError::TooManyLines));
    }

    #[test]
    fn quotes_replies_on_one_line() {
        let table: [(&[u8], &str, Option<Enhanced>); 4] = [
            (
                b"550 5.1.1 <bob@example.com>: unknown\r\n",
                "550 5.1.1 <bob@example.com>: unknown",
                Some(Enhanced(5, 1, 1)),
            ),
            (b"550-5.7.1 one\r\n550 5.7.1 two\r\n", "550 5.7.1 one two", Some(Enhanced(5, 7, 1))),
            (b"550 no code\r\n", "550 no code", None),
            (b"450 5.1.1 class differs\r\n", "450 5.1.1 class differs", None),
        ];
        for (input, text, enhanced) in table {
            let reply = decode(&mut BytesMut::from(input)).expect("well-formed").expect("complete");
            assert_eq!(reply.one_line(), text);
            assert_eq!(reply.enhanced(), enhanced, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_reply(
            lines in proptest::collection::vec("[ -~]{0,30}", 1..6),
            cut in 1_usize..20,
        ) {
            let mut wire = Vec::new();
            Reply::bare(250, lines.join("\n")).write(&mut wire);
            let mut buffer = BytesMut::new();
            let mut replies = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                replies.extend(decode(&mut buffer).expect("well-formed"));
            }
            prop_assert_eq!(replies, vec![NextHopReply { code: 250, lines }]);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn never_panics(input in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&mut BytesMut::from(&input[..]));
        }
    }
}
