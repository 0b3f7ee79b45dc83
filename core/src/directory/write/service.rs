//! The `enable...` columns of `mailbox`: which services a user may use.
//!
//! The names of columns cannot be bound as values, so each service has its statements spelled out here.

use super::Edit;
use crate::sql::{Stmt, Value};

/// A service and the statement that switches it for one user.
pub(super) struct Service {
    /// Its name in requests and in `disabled_mail_services`.
    pub(super) name: &'static str,
    /// Whether administrators see it; the others belong to Dovecot's inner workings and are never part of a
    /// replacement of all services.
    public: bool,
    /// Whether the column holds `y` and `n` instead of 1 and 0.
    letter: bool,
    /// `UPDATE ... SET column = ? WHERE username = ?`
    pub(super) switch: Stmt,
}

impl Service {
    /// What the column holds.
    pub(super) fn value(&self, on: bool) -> Value {
        match (self.letter, on) {
            (true, true) => "y".into(),
            (true, false) => "n".into(),
            (false, on) => on.into(),
        }
    }
}

macro_rules! service {
    ($name:literal, $public:expr, $letter:expr) => {
        Service {
            name: $name,
            public: $public,
            letter: $letter,
            // One name holds a hyphen, so the column is quoted on all servers.
            switch: Stmt::per_engine(
                concat!("UPDATE mailbox SET `enable", $name, "` = ? WHERE username = ?"),
                concat!("UPDATE mailbox SET \"enable", $name, "\" = ? WHERE username = ?"),
                concat!("UPDATE mailbox SET \"enable", $name, "\" = ? WHERE username = ?"),
            ),
        }
    };
}

/// All services that have a column.
pub(super) const SERVICES: &[Service] = &[
    service!("smtp", true, false),
    service!("smtpsecured", true, false),
    service!("pop3", true, false),
    service!("pop3secured", true, false),
    service!("pop3tls", true, false),
    service!("imap", true, false),
    service!("imapsecured", true, false),
    service!("imaptls", true, false),
    service!("managesieve", true, false),
    service!("managesievesecured", true, false),
    service!("sieve", true, false),
    service!("sievesecured", true, false),
    service!("sievetls", true, false),
    service!("deliver", true, false),
    service!("lda", false, false),
    service!("lmtp", false, false),
    service!("internal", false, false),
    service!("doveadm", false, false),
    service!("lib-storage", false, false),
    service!("quota-status", false, false),
    service!("indexer-worker", false, false),
    service!("dsync", false, false),
    service!("sogo", true, false),
    service!("sogowebmail", true, true),
    service!("sogocalendar", true, true),
    service!("sogoactivesync", true, true),
];

/// The services to switch and the way to switch them; names without a column are ignored.
pub(super) fn switches(edit: &Edit) -> Vec<(&'static Service, bool)> {
    let named = |names: &[String], service: &Service| names.iter().any(|name| name == service.name);
    let decide = |service: &Service| match edit {
        Edit::Replace(names) if named(names, service) => Some(true),
        Edit::Replace(_) => service.public.then_some(false),
        Edit::Adjust { remove, .. } if named(remove, service) => Some(false),
        Edit::Adjust { add, .. } => named(add, service).then_some(true),
    };
    SERVICES.iter().filter_map(|service| decide(service).map(|on| (service, on))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(edit: &Edit, on: bool) -> Vec<&'static str> {
        switches(edit)
            .into_iter()
            .filter(|(_, is_on)| *is_on == on)
            .map(|(service, _)| service.name)
            .collect()
    }

    #[test]
    fn only_named_services_are_switched() {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let edit = Edit::Adjust { add: texts(&["pop3", "unknown"]), remove: texts(&["imap"]) };
        assert_eq!((names(&edit, true), names(&edit, false)), (vec!["pop3"], vec!["imap"]));
        let edit = Edit::Replace(texts(&["imap", "sogowebmail"]));
        assert_eq!(names(&edit, true), ["imap", "sogowebmail"]);
        let off = names(&edit, false);
        assert!(off.contains(&"smtp") && !off.contains(&"doveadm") && !off.contains(&"lmtp"));
    }

    #[test]
    fn columns_with_letters() {
        let letter = SERVICES.iter().find(|service| service.name == "sogowebmail").unwrap();
        assert_eq!(letter.value(false), Value::from("n"));
        assert_eq!(SERVICES[0].value(true), Value::from(1_i64));
    }
}
