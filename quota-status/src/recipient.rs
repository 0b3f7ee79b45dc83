//! The recipient of a request, as Dovecot reads it.
//!
//! Angle brackets are optional, a quoted local part is unquoted, everything is lower-cased, and an extension is cut
//! off. A name without a domain is a name all the same; it will belong to nobody.

/// What the attribute `recipient` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// Nothing: no recipient, or the null path.
    Missing,
    /// Not a path: no opinion about it.
    Unparseable,
    /// A name to look up, in lower case and without its extension.
    Name(String),
}

/// Reads the attribute. `delimiters` are the characters that begin an extension.
pub(crate) fn parse(value: Option<&[u8]>, delimiters: &str) -> Recipient {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Recipient::Missing };
    let Ok(text) = std::str::from_utf8(value) else { return Recipient::Unparseable };
    let Some(path) = without_brackets(text) else { return Recipient::Unparseable };
    if path.is_empty() {
        return Recipient::Missing;
    }
    let Some((local, domain)) = local_and_domain(without_route(path)) else { return Recipient::Unparseable };
    if !local.is_ascii() || domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
        return Recipient::Unparseable;
    }
    let local = without_extension(&local, delimiters);
    let name = match domain {
        Some(domain) => format!("{local}@{domain}"),
        None => local.to_owned(),
    };
    Recipient::Name(name.to_ascii_lowercase())
}

/// The address of a member of an alias without its extension; members are stored as plain addresses.
pub(crate) fn member(address: &str, delimiters: &str) -> String {
    let address = address.to_lowercase();
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{domain}", without_extension(local, delimiters)),
        None => address,
    }
}

/// `<path>` or `path`; `None` if only one of the brackets is there.
fn without_brackets(text: &str) -> Option<&str> {
    match (text.strip_prefix('<'), text.ends_with('>')) {
        (Some(inner), true) => inner.strip_suffix('>'),
        (None, false) => Some(text),
        // A lone `>` may belong to a quoted local part; a lone `<` is half a path.
        (None, true) => text.starts_with('"').then_some(text),
        (Some(_), false) => None,
    }
}

/// A source route, `@relay.example:`, is to be ignored (RFC 5321 section 4.1.1.3).
fn without_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, rest)) if route.starts_with('@') => rest,
        _ => path,
    }
}

/// Local part, unquoted, and domain if there is an `@`; `None` for a quotation mark that does not close.
fn local_and_domain(path: &str) -> Option<(String, Option<String>)> {
    let Some(quoted) = path.strip_prefix('"') else {
        return Some(match path.rsplit_once('@') {
            Some((local, domain)) => (local.to_owned(), Some(domain.to_owned())),
            None => (path.to_owned(), None),
        });
    };
    let mut local = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => local.push(characters.next()?),
            other => local.push(other),
        }
    }
    match characters.as_str() {
        "" => Some((local, None)),
        rest => Some((local, Some(rest.strip_prefix('@')?.to_owned()))),
    }
}

/// Labels of letters, digits, hyphens and underscores, none of them empty; or an address literal.
fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !literal.is_empty()
            && literal.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-".contains(&b));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    domain.split('.').all(label)
}

/// Cuts at the first delimiter, unless the name begins with it.
fn without_extension<'a>(local: &'a str, delimiters: &str) -> &'a str {
    match local.find(|c| delimiters.contains(c)) {
        Some(at) if at > 0 => &local[..at],
        _ => local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients() {
        let name = |text: &str| Recipient::Name(text.to_owned());
        let table: &[(&[u8], Recipient)] = &[
            (b"u@d.example", name("u@d.example")),
            (b"U@D.EXAMPLE", name("u@d.example")),
            (b"<u@d.example>", name("u@d.example")),
            (b"<\"u\"@d.example>", name("u@d.example")),
            (b"\"u\"@d.example", name("u@d.example")),
            (b"\"a\\\"b c\"@d.example", name("a\"b c@d.example")),
            (b"\"a@b\"@d.example", name("a@b@d.example")),
            (b"\"u\"", name("u")),
            (b"u+box@d.example", name("u@d.example")),
            (b"u+a+b@d.example", name("u@d.example")),
            (b"u+@d.example", name("u@d.example")),
            (b"\"u+box\"@d.example", name("u@d.example")),
            (b"+u@d.example", name("+u@d.example")),
            (b"+u+x@d.example", name("+u+x@d.example")),
            (b"u-x@d.example", name("u-x@d.example")),
            (b"<@relay.example,@b.example:u@d.example>", name("u@d.example")),
            (b"u", name("u")),
            (b"@d.example", name("@d.example")),
            (b"u @d.example", name("u @d.example")),
            (b"o'x@d.example", name("o'x@d.example")),
            (b"u@[192.0.2.1]", name("u@[192.0.2.1]")),
            (b"u@localhost", name("u@localhost")),
            (b"", Recipient::Missing),
            (b"<>", Recipient::Missing),
            (b"u@", Recipient::Unparseable),
            (b"@", Recipient::Unparseable),
            (b"u@d.example.", Recipient::Unparseable),
            (b"u@.d.example", Recipient::Unparseable),
            (b"u@d..example", Recipient::Unparseable),
            (b"u@d example", Recipient::Unparseable),
            (b"u@[]", Recipient::Unparseable),
            ("\u{fc}@d.example".as_bytes(), Recipient::Unparseable),
            ("u@\u{fc}.example".as_bytes(), Recipient::Unparseable),
            (b"\xFF@d.example", Recipient::Unparseable),
            (b"<u@d.example", Recipient::Unparseable),
            (b"u@d.example>", Recipient::Unparseable),
            (b"\"u@d.example", Recipient::Unparseable),
            (b"\"u\\", Recipient::Unparseable),
            (b"\"u\"x@d.example", Recipient::Unparseable),
        ];
        for (value, expected) in table {
            assert_eq!(&parse(Some(value), "+"), expected, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(parse(None, "+"), Recipient::Missing);
        assert_eq!(parse(Some(b"u-x+y@d.example"), "+-"), name("u@d.example"));
        assert_eq!(parse(Some(b"u+y@d.example"), ""), name("u+y@d.example"));
    }

    #[test]
    fn members() {
        assert_eq!(member("U+box@D.example", "+"), "u@d.example");
        assert_eq!(member("plain", "+"), "plain");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_get_an_answer(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Recipient::Name(name) = parse(Some(&value), "+") {
                proptest::prop_assert!(!name.is_empty() && name.is_ascii());
                proptest::prop_assert!(!name.bytes().any(|b| b.is_ascii_uppercase()));
            }
        }
    }
}
