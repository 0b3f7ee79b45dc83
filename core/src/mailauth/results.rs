//! Authentication-Results (RFC 8601): writing ours, and recognising fields that only pretend to be ours.

use super::verify::Outcome;
use crate::codec::header::Field;

/// One result of a parsed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodResult {
    /// `dkim`, `spf`, ... in lower case.
    pub method: String,
    /// Version behind the method.
    pub version: Option<String>,
    /// `pass`, `fail`, ... in lower case.
    pub result: String,
    /// `reason=`
    pub reason: Option<String>,
    /// Property type, name and value; type and name in lower case.
    pub properties: Vec<(String, String, String)>,
}

/// A parsed Authentication-Results field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// Who vouches for the results.
    pub authserv_id: String,
    /// Version behind it.
    pub version: Option<String>,
    /// The results; empty for `none`.
    pub results: Vec<MethodResult>,
}

/// The value is no Authentication-Results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed Authentication-Results")]
pub struct Unparsable;

impl Results {
    /// Parses the value of a field, folded or not. Words without a property type (`bits=256`) are passed over, as
    /// other parsers do.
    pub fn parse(value: &[u8]) -> Result<Results, Unparsable> {
        let mut scan = Scanner { rest: value };
        scan.blank()?;
        let authserv_id = scan.value(is_token_or_dot)?;
        scan.blank()?;
        let version = scan.digits();
        scan.blank()?;
        let mut results = Vec::new();
        while !scan.rest.is_empty() {
            scan.expect(b';')?;
            scan.blank()?;
            if results.is_empty() && scan.none()? {
                return Ok(Results { authserv_id, version, results });
            }
            results.push(scan.method_result()?);
        }
        if results.is_empty() { Err(Unparsable) } else { Ok(Results { authserv_id, version, results }) }
    }
}

/// True when a field must go before we add our own: it claims to be from `authserv_id` (in any case, quoted,
/// commented or folded), or cannot be read at all (RFC 8601 section 5).
pub fn must_be_removed(field: &Field<'_>, authserv_id: &str) -> bool {
    if !field.is("Authentication-Results") {
        return false;
    }
    match Results::parse(field.value()) {
        Ok(results) => results.authserv_id.eq_ignore_ascii_case(authserv_id),
        Err(Unparsable) => true,
    }
}

/// The field for the outcomes of DKIM verification, line end included. `product` is the comment after our name.
pub fn write(authserv_id: &str, product: &str, outcomes: &[Outcome]) -> Vec<u8> {
    let mut text = format!("Authentication-Results: {authserv_id} ({product})");
    for outcome in outcomes {
        text.push_str(";\r\n\tdkim=");
        text.push_str(&outcome.verdict.to_string());
        if let Some(bits) = outcome.key_bits {
            text.push_str(&format!(" ({bits}-bit key)"));
        }
        if let Some(reason) = &outcome.reason {
            text.push_str(&format!("\r\n\treason={}", quoted(reason)));
        }
        if let Some(domain) = &outcome.domain {
            text.push_str(&format!("\r\n\theader.d={}", property_value(domain)));
        }
        if outcomes.len() > 1 && !outcome.mark.is_empty() {
            text.push_str(&format!(" header.b={}", quoted(&outcome.mark)));
        }
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A value that came from outside: bare when it is an ordinary name, else quoted.
fn property_value(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|octet| is_token_or_dot(octet) || octet == b'@') {
        value.to_owned()
    } else {
        quoted(value)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()).take(256) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn is_token(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=.".contains(&octet) || octet >= 0x80
}

fn is_token_or_dot(octet: u8) -> bool {
    is_token(octet) || octet == b'.'
}

/// Octets of a property value beside quoted strings: a token or an address.
fn is_property(octet: u8) -> bool {
    is_token_or_dot(octet) || matches!(octet, b'@' | b'/' | b'=')
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl Scanner<'_> {
    /// Skips white space, folds and comments.
    fn blank(&mut self) -> Result<(), Unparsable> {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.first() != Some(&b'(') {
                return Ok(());
            }
            let (mut depth, mut at) = (0_usize, 0);
            loop {
                match self.rest.get(at).ok_or(Unparsable)? {
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    b'\\' => at += 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            self.rest = self.rest.get(at..).unwrap_or_default();
        }
    }

    fn take(&mut self, wanted: fn(u8) -> bool) -> String {
        let end = self.rest.iter().position(|octet| !wanted(*octet)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        String::from_utf8_lossy(taken).into_owned()
    }

    fn word(&mut self) -> Result<String, Unparsable> {
        let word = self.take(is_token);
        if word.is_empty() { Err(Unparsable) } else { Ok(word.to_ascii_lowercase()) }
    }

    fn digits(&mut self) -> Option<String> {
        let digits = self.take(|octet| octet.is_ascii_digit());
        (!digits.is_empty()).then_some(digits)
    }

    fn eat(&mut self, octet: u8) -> bool {
        let found = self.rest.first() == Some(&octet);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn expect(&mut self, octet: u8) -> Result<(), Unparsable> {
        if self.eat(octet) { Ok(()) } else { Err(Unparsable) }
    }

    /// A quoted string without its quotes.
    fn quoted(&mut self) -> Result<String, Unparsable> {
        self.expect(b'"')?;
        let mut out = Vec::new();
        loop {
            let (&octet, rest) = self.rest.split_first().ok_or(Unparsable)?;
            self.rest = rest;
            match octet {
                b'"' => return Ok(String::from_utf8_lossy(&out).into_owned()),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first().ok_or(Unparsable)?;
                    self.rest = rest;
                    out.push(escaped);
                }
                _ => out.push(octet),
            }
        }
    }

    /// A quoted string or a run of the wanted octets; empty is an error.
    fn value(&mut self, wanted: fn(u8) -> bool) -> Result<String, Unparsable> {
        if self.rest.first() == Some(&b'"') {
            return self.quoted();
        }
        let value = self.take(wanted);
        if value.is_empty() { Err(Unparsable) } else { Ok(value) }
    }

    /// `none` and nothing but comments after it.
    fn none(&mut self) -> Result<bool, Unparsable> {
        let before = self.rest;
        if self.take(is_token).eq_ignore_ascii_case("none") {
            self.blank()?;
            if self.rest.is_empty() {
                return Ok(true);
            }
        }
        self.rest = before;
        Ok(false)
    }

    fn method_result(&mut self) -> Result<MethodResult, Unparsable> {
        let method = self.word()?;
        self.blank()?;
        let version = if self.eat(b'/') {
            self.blank()?;
            Some(self.digits().ok_or(Unparsable)?)
        } else {
            None
        };
        self.blank()?;
        self.expect(b'=')?;
        self.blank()?;
        let result = self.word()?;
        self.blank()?;
        let (mut reason, mut properties) = (None, Vec::new());
        while !self.rest.is_empty() && self.rest.first() != Some(&b';') {
            let kind = self.word()?;
            self.blank()?;
            if self.eat(b'.') {
                self.blank()?;
                let name = self.word()?;
                self.blank()?;
                self.expect(b'=')?;
                self.blank()?;
                properties.push((kind, name, self.property()?));
            } else {
                self.expect(b'=')?;
                self.blank()?;
                let value = self.value(is_property)?;
                if kind == "reason" {
                    reason = Some(value);
                }
            }
            self.blank()?;
        }
        Ok(MethodResult { method, version, result, reason, properties })
    }

    /// The value of a property: empty, a word, a quoted string, or an address with a quoted local part.
    fn property(&mut self) -> Result<String, Unparsable> {
        if self.rest.first() == Some(&b'"') {
            let before = self.rest;
            let inner = self.quoted()?;
            if self.rest.first() == Some(&b'@') {
                let quoted = String::from_utf8_lossy(&before[..before.len() - self.rest.len()]).into_owned();
                return Ok(quoted + &self.take(is_property));
            }
            return Ok(inner);
        }
        Ok(self.take(is_property))
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::Verdict;
    use super::*;
    use crate::codec::header;
    use proptest::prelude::*;

    fn removed(field: &str) -> bool {
        must_be_removed(&header::fields(field.as_bytes()).next().expect("a field"), "mail.example.com")
    }

    #[test]
    fn threat_t27_forged_results_are_recognised() {
        let table = [
            ("Authentication-Results: mail.example.com; spf=pass smtp.mailfrom=x@y.test\r\n", true),
            ("authentication-results: MAIL.Example.COM; none\r\n", true),
            ("Authentication-Results: (a (nested) comment) mail.example.com 1; dkim=pass\r\n", true),
            ("Authentication-Results:\r\n\t\"mail.example.com\"; dkim=pass\r\n", true),
            ("Authentication-Results : mail.example.com; dkim=pass\r\n", true),
            ("Authentication-Results: ;;; nonsense\r\n", true),
            ("Authentication-Results:\r\n", true),
            ("Authentication-Results: mx.other.test; dkim=pass header.d=a.test\r\n", false),
            ("Authentication-Results: mail.example.com.other.test; dkim=pass\r\n", false),
            ("X-Authentication-Results: mail.example.com; dkim=pass\r\n", false),
        ];
        for (field, expected) in table {
            assert_eq!(removed(field), expected, "{field}");
        }
    }

    #[test]
    fn what_we_write_we_can_read() {
        let outcome = |verdict, reason: Option<&str>, domain: &str| Outcome {
            verdict,
            reason: reason.map(str::to_owned),
            domain: Some(domain.to_owned()),
            selector: None,
            identity: None,
            key_bits: Some(2048),
            mark: "ab/c+=de".to_owned(),
        };
        let hostile = "a.test\"; dkim=pass header.d=bank.test\r\nX-Evil: 1";
        let outcomes = [
            outcome(Verdict::Pass, None, "sender.test"),
            outcome(Verdict::Fail, Some("fail (\"x\")"), hostile),
        ];
        let wire = write("mail.example.com", "amavis", &outcomes);
        let text = String::from_utf8(wire.clone()).expect("text");
        assert_eq!(header::fields(&wire).count(), 1, "{text}");
        assert!(text.starts_with(
            "Authentication-Results: mail.example.com (amavis);\r\n\tdkim=pass (2048-bit key)\r\n\theader.d=sender.test"
        ));
        let parsed = Results::parse(header::fields(&wire).next().expect("a field").value()).expect("parses");
        assert_eq!(parsed.results.len(), 2);
        assert_eq!(parsed.results[1].reason.as_deref(), Some("fail (\"x\")"));
        assert_eq!(parsed.results[1].properties[0].2, hostile.replace(['\r', '\n'], ""));
    }

    proptest! {
        #[test]
        fn never_panics(value in "[ -~\\r\\n]{0,80}") {
            let _ = Results::parse(value.as_bytes());
        }
    }
}
