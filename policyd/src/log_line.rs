//! One log line for each answer.
//!
//! With `log.style = "iredapd"` the line reads as iRedAPD writes it, for log analysers and ban filters that know it: text from
//! clients cannot break it, control characters become `\xNN` and it is cut at 200 characters. Else it is an event with fields,
//! which [`outrider_core::log`] escapes, cuts and puts in order.

use std::fmt::Write as _;
use std::time::Duration;

use tracing::Level;

use crate::request::{PolicyRequest, State};
use crate::waits::Figures;

const LONGEST: usize = 200;

/// One answer, for a line with fields.
pub(crate) struct Answer<'a> {
    pub(crate) request: &'a PolicyRequest,
    /// The text after `action=`.
    pub(crate) action: &'a str,
    /// The rule or step that decided.
    pub(crate) check: &'static str,
    /// Why, in a few words.
    pub(crate) reason: &'a str,
    /// Whether something of ours could not be asked.
    pub(crate) degraded: bool,
    pub(crate) elapsed: Duration,
    pub(crate) waits: Figures,
}

impl Answer<'_> {
    /// Writes the line. An `ordinary` answer is shown at the level debug only.
    pub(crate) fn write(&self, ordinary: bool) {
        let &Answer { request, action, check, reason, .. } = self;
        let (code, dsn) = status(action);
        // Nothing is said about what was not waited for.
        let waited = |time| Some(millis(time)).filter(|time| *time > 0.0);
        // A level is a constant of the place that logs.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    event = "answer",
                    queue_id = request.queue_id,
                    instance = request.instance,
                    client = request.client_address,
                    helo = request.helo_name,
                    sasl = request.sasl_username,
                    sender = request.sender,
                    rcpt = request.recipient,
                    nrcpt = request.recipient_count,
                    size = request.size,
                    action,
                    code,
                    dsn,
                    check,
                    reason,
                    elapsed_ms = millis(self.elapsed),
                    db_ms = waited(self.waits.database),
                    dns_ms = waited(self.waits.name_server),
                    degraded = self.degraded.then_some(true),
                    state = request.protocol_state,
                )
            };
        }
        if ordinary { line!(Level::DEBUG) } else { line!(Level::INFO) }
    }
}

/// The reply code of an action that begins with one, such as `451 4.7.1 later`, and the enhanced status code (RFC 3463) behind it
/// or behind a word such as `REJECT` (access(5)).
fn status(action: &str) -> (Option<u64>, Option<&str>) {
    let mut words = action.split(' ');
    let first = words.next().unwrap_or_default();
    let digits = first.len() == 3 && first.bytes().all(|byte| byte.is_ascii_digit());
    let code = first.parse().ok().filter(|code| digits && (200..600).contains(code));
    let dsn = if is_enhanced_status(first) { Some(first) } else { words.next() };
    (code, dsn.filter(|word| is_enhanced_status(word)))
}

/// `class.subject.detail`
fn is_enhanced_status(word: &str) -> bool {
    let number = |part: &str| matches!(part.len(), 1..=3) && part.bytes().all(|byte| byte.is_ascii_digit());
    match word.split('.').collect::<Vec<_>>()[..] {
        [class, subject, detail] => matches!(class, "2" | "4" | "5") && number(subject) && number(detail),
        _ => false,
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// `[CLIENT] RCPT, A => B, ACTION [name=value, ...]`
pub(crate) fn iredapd(request: &PolicyRequest, action: &str, elapsed: Duration) -> String {
    let mut line = format!(
        "[{}] {}, {}, {} [",
        clean(&request.client_address),
        clean(&request.protocol_state.to_uppercase()),
        direction(request),
        clean(action)
    );
    let mut field = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = write!(line, "{name}={}, ", clean(value));
    };
    if request.state == Some(State::Rcpt) {
        field("sasl_username", &request.sasl_username);
        field("sender", &request.sender);
        field("client_name", &request.client_name);
        field("reverse_client_name", &request.reverse_client_name);
        field("helo", &request.helo_name);
        field("encryption_protocol", &request.encryption_protocol);
        field("encryption_cipher", &request.encryption_cipher);
        field("server_port", &request.server_port);
    } else {
        field("recipient_count", request.recipient_count.as_deref().unwrap_or_default());
        field("size", request.size.as_deref().unwrap_or_default());
    }
    let _ = write!(line, "process_time={:.4}s]", elapsed.as_secs_f64());
    line
}

/// `S -> R` without login, `L => R` if it is the sender, `L => S -> R` otherwise.
///
/// A blank is `\x20` here: the action stands behind, and a quoted sender with blanks could play one to a ban filter.
fn direction(request: &PolicyRequest) -> String {
    let address = |text: &str| clean(text).replace(' ', "\\x20");
    let (sender, login, recipient) =
        (address(&request.sender), address(&request.sasl_username), address(&request.recipient));
    if login.is_empty() {
        format!("{sender} -> {recipient}")
    } else if login == sender {
        format!("{login} => {recipient}")
    } else {
        format!("{login} => {sender} -> {recipient}")
    }
}

fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().take(LONGEST) {
        if character.is_control() {
            let _ = write!(out, "\\x{:02x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn lines_as_log_analysers_know_them() {
        let elapsed = Duration::from_micros(12_300);
        let rcpt = |login: &str| {
            request(&format!(
                "protocol_state=RCPT\nsender=a@example.com\nrecipient=b@example.org\nsasl_username={login}\n\
                 client_address=192.0.2.7\nclient_name=unknown\nreverse_client_name=mx.test\nhelo_name=h\n\
                 encryption_protocol=TLSv1.3\nencryption_cipher=X\nserver_port=25"
            ))
        };
        assert_eq!(
            iredapd(&rcpt(""), "DUNNO", elapsed),
            "[192.0.2.7] RCPT, a@example.com -> b@example.org, DUNNO [sasl_username=, sender=a@example.com, \
             client_name=unknown, reverse_client_name=mx.test, helo=h, encryption_protocol=TLSv1.3, \
             encryption_cipher=X, server_port=25, process_time=0.0123s]"
        );
        assert!(
            iredapd(&rcpt("a@example.com"), "OK", elapsed).contains(", a@example.com => b@example.org, OK [")
        );
        assert!(
            iredapd(&rcpt("c@example.com"), "OK", elapsed)
                .contains(", c@example.com => a@example.com -> b@example.org, OK [")
        );
        let end = request(
            "protocol_state=END-OF-MESSAGE\nsender=\nrecipient=\nclient_address=192.0.2.7\nsize=10\nrecipient_count=2",
        );
        assert_eq!(
            iredapd(&end, "DUNNO", elapsed),
            "[192.0.2.7] END-OF-MESSAGE,  -> , DUNNO [recipient_count=2, size=10, process_time=0.0123s]"
        );
    }

    #[test]
    fn codes_of_an_action() {
        for (action, expected) in [
            ("451 4.7.1 later", (Some(451), Some("4.7.1"))),
            ("550 no", (Some(550), None)),
            ("550", (Some(550), None)),
            ("REJECT 5.7.1 Blacklisted", (None, Some("5.7.1"))),
            ("5.7.1 no", (None, Some("5.7.1"))),
            ("REJECT Blacklisted", (None, None)),
            ("REJECT see 5.7.1", (None, None)),
            ("DUNNO", (None, None)),
            ("", (None, None)),
            ("4511 4.7.1 later", (None, Some("4.7.1"))),
            ("+51 x", (None, None)),
            ("999 9.9.9", (None, None)),
            ("450 4.7.1234 x", (Some(450), None)),
            ("REJECT 192.0.2.7", (None, None)),
            ("REJECT 5.0.2.7", (None, None)),
        ] {
            assert_eq!(status(action), expected, "{action}");
        }
    }

    /// T52: clients cannot forge lines.
    #[test]
    fn threat_t52_control_characters_are_shown() {
        let mut request =
            request("protocol_state=RCPT\nsender=\nrecipient=b@example.org\nclient_address=192.0.2.7");
        request.helo_name = format!("x\r\n[192.0.2.8] RCPT\u{1b}[31m{}", "y".repeat(500));
        let line = iredapd(&request, "DUNNO", Duration::ZERO);
        assert!(line.contains("helo=x\\x0d\\x0a[192.0.2.8] RCPT\\x1b[31my"));
        assert!(line.len() < 600 && !line.contains('\n'));
    }

    /// T52: what looks like an action is one.
    #[test]
    fn threat_t52_addresses_are_no_actions() {
        let mut request =
            request("protocol_state=RCPT\nsender=\nrecipient=b@example.org\nclient_address=192.0.2.7");
        request.sender = "\"x -> y, REJECT z [\"@evil.test".to_owned();
        let line = iredapd(&request, "DUNNO", Duration::ZERO);
        assert!(
            line.starts_with(
                "[192.0.2.7] RCPT, \"x\\x20->\\x20y,\\x20REJECT\\x20z\\x20[\"@evil.test -> b@example.org, DUNNO ["
            ),
            "{line}"
        );
    }

    /// T52: a ban filter takes the client from the beginning of the line, and the action from between the recipient and
    /// the fields, as Postfix hands it over: whatever clients write stands behind it and bans nobody else.
    #[test]
    fn threat_t52_nobody_else_is_banned() {
        let forged = "x] [203.0.113.9] RCPT, a -> b, REJECT Blacklisted [sasl_username=, client=203.0.113.9";
        for state in ["RCPT", "END-OF-MESSAGE", "DATA"] {
            let mut request = request(&format!(
                "protocol_state={state}\nsender=\nrecipient=b@example.org\nclient_address=192.0.2.7"
            ));
            for field in [
                &mut request.helo_name,
                &mut request.client_name,
                &mut request.reverse_client_name,
                &mut request.sender,
                &mut request.sasl_username,
                &mut request.recipient,
                &mut request.encryption_cipher,
            ] {
                *field = format!("{forged}\n{forged}\u{9b}31m");
            }
            let line = iredapd(&request, "REJECT Not authorized", Duration::ZERO);
            assert!(line.starts_with(&format!("[192.0.2.7] {state}, ")), "{line}");
            assert!(!line.contains(['\n', '\u{9b}']), "{line}");
        }
    }
}
