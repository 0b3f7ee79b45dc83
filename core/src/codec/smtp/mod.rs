//! SMTP and LMTP as a content filter speaks them: pure codecs, no sockets.
//!
//! ```text
//! client (an MTA)                      us                            next hop (the MTA again)
//! EHLO/LHLO, XFORWARD, MAIL, RCPT  ->  [`command`], [`path`]    ->   the same, re-quoted
//! DATA                             ->  [`data::Receiver`]       ->   [`data::Stuffer`]
//!                                  <-  [`reply::Reply`]         <-   [`reply::decode`]
//! ```
//!
//! RFC 5321 (SMTP), 2033 (LMTP), 1870 (SIZE), 2034 (enhanced status codes), 2920 (PIPELINING), 3461 (DSN),
//! 6152 (8BITMIME), 6531 (SMTPUTF8) and the XFORWARD of Postfix' `XFORWARD_README`.
//!
//! Limits enforced here: command line [`MAX_COMMAND_LINE`], reply line [`reply::MAX_REPLY_LINE`] out of at most
//! [`reply::MAX_REPLY_LINES`] lines, one line of message data [`data::MAX_DATA_LINE`].

pub mod capability;
pub mod command;
pub mod data;
pub mod path;
pub mod reply;
pub mod xforward;
pub mod xtext;

use bytes::{Buf, BytesMut};

/// Longest command line with its line end, in octets. RFC 5321 asks for 512 and more with each extension; Postfix
/// sends long ORCPT and XFORWARD values.
pub const MAX_COMMAND_LINE: usize = 12_288;

/// One line taken off the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line that ended with CR LF; the line end is not part of it.
    Complete(BytesMut),
    /// A line that ended with LF alone: never a valid command, but a place to go on reading.
    BareNewline,
    /// A line longer than the bound. Its octets are gone.
    TooLong,
}

/// Cuts input into command lines, forgetting (not keeping) what exceeds the bound.
#[derive(Debug, Default)]
pub struct LineReader {
    discarding: bool,
}

impl LineReader {
    /// Takes the next line off `buffer`, or nothing when its end has not arrived yet.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Line> {
        match memchr::memchr(b'\n', buffer) {
            Some(end) => {
                let mut line = buffer.split_to(end + 1);
                if std::mem::take(&mut self.discarding) || line.len() > MAX_COMMAND_LINE {
                    return Some(Line::TooLong);
                }
                if line.len() < 2 || line[line.len() - 2] != b'\r' {
                    return Some(Line::BareNewline);
                }
                line.truncate(line.len() - 2);
                Some(Line::Complete(line))
            }
            None => {
                if buffer.len() > MAX_COMMAND_LINE {
                    self.discarding = true;
                    buffer.advance(buffer.len());
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Line> {
        let (mut reader, mut buffer, mut out) = (LineReader::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(line) = reader.next(&mut buffer) {
                out.push(line);
            }
        }
        out
    }

    #[test]
    fn only_crlf_makes_a_command() {
        let complete = |text: &str| Line::Complete(BytesMut::from(text));
        let table: [(&[u8], Vec<Line>); 4] = [
            (b"NOOP\r\nQUIT\r\n", vec![complete("NOOP"), complete("QUIT")]),
            (b"NOOP\nQUIT\r\n", vec![Line::BareNewline, complete("QUIT")]),
            (b"\r\n", vec![complete("")]),
            (b"NOOP\r", vec![]),
        ];
        for (input, expected) in table {
            assert_eq!(lines(&[input]), expected, "{input:?}");
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(lines(&bytes), expected, "{input:?} byte by byte");
        }
    }

    #[test]
    fn threat_t03_an_endless_line_is_forgotten_not_kept() {
        let (mut reader, mut buffer) = (LineReader::default(), BytesMut::new());
        for _ in 0..1000 {
            buffer.extend_from_slice(&[b'A'; 10_000]);
            assert_eq!(reader.next(&mut buffer), None);
            assert!(buffer.len() <= MAX_COMMAND_LINE);
        }
        buffer.extend_from_slice(b"\r\nNOOP\r\n");
        assert_eq!(reader.next(&mut buffer), Some(Line::TooLong));
        assert_eq!(reader.next(&mut buffer), Some(Line::Complete(BytesMut::from("NOOP"))));
    }
}
