//! Search filters and names of entries, in which no text from outside can be anything but a value.

use ldap3::{dn_escape, ldap_escape};
use std::fmt;

/// A search filter (RFC 4515).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// An attribute has a value; compared as its schema says, which for all of iRedMail's ignores case.
    Is(&'static str, String),
    /// An attribute has any value.
    Present(&'static str),
    /// All of them.
    All(Vec<Filter>),
    /// Any of them.
    Any(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
}

impl Filter {
    pub(super) fn is(attribute: &'static str, value: &str) -> Filter {
        Filter::Is(attribute, value.to_owned())
    }

    pub(super) fn is_not(attribute: &'static str, value: &str) -> Filter {
        Filter::Not(Box::new(Filter::is(attribute, value)))
    }

    /// The entry is of this class.
    pub(super) fn class(name: &'static str) -> Filter {
        Filter::is("objectClass", name)
    }

    /// The account has this address, as its own or as a further one.
    pub(super) fn address(address: &str) -> Filter {
        Filter::Any(vec![Filter::is("mail", address), Filter::is("shadowAddress", address)])
    }

    /// The domain has this name, as its own or as a further one.
    pub(super) fn domain(name: &str) -> Filter {
        Filter::Any(vec![Filter::is("domainName", name), Filter::is("domainAliasName", name)])
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |out: &mut fmt::Formatter<'_>, sign: char, filters: &[Filter]| {
            write!(out, "({sign}")?;
            filters.iter().try_for_each(|filter| filter.fmt(out))?;
            out.write_str(")")
        };
        match self {
            Filter::Is(attribute, value) => write!(out, "({attribute}={})", ldap_escape(value.as_str())),
            Filter::Present(attribute) => write!(out, "({attribute}=*)"),
            Filter::All(filters) => several(out, '&', filters),
            Filter::Any(filters) => several(out, '|', filters),
            Filter::Not(filter) => write!(out, "(!{filter})"),
        }
    }
}

/// The name of the entry `attribute=value` directly below `parent` (RFC 4514).
pub(super) fn below(parent: &str, attribute: &str, value: &str) -> String {
    format!("{attribute}={},{parent}", dn_escape(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters() {
        for (filter, text) in [
            (Filter::is("mail", "a@b.example"), "(mail=a@b.example)"),
            (Filter::is("mail", "*)(mail=*"), r"(mail=\2a\29\28mail=\2a)"),
            (Filter::is("mail", "a\\b\0c"), r"(mail=a\5cb\00c)"),
            (Filter::is_not("domainStatus", "disabled"), "(!(domainStatus=disabled))"),
            (
                Filter::All(vec![Filter::class("mailUser"), Filter::address("x")]),
                "(&(objectClass=mailUser)(|(mail=x)(shadowAddress=x)))",
            ),
        ] {
            assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn names_of_entries() {
        for (value, name) in [
            ("example.com", "domainName=example.com,o=domains"),
            ("a,o=x", r"domainName=a\2co\3dx,o=domains"),
            ("#a+b\"<;>\\", r"domainName=\23a\2bb\22\3c\3b\3e\5c,o=domains"),
            (" a ", r"domainName=\20a\20,o=domains"),
            ("\0", r"domainName=\00,o=domains"),
        ] {
            assert_eq!(below("o=domains", "domainName", value), name);
        }
    }

    proptest! {
        /// Whatever the value, the parentheses that are left are those of the filter itself.
        #[test]
        fn no_value_leaves_its_place(value in any::<String>()) {
            let filter = Filter::All(vec![Filter::is("mail", &value), Filter::is_not("mail", &value)]);
            let text = filter.to_string();
            prop_assert_eq!(text.matches('(').count(), 4);
            prop_assert_eq!(text.matches(')').count(), 4);
            prop_assert!(!text.contains(['*', '\0']));
        }
    }
}
