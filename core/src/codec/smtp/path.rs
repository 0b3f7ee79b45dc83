//! Envelope paths: `<local@domain>` as RFC 5321 section 4.1.2 writes them.
//!
//! [`Path::parse`] is a total function: quoted local parts, address literals, source routes and UTF-8 are
//! understood, anything else is an error and never a guess. Inside, the local part is kept *unquoted*, so that
//! `<"bob"@example.com>` and `<bob@example.com>` are the same address; [`Path::write`] quotes it again in the one
//! canonical way. Octets above 127 are kept as they came, whether they are UTF-8 or not: a filter that refuses
//! what its own MTA accepted would lose the mail.

use std::fmt;

/// One parsed reverse or forward path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path {
    /// What stood between the angle brackets, octet by octet, source route included: replies echo it.
    pub received: Vec<u8>,
    /// The local part without quotes and backslashes. Empty for the null path.
    pub local: Vec<u8>,
    /// The domain or address literal as received, without `@`. Empty for the null path and for `<postmaster>`.
    pub domain: Vec<u8>,
}

/// What was found where a path should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No `<` at the beginning, or no `>` after it.
    #[error("no address in angle brackets")]
    NoBrackets,
    /// The local part is neither atoms and dots nor one quoted string.
    #[error("malformed local part")]
    Local,
    /// The domain is empty or holds an octet that no domain has.
    #[error("malformed domain")]
    Domain,
    /// A source route without its colon or domains.
    #[error("malformed source route")]
    Route,
}

impl Path {
    /// The null path, `<>`.
    pub fn null() -> Path {
        Path::default()
    }

    /// Parses a path at the beginning of `input` and returns it with the rest of the input.
    ///
    /// ```
    /// use outrider_core::codec::smtp::path::Path;
    /// let (path, rest) = Path::parse(br#"<"john doe"@example.com> SIZE=1"#).expect("a path");
    /// assert_eq!(path.local, b"john doe");
    /// assert_eq!(path.to_string(), r#"<"john doe"@example.com>"#);
    /// assert_eq!(rest, b" SIZE=1");
    /// ```
    pub fn parse(input: &[u8]) -> Result<(Path, &[u8]), PathError> {
        let inner = input.strip_prefix(b"<").ok_or(PathError::NoBrackets)?;
        let end = closing_bracket(inner).ok_or(PathError::NoBrackets)?;
        let (received, rest) = (&inner[..end], &inner[end + 1..]);
        if received.is_empty() {
            return Ok((Path::null(), rest));
        }
        let mailbox = skip_route(received)?;
        let (local, domain) = split_mailbox(mailbox)?;
        Ok((Path { received: received.to_vec(), local, domain: domain.to_vec() }, rest))
    }

    /// Builds the path of an address that was never on the wire, from its unquoted local part and its domain.
    pub fn from_parts(local: &[u8], domain: &[u8]) -> Path {
        let mut path = Path { received: Vec::new(), local: local.to_vec(), domain: domain.to_vec() };
        let mut canonical = Vec::new();
        path.write_mailbox(&mut canonical);
        path.received = canonical;
        path
    }

    /// True for `<>`, the sender of bounces.
    pub fn is_null(&self) -> bool {
        self.local.is_empty() && self.domain.is_empty() && self.received.is_empty()
    }

    /// Appends the path in canonical form with its brackets: no source route (RFC 5321 appendix C), quotes only
    /// where the local part needs them.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'<');
        self.write_mailbox(out);
        out.push(b'>');
    }

    /// The canonical `local@domain` as text, octets that are not UTF-8 replaced. For lookups and for people.
    pub fn address(&self) -> String {
        let mut out = Vec::with_capacity(self.local.len() + self.domain.len() + 1);
        self.write_mailbox(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The domain in lower case, octets that are not UTF-8 replaced.
    pub fn domain_lower(&self) -> String {
        String::from_utf8_lossy(&self.domain).to_lowercase()
    }

    fn write_mailbox(&self, out: &mut Vec<u8>) {
        if is_dot_string(&self.local) || self.is_null() {
            out.extend_from_slice(&self.local);
        } else {
            out.push(b'"');
            for &octet in &self.local {
                if octet == b'"' || octet == b'\\' {
                    out.push(b'\\');
                }
                out.push(octet);
            }
            out.push(b'"');
        }
        if !self.domain.is_empty() {
            out.push(b'@');
            out.extend_from_slice(&self.domain);
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.address())
    }
}

/// Position of the `>` that ends the path: one inside a quoted string does not.
fn closing_bracket(inner: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut octets = inner.iter().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                octets.next();
            }
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Drops `@one,@two:` in front of a mailbox.
fn skip_route(received: &[u8]) -> Result<&[u8], PathError> {
    if received.first() != Some(&b'@') {
        return Ok(received);
    }
    let colon = route_end(received).ok_or(PathError::Route)?;
    for hop in received[..colon].split(|&octet| octet == b',') {
        match hop.strip_prefix(b"@") {
            Some(domain) if is_domain(domain) => {}
            _ => return Err(PathError::Route),
        }
    }
    Ok(&received[colon + 1..])
}

/// The colon after a source route; colons of IPv6 literals inside it do not count.
fn route_end(received: &[u8]) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, octet) in received.iter().enumerate() {
        match octet {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b':' if depth <= 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn split_mailbox(mailbox: &[u8]) -> Result<(Vec<u8>, &[u8]), PathError> {
    let (local, after) = match mailbox.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = memchr::memchr(b'@', mailbox).unwrap_or(mailbox.len());
            let local = &mailbox[..end];
            if local.is_empty() || !local.iter().all(|&octet| is_atext(octet) || octet == b'.') {
                return Err(PathError::Local);
            }
            (local.to_vec(), &mailbox[end..])
        }
    };
    match after.strip_prefix(b"@") {
        Some(domain) if is_domain(domain) => Ok((local, domain)),
        Some(_) => Err(PathError::Domain),
        None if after.is_empty() => Ok((local, b"")),
        None => Err(PathError::Local),
    }
}

/// Reads a quoted string after its opening quote; returns the content and what follows the closing quote.
fn unquote(quoted: &[u8]) -> Result<(Vec<u8>, &[u8]), PathError> {
    let mut local = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some((&octet, tail)) = rest.split_first() {
        match octet {
            b'"' => return Ok((local, tail)),
            b'\\' => {
                let (&escaped, tail) = tail.split_first().ok_or(PathError::Local)?;
                if is_control(escaped) {
                    return Err(PathError::Local);
                }
                local.push(escaped);
                rest = tail;
            }
            _ if is_control(octet) => return Err(PathError::Local),
            _ => {
                local.push(octet);
                rest = tail;
            }
        }
    }
    Err(PathError::Local)
}

fn is_domain(domain: &[u8]) -> bool {
    if let Some(literal) = domain.strip_prefix(b"[") {
        return literal.strip_suffix(b"]").is_some_and(|text| {
            !text.is_empty()
                && text.iter().all(|&o| o.is_ascii_graphic() && !matches!(o, b'[' | b']' | b'\\'))
        });
    }
    !domain.is_empty()
        && domain.iter().all(|&o| o >= 0x80 || o.is_ascii_alphanumeric() || matches!(o, b'-' | b'.' | b'_'))
}

fn is_control(octet: u8) -> bool {
    octet < 0x20 || octet == 0x7f
}

fn is_atext(octet: u8) -> bool {
    octet >= 0x80 || octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

/// Atoms joined by single dots: what needs no quotes.
fn is_dot_string(local: &[u8]) -> bool {
    !local.is_empty()
        && local
            .split(|&octet| octet == b'.')
            .all(|atom| !atom.is_empty() && atom.iter().all(|&o| is_atext(o)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn threat_t05_addresses() {
        // (input, canonical form or the error)
        let table: [(&str, Result<&str, PathError>); 30] = [
            ("<>", Ok("<>")),
            ("<bob@example.com>", Ok("<bob@example.com>")),
            ("<Bob@EXAMPLE.com>", Ok("<Bob@EXAMPLE.com>")),
            ("<bob@example.com.>", Ok("<bob@example.com.>")),
            ("<postmaster>", Ok("<postmaster>")),
            (r#"<"bob"@example.com>"#, Ok("<bob@example.com>")),
            (r#"<"john doe"@example.com>"#, Ok(r#"<"john doe"@example.com>"#)),
            (r#"<"a\"b\\c"@example.com>"#, Ok(r#"<"a\"b\\c"@example.com>"#)),
            (r#"<"a>b"@example.com>"#, Ok(r#"<"a>b"@example.com>"#)),
            (r#"<"\b\o\b"@example.com>"#, Ok("<bob@example.com>")),
            (r#"<""@example.com>"#, Ok(r#"<""@example.com>"#)),
            (r#"<"a@b"@example.com>"#, Ok(r#"<"a@b"@example.com>"#)),
            ("<a..b@example.com>", Ok(r#"<"a..b"@example.com>"#)),
            ("<bob.@example.com>", Ok(r#"<"bob."@example.com>"#)),
            ("<user%other.test@example.com>", Ok("<user%other.test@example.com>")),
            ("<user@[127.0.0.1]>", Ok("<user@[127.0.0.1]>")),
            ("<user@[IPv6:2001:db8::1]>", Ok("<user@[IPv6:2001:db8::1]>")),
            ("<@relay.test:dave@example.com>", Ok("<dave@example.com>")),
            ("<@a.test,@[IPv6:::1]:dave@example.com>", Ok("<dave@example.com>")),
            ("<zoë@bücher.example>", Ok("<zoë@bücher.example>")),
            ("<@>", Err(PathError::Route)),
            ("<@relay.test>", Err(PathError::Route)),
            ("<@example.com:>", Err(PathError::Local)),
            ("<a@b@c>", Err(PathError::Domain)),
            ("<bob@>", Err(PathError::Domain)),
            ("<bob smith@example.com>", Err(PathError::Local)),
            (r#"<"bob"smith@example.com>"#, Err(PathError::Local)),
            ("<bob@example.com", Err(PathError::NoBrackets)),
            ("bob@example.com", Err(PathError::NoBrackets)),
            ("<bob(comment)@example.com>", Err(PathError::Local)),
        ];
        for (input, expected) in table {
            let parsed = Path::parse(input.as_bytes()).map(|(path, rest)| {
                assert_eq!(rest, b"", "{input}");
                path.to_string()
            });
            assert_eq!(parsed.as_deref().map_err(|e| *e), expected, "{input}");
        }
    }

    #[test]
    fn control_octets_are_refused_even_inside_quotes() {
        for octet in (0..0x20).chain([0x7f]) {
            for input in [
                [b"<\"a".as_slice(), &[octet], b"\"@example.com>"].concat(),
                [b"<a".as_slice(), &[octet], b"@example.com>"].concat(),
                [b"<\"a\\".as_slice(), &[octet], b"\"@example.com>"].concat(),
                [b"<a@exam".as_slice(), &[octet], b"ple.com>"].concat(),
            ] {
                assert!(Path::parse(&input).is_err(), "{octet:#x} in {input:?}");
            }
        }
    }

    #[test]
    fn octets_that_are_not_utf8_survive() {
        let (path, _) = Path::parse(b"<caf\xe9@example.com>").expect("parses");
        let mut out = Vec::new();
        path.write(&mut out);
        assert_eq!(out, b"<caf\xe9@example.com>");
    }

    proptest! {
        #[test]
        fn print_then_parse_is_the_identity(
            local in proptest::collection::vec((0x20_u8..0x7f).prop_union(0x80..0xff), 0..20),
            domain in "[a-z0-9.-]{1,20}",
        ) {
            let path = Path::from_parts(&local, domain.as_bytes());
            let mut wire = Vec::new();
            path.write(&mut wire);
            let (again, rest) = Path::parse(&wire).expect("what we print parses");
            prop_assert_eq!(rest, b"");
            prop_assert_eq!(again, path);
        }

        #[test]
        fn never_panics_and_is_stable(input in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut wire = vec![b'<'];
            wire.extend_from_slice(&input);
            wire.push(b'>');
            if let Ok((path, _)) = Path::parse(&wire) {
                let mut canonical = Vec::new();
                path.write(&mut canonical);
                let (again, _) = Path::parse(&canonical).expect("canonical form parses");
                prop_assert_eq!((&again.local, &again.domain), (&path.local, &path.domain));
            }
        }
    }
}
