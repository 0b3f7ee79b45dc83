//! The keys under which lists and settings name an account, a domain or a client.
//!
//! Tables of an iRedMail server hold rules for `user@a.b.c`, `@a.b.c` (one domain), `@.b.c` (a domain and everything
//! below it), `@.` (everybody), `user@*`, client addresses, IPv4 addresses with `*`, and networks. A question about
//! an address is answered by asking for all keys that cover it at once. How specific a key is stands in a priority
//! column of the table; two scales are in use, see [`Form`].

use std::net::{IpAddr, Ipv4Addr};

use crate::address::{self, Reading};
use crate::network;

/// The key that stands for everybody.
pub const EVERYBODY: &str = "@.";

/// The key that stands for every client address, each for itself; known to throttling only.
pub const EVERY_CLIENT: &str = "@ip";

/// All keys that cover an address, most telling first: for `user@a.b.c` they are `user@a.b.c`, `@a.b.c`, `@.`,
/// `@.a.b.c`, `@.b.c`, `@.c`, each once. An empty text, and one that is no address in this reading, is covered by `@.` only.
///
/// The address is taken as it is: lower-case it first.
pub fn policy_keys(address: &str, reading: Reading) -> Vec<String> {
    let Some((_, domain)) = reading.split(address) else { return vec![EVERYBODY.to_owned()] };
    let mut keys = vec![address.to_owned(), ["@", domain].concat(), EVERYBODY.to_owned()];
    for key in suffixes(domain).map(|suffix| ["@.", suffix].concat()) {
        // A domain with a dot at its end has a last suffix that is everybody's key.
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// `.a.b.c`, `.b.c`, `.c` for `a.b.c`: the dotted suffixes that name a domain together with what lies below it.
pub fn domain_suffixes(domain: &str) -> impl Iterator<Item = String> {
    suffixes(domain).map(|suffix| [".", suffix].concat())
}

/// `a.b.c`, `b.c`, `c` for `a.b.c`.
fn suffixes(domain: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(domain.match_indices('.').map(|(at, _)| at + 1));
    // A policy request is bounded to a few kilobytes, but a name of nothing but dots would still give thousands
    // of keys; no name of the DNS has more than 127 labels.
    starts.take(128).map(|at| &domain[at..])
}

/// The keys with `*` in place of one or more octets of an IPv4 address: `a.b.c.*` and `a.b.*.d`, or with `all`
/// the ten combinations that iRedAPD tries. Empty for anything that is not an IPv4 address in dotted form.
pub fn wildcard_ipv4(client: &str, all: bool) -> Vec<String> {
    let Ok(ip) = client.parse::<Ipv4Addr>() else { return Vec::new() };
    let [a, b, c, d] = ip.octets();
    if !all {
        return vec![format!("{a}.{b}.{c}.*"), format!("{a}.{b}.*.{d}")];
    }
    vec![
        format!("*.{b}.{c}.{d}"),
        format!("{a}.*.{c}.{d}"),
        format!("{a}.{b}.*.{d}"),
        format!("{a}.{b}.{c}.*"),
        format!("*.*.{c}.{d}"),
        format!("*.*.*.{d}"),
        "*.*.*.*".to_owned(),
        format!("{a}.*.*.{d}"),
        format!("{a}.*.*.*"),
        format!("{a}.{b}.*.*"),
    ]
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `user@domain`
    Address,
    /// `user@*`: this local part under any domain.
    LocalPart,
    /// A client's IPv4 or IPv6 address.
    Ip,
    /// An IPv4 address with `*` for some octets.
    WildcardIp,
    /// A network in CIDR notation.
    Network,
    /// `@domain`
    Domain,
    /// `@.domain`: the domain and everything below it.
    Subdomain,
    /// `@.tld`: everything below one top-level domain.
    TopLevel,
    /// The word `@ip`: every client address, each for itself (throttling only).
    AtIp,
    /// `@.`: everybody.
    Everybody,
}

impl Form {
    /// Recognises a key; `None` if it has none of the forms.
    pub fn of(key: &str) -> Option<Form> {
        if key == EVERYBODY {
            return Some(Form::Everybody);
        }
        if key == EVERY_CLIENT {
            return Some(Form::AtIp);
        }
        if key.parse::<IpAddr>().is_ok() {
            return Some(Form::Ip);
        }
        if is_wildcard_ip(key) {
            return Some(Form::WildcardIp);
        }
        if key.contains('/') && network::parse_strict(key).is_some() {
            return Some(Form::Network);
        }
        if let Some(rest) = key.strip_prefix('@') {
            return match rest.strip_prefix('.') {
                Some(suffix) if !is_domain(suffix) => None,
                Some(suffix) if suffix.contains('.') => Some(Form::Subdomain),
                Some(_) => Some(Form::TopLevel),
                None => is_domain(rest).then_some(Form::Domain),
            };
        }
        if let Some(local) = key.strip_suffix("@*") {
            return (!local.is_empty() && !local.contains(['@', ' '])).then_some(Form::LocalPart);
        }
        address::is_valid_iredapd(key).then_some(Form::Address)
    }

    /// Whether it is one of the keys that cover a mail address (see [`policy_keys`]).
    pub fn covers_addresses(self) -> bool {
        matches!(self, Form::Address | Form::Domain | Form::Subdomain | Form::TopLevel | Form::Everybody)
    }

    /// The value of the priority columns of the greylisting and throttle tables.
    pub fn priority(self) -> i64 {
        match self {
            Form::Address => 100,
            Form::LocalPart => 90,
            Form::Ip => 80,
            Form::WildcardIp | Form::Network => 70,
            Form::Domain => 60,
            Form::Subdomain => 50,
            Form::TopLevel => 40,
            Form::AtIp | Form::Everybody => 0,
        }
    }

    /// The value of the priority columns of the content filter's `mailaddr` and `users` tables.
    pub fn amavisd_priority(self) -> i64 {
        match self {
            Form::Address => 10,
            Form::Ip => 9,
            Form::WildcardIp => 8,
            Form::LocalPart | Form::Network => 7,
            Form::Domain => 5,
            Form::Subdomain => 3,
            Form::TopLevel => 2,
            Form::AtIp => 1,
            Form::Everybody => 0,
        }
    }
}

/// Whether the text is four dot-separated octets of which at least one is `*`.
pub fn is_wildcard_ip(text: &str) -> bool {
    let mut octets = 0;
    let mut stars = 0;
    for octet in text.split('.') {
        octets += 1;
        match octet {
            "*" => stars += 1,
            _ if octet.len() <= 3
                && octet.bytes().all(|b| b.is_ascii_digit())
                && octet.parse::<u8>().is_ok() => {}
            _ => return false,
        }
    }
    octets == 4 && stars > 0
}

fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| !label.is_empty() && !label.contains(['@', ' ', '*', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_address() {
        let table: [(&str, &[&str]); 6] = [
            ("user@a.b.com", &["user@a.b.com", "@a.b.com", "@.", "@.a.b.com", "@.b.com", "@.com"]),
            ("user@b.com", &["user@b.com", "@b.com", "@.", "@.b.com", "@.com"]),
            ("user@b.com.", &["user@b.com.", "@b.com.", "@.", "@.b.com.", "@.com."]),
            ("", &["@."]),
            ("nodomain", &["@."]),
            ("root@localhost", &["@."]),
        ];
        for (address, expected) in table {
            assert_eq!(policy_keys(address, Reading::Iredapd), expected, "{address}");
        }
    }

    #[test]
    fn keys_of_every_address() {
        let table: [(&str, &[&str]); 5] = [
            ("o'brien@a.test", &["o'brien@a.test", "@a.test", "@.", "@.a.test", "@.test"]),
            ("root@localhost", &["root@localhost", "@localhost", "@.", "@.localhost"]),
            ("\"x@b.co\"@a.test", &["\"x@b.co\"@a.test", "@a.test", "@.", "@.a.test", "@.test"]),
            ("nodomain", &["@."]),
            ("", &["@."]),
        ];
        for (address, expected) in table {
            assert_eq!(policy_keys(address, Reading::Rfc5321), expected, "{address}");
        }
    }

    #[test]
    fn keys_stay_few_however_many_dots() {
        let address = format!("user@a{}com", ".".repeat(5000));
        for reading in [Reading::Iredapd, Reading::Rfc5321] {
            assert!(policy_keys(&address, reading).len() < 140);
        }
    }

    #[test]
    fn wildcards_of_a_client() {
        assert_eq!(wildcard_ipv4("192.0.2.7", false), ["192.0.2.*", "192.0.*.7"]);
        assert!(wildcard_ipv4("2001:db8::1", true).is_empty());
        assert!(wildcard_ipv4("unknown", false).is_empty());
        let all = wildcard_ipv4("192.0.2.7", true);
        assert_eq!(all.len(), 10);
        for key in ["*.0.2.7", "192.*.*.*", "*.*.*.*", "192.0.*.*", "192.*.*.7"] {
            assert!(all.iter().any(|k| k == key), "{key}");
        }
        for absent in ["192.*.2.*", "*.0.*.7"] {
            assert!(!all.iter().any(|k| k == absent), "{absent}");
        }
        assert!(all.iter().all(|key| is_wildcard_ip(key)));
    }

    #[test]
    fn forms_and_their_priorities() {
        let table = [
            ("user@example.com", Some(Form::Address), 100, 10),
            ("user@*", Some(Form::LocalPart), 90, 7),
            ("192.0.2.7", Some(Form::Ip), 80, 9),
            ("2001:db8::1", Some(Form::Ip), 80, 9),
            ("192.0.2.*", Some(Form::WildcardIp), 70, 8),
            ("192.0.2.0/24", Some(Form::Network), 70, 7),
            ("2001:db8::/32", Some(Form::Network), 70, 7),
            ("@example.com", Some(Form::Domain), 60, 5),
            ("@.example.com", Some(Form::Subdomain), 50, 3),
            ("@.com", Some(Form::TopLevel), 40, 2),
            ("@ip", Some(Form::AtIp), 0, 1),
            ("@.", Some(Form::Everybody), 0, 0),
            ("", None, 0, 0),
            ("@", None, 0, 0),
            ("192.0.2.1/24", None, 0, 0),
            ("example", None, 0, 0),
            ("*.*.*", None, 0, 0),
            ("@..com", None, 0, 0),
        ];
        for (key, form, priority, amavisd) in table {
            assert_eq!(Form::of(key), form, "{key}");
            if let Some(form) = form {
                assert_eq!((form.priority(), form.amavisd_priority()), (priority, amavisd), "{key}");
            }
        }
    }
}
