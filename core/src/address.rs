//! Mail addresses as the lists and settings of a mail server spell them.
//!
//! Addresses arrive from Postfix already taken apart from the SMTP dialogue: no angle brackets, no source route.
//! Most tables of an iRedMail server hold them in lower case and without an extension, so the functions here
//! answer three questions: where is the `@`, what is the address without its extension, and is this an address
//! that the tables can hold at all. Nothing here allocates unless it has to.

use std::borrow::Cow;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// What is taken for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// What iRedAPD takes for one, see [`is_valid_iredapd`]. It is divided at its first `@`.
    #[default]
    Iredapd,
    /// Anything before the last `@` and a domain name behind it: every mailbox of RFC 5321 but those at an IP address.
    /// Postfix writes local parts without their quotation marks, so these may hold whatever can be quoted.
    Rfc5321,
}

impl Reading {
    /// Local part and domain; `None` if the text is no address.
    pub fn split(self, address: &str) -> Option<(&str, &str)> {
        match self {
            Reading::Iredapd => split_first(address).filter(|_| is_valid_iredapd(address)),
            Reading::Rfc5321 => {
                split(address).filter(|(local, domain)| !local.is_empty() && is_domain_name(domain))
            }
        }
    }
}

/// Labels of letters, digits, hyphens and underscores, with or without the dot of the root; as long as RFC 5321 section
/// 4.5.3.1.2 allows.
fn is_domain_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| !label.is_empty() && label.chars().all(|c| is_word(c) || c == '-');
    text.len() <= 255 && labels.split('.').all(is_label)
}

/// Splits an address at its **last** `@` into local part and domain (RFC 5321: a domain holds no `@`, a quoted
/// local part may). `None` without an `@`.
pub fn split(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once('@')
}

/// Splits an address at its **first** `@`, as the policy service has always done: there the rest of an odd
/// address such as `a@b@c` belongs to the domain. `None` without an `@`.
pub fn split_first(address: &str) -> Option<(&str, &str)> {
    address.split_once('@')
}

/// The domain behind the last `@`; `None` if there is no `@` or nothing behind it.
pub fn domain_of(address: &str) -> Option<&str> {
    split(address).map(|(_, domain)| domain).filter(|domain| !domain.is_empty())
}

/// The address without its extension: `user+box@example.com` becomes `user@example.com`.
///
/// Each delimiter is tried in turn; the first one that occurs in the local part decides, and the local part is
/// cut at its first occurrence. A text that is no address stays as it is, and so does one with a quotation mark at its
/// beginning, which the cut would leave without the other one, and one of which the cut would leave no local part:
/// `@example.com` would name the whole domain in a list.
pub fn without_extension<'a>(address: &'a str, delimiters: &[String], reading: Reading) -> Cow<'a, str> {
    let parts = reading.split(address).filter(|(local, _)| !local.starts_with('"'));
    let Some((local, domain)) = parts else { return Cow::Borrowed(address) };
    for delimiter in delimiters.iter().filter(|delimiter| !delimiter.is_empty()) {
        if let Some(end) = local.find(delimiter.as_str()) {
            if end == 0 {
                break;
            }
            return Cow::Owned(format!("{}@{domain}", &local[..end]));
        }
    }
    Cow::Borrowed(address)
}

/// Whether iRedAPD takes the text for an address, which decides whether its rules run at all.
///
/// The text must hold none of ``~ ! $ % ^ * ( )`` or space, and must *begin* with: a word character, `-` or `#`;
/// any number of those or `. + = / &`; an `@`; a domain of word characters, hyphens and dots that begins with no dot
/// and has at least one dot followed by two or more letters, digits or hyphens. Only the start is examined, so
/// trailing text is accepted; one-label domains and apostrophes are not. Word characters are Unicode letters,
/// digits and the underscore.
pub fn is_valid_iredapd(address: &str) -> bool {
    if address
        .bytes()
        .any(|byte| matches!(byte, b'~' | b'!' | b'$' | b'%' | b'^' | b'*' | b'(' | b')' | b' '))
    {
        return false;
    }
    let Some((local, rest)) = split_first(address) else { return false };
    let mut local = local.chars();
    if !local.next().is_some_and(|c| is_word(c) || matches!(c, '-' | '#')) {
        return false;
    }
    if !local.all(|c| is_word(c) || matches!(c, '-' | '.' | '+' | '=' | '/' | '&' | '#')) {
        return false;
    }
    let end = rest.find(|c| !(is_word(c) || matches!(c, '-' | '.'))).unwrap_or(rest.len());
    let domain = &rest.as_bytes()[..end];
    domain.first().is_some_and(|&first| first != b'.')
        && domain.windows(3).skip(1).any(|w| w[0] == b'.' && is_label(w[1]) && is_label(w[2]))
}

/// `\w` as Python's `re` has it: letters, numbers and `_`. The standard library also counts marks that change a letter.
fn is_word(c: char) -> bool {
    let group = || c.general_category_group();
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || c == '_',
        false => matches!(group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number),
    }
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_at_sign_that_counts() {
        assert_eq!(split("a@b@c"), Some(("a@b", "c")));
        assert_eq!(split_first("a@b@c"), Some(("a", "b@c")));
        assert_eq!(split("nodomain"), None);
        assert_eq!(domain_of("a@example.com"), Some("example.com"));
        assert_eq!(domain_of("a@"), None);
        assert_eq!(domain_of(""), None);
    }

    #[test]
    fn extensions_are_cut_at_the_first_delimiter_that_occurs() {
        let plus = vec!["+".to_owned()];
        let two = vec!["-".to_owned(), "+".to_owned()];
        for (address, delimiters, expected) in [
            ("user+box@example.com", &plus, "user@example.com"),
            ("user+a+b@example.com", &plus, "user@example.com"),
            ("user@example.com", &plus, "user@example.com"),
            ("user@ex+ample.com", &plus, "user@ex+ample.com"),
            ("us-er+box@example.com", &two, "us@example.com"),
            ("user+b-x@example.com", &two, "user+b@example.com"),
            ("user+box@localhost", &plus, "user+box@localhost"),
            ("user+box", &plus, "user+box"),
            ("-box@example.com", &two, "-box@example.com"),
            ("", &plus, ""),
            ("o'brien+box@example.com", &plus, "o'brien+box@example.com"),
        ] {
            assert_eq!(without_extension(address, delimiters, Reading::Iredapd), expected, "{address}");
        }
        for delimiters in [&[][..], &[String::new()]] {
            let uncut = without_extension("user+box@example.com", delimiters, Reading::Iredapd);
            assert_eq!(uncut, "user+box@example.com");
        }
    }

    #[test]
    fn extensions_of_every_address() {
        let two = vec!["-".to_owned(), "+".to_owned()];
        for (address, expected) in [
            ("o'brien+box@example.com", "o'brien@example.com"),
            ("o'brien@example.com", "o'brien@example.com"),
            ("user+box@localhost", "user@localhost"),
            ("us+er@b.co@example.com", "us@example.com"),
            ("\"o'brien +box\"@example.com", "\"o'brien +box\"@example.com"),
            ("+box@example.com", "+box@example.com"),
            ("user+box", "user+box"),
            ("", ""),
        ] {
            assert_eq!(without_extension(address, &two, Reading::Rfc5321), expected, "{address}");
        }
    }

    #[test]
    fn what_is_divided_where() {
        for (address, iredapd, rfc5321) in [
            ("user@example.com", Some(("user", "example.com")), Some(("user", "example.com"))),
            ("o'brien@sender.test", None, Some(("o'brien", "sender.test"))),
            ("root@localhost", None, Some(("root", "localhost"))),
            ("a@b.co@c.test", Some(("a", "b.co@c.test")), Some(("a@b.co", "c.test"))),
            ("a b@c.test.", None, Some(("a b", "c.test."))),
            ("a@[192.0.2.1]", None, None),
            ("a@b..test", Some(("a", "b..test")), None),
            ("a@.", None, None),
            ("a@*", None, None),
            ("@c.test", None, None),
            ("", None, None),
        ] {
            let read = [Reading::Iredapd, Reading::Rfc5321].map(|reading| reading.split(address));
            assert_eq!(read, [iredapd, rfc5321], "{address}");
        }
        assert_eq!(Reading::Rfc5321.split(&format!("a@{}.test", "b".repeat(300))), None);
    }

    #[test]
    fn what_counts_as_an_address() {
        for valid in [
            "user@example.com",
            "user@sub.example.x",
            "#a.b-c_d+e=f/g&h@example.com",
            "user@sub-domain.example.c-m",
            "müller@example.com",
            "user@müller.example.com",
            "a@b.co",
            "a@_b.co",
            "a@b..co",
            "a@b.co;trailing",
            "a@b.co@c",
            "a@b.x.yz.",
            "-a@b.co",
            "x²@b.co",
            "漢字@例え.co",
        ] {
            assert!(is_valid_iredapd(valid), "{valid}");
        }
        for invalid in [
            "",
            "@",
            "a@",
            "@b.co",
            "nodomain",
            "root@localhost",
            "a@b.c",
            "a@.co",
            "a@.b.co",
            "a@b.",
            "o'brien@example.com",
            "alice%example.com@relay.test",
            "a b@example.com",
            "a@example.com (x)",
            ".a@example.com",
            "\"a\"@example.com",
            "a@[127.0.0.1]",
            "a\0@example.com",
            // Their vowels are marks, and a letter in a circle is a symbol.
            "राम@sender.test",
            "กิน@sender.test",
            "ⓐ@sender.test",
            "a@राम.test",
        ] {
            assert!(!is_valid_iredapd(invalid), "{invalid}");
        }
    }
}
