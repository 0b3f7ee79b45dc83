//! Who asks, and what that person may do.
//!
//! Rights are read from the tables at each request, so taking them away works at once.

use std::net::IpAddr;

use outrider_core::directory::write::{AdminAccount, AdminKind, DomainSettings};

/// How far somebody's rights reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Level {
    /// Everything.
    Global,
    /// The accounts of these domains.
    Domains(Vec<String>),
    /// Some of the own mailbox.
    OwnMailbox,
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The address.
    pub(crate) username: String,
    /// The rights.
    pub(crate) level: Level,
    /// The address of the client.
    pub(crate) client: Option<IpAddr>,
}

/// The level of an account, or `None` if it may not log in. `settings` are those of the account's domain.
pub(crate) fn level_of(account: &AdminAccount, settings: Option<&DomainSettings>) -> Option<Level> {
    if account.global {
        return Some(Level::Global);
    }
    if account.admin && (account.kind == AdminKind::StandAlone || !account.domains.is_empty()) {
        return Some(Level::Domains(account.domains.clone()));
    }
    let self_service = settings
        .is_some_and(|settings| settings.list("enabled_services").iter().any(|s| s == "self-service"));
    (account.kind == AdminKind::MailUser && self_service).then_some(Level::OwnMailbox)
}

impl Actor {
    /// Whether everything is allowed.
    pub(crate) fn is_global(&self) -> bool {
        self.level == Level::Global
    }

    /// Whether the accounts of `domain` are in the actor's care.
    pub(crate) fn manages(&self, domain: &str) -> bool {
        match &self.level {
            Level::Global => true,
            Level::Domains(domains) => domains.iter().any(|own| own == domain),
            Level::OwnMailbox => false,
        }
    }

    /// The domains to which lists are restricted; `None` for no restriction.
    pub(crate) fn domains(&self) -> Option<&[String]> {
        match &self.level {
            Level::Global => None,
            Level::Domains(domains) => Some(domains),
            Level::OwnMailbox => Some(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let account = |kind, global, admin, domains: &[&str]| AdminAccount {
            username: "a@x.example".to_owned(),
            password: String::new(),
            kind,
            global,
            admin,
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        };
        let open = DomainSettings::parse("enabled_services:self-service;");
        let closed = DomainSettings::parse("enabled_services:other;");
        let domains = |names: &[&str]| Some(Level::Domains(names.iter().map(|n| (*n).to_owned()).collect()));
        for (account, settings, expected) in [
            (account(AdminKind::StandAlone, true, true, &[]), None, Some(Level::Global)),
            (account(AdminKind::MailUser, true, false, &[]), Some(&closed), Some(Level::Global)),
            (account(AdminKind::StandAlone, false, true, &["a.example"]), None, domains(&["a.example"])),
            (account(AdminKind::StandAlone, false, true, &[]), None, domains(&[])),
            (
                account(AdminKind::MailUser, false, true, &["a.example"]),
                Some(&closed),
                domains(&["a.example"]),
            ),
            (account(AdminKind::MailUser, false, true, &[]), Some(&closed), None),
            (account(AdminKind::MailUser, false, false, &["a.example"]), Some(&closed), None),
            (account(AdminKind::MailUser, false, false, &[]), Some(&open), Some(Level::OwnMailbox)),
            (account(AdminKind::MailUser, false, false, &[]), None, None),
        ] {
            assert_eq!(level_of(&account, settings), expected, "{account:?}");
        }
    }

    #[test]
    fn reach() {
        let actor = |level| Actor { username: "a@x.example".to_owned(), level, client: None };
        let some = actor(Level::Domains(vec!["a.example".to_owned()]));
        assert!(some.manages("a.example") && !some.manages("b.example") && !some.is_global());
        assert!(actor(Level::Global).manages("b.example"));
        assert!(!actor(Level::OwnMailbox).manages("x.example"));
        assert_eq!(actor(Level::OwnMailbox).domains(), Some(&[][..]));
    }
}
