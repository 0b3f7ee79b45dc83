//! For whom a rule holds: everybody, a domain or a user, in the spelling and with the priorities of the tables.

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
    /// The account as the tables hold it: `@.`, `@domain`, `user@domain`.
    pub fn account(&self) -> String {
        match self {
            Scope::Global => "@.".to_owned(),
            Scope::Domain(domain) => format!("@{domain}"),
            Scope::User(user) => user.clone(),
        }
    }

    /// The priority in the tables of policyd: the most particular rule wins.
    pub(super) fn policy_priority(&self) -> i64 {
        match self {
            Scope::Global => 0,
            Scope::Domain(_) => 60,
            Scope::User(_) => 100,
        }
    }

    /// The priority in the tables of the content filter.
    pub(super) fn filter_priority(&self) -> i64 {
        match self {
            Scope::Global => 0,
            Scope::Domain(_) => 5,
            Scope::User(_) => 10,
        }
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
