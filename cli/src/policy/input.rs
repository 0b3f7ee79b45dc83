//! What an administrator types: accounts, addresses, domains, limits; and the answer to a question.

use std::io::{self, IsTerminal, Write as _};

use outrider_core::address::Reading;
use outrider_core::directory::write::AccountKey;
use outrider_core::lookup::Form;
use outrider_core::settings::Size;
use outrider_policyd::Settings;

use crate::failure::Failure;
use crate::output::printable;

/// The keys among what was typed, and what was none of the wanted ones.
pub(crate) fn keys(
    typed: &[String],
    reading: Reading,
    wanted: impl Fn(&AccountKey) -> bool,
) -> (Vec<AccountKey>, Vec<String>) {
    let (mut keys, mut invalid) = (Vec::new(), Vec::new());
    for text in typed {
        match AccountKey::parse_as(text, reading).filter(&wanted) {
            Some(key) if keys.contains(&key) => {}
            Some(key) => keys.push(key),
            None => invalid.push(text.clone()),
        }
    }
    (keys, invalid)
}

/// What to remove: in the spelling that is written, and as it was typed, since other programs write rows in other ones.
pub(crate) fn texts(typed: &[String]) -> Vec<String> {
    let mut texts = Vec::new();
    for text in typed {
        let key = AccountKey::parse(text).map_or(text.trim().to_lowercase(), |key| key.to_string());
        for text in [key, text.trim().to_owned()] {
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    texts
}

/// Which of those that were to be removed were not there.
pub(crate) fn missing<'a>(typed: &'a [String], removed: &[String]) -> impl Iterator<Item = &'a String> {
    let removed: Vec<String> = removed.iter().map(|text| text.to_lowercase()).collect();
    typed.iter().filter(move |typed| {
        !texts(std::slice::from_ref(typed)).iter().any(|text| removed.contains(&text.to_lowercase()))
    })
}

/// One key, if it is wanted.
pub(crate) fn key(
    typed: &str,
    reading: Reading,
    wanted: impl Fn(&AccountKey) -> bool,
    forms: &str,
) -> Result<AccountKey, Failure> {
    AccountKey::parse_as(typed, reading)
        .filter(wanted)
        .ok_or_else(|| Failure::data(format!("\"{}\" is no {forms}", printable(typed))))
}

/// What a mail address is covered by, for messages.
pub(crate) const ACCOUNT_FORMS: &str = "account: write user@domain, @domain, @.domain or @. (everybody)";

/// An account: a mail address or what covers mail addresses.
pub(crate) fn account(typed: &str, reading: Reading) -> Result<AccountKey, Failure> {
    key(typed, reading, |key| key.form().covers_addresses(), ACCOUNT_FORMS)
}

/// Whether an address has an extension, without which most rules look for it.
pub(crate) fn has_extension(settings: &Settings, address: &AccountKey) -> bool {
    settings.without_extension(address.as_str()) != address.as_str()
}

/// A key to remove: other programs also write what nothing looks for.
pub(crate) fn written(typed: &str) -> Result<AccountKey, Failure> {
    key(typed, Reading::Rfc5321, |_| true, "account, sender or client that a table can hold")
}

/// A domain, with or without an `@` before it.
pub(crate) fn domain(typed: &str) -> Option<String> {
    let name = typed.trim().trim_start_matches('@').trim_end_matches('.');
    let key = AccountKey::parse(&format!("@{name}")).filter(|key| key.form() == Form::Domain)?;
    let name = key.as_str().strip_prefix('@').unwrap_or_default().to_owned();
    (name.contains('.') && name.len() <= 253 && !name.contains('+')).then_some(name)
}

/// The domains among what was typed, and what is none.
pub(crate) fn domains(typed: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut domains, mut invalid) = (Vec::new(), Vec::new());
    for text in typed {
        match domain(text) {
            Some(name) if domains.contains(&name) => {}
            Some(name) => domains.push(name),
            None => invalid.push(text.clone()),
        }
    }
    (domains, invalid)
}

/// Says what was passed over; the exit status that follows.
pub(crate) fn report_invalid(invalid: &[String], forms: &str) -> u8 {
    for text in invalid {
        eprintln!("outrider: passed over \"{}\": no {forms}", printable(text));
    }
    if invalid.is_empty() { 0 } else { crate::exit::BAD_DATA }
}

/// A limit: a number, a size, `inherit` (-1) or `unlimited` (0).
pub(crate) fn limit(text: &str) -> Result<i64, String> {
    match text.trim() {
        "inherit" | "-1" => Ok(-1),
        "unlimited" => Ok(0),
        other => {
            let size: Size = other.parse().map_err(|_| {
                format!("\"{other}\" is no limit: write a number, a size such as 50MiB, unlimited or inherit")
            })?;
            i64::try_from(size.0).map_err(|error| error.to_string())
        }
    }
}

/// Asks before something is lost. Without a terminal nobody can be asked, and nothing is done.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody can be asked here: say --yes")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(crate::exit::NEGATIVE, "nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_as_they_are_typed() {
        for (typed, expected) in [
            ("Example.com", Some("example.com")),
            ("@example.com", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("localhost", None),
            ("@.example.com", None),
            ("user@example.com", None),
            ("exa mple.com", None),
            ("", None),
        ] {
            assert_eq!(domain(typed).as_deref(), expected, "{typed}");
        }
    }

    #[test]
    fn limits_as_they_are_typed() {
        for (typed, expected) in [
            ("inherit", Ok(-1)),
            ("-1", Ok(-1)),
            ("unlimited", Ok(0)),
            ("0", Ok(0)),
            ("250", Ok(250)),
            ("10MiB", Ok(10 << 20)),
        ] {
            assert_eq!(limit(typed), expected, "{typed}");
        }
        assert!(limit("-2").is_err() && limit("many").is_err() && limit("").is_err());
    }

    #[test]
    fn addresses_in_both_readings() {
        for (typed, iredapd, rfc5321) in [
            ("A@Example.com", true, true),
            ("O'Brien@example.com", false, true),
            ("\"a b\"@example.com", false, true),
            ("a\nb@example.com", false, false),
            ("a@@", false, false),
            ("nobody", false, false),
        ] {
            for (reading, good) in [(Reading::Iredapd, iredapd), (Reading::Rfc5321, rfc5321)] {
                let key = account(typed, reading).ok();
                let expected = good.then(|| typed.to_lowercase());
                assert_eq!(key.map(|key| key.to_string()), expected, "{typed:?} {reading:?}");
            }
        }
    }

    #[test]
    fn invalid_ones_do_not_stop_the_others() {
        let typed = ["A@example.com", "nonsense", "a@example.com", "192.0.2.0/24"].map(str::to_owned);
        let (keys, invalid) = keys(&typed, Reading::Iredapd, |_| true);
        assert_eq!(
            keys.iter().map(AccountKey::as_str).collect::<Vec<_>>(),
            ["a@example.com", "192.0.2.0/24"]
        );
        assert_eq!(invalid, ["nonsense"]);
    }
}
