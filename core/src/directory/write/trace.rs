//! What the databases of policyd and of the content filter hold about accounts.
//!
//! An account is `user@domain` or, for a whole domain, `@domain`; the tables of the content filter hold it as
//! octets.

use super::{Accounts, domain_of};
use crate::sql::{Db, DbError, Stmt, Value, escape_like};

/// Whose traces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    /// One user.
    User(&'a str),
    /// A domain and all its users.
    Domain(&'a str),
}

const IREDAPD: &[Stmt] = &[
    Stmt::same(
        "DELETE FROM throttle_tracking WHERE tid IN \
         (SELECT id FROM throttle WHERE account = ? OR account LIKE ? ESCAPE '!')",
    ),
    Stmt::same("DELETE FROM throttle WHERE account = ? OR account LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM greylisting WHERE account = ? OR account LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM greylisting_whitelists WHERE account = ? OR account LIKE ? ESCAPE '!'"),
];
const POLICY: Stmt = Stmt::same("DELETE FROM policy WHERE policy_name = ? OR policy_name LIKE ? ESCAPE '!'");
const USER_IDS: Stmt = Stmt::per_engine(
    "SELECT id FROM users WHERE email = ? OR email LIKE ? ESCAPE '!'",
    "SELECT id FROM users WHERE email = ? OR encode(email, 'escape') LIKE ? ESCAPE '!'",
    "SELECT id FROM users WHERE email = ? OR CAST(email AS TEXT) LIKE ? ESCAPE '!'",
);
const AMAVISD: &[Stmt] = &[
    Stmt::same("DELETE FROM wblist WHERE rid IN (?)"),
    Stmt::same("DELETE FROM outbound_wblist WHERE sid IN (?)"),
    Stmt::same("DELETE FROM users WHERE id IN (?)"),
];
const RENAME_IREDAPD: &[Stmt] = &[
    Stmt::same("UPDATE throttle SET account = ? WHERE account = ?"),
    Stmt::same("UPDATE throttle_tracking SET account = ? WHERE account = ?"),
    Stmt::same("UPDATE greylisting SET account = ? WHERE account = ?"),
    Stmt::same("UPDATE greylisting_whitelists SET account = ? WHERE account = ?"),
];
const RENAME_USER: Stmt = Stmt::same("UPDATE users SET email = ? WHERE email = ?");
const RENAME_POLICY: Stmt = Stmt::same("UPDATE policy SET policy_name = ? WHERE policy_name = ?");

impl Whose<'_> {
    /// The exact account and the pattern of those below it; a user has none below.
    fn patterns(self) -> (String, String) {
        match self {
            Whose::User(address) => (address.to_owned(), escape_like(address)),
            Whose::Domain(domain) => (format!("@{domain}"), format!("%@{}", escape_like(domain))),
        }
    }
}

impl Accounts {
    /// Removes the traces of an account that is gone. Failures are logged: the account itself is gone already.
    pub(super) async fn remove_traces(&self, whose: Whose<'_>) {
        if let Some(iredapd) = &self.iredapd {
            report("iredapd", remove_limits(iredapd, whose).await);
        }
        if let Some(amavisd) = &self.amavisd {
            report("amavisd", remove_policies(amavisd, whose).await);
        }
    }

    /// Moves the traces of a user to the new address. Failures are logged.
    pub(super) async fn rename_traces(&self, old: &str, new: &str) {
        if let Some(iredapd) = &self.iredapd {
            report("iredapd", rename_limits(iredapd, old, new).await);
        }
        if let Some(amavisd) = &self.amavisd {
            report("amavisd", rename_policies(amavisd, old, new).await);
        }
    }
}

fn report(database: &str, outcome: Result<(), DbError>) {
    if let Err(error) = outcome {
        tracing::warn!(event = "traces of an account stay", database, reason = %error);
    }
}

async fn remove_limits(db: &Db, whose: Whose<'_>) -> Result<(), DbError> {
    let (exact, pattern) = whose.patterns();
    let mut tx = db.begin().await?;
    for stmt in IREDAPD {
        tx.execute(stmt, &[Value::from(&exact), Value::from(&pattern)]).await?;
    }
    tx.commit().await
}

async fn remove_policies(db: &Db, whose: Whose<'_>) -> Result<(), DbError> {
    let (exact, pattern) = whose.patterns();
    let mut tx = db.begin().await?;
    let rows = tx.fetch_all(&USER_IDS, &[Value::bytes(&exact), Value::from(&pattern)]).await?;
    let ids: Vec<i64> = rows.iter().filter_map(|row| row.int_at(0)).collect();
    for some in ids.chunks(500) {
        for stmt in AMAVISD {
            tx.execute(stmt, &[Value::list(some.iter().copied())]).await?;
        }
    }
    tx.execute(&POLICY, &[Value::from(&exact), Value::from(&pattern)]).await?;
    tx.commit().await
}

async fn rename_limits(db: &Db, old: &str, new: &str) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    for stmt in RENAME_IREDAPD {
        tx.execute(stmt, &[new.into(), old.into()]).await?;
    }
    tx.commit().await
}

async fn rename_policies(db: &Db, old: &str, new: &str) -> Result<(), DbError> {
    debug_assert!(!domain_of(new).is_empty());
    let mut tx = db.begin().await?;
    tx.execute(&RENAME_USER, &[Value::bytes(new), Value::bytes(old)]).await?;
    tx.execute(&RENAME_POLICY, &[new.into(), old.into()]).await?;
    tx.commit().await
}
