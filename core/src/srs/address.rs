//! Addresses: which senders can be rewritten, and the fields of a local part that is an SRS address.

use crate::address::is_valid_iredapd;
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take_until};
use nom::character::complete::one_of;
use nom::combinator::value;
use nom::sequence::terminated;
use nom::{IResult, Parser};

/// Which addresses are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressCheck {
    /// A local part without quotes at a domain of two labels or more, ASCII or UTF-8 (RFC 5321, 6531).
    #[default]
    Rfc5321,
    /// What iRedAPD takes for an address; others pass unrewritten, as with it.
    Iredapd,
}

/// Why an address is not a sender that can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRewritable {
    /// No `@`.
    #[error("No domain.")]
    NoDomain,
    /// Quoted or empty local part, domain literal, one-label domain and the like: an SRS address made of it
    /// would be invalid or could not be reversed.
    #[error("Not a rewritable address.")]
    Unsuitable,
}

/// An envelope sender that can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    local: &'a str,
    domain: &'a str,
}

impl<'a> Sender<'a> {
    /// Takes an address apart at its last `@`.
    pub fn parse(address: &'a str, check: AddressCheck) -> Result<Self, NotRewritable> {
        let (local, domain) = address.rsplit_once('@').ok_or(NotRewritable::NoDomain)?;
        let suitable = is_dot_string(local)
            && is_domain(domain)
            && (check == AddressCheck::Rfc5321 || is_valid_iredapd(address));
        suitable.then_some(Sender { local, domain }).ok_or(NotRewritable::Unsuitable)
    }

    /// The part before the `@`.
    pub fn local(&self) -> &'a str {
        self.local
    }

    /// The part behind the `@`, as given; see [`super::same_domain`] for comparing.
    pub fn domain(&self) -> &'a str {
        self.domain
    }
}

/// Atoms and dots in any order: real senders begin and end with dots, and the others rewrite them.
fn is_dot_string(local: &str) -> bool {
    let atext = |b: u8| b.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&b) || b >= 0x80;
    !local.is_empty() && local.bytes().all(atext) && !has_control(local)
}

/// At least two labels of letters, digits, hyphens and underscores; a dot at the end is allowed.
fn is_domain(domain: &str) -> bool {
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    let label_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80;
    let label = |label: &str| !label.is_empty() && label.bytes().all(label_byte);
    bare.contains('.') && bare.split('.').all(label) && !has_control(bare)
}

/// C1 controls and the like hide among the non-ASCII characters.
fn has_control(text: &str) -> bool {
    !text.is_ascii() && text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The fields of an SRS local part, cut but not yet verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields<'a> {
    Srs0 { hash: &'a str, stamp: &'a str, host: &'a str, local: &'a str },
    Srs1 { hash: &'a str, host: &'a str, opaque: &'a str },
}

/// A local part that is no SRS address; the number is that of its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    NotSrs,
    NoHash(u8),
    NoTimestamp,
    NoHost(u8),
    NoUser(u8),
}

/// `SRS0` or `SRS1` in any case, and a separator.
fn tagged(input: &str) -> IResult<&str, u8> {
    let tag = alt((value(0, tag_no_case("SRS0")), value(1, tag_no_case("SRS1"))));
    terminated(tag, one_of("=+-")).parse(input)
}

/// A field that a `=` ends.
fn field(input: &str) -> IResult<&str, &str> {
    terminated(take_until("="), tag("=")).parse(input)
}

impl<'a> Fields<'a> {
    /// Cuts a local part into its fields. Fields may be empty, but their `=` must be there.
    pub(super) fn parse(local: &'a str) -> Result<Self, Malformed> {
        let (rest, kind) = tagged(local).map_err(|_| Malformed::NotSrs)?;
        if rest.is_empty() {
            return Err(Malformed::NoHash(kind));
        }
        if kind == 1 {
            let (rest, hash) = field(rest).map_err(|_| Malformed::NoHost(1))?;
            let (opaque, host) = field(rest).map_err(|_| Malformed::NoUser(1))?;
            return Ok(Fields::Srs1 { hash, host, opaque });
        }
        let (rest, hash) = field(rest).map_err(|_| Malformed::NoTimestamp)?;
        let (rest, stamp) = field(rest).map_err(|_| Malformed::NoHost(0))?;
        let (local, host) = field(rest).map_err(|_| Malformed::NoUser(0))?;
        Ok(Fields::Srs0 { hash, stamp, host, local })
    }

    /// Whether no field is empty and an opaque part begins with a separator: what iRedAPD's patterns ask.
    pub(super) fn complete(&self) -> bool {
        match self {
            Fields::Srs0 { hash, stamp, host, local } => {
                [hash, stamp, host, local].iter().all(|field| !field.is_empty())
            }
            Fields::Srs1 { hash, host, opaque } => {
                !hash.is_empty() && !host.is_empty() && begins_with_separator(opaque)
            }
        }
    }
}

/// What follows `SRS0` if it begins with a separator: the opaque part of the SRS1 address to be made.
pub(super) fn srs0_opaque(local: &str) -> Option<&str> {
    matches!(tagged(local), Ok((_, 0))).then(|| &local[4..])
}

/// Whether an opaque part begins with the separator of the SRS0 address it came from.
pub(super) fn begins_with_separator(opaque: &str) -> bool {
    opaque.starts_with(['=', '+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders() {
        use NotRewritable::*;
        let table = [
            ("user@gmail.com", Ok(("user", "gmail.com")), true),
            ("User.Name+tag@sub.Example.ORG", Ok(("User.Name+tag", "sub.Example.ORG")), true),
            ("=lead@example.org", Ok(("=lead", "example.org")), false),
            (".dot.@example.org", Ok((".dot.", "example.org")), false),
            ("o'brien@example.org", Ok(("o'brien", "example.org")), false),
            ("a%b@example.org", Ok(("a%b", "example.org")), false),
            ("user@example.org.", Ok(("user", "example.org.")), true),
            ("\u{fc}ser@m\u{fc}nchen.example", Ok(("\u{fc}ser", "m\u{fc}nchen.example")), true),
            ("user@under_score.example", Ok(("user", "under_score.example")), true),
            ("user", Err(NoDomain), false),
            ("", Err(NoDomain), false),
            ("user@", Err(Unsuitable), false),
            ("@example.org", Err(Unsuitable), false),
            ("@", Err(Unsuitable), false),
            ("user@localhost", Err(Unsuitable), false),
            ("user@localhost.", Err(Unsuitable), false),
            ("user@example..org", Err(Unsuitable), false),
            ("user@.example.org", Err(Unsuitable), false),
            ("user@[192.0.2.1]", Err(Unsuitable), false),
            ("\"a b\"@example.org", Err(Unsuitable), false),
            ("a b@example.org", Err(Unsuitable), false),
            ("a@b@example.org", Err(Unsuitable), false),
            ("user\0@example.org", Err(Unsuitable), false),
            ("user@example.org\n", Err(Unsuitable), false),
            ("us\u{85}er@example.org", Err(Unsuitable), false),
            ("us\u{a0}er@example.org", Err(Unsuitable), false),
        ];
        for (address, expected, iredapd) in table {
            let got = Sender::parse(address, AddressCheck::Rfc5321);
            assert_eq!(got.map(|s| (s.local(), s.domain())), expected, "{address}");
            let old = Sender::parse(address, AddressCheck::Iredapd);
            assert_eq!(old.is_ok(), iredapd, "{address}");
        }
    }

    #[test]
    fn fields() {
        let srs0 = |hash, stamp, host, local| Ok(Fields::Srs0 { hash, stamp, host, local });
        let srs1 = |hash, host, opaque| Ok(Fields::Srs1 { hash, host, opaque });
        let table = [
            ("SRS0=h=t=host=local", srs0("h", "t", "host", "local")),
            ("srs0+h=t=host=lo=c=al", srs0("h", "t", "host", "lo=c=al")),
            ("SrS0-h=t=host=", srs0("h", "t", "host", "")),
            ("SRS0==t=host=local", srs0("", "t", "host", "local")),
            ("SRS0====", srs0("", "", "", "")),
            ("SRS0=h=t=host", Err(Malformed::NoUser(0))),
            ("SRS0=h=t", Err(Malformed::NoHost(0))),
            ("SRS0=h", Err(Malformed::NoTimestamp)),
            ("SRS0=", Err(Malformed::NoHash(0))),
            ("SRS1=h=host==x", srs1("h", "host", "=x")),
            ("SRS1=h=host=x", srs1("h", "host", "x")),
            ("SRS1=h=host", Err(Malformed::NoUser(1))),
            ("SRS1=h", Err(Malformed::NoHost(1))),
            ("SRS1=", Err(Malformed::NoHash(1))),
            ("SRS0", Err(Malformed::NotSrs)),
            ("SRS0*h=t=host=local", Err(Malformed::NotSrs)),
            ("SRS0h=t=host=local", Err(Malformed::NotSrs)),
            ("SRS2=h=t=host=local", Err(Malformed::NotSrs)),
            ("xSRS0=h=t=host=local", Err(Malformed::NotSrs)),
            ("", Err(Malformed::NotSrs)),
        ];
        for (local, expected) in table {
            assert_eq!(Fields::parse(local), expected, "{local}");
        }
    }

    #[test]
    fn opaque_parts() {
        assert_eq!(srs0_opaque("SRS0=x"), Some("=x"));
        assert_eq!(srs0_opaque("srs0+"), Some("+"));
        assert_eq!(srs0_opaque("SRS0x"), None);
        assert_eq!(srs0_opaque("SRS1=x"), None);
    }
}
