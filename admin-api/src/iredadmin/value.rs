//! Values of requests: what is valid, and what is dropped or cut before it gets near the database.

use outrider_core::directory::write::Edit;

use crate::http::Parameters;
use crate::mlmmj::address::is_address;

/// Whether `text` is a domain that can be hosted: two labels or more of letters, digits and hyphens, in lower case;
/// internationalised names in their ASCII form.
pub(crate) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top_is_a_name =
        text.rsplit('.').next().is_some_and(|top| top.bytes().any(|b| b.is_ascii_lowercase()));
    text.len() <= 253 && text.contains('.') && text.split('.').all(label) && top_is_a_name
}

/// Whether `text` is an address in lower case that an account here may have.
pub(crate) fn is_account(text: &str) -> bool {
    is_foreign(text)
        && text.rsplit_once('@').is_some_and(|(local, domain)| {
            local.len() <= 64 && !local.contains(['+', '=', '/']) && is_domain(domain)
        })
}

/// Whether `text` is an address in lower case, here or elsewhere.
pub(crate) fn is_foreign(text: &str) -> bool {
    text.len() <= 254 && text.is_ascii() && is_address(text)
}

/// The value of a parameter under any of its names.
pub(crate) fn get<'a>(sent: &'a Parameters, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| sent.get(name))
}

/// Text for a column of 255 characters: without control characters, cut, blanks at the ends removed.
pub(crate) fn text(value: &str) -> String {
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    clean.trim().chars().take(255).collect()
}

/// A whole number of at least `least`; anything else counts as not sent.
pub(crate) fn number(sent: &Parameters, name: &str, least: i64) -> Option<i64> {
    sent.get(name)?.trim().parse().ok().filter(|number| (least..=1_000_000_000_000).contains(number))
}

/// A language as `en_US` or `de`; empty for none.
pub(crate) fn language(sent: &Parameters) -> Option<String> {
    let value = get(sent, &["language", "preferredLanguage"])?.trim();
    let fits = value.len() <= 5 && value.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    fits.then(|| value.to_owned())
}

/// `active` or `disabled`.
pub(crate) fn status(sent: &Parameters) -> Option<bool> {
    match sent.get("accountStatus")? {
        "active" => Some(true),
        "disabled" => Some(false),
        _ => None,
    }
}

/// The parts of a comma-separated value that `valid` takes, lower-cased, without duplicates.
pub(crate) fn list(value: &str, valid: impl Fn(&str) -> bool) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for part in value.split(',').map(|part| part.trim().to_lowercase()) {
        if valid(&part) && !values.contains(&part) {
            values.push(part);
        }
    }
    values
}

/// A change of a list: the parameter that replaces it, the one that adds and the one that removes.
pub(crate) fn edit(
    sent: &Parameters,
    [all, add, remove]: [&str; 3],
    valid: impl Fn(&str) -> bool,
) -> Option<Edit> {
    if let Some(value) = sent.get(all) {
        return Some(Edit::Replace(list(value, valid)));
    }
    let part = |name: &str| sent.get(name).map(|value| list(value, &valid));
    match (part(add), part(remove)) {
        (None, None) => None,
        (add, remove) => {
            Some(Edit::Adjust { add: add.unwrap_or_default(), remove: remove.unwrap_or_default() })
        }
    }
}

/// One address, or an empty text that takes it away; an invalid one counts as not sent.
pub(crate) fn address(sent: &Parameters, name: &str) -> Option<String> {
    let value = sent.get(name)?.trim().to_lowercase();
    (value.is_empty() || is_foreign(&value)).then_some(value)
}

/// A next hop or transport of Postfix (`relay:[mx.example.com]:25`), or an empty text.
pub(crate) fn transport(value: &str) -> Option<String> {
    let value = value.trim();
    let fits = value.len() <= 255
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b".:[]-_/@".contains(&b))
        && !value.starts_with('-');
    fits.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_addresses() {
        for (text, expected) in [
            ("a.example", true),
            ("a-b.xn--p1ai", true),
            ("example", false),
            ("a..example", false),
            ("-a.example", false),
            ("a_b.example", false),
            ("A.example", false),
            ("1.2.3.4", false),
            ("a.example/", false),
            ("größe.example", false),
            ("", false),
        ] {
            assert_eq!(is_domain(text), expected, "{text}");
        }
        for (text, account, foreign) in [
            ("u@a.example", true, true),
            ("john.doe_1@a.example", true, true),
            ("u+x@a.example", false, true),
            ("a/b@a.example", false, true),
            ("u@localhost", false, false),
            ("u", false, false),
            ("@a.example", false, false),
            ("u@a.example,v@a.example", false, false),
        ] {
            assert_eq!((is_account(text), is_foreign(text)), (account, foreign), "{text}");
        }
    }

    #[test]
    fn values_that_do_not_fit_count_as_not_sent() {
        let sent = Parameters::from([
            ("quota", "1024"),
            ("low", "-2"),
            ("word", "many"),
            ("language", "en_US"),
            ("preferredLanguage", "xx"),
            ("accountStatus", "paused"),
        ]);
        assert_eq!(number(&sent, "quota", 0), Some(1024));
        assert_eq!(
            (number(&sent, "low", -1), number(&sent, "word", 0), number(&sent, "none", 0)),
            (None, None, None)
        );
        assert_eq!(language(&sent).as_deref(), Some("en_US"));
        assert_eq!(language(&[("language", "english")].into()), None);
        assert_eq!(status(&sent), None);
        assert_eq!(text(" a\nb\u{0} "), "ab");
        assert_eq!(transport("relay:[mx.x.example]:25").as_deref(), Some("relay:[mx.x.example]:25"));
        assert_eq!(transport("relay:x\ny"), None);
        assert_eq!(transport("a b"), None);
    }

    #[test]
    fn changes_of_lists() {
        let names = ["forwarding", "addForwarding", "removeForwarding"];
        let sent = Parameters::from([("addForwarding", "A@x.example, bad,a@x.example")]);
        let expected = Edit::Adjust { add: vec!["a@x.example".to_owned()], remove: Vec::new() };
        assert_eq!(edit(&sent, names, is_foreign), Some(expected));
        let sent = Parameters::from([("forwarding", ""), ("addForwarding", "a@x.example")]);
        assert_eq!(edit(&sent, names, is_foreign), Some(Edit::Replace(Vec::new())));
        assert_eq!(edit(&Parameters::default(), names, is_foreign), None);
    }
}
