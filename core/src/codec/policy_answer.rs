//! The answer of a policy server (`SMTPD_POLICY_README`), as the one who asked reads it.
//!
//! ```text
//! S: action=REJECT Not today LF      lines of other names are passed over, as Postfix does
//! S: LF                              an empty line ends the answer
//! ```
//!
//! The text is what is said to Postfix later on, so it has to be one that can be said unchanged: one action, UTF-8, no
//! control characters. Bound: [`MAX_LENGTH`] an answer.

use bytes::BytesMut;
use memchr::memmem;

/// Bytes of a whole answer, its empty line included.
pub const MAX_LENGTH: usize = 8 * 1024;

/// What is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No empty line within [`MAX_LENGTH`] bytes.
    #[error("the answer has no end within {MAX_LENGTH} bytes")]
    TooLong,
    /// No line `action=...`, or nothing behind it.
    #[error("there is no action in the answer")]
    NoAction,
    /// Which of them is meant?
    #[error("there is more than one action in the answer")]
    SeveralActions,
    /// Bytes that are no UTF-8.
    #[error("the action is no UTF-8 text")]
    NotText,
    /// Mostly a CR: lines end in LF alone.
    #[error("there is a control character in the action; lines must end in LF, not CR LF")]
    ControlCharacter,
}

/// Removes the next complete answer from the front of `buffer` and gives the text after `action=`.
///
/// After an error the connection must be closed: the rest of the stream has no known beginning.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<String>, AnswerError> {
    let window = &buffer[..buffer.len().min(MAX_LENGTH)];
    let end = match window.first() {
        Some(b'\n') => Some(1),
        _ => memmem::find(window, b"\n\n").map(|at| at + 2),
    };
    let Some(end) = end else {
        return if buffer.len() < MAX_LENGTH { Ok(None) } else { Err(AnswerError::TooLong) };
    };
    let answer = buffer.split_to(end);
    let lines = answer.as_ref().split(|byte| *byte == b'\n');
    let mut actions = lines.filter_map(|line| line.strip_prefix(b"action="));
    let action = actions.next().unwrap_or_default();
    if actions.next().is_some() {
        return Err(AnswerError::SeveralActions);
    }
    let action = std::str::from_utf8(action).map_err(|_| AnswerError::NotText)?;
    if action.chars().any(char::is_control) {
        return Err(AnswerError::ControlCharacter);
    }
    if action.trim().is_empty() {
        return Err(AnswerError::NoAction);
    }
    Ok(Some(action.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> Result<Option<String>, AnswerError> {
        decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn answers() {
        for (bytes, expected) in [
            ("action=DUNNO\n\n", "DUNNO"),
            ("action=dunno\n\n", "dunno"),
            ("action=FILTER smtp:[192.0.2.1]:25\n\n", "FILTER smtp:[192.0.2.1]:25"),
            ("action=PREPEND X-A: b=c\n\n", "PREPEND X-A: b=c"),
            ("action= REJECT  as it is \n\n", " REJECT  as it is "),
            ("action=REJECT f\u{fc}r\n\n", "REJECT f\u{fc}r"),
            ("version=2\naction=OK\nAction=x\nnonsense\n\n", "OK"),
        ] {
            assert_eq!(of(bytes.as_bytes()), Ok(Some(expected.to_owned())), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_none() {
        let long = format!("action={}\n\n", "x".repeat(MAX_LENGTH));
        let endless = "x".repeat(MAX_LENGTH);
        let table: &[(&[u8], AnswerError)] = &[
            (b"\n", AnswerError::NoAction),
            (b"\naction=OK\n\n", AnswerError::NoAction),
            (b"hello\n\n", AnswerError::NoAction),
            (b"xaction=OK\n\n", AnswerError::NoAction),
            (b"action=\n\n", AnswerError::NoAction),
            (b"action=  \n\n", AnswerError::NoAction),
            (b"action=OK\naction=REJECT\n\n", AnswerError::SeveralActions),
            (b"action=REJECT \xfc\n\n", AnswerError::NotText),
            (b"action=OK\r\n\n", AnswerError::ControlCharacter),
            (b"action=OK\0\n\n", AnswerError::ControlCharacter),
            (b"action=OK\tx\n\n", AnswerError::ControlCharacter),
            (b"action=OK \xC2\x9B31m\n\n", AnswerError::ControlCharacter),
            (long.as_bytes(), AnswerError::TooLong),
            (endless.as_bytes(), AnswerError::TooLong),
        ];
        for (bytes, expected) in table {
            assert_eq!(of(bytes), Err(*expected), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn unfinished_answers_stay_and_later_bytes_too() {
        let unfinished = format!("action={}", "x".repeat(MAX_LENGTH - 8));
        for bytes in ["", "a", "action=OK", "action=OK\n", "action=OK\r\n\r\n", &unfinished] {
            let mut buffer = BytesMut::from(bytes);
            assert_eq!(decode(&mut buffer), Ok(None), "{bytes:?}");
            assert_eq!(&buffer[..], bytes.as_bytes());
        }
        let mut buffer = BytesMut::from("action=OK\n\naction=REJECT\n\n");
        assert_eq!(decode(&mut buffer), Ok(Some("OK".to_owned())));
        assert_eq!(&buffer[..], b"action=REJECT\n\n");
        let longest = format!("action={}\n\n", "x".repeat(MAX_LENGTH - 9));
        assert_eq!(of(longest.as_bytes()).map(|text| text.map(|text| text.len())), Ok(Some(MAX_LENGTH - 9)));
    }

    proptest! {
        #[test]
        fn what_a_server_sends_is_what_is_read(action in "[^\\p{Cc}\\s][^\\p{Cc}]{0,40}", cut in 0usize..60) {
            let mut whole = BytesMut::new();
            crate::codec::policy::encode(&action, &mut whole);
            let mut buffer = whole.split_to(cut.min(whole.len() - 1));
            prop_assert_eq!(decode(&mut buffer), Ok(None));
            buffer.extend_from_slice(&whole);
            prop_assert_eq!(decode(&mut buffer), Ok(Some(action)));
            prop_assert!(buffer.is_empty());
        }
    }
}
