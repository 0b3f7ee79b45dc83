//! For whom a rule holds: everybody, a domain or a user, in the spelling and with the priorities of the tables.

use std::fmt;
use std::net::IpAddr;

use crate::address::Reading;
use crate::lookup::{EVERYBODY, Form};
use crate::network;
use crate::sql::Db;

/// For whom a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody.
    Global,
    /// All users of a domain.
    Domain(String),
    /// One user.
    User(String),
}

impl Scope {
    /// The account as the tables hold it, in lower case: `@.`, `@domain`, `user@domain`.
    pub fn account(&self) -> String {
        match self {
            Scope::Global => "@.".to_owned(),
            Scope::Domain(domain) => format!("@{}", domain.to_lowercase()),
            Scope::User(user) => user.to_lowercase(),
        }
    }

    fn form(&self) -> Form {
        match self {
            Scope::Global => Form::Everybody,
            Scope::Domain(_) => Form::Domain,
            Scope::User(_) => Form::Address,
        }
    }
}

/// An account, sender or client as the tables name it, in any of their forms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    text: String,
    form: Form,
}

impl AccountKey {
    /// Everybody: `@.`
    pub fn everybody() -> AccountKey {
        AccountKey { text: EVERYBODY.to_owned(), form: Form::Everybody }
    }

    /// Reads what an administrator typed: folded to lower case, addresses and networks in their one spelling, by
    /// which the look-ups find them. `None` if it has none of the forms of [`Form`].
    pub fn parse(typed: &str) -> Option<AccountKey> {
        let mut text = typed.trim().to_lowercase();
        let form = Form::of(&text)?;
        match form {
            Form::Ip => text = text.parse::<IpAddr>().ok()?.to_string(),
            Form::Network => text = network::parse_strict(&text)?.to_string(),
            // The look-ups take an address by its beginning; nobody types the rest on purpose.
            _ if !text.chars().all(|c| c.is_alphanumeric() || "@._-+=/&#*".contains(c)) => return None,
            _ if text.matches('@').count() > 1 => return None,
            _ => {}
        }
        Some(AccountKey { text, form })
    }

    /// The same where more is an address than iRedAPD takes for one.
    pub fn parse_as(typed: &str, reading: Reading) -> Option<AccountKey> {
        AccountKey::parse(typed).or_else(|| {
            let text = typed.trim().to_lowercase();
            let is_address = reading.split(&text).is_some() && !text.chars().any(char::is_control);
            (is_address && reading == Reading::Rfc5321).then_some(AccountKey { text, form: Form::Address })
        })
    }

    /// The text in the tables.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it names.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The priority in the tables of policyd: the most particular rule wins.
    pub(super) fn policy_priority(&self) -> i64 {
        self.form.priority()
    }

    /// The priority in the tables of the content filter.
    pub(super) fn filter_priority(&self) -> i64 {
        self.form.amavisd_priority()
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl From<&Scope> for AccountKey {
    fn from(scope: &Scope) -> AccountKey {
        AccountKey { text: scope.account(), form: scope.form() }
    }
}

impl From<&AccountKey> for AccountKey {
    fn from(key: &AccountKey) -> AccountKey {
        key.clone()
    }
}

/// Rules about accounts in the databases of policyd and of the content filter. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) iredapd: Db,
    pub(super) amavisd: Db,
}

impl Rules {
    /// The rules in these databases.
    pub fn new(iredapd: Db, amavisd: Db) -> Self {
        Self { iredapd, amavisd }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_administrator_types() {
        for (typed, expected) in [
            (" User@Example.COM ", Some(("user@example.com", Form::Address))),
            ("@Example.com", Some(("@example.com", Form::Domain))),
            ("@.example.com", Some(("@.example.com", Form::Subdomain))),
            ("@.", Some(("@.", Form::Everybody))),
            ("@ip", Some(("@ip", Form::AtIp))),
            ("User@*", Some(("user@*", Form::LocalPart))),
            ("192.0.2.*", Some(("192.0.2.*", Form::WildcardIp))),
            ("2001:DB8:0:0::1", Some(("2001:db8::1", Form::Ip))),
            ("192.0.2.0/255.255.255.0", Some(("192.0.2.0/24", Form::Network))),
            ("192.0.2.1/24", None),
            ("example.com", None),
            ("user@example.com;drop", None),
            ("user@example.com@x.org", None),
            ("user@example.com\u{7f}", None),
            ("@exa'mple.com", None),
            ("", None),
        ] {
            let key = AccountKey::parse(typed);
            let key = key.as_ref().map(|key| (key.as_str(), key.form()));
            assert_eq!(key, expected, "{typed}");
        }
    }

    #[test]
    fn scopes_are_keys_with_the_same_priorities() {
        for (scope, priorities) in [
            (Scope::Global, (0, 0)),
            (Scope::Domain("example.com".into()), (60, 5)),
            (Scope::User("a@example.com".into()), (100, 10)),
        ] {
            let key = AccountKey::from(&scope);
            assert_eq!((key.policy_priority(), key.filter_priority()), priorities, "{key}");
            assert_eq!(AccountKey::parse(&scope.account()).as_ref(), Some(&key));
        }
        assert_eq!(Scope::Domain("Example.com".into()).account(), "@example.com");
        assert_eq!(Scope::User("A@Example.com".into()).account(), "a@example.com");
    }
}
