//! Changes of accounts: domains, mail users, aliases, mailing lists and administrators in the `vmail` tables.
//!
//! Each operation is one transaction, on MySQL/MariaDB, PostgreSQL and SQLite alike, and checks what it depends on
//! inside it, so that two administrators at once cannot make what each of them alone could not. Who may do
//! something is not decided here, except for the limits that belong to a domain.
//!
//! What other databases hold about an account (limits, greylisting, black and white lists, content policies) is
//! removed or renamed after the accounts themselves; if such a database is down, the change of the account stands and
//! the rest is logged.
//!
//! Addresses and domains are written and looked up in lower case; callers pass them that way. Points in time are
//! `YYYY-MM-DD HH:MM:SS` in UTC.

mod admin;
mod alias;
mod domain;
mod domain_settings;
mod greylisting;
mod greylisting_domains;
mod list;
mod rename;
mod scope;
mod service;
mod spam_policy;
mod throttle;
mod trace;
mod user;
mod user_removal;
mod wblist;

pub use admin::{AdminAccount, AdminChange, AdminKind, NewAdmin};
pub use alias::AliasChange;
pub use domain::{DomainChange, NewDomain};
pub use domain_settings::DomainSettings;
pub use greylisting::Edited;
pub use list::{AccessPolicy, ListChange, NewList};
pub use scope::{AccountKey, Rules, Scope};
pub use spam_policy::PolicyColumn;
pub use throttle::{FixedPriority, Throttle, ThrottleKind};
pub use user::{NewUser, UserChange};
pub use wblist::{Colour, Direction, ListedAddress};

use crate::sql::{Db, DbError, Stmt, Transaction, Value};

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The domain is not hosted here.
    #[error("no such domain")]
    NoSuchDomain,
    /// The account does not exist.
    #[error("no such account")]
    NoSuchAccount,
    /// The address or domain is taken.
    #[error("already exists")]
    AlreadyExists,
    /// The domain may not have accounts of this kind.
    #[error("the domain may not have such accounts")]
    NotAllowed,
    /// The domain has as many accounts of this kind as it may have.
    #[error("the domain has no account left")]
    AccountLimit,
    /// The domain's quota is used up, or its limit for one mailbox is lower.
    #[error("the quota exceeds that of the domain")]
    QuotaLimit,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Result of a change.
pub type Result<T> = std::result::Result<T, AccountError>;

/// The accounts of an installation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    vmail: Db,
    /// Where limits and greylisting are kept, if known.
    iredapd: Option<Db>,
    /// Where black and white lists and content policies are kept, if known.
    amavisd: Option<Db>,
}

/// What becomes of a list of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// These instead of what there is.
    Replace(Vec<String>),
    /// These as well, then those no longer.
    Adjust {
        /// Values to add.
        add: Vec<String>,
        /// Values to take away.
        remove: Vec<String>,
    },
}

impl Edit {
    /// The same in lower case.
    fn lowered(&self) -> Edit {
        let lower = |values: &[String]| values.iter().map(|value| value.to_lowercase()).collect();
        match self {
            Edit::Replace(values) => Edit::Replace(lower(values)),
            Edit::Adjust { add, remove } => Edit::Adjust { add: lower(add), remove: lower(remove) },
        }
    }

    /// The values after the change, without duplicates, in the order they were.
    pub fn apply(&self, current: Vec<String>) -> Vec<String> {
        let (mut values, remove): (Vec<String>, &[String]) = match self {
            Edit::Replace(values) => (values.clone(), &[]),
            Edit::Adjust { add, remove } => {
                (current.into_iter().chain(add.iter().cloned()).collect(), remove)
            }
        };
        let mut seen = std::collections::HashSet::new();
        values.retain(|value| !remove.contains(value) && seen.insert(value.clone()));
        values
    }
}

/// A change that is made but not lasting yet, for callers that have something else to do in step with it, such as
/// files. Dropping it undoes the change.
#[must_use = "a pending change that is dropped is undone"]
pub struct Pending(Transaction);

impl Pending {
    /// Makes the change last.
    ///
    /// # Errors
    /// The database's; after a broken connection it is unknown whether the change lasts.
    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }
}

impl Accounts {
    /// The accounts in this database.
    pub fn new(vmail: Db) -> Self {
        Self { vmail, iredapd: None, amavisd: None }
    }

    /// Also cleans up what these databases hold about accounts that go or change their address.
    #[must_use]
    pub fn with_traces(self, iredapd: Db, amavisd: Db) -> Self {
        Self { iredapd: Some(iredapd), amavisd: Some(amavisd), ..self }
    }
}

/// The part after the last `@`; the whole text if there is none.
fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, domain)| domain)
}

/// A duplicate key means that somebody else was faster.
fn taken(error: DbError) -> AccountError {
    if error.is_duplicate_key() { AccountError::AlreadyExists } else { AccountError::Database(error) }
}

/// Whether the statement finds a row.
async fn found(tx: &mut Transaction, stmt: &Stmt, args: &[Value]) -> Result<bool> {
    Ok(tx.fetch_optional(stmt, args).await?.is_some())
}

/// The first column of all rows, as text.
async fn column(tx: &mut Transaction, stmt: &Stmt, args: &[Value]) -> Result<Vec<String>> {
    let rows = tx.fetch_all(stmt, args).await?;
    Ok(rows.iter().filter_map(|row| row.text_at(0)).map(str::to_owned).collect())
}

const ADDRESS_TAKEN: Stmt = Stmt::same(
    "SELECT address FROM forwardings WHERE address = ? UNION SELECT address FROM alias WHERE address = ? \
     UNION SELECT address FROM maillists WHERE address = ? UNION SELECT username FROM mailbox WHERE username = ?",
);

/// Whether the address belongs to any account. An extension (`user+box@`) is cut off first.
async fn is_taken(tx: &mut Transaction, address: &str) -> Result<bool> {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let base = match local.split_once('+') {
        Some((base, _)) if !base.is_empty() => format!("{base}@{domain}"),
        _ => address.to_owned(),
    };
    let base = || Value::from(&base);
    found(tx, &ADDRESS_TAKEN, &[base(), base(), base(), base()]).await
}
