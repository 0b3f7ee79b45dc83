//! Addresses as the list API accepts them in paths and parameters.
//!
//! The syntax is wider than RFC 5321 dot-strings in one place (a local part may start with `#` or hold `/`) and
//! narrower in others; it decides whether a path exists at all, so it is kept exactly. An address becomes a
//! directory only through [`ListAddress::spool_names`], which refuses what is no plain file name.

use std::fmt;

/// Longest local part and longest domain, in bytes (RFC 5321 4.5.3.1).
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 255;

/// A lower-cased address of a list or a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListAddress {
    text: String,
    at: usize,
}

impl ListAddress {
    /// Parses and lower-cases `text`; `None` if it is not an address of this API.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !is_address(text) {
            return None;
        }
        let text = text.to_lowercase();
        // Lower-casing may change letters outside ASCII into several; the result has to hold too.
        if !is_address(&text) {
            return None;
        }
        let at = text.find('@')?;
        Some(Self { text, at })
    }

    /// The whole address.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the `@`.
    pub(crate) fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after the `@`.
    pub(crate) fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The names of the domain's and the list's directory below the spool, or `None` if this address cannot have
    /// one: a `/` in it, a part that is hidden or special, a part that is too long.
    pub(crate) fn spool_names(&self) -> Option<(&str, &str)> {
        let plain = |part: &str, longest: usize| {
            !part.is_empty() && part.len() <= longest && !part.starts_with('.') && !part.contains(['/', '\0'])
        };
        (plain(self.domain(), MAX_DOMAIN) && plain(self.local(), MAX_LOCAL))
            .then(|| (self.domain(), self.local()))
    }

    /// The name of the subscriber file the address belongs into: its first character.
    pub(crate) fn subscriber_file(&self) -> &str {
        let end = self.text.char_indices().nth(1).map_or(self.text.len(), |(index, _)| index);
        &self.text[..end]
    }
}

impl fmt::Display for ListAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Whether `text` has the syntax of an address, in any letter case.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    local.len() <= MAX_DOMAIN && is_local_part(local) && is_domain(domain)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_local_part(local: &str) -> bool {
    let mut characters = local.chars();
    characters.next().is_some_and(|first| is_word(first) || matches!(first, '-' | '#'))
        && characters.all(|c| is_word(c) || matches!(c, '-' | '.' | '+' | '=' | '/' | '&' | '#'))
}

/// Whether `domain` has the syntax of a domain, in any letter case: the last label has 2 to 15 characters.
pub(crate) fn is_domain(domain: &str) -> bool {
    let Some((rest, last)) = domain.rsplit_once('.') else { return false };
    let mut characters = rest.chars();
    domain.len() <= MAX_DOMAIN
        && characters.next().is_some_and(|first| is_word(first) || first == '-')
        && characters.all(|c| is_word(c) || matches!(c, '-' | '.'))
        && (2..=15).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The valid addresses of a comma-separated value, lower-cased, in their order; blanks inside are ignored.
pub(crate) fn parse_addresses(value: &str) -> Vec<ListAddress> {
    value
        .split(',')
        .filter_map(|part| {
            let compact: String = part.chars().filter(|c| !c.is_whitespace()).collect();
            ListAddress::parse(&compact)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn syntax_of_addresses() {
        for (text, expected) in [
            ("list@example.com", true),
            ("a-b@example.com", true),
            ("a+b=c&d@example.com", true),
            ("#a@example.com", true),
            ("-a@example.com", true),
            ("_a@example.com", true),
            ("a/b@example.com", true),
            ("größe@example.com", true),
            ("A@EXAMPLE.COM", true),
            (".a@example.com", false),
            ("../../etc@example.com", false),
            ("@example.com", false),
            ("list", false),
            ("list@", false),
            ("list@example", false),
            ("list@example.c", false),
            ("list@example.abcdefghijklmnop", false),
            ("list@.example.com", false),
            ("list@example.com/owners", false),
            ("a b@example.com", false),
            ("a@b@example.com", false),
            ("a\n@example.com", false),
            ("a@exam\nple.com", false),
            ("a\0@example.com", false),
        ] {
            assert_eq!(is_address(text), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_without_a_directory() {
        for text in ["a/b@example.com", "a@b/../c.example.com"] {
            assert_eq!(ListAddress::parse(text).and_then(|a| a.spool_names().map(|_| ())), None, "{text}");
        }
        let long = format!("{}@example.com", "x".repeat(65));
        assert!(ListAddress::parse(&long).unwrap().spool_names().is_none());
        assert_eq!(
            ListAddress::parse("List@Example.COM").unwrap().spool_names(),
            Some(("example.com", "list"))
        );
    }

    #[test]
    fn subscriber_files_follow_the_first_character() {
        for (address, file) in [("u1@x.example", "u"), ("#c@x.example", "#"), ("Élan@x.example", "é")] {
            assert_eq!(ListAddress::parse(address).unwrap().subscriber_file(), file);
        }
    }

    #[test]
    fn lists_of_addresses_drop_what_is_invalid() {
        let parsed = parse_addresses(" A@x.example ,bad,, b @ x.example,c@x.example\nd@x.example");
        let texts: Vec<&str> = parsed.iter().map(ListAddress::as_str).collect();
        assert_eq!(texts, ["a@x.example", "b@x.example"]);
    }

    proptest! {
        /// Whatever the text: if it maps to directories, both names stay directly below the spool.
        #[test]
        fn directories_never_leave_the_spool(text in "[a-zA-Z0-9#/.@_+%\\\\ \u{0}\u{e9}-]{0,40}|.{0,40}") {
            if let Some(address) = ListAddress::parse(&text)
                && let Some((domain, list)) = address.spool_names()
            {
                for name in [domain, list] {
                    let path = std::path::Path::new(name);
                    let parts: Vec<_> = path.components().collect();
                    prop_assert!(matches!(parts[..], [std::path::Component::Normal(part)] if part == name));
                }
            }
        }
    }
}
