//! SMTP and LMTP commands of a client.
//!
//! Parsing goes in two steps, because whether a command is allowed *now* is answered before whether its arguments
//! are well formed: [`split`] finds the verb, [`Mail::parse`], [`Rcpt::parse`] and
//! [`Forwarded::apply`](super::xforward::Forwarded::apply) read arguments. Every error is the exact reply to give.

use super::path::Path;
use super::reply::Reply;
use super::xtext;

/// Longest ENVID and ORCPT value in octets (RFC 3461 sections 4.4 and 4.2 say 100 and 500).
const MAX_ENVID: usize = 100;
const MAX_ORCPT: usize = 500;

/// A known command word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// HELO: greeting without extensions.
    Helo,
    /// EHLO: greeting with extensions.
    Ehlo,
    /// LHLO: greeting that switches to LMTP.
    Lhlo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// HELP.
    Help,
    /// VRFY.
    Vrfy,
    /// XFORWARD.
    Xforward,
}

const VERBS: [(&[u8], Verb); 12] = [
    (b"HELO", Verb::Helo),
    (b"EHLO", Verb::Ehlo),
    (b"LHLO", Verb::Lhlo),
    (b"MAIL", Verb::Mail),
    (b"RCPT", Verb::Rcpt),
    (b"DATA", Verb::Data),
    (b"RSET", Verb::Rset),
    (b"NOOP", Verb::Noop),
    (b"QUIT", Verb::Quit),
    (b"HELP", Verb::Help),
    (b"VRFY", Verb::Vrfy),
    (b"XFORWARD", Verb::Xforward),
];

/// Commands that exist in RFCs and are answered 502 rather than 500.
const NOT_IMPLEMENTED: [&str; 6] = ["EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML"];

/// The reply to a line that is no command at all.
pub fn bad_syntax() -> Reply {
    Reply::new(500, (5, 5, 2), "Error: bad syntax")
}

/// Splits a command line (without its CR LF) into verb and arguments.
pub fn split(line: &[u8]) -> Result<(Verb, &[u8]), Reply> {
    let end = line.iter().position(|octet| !octet.is_ascii_alphabetic()).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let control = |octet: &u8| (*octet < 0x20 && *octet != b'\t') || *octet == 0x7f;
    if word.is_empty()
        || !rest.first().is_none_or(|octet| matches!(octet, b' ' | b'\t'))
        || rest.iter().any(control)
    {
        return Err(bad_syntax());
    }
    if let Some((_, verb)) = VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
        return Ok((*verb, rest.trim_ascii()));
    }
    let name = String::from_utf8_lossy(word).to_ascii_uppercase();
    Err(match name.as_str() {
        "STARTTLS" | "AUTH" => Reply::new(502, (5, 5, 1), "Error: command not available"),
        other if NOT_IMPLEMENTED.contains(&other) => {
            Reply::new(502, (5, 5, 1), format!("Error: command {name} not implemented"))
        }
        _ => Reply::new(500, (5, 5, 2), format!("Error: command {} not recognized", cut(&name))),
    })
}

/// Keeps an echoed word short: nobody needs ten kilobytes of it back.
fn cut(name: &str) -> &str {
    &name[..name.len().min(64)]
}

/// The body type a client declares (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `BODY=7BIT`.
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// How much of the mail a delivery report should carry (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole mail.
    Full,
    /// Its header.
    Hdrs,
}

/// The arguments of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mail {
    /// The envelope sender.
    pub path: Path,
    /// Declared size in octets, saturating.
    pub size: Option<u64>,
    /// Declared body type.
    pub body: Option<Body>,
    /// What a report should return.
    pub ret: Option<Ret>,
    /// Envelope id as received (xtext).
    pub envid: Option<String>,
    /// The client asked for SMTPUTF8.
    pub smtputf8: bool,
}

impl Mail {
    /// Parses what follows `MAIL`: `FROM:<address> [parameters]`. A blank after the colon is tolerated as Postfix
    /// tolerates it.
    pub fn parse(arguments: &[u8]) -> Result<Mail, Reply> {
        let syntax = || Reply::new(501, (5, 5, 2), "Syntax: MAIL FROM:<address>");
        let (path, parameters) = path_after(arguments, b"FROM:").ok_or_else(syntax)?;
        let mut mail = Mail { path, ..Mail::default() };
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in parameters {
            let error = || Reply::new(501, (5, 5, 4), format!("Syntax error in MAIL parameter: {name}"));
            if seen.contains(&name) {
                return Err(error());
            }
            let required = || {
                let text = format!("Syntax error in MAIL parameter, value is required: {name}");
                value
                    .as_deref()
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| Reply::new(501, (5, 5, 4), text))
            };
            match name.as_str() {
                "SIZE" => mail.size = Some(parse_size(value.as_deref()).ok_or_else(error)?),
                "BODY" => mail.body = Some(parse_body(required()?).ok_or_else(error)?),
                "RET" => {
                    let value = required()?;
                    mail.ret = Some(parse_ret(value).ok_or_else(|| {
                        Reply::new(501, (5, 5, 4), format!("Syntax error in MAIL parameter RET: {value}"))
                    })?);
                }
                "ENVID" => mail.envid = Some(parse_xtext(required()?, MAX_ENVID).ok_or_else(error)?),
                "SMTPUTF8" if value.is_none() => mail.smtputf8 = true,
                "SMTPUTF8" => return Err(error()),
                // Postfix passes AUTH= on when it authenticated the sender; without AUTH of our own it means nothing.
                "AUTH" => {
                    required()?;
                }
                _ => {
                    let shown = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
                    let text = format!("MAIL command parameter error: {name}{shown}");
                    return Err(Reply::new(504, (5, 5, 4), text));
                }
            }
            seen.push(name);
        }
        Ok(mail)
    }
}

/// The arguments of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rcpt {
    /// The recipient.
    pub path: Path,
    /// `NOTIFY=` as received, in upper case.
    pub notify: Option<String>,
    /// `ORCPT=` as received.
    pub orcpt: Option<String>,
}

impl Rcpt {
    /// Parses what follows `RCPT`: `TO:<address> [parameters]`.
    pub fn parse(arguments: &[u8]) -> Result<Rcpt, Reply> {
        let syntax = || Reply::new(501, (5, 5, 2), "Syntax: RCPT TO:<address>");
        let (path, parameters) = path_after(arguments, b"TO:").ok_or_else(syntax)?;
        if path.is_null() {
            return Err(syntax());
        }
        let mut rcpt = Rcpt { path, ..Rcpt::default() };
        for (name, value) in parameters {
            let error = || Reply::new(501, (5, 5, 4), format!("Syntax error in RCPT parameter: {name}"));
            let slot = match name.as_str() {
                "NOTIFY" => &mut rcpt.notify,
                "ORCPT" => &mut rcpt.orcpt,
                _ => {
                    return Err(Reply::new(
                        555,
                        (5, 5, 4),
                        format!("RCPT command parameter unrecognized: {name}"),
                    ));
                }
            };
            let text = format!("Syntax error in RCPT parameter, value is required: {name}");
            let value =
                value.filter(|value| !value.is_empty()).ok_or_else(|| Reply::new(501, (5, 5, 4), text))?;
            if slot.is_some() {
                return Err(error());
            }
            *slot = Some(match name.as_str() {
                "NOTIFY" => parse_notify(&value)?,
                _ => parse_orcpt(&value).ok_or_else(error)?,
            });
        }
        Ok(rcpt)
    }
}

type Parameters = Vec<(String, Option<String>)>;

/// `KEYWORD<path> NAME=VALUE ...`: the path and its parameters, names in upper case.
fn path_after(arguments: &[u8], keyword: &[u8]) -> Option<(Path, Parameters)> {
    let start = arguments.get(..keyword.len()).filter(|start| start.eq_ignore_ascii_case(keyword))?;
    let rest = arguments[start.len()..].trim_ascii_start();
    let (path, rest) = Path::parse(rest).ok()?;
    if !rest.first().is_none_or(|octet| matches!(octet, b' ' | b'\t')) {
        return None;
    }
    let mut parameters = Vec::new();
    for word in rest.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty()) {
        let text = String::from_utf8_lossy(word);
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*text, None),
        };
        parameters.push((name.to_ascii_uppercase(), value));
    }
    Some((path, parameters))
}

/// RFC 1870: up to 20 digits; what a u64 cannot hold counts as the largest size there is.
fn parse_size(value: Option<&str>) -> Option<u64> {
    let digits =
        value.filter(|v| (1..=20).contains(&v.len()) && v.bytes().all(|digit| digit.is_ascii_digit()))?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Option<Body> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(Body::SevenBit),
        "8BITMIME" => Some(Body::EightBitMime),
        _ => None,
    }
}

fn parse_ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Hdrs),
        _ => None,
    }
}

/// xtext that decodes to printable octets; kept as received, because it is passed on.
fn parse_xtext(value: &str, longest: usize) -> Option<String> {
    let decoded = xtext::decode(value.as_bytes())?;
    let printable = decoded.iter().all(|octet| *octet >= 0x20 && *octet != 0x7f);
    (printable && value.len() <= longest).then(|| value.to_owned())
}

/// `rfc822;xtext` or another address type.
fn parse_orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let atom = !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    (atom && !address.is_empty()).then(|| parse_xtext(value, MAX_ORCPT)).flatten()
}

/// `NEVER`, or a list out of SUCCESS, FAILURE and DELAY.
fn parse_notify(value: &str) -> Result<String, Reply> {
    let upper = value.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(',').collect();
    if !words.iter().all(|word| matches!(*word, "NEVER" | "SUCCESS" | "FAILURE" | "DELAY")) {
        let text = format!("Error in RCPT parameter NOTIFY, illegal value: {value}");
        return Err(Reply::new(501, (5, 5, 4), text));
    }
    if words.len() > 1 && words.contains(&"NEVER") {
        let text = format!("Error in RCPT parameter NOTIFY, illegal combination of values: {value}");
        return Err(Reply::new(501, (5, 5, 4), text));
    }
    Ok(upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Split<'a> = Result<(Verb, &'a [u8]), &'a str>;
    type MailCase = Result<fn(&Mail) -> bool, &'static str>;
    type RcptCase = Result<(Option<&'static str>, Option<&'static str>), &'static str>;

    #[test]
    fn verbs() {
        let table: [(&[u8], Split<'_>); 14] = [
            (b"NOOP", Ok((Verb::Noop, b""))),
            (b"noop  x ", Ok((Verb::Noop, b"x"))),
            (b"MAIL FROM:<>", Ok((Verb::Mail, b"FROM:<>"))),
            (b"XFORWARD ADDR=1", Ok((Verb::Xforward, b"ADDR=1"))),
            (b"", Err("500 5.5.2 Error: bad syntax")),
            (b"1234", Err("500 5.5.2 Error: bad syntax")),
            (b"{}", Err("500 5.5.2 Error: bad syntax")),
            (b" NOOP", Err("500 5.5.2 Error: bad syntax")),
            (b"NOOP:x", Err("500 5.5.2 Error: bad syntax")),
            (b"NOOP \x00", Err("500 5.5.2 Error: bad syntax")),
            (b"foo bar", Err("500 5.5.2 Error: command FOO not recognized")),
            (b"expn list", Err("502 5.5.1 Error: command EXPN not implemented")),
            (b"STARTTLS", Err("502 5.5.1 Error: command not available")),
            (b"BDAT 10", Err("500 5.5.2 Error: command BDAT not recognized")),
        ];
        for (line, expected) in table {
            let got = split(line).map_err(|reply| reply.to_string());
            assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{line:?}");
        }
    }

    #[test]
    fn threat_t06_mail_parameters() {
        let table: [(&str, MailCase); 26] = [
            ("FROM:<a@b.test>", Ok(|m| m.path.local == b"a" && m.size.is_none())),
            ("from: <>", Ok(|m| m.path.is_null())),
            ("FROM:<a@b.test> SIZE=300000", Ok(|m| m.size == Some(300_000))),
            ("FROM:<a@b.test> SIZE=99999999999999999999", Ok(|m| m.size == Some(u64::MAX))),
            (
                "FROM:<a@b.test> body=8bitmime SMTPUTF8",
                Ok(|m| m.smtputf8 && m.body == Some(Body::EightBitMime)),
            ),
            (
                "FROM:<a@b.test> BODY=7BIT RET=HDRS",
                Ok(|m| m.ret == Some(Ret::Hdrs) && m.body == Some(Body::SevenBit)),
            ),
            ("FROM:<a@b.test> ENVID=QQ+2B1", Ok(|m| m.envid.as_deref() == Some("QQ+2B1"))),
            ("FROM:<a@b.test> AUTH=<>", Ok(|m| m.path.local == b"a")),
            ("FROM:a@b.test", Err("501 5.5.2 Syntax: MAIL FROM:<address>")),
            ("FROM:<a@b.test>SIZE=1", Err("501 5.5.2 Syntax: MAIL FROM:<address>")),
            ("TO:<a@b.test>", Err("501 5.5.2 Syntax: MAIL FROM:<address>")),
            ("", Err("501 5.5.2 Syntax: MAIL FROM:<address>")),
            ("FROM:<a@b.test> FOO=1", Err("504 5.5.4 MAIL command parameter error: FOO=1")),
            ("FROM:<a@b.test> FOO", Err("504 5.5.4 MAIL command parameter error: FOO")),
            ("FROM:<a@b.test> SIZE=-1", Err("501 5.5.4 Syntax error in MAIL parameter: SIZE")),
            ("FROM:<a@b.test> SIZE", Err("501 5.5.4 Syntax error in MAIL parameter: SIZE")),
            ("FROM:<a@b.test> SIZE=1 SIZE=1", Err("501 5.5.4 Syntax error in MAIL parameter: SIZE")),
            (
                "FROM:<a@b.test> SIZE=999999999999999999999",
                Err("501 5.5.4 Syntax error in MAIL parameter: SIZE"),
            ),
            ("FROM:<a@b.test> BODY=9BIT", Err("501 5.5.4 Syntax error in MAIL parameter: BODY")),
            (
                "FROM:<a@b.test> BODY",
                Err("501 5.5.4 Syntax error in MAIL parameter, value is required: BODY"),
            ),
            ("FROM:<a@b.test> RET=", Err("501 5.5.4 Syntax error in MAIL parameter, value is required: RET")),
            ("FROM:<a@b.test> RET=ALL", Err("501 5.5.4 Syntax error in MAIL parameter RET: ALL")),
            ("FROM:<a@b.test> ENVID=a+0Ab", Err("501 5.5.4 Syntax error in MAIL parameter: ENVID")),
            ("FROM:<a@b.test> ENVID=a+00b", Err("501 5.5.4 Syntax error in MAIL parameter: ENVID")),
            ("FROM:<a@b.test> ENVID=a+", Err("501 5.5.4 Syntax error in MAIL parameter: ENVID")),
            ("FROM:<a@b.test> SMTPUTF8=1", Err("501 5.5.4 Syntax error in MAIL parameter: SMTPUTF8")),
        ];
        for (arguments, expected) in table {
            match (Mail::parse(arguments.as_bytes()), expected) {
                (Ok(mail), Ok(check)) => assert!(check(&mail), "{arguments}: {mail:?}"),
                (Err(reply), Err(text)) => assert_eq!(reply.to_string(), text, "{arguments}"),
                (got, _) => panic!("{arguments}: {got:?}"),
            }
        }
    }

    #[test]
    fn threat_t06_rcpt_parameters() {
        let table: [(&str, RcptCase); 14] = [
            ("TO:<bob@example.com>", Ok((None, None))),
            (
                "TO:<bob@example.com> NOTIFY=success,FAILURE ORCPT=rfc822;bob@example.com",
                Ok((Some("SUCCESS,FAILURE"), Some("rfc822;bob@example.com"))),
            ),
            ("TO:<@relay.test:dave@example.com> NOTIFY=NEVER", Ok((Some("NEVER"), None))),
            ("TO:<>", Err("501 5.5.2 Syntax: RCPT TO:<address>")),
            ("TO:carol@example.com", Err("501 5.5.2 Syntax: RCPT TO:<address>")),
            ("TO:<bad> FOO=1", Err("555 5.5.4 RCPT command parameter unrecognized: FOO")),
            (
                "TO:<c@example.com> NOTIFY",
                Err("501 5.5.4 Syntax error in RCPT parameter, value is required: NOTIFY"),
            ),
            (
                "TO:<c@example.com> NOTIFY=NEVER,DELAY",
                Err("501 5.5.4 Error in RCPT parameter NOTIFY, illegal combination of values: NEVER,DELAY"),
            ),
            (
                "TO:<c@example.com> NOTIFY=SOMETIMES",
                Err("501 5.5.4 Error in RCPT parameter NOTIFY, illegal value: SOMETIMES"),
            ),
            (
                "TO:<c@example.com> NOTIFY=DELAY NOTIFY=DELAY",
                Err("501 5.5.4 Syntax error in RCPT parameter: NOTIFY"),
            ),
            ("TO:<c@example.com> ORCPT=nothing", Err("501 5.5.4 Syntax error in RCPT parameter: ORCPT")),
            ("TO:<c@example.com> ORCPT=rfc822;", Err("501 5.5.4 Syntax error in RCPT parameter: ORCPT")),
            (
                "TO:<c@example.com> ORCPT=rfc822;a+0D+0Ab",
                Err("501 5.5.4 Syntax error in RCPT parameter: ORCPT"),
            ),
            ("TO:<c@example.com> ORCPT=rfc822;a+2Bb", Ok((None, Some("rfc822;a+2Bb")))),
        ];
        for (arguments, expected) in table {
            let got = Rcpt::parse(arguments.as_bytes());
            let got =
                got.as_ref().map(|r| (r.notify.as_deref(), r.orcpt.as_deref())).map_err(ToString::to_string);
            assert_eq!(
                got.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|e| *e),
                "{arguments}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = split(&line);
            let _ = Mail::parse(&[b"FROM:".as_slice(), &line].concat());
            let _ = Rcpt::parse(&[b"TO:".as_slice(), &line].concat());
        }
    }
}
