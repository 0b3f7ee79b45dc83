//! The log of administrative actions, table `iredadmin.log`, which the panel shows.
//!
//! One row for each change that was made; passwords are never part of it. If the row cannot be written the change stands
//! and the line is in the daemon's own log, as every request is.

use outrider_core::directory::write::Scope;
use outrider_core::sql::{Db, Stmt};

use super::actor::Actor;
use super::route::{Call, Verb};
use crate::http::Parameters;

const INSERT: Stmt = Stmt::same(
    "INSERT INTO log (admin, ip, domain, username, event, loglevel, msg) VALUES (?, ?, ?, ?, ?, 'info', ?)",
);

/// Where actions are written down.
#[derive(Debug, Clone)]
pub(crate) struct Journal(Db);

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    admin: String,
    ip: String,
    domain: String,
    username: String,
    event: &'static str,
    message: String,
}

impl Journal {
    /// The log in this database.
    pub(crate) fn new(iredadmin: Db) -> Self {
        Self(iredadmin)
    }

    /// Writes down an action that was done.
    pub(crate) async fn write(&self, entry: &Entry) {
        let row = [
            (&entry.admin).into(),
            (&entry.ip).into(),
            (&entry.domain).into(),
            (&entry.username).into(),
            entry.event.into(),
            (&entry.message).into(),
        ];
        if let Err(error) = self.0.execute(&INSERT, &row).await {
            tracing::warn!(event = "action not in the log table", admin = %entry.admin, reason = %error);
        }
    }
}

/// What to write down for a call; `None` for those that change nothing.
pub(crate) fn entry(call: &Call, actor: &Actor, sent: &Parameters) -> Option<Entry> {
    if let Some((what, scope)) = rule(call) {
        let account = scope.account();
        let (domain, username) = match scope {
            Scope::Global => ("", ""),
            Scope::Domain(domain) => (domain.as_str(), ""),
            Scope::User(user) => (user.rsplit_once('@').map_or("", |(_, domain)| domain), user.as_str()),
        };
        return Some(Entry {
            admin: actor.username.clone(),
            ip: actor.client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
            domain: domain.to_owned(),
            username: username.to_owned(),
            event: if matches!(call, Call::Listed(..)) { "update_wblist" } else { "update" },
            message: format!("[API] update {what}: {account}"),
        });
    }
    // A change of the status alone has events of its own.
    let update = match sent.get("accountStatus") {
        Some("active") => "active",
        Some("disabled") => "disable",
        _ => "update",
    };
    let (event, what, name) = match call {
        Call::Domain(Verb::Create, domain) => ("create", "domain", domain),
        Call::Domain(Verb::Update, domain) => (update, "domain", domain),
        Call::DeleteDomain(domain, _) => ("delete", "domain", domain),
        Call::DomainAdmins(domain) => ("grant", "admins of domain", domain),
        Call::ChangeUsers(domain) => (update, "all users of domain", domain),
        Call::User(Verb::Create, user) => ("create", "user", user),
        Call::User(Verb::Update, user) => (update, "user", user),
        Call::DeleteUser(user, _) => ("delete", "user", user),
        Call::RenameUser(user, _) => ("update", "address of user", user),
        Call::Alias(Verb::Create, alias) => ("create", "alias", alias),
        Call::Alias(Verb::Update, alias) => (update, "alias", alias),
        Call::Alias(Verb::Delete, alias) => ("delete", "alias", alias),
        Call::RenameAlias(alias, _) => ("update", "address of alias", alias),
        Call::Admin(Verb::Create, admin) => ("create", "admin", admin),
        Call::Admin(Verb::Update, admin) => (update, "admin", admin),
        Call::Admin(Verb::Delete, admin) => ("delete", "admin", admin),
        _ => return None,
    };
    let (domain, username) = match name.rsplit_once('@') {
        Some((_, domain)) => (domain, name.as_str()),
        None => (name.as_str(), ""),
    };
    let to = match call {
        Call::RenameUser(_, new) | Call::RenameAlias(_, new) => format!(" -> {new}"),
        _ => String::new(),
    };
    Some(Entry {
        admin: actor.username.clone(),
        ip: actor.client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
        domain: domain.to_owned(),
        username: username.to_owned(),
        event,
        message: format!("[API] {event} {what}: {name}{to}"),
    })
}

/// What a call changes about an account besides the account.
fn rule(call: &Call) -> Option<(&'static str, &Scope)> {
    match call {
        Call::Throttle(Verb::Read, ..)
        | Call::Greylisting(Verb::Read, _)
        | Call::GreylistingSenders(Verb::Read, _)
        | Call::Listed(Verb::Read, ..)
        | Call::SpamPolicy(Verb::Read, _) => None,
        Call::Throttle(_, scope, _) => Some(("throttle", scope)),
        Call::Greylisting(_, scope) => Some(("greylisting", scope)),
        Call::GreylistingSenders(_, scope) => Some(("greylisting whitelist", scope)),
        Call::GreylistingDomains => Some(("greylisting whitelist domains", &Scope::Global)),
        Call::Listed(_, scope, ..) => Some(("wblist", scope)),
        Call::SpamPolicy(_, scope) => Some(("spam policy", scope)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::actor::Level;
    use super::*;

    #[test]
    fn changes_are_written_down_and_reading_is_not() {
        let actor = Actor { username: "root@x.example".to_owned(), level: Level::Global, client: None };
        let text = str::to_owned;
        for (call, sent, expected) in [
            (Call::Domains, Parameters::default(), None),
            (Call::User(Verb::Read, text("u@a.example")), Parameters::default(), None),
            (
                Call::User(Verb::Update, text("u@a.example")),
                [("password", "secret"), ("accountStatus", "disabled")].into(),
                Some(("a.example", "u@a.example", "[API] disable user: u@a.example")),
            ),
            (
                Call::RenameUser(text("u@a.example"), text("v@a.example")),
                Parameters::default(),
                Some((
                    "a.example",
                    "u@a.example",
                    "[API] update address of user: u@a.example -> v@a.example",
                )),
            ),
            (
                Call::Domain(Verb::Create, text("a.example")),
                Parameters::default(),
                Some(("a.example", "", "[API] create domain: a.example")),
            ),
        ] {
            let entry = entry(&call, &actor, &sent);
            let parts = entry.as_ref().map(|e| (e.domain.as_str(), e.username.as_str(), e.message.as_str()));
            assert_eq!(parts, expected, "{call:?}");
        }
    }
}
