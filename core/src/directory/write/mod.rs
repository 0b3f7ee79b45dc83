//! Changes of accounts: domains, mail users, aliases, mailing lists and administrators in the `vmail` tables.
//!
//! Each operation is one transaction, on MySQL/MariaDB, PostgreSQL and SQLite alike, and checks what it depends on
//! inside it, so that two administrators at once cannot make what each of them alone could not. Who may do
//! something is not decided here, except for the limits that belong to a domain.
//!
//! Addresses and domains are written and looked up in lower case; callers pass them that way.

mod list;

pub use list::{AccessPolicy, ListChange, NewList};

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

    /// Undoes the change.
    ///
    /// # Errors
    /// The database's; it is undone all the same.
    pub async fn undo(self) -> Result<()> {
        Ok(self.0.rollback().await?)
    }
}

impl Accounts {
    /// The accounts in this database.
    pub fn new(vmail: Db) -> Self {
        Self { vmail }
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
