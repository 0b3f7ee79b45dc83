//! What an SMTP server announces in its EHLO reply, as far as a relay cares.

use super::xforward::Attribute;

/// One EHLO keyword of a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Commands may be sent without waiting (RFC 2920).
    Pipelining,
    /// `BODY=` is understood (RFC 6152).
    EightBitMime,
    /// `SMTPUTF8` is understood (RFC 6531).
    SmtpUtf8,
    /// `RET`, `ENVID`, `NOTIFY` and `ORCPT` are understood (RFC 3461).
    Dsn,
    /// Attributes of the first client may be passed on with XFORWARD.
    Xforward(Vec<Attribute>),
}

impl Capability {
    /// Reads one line of an EHLO reply; `None` for keywords that change nothing for us.
    pub fn parse(line: &str) -> Option<Capability> {
        let mut words = line.split_ascii_whitespace();
        match words.next()?.to_ascii_uppercase().as_str() {
            "PIPELINING" => Some(Capability::Pipelining),
            "8BITMIME" => Some(Capability::EightBitMime),
            "SMTPUTF8" => Some(Capability::SmtpUtf8),
            "DSN" => Some(Capability::Dsn),
            "XFORWARD" => {
                Some(Capability::Xforward(words.filter_map(|w| Attribute::parse(w.as_bytes())).collect()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords() {
        let table = [
            ("PIPELINING", Some(Capability::Pipelining)),
            ("8bitmime", Some(Capability::EightBitMime)),
            ("SMTPUTF8", Some(Capability::SmtpUtf8)),
            ("DSN", Some(Capability::Dsn)),
            ("XFORWARD NAME ADDR FOO", Some(Capability::Xforward(vec![Attribute::Name, Attribute::Addr]))),
            ("SIZE 1000", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(Capability::parse(line), expected, "{line}");
        }
    }
}
