//! Black and white lists: `amavisd.wblist` (mail received) and `outbound_wblist` (mail sent) between the accounts in
//! `users` and the foreign addresses in `mailaddr`. Both hold addresses as octets.

use super::{AccountKey, Result, Rules, taken};
use crate::sql::{Stmt, Transaction, Value};

/// Which mail a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Mail to the account.
    Inbound,
    /// Mail from the account.
    Outbound,
}

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Let pass.
    White,
    /// Refused.
    Black,
}

impl Colour {
    /// The letter in the column `wb`.
    pub fn letter(self) -> &'static str {
        match self {
            Self::White => "W",
            Self::Black => "B",
        }
    }
}

/// A foreign address with the priority of its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAddress {
    /// `user@domain`, `@domain`, `@.domain`, an IP address, a network ...
    pub address: String,
    /// The more particular the form, the higher.
    pub priority: i64,
}

impl From<&AccountKey> for ListedAddress {
    fn from(key: &AccountKey) -> ListedAddress {
        ListedAddress { address: key.as_str().to_owned(), priority: key.filter_priority() }
    }
}

const USER: Stmt = Stmt::same("SELECT id FROM users WHERE email = ?");
const INSERT_USER: Stmt = Stmt::same("INSERT INTO users (email, priority, policy_id) VALUES (?, ?, 0)");
const ADDRESS: Stmt = Stmt::same("SELECT id FROM mailaddr WHERE email = ?");
const INSERT_ADDRESS: Stmt = Stmt::same("INSERT INTO mailaddr (email, priority) VALUES (?, ?)");

struct Statements {
    read: Stmt,
    colour: Stmt,
    insert: Stmt,
    delete: Stmt,
    delete_colour: Stmt,
    delete_all: Stmt,
}

/// In `wblist` the account is the recipient (`rid`), in `outbound_wblist` the sender (`sid`).
const INBOUND: Statements = Statements {
    read: Stmt::same(
        "SELECT m.email FROM wblist w JOIN users u ON u.id = w.rid JOIN mailaddr m ON m.id = w.sid \
         WHERE u.email = ? AND w.wb = ? ORDER BY m.id",
    ),
    colour: Stmt::same("SELECT wb FROM wblist WHERE rid = ? AND sid = ?"),
    insert: Stmt::same("INSERT INTO wblist (rid, sid, wb) VALUES (?, ?, ?)"),
    delete: Stmt::same("DELETE FROM wblist WHERE rid = ? AND sid = ?"),
    delete_colour: Stmt::same("DELETE FROM wblist WHERE rid = ? AND sid = ? AND wb = ?"),
    delete_all: Stmt::same("DELETE FROM wblist WHERE rid = ? AND wb = ?"),
};
const OUTBOUND: Statements = Statements {
    read: Stmt::same(
        "SELECT m.email FROM outbound_wblist w JOIN users u ON u.id = w.sid JOIN mailaddr m ON m.id = w.rid \
         WHERE u.email = ? AND w.wb = ? ORDER BY m.id",
    ),
    colour: Stmt::same("SELECT wb FROM outbound_wblist WHERE sid = ? AND rid = ?"),
    insert: Stmt::same("INSERT INTO outbound_wblist (sid, rid, wb) VALUES (?, ?, ?)"),
    delete: Stmt::same("DELETE FROM outbound_wblist WHERE sid = ? AND rid = ?"),
    delete_colour: Stmt::same("DELETE FROM outbound_wblist WHERE sid = ? AND rid = ? AND wb = ?"),
    delete_all: Stmt::same("DELETE FROM outbound_wblist WHERE sid = ? AND wb = ?"),
};

fn statements(direction: Direction) -> &'static Statements {
    match direction {
        Direction::Inbound => &INBOUND,
        Direction::Outbound => &OUTBOUND,
    }
}

impl Rules {
    /// The addresses on a list.
    pub async fn listed(
        &self,
        account: impl Into<AccountKey>,
        direction: Direction,
        colour: Colour,
    ) -> Result<Vec<String>> {
        let args = [Value::bytes(account.into().as_str()), colour.letter().into()];
        let rows = self.amavisd.fetch_all(&statements(direction).read, &args).await?;
        Ok(rows.iter().filter_map(|row| row.string("email")).collect())
    }

    /// Puts addresses on a list, and takes them off the list of the other colour. Those that were not on it before.
    pub async fn list(
        &self,
        account: impl Into<AccountKey>,
        direction: Direction,
        colour: Colour,
        addresses: &[ListedAddress],
    ) -> Result<Vec<String>> {
        let account = account.into();
        let stmts = statements(direction);
        let mut tx = self.amavisd.begin().await?;
        let account = user_id(&mut tx, &account).await?;
        let mut new = Vec::new();
        for listed in addresses {
            let address = id(&mut tx, (&ADDRESS, &INSERT_ADDRESS), &listed.address, listed.priority).await?;
            let key = [account.into(), address.into()];
            let row = tx.fetch_optional(&stmts.colour, &key).await?;
            if row.is_some_and(|row| row.text_at(0) == Some(colour.letter())) {
                continue;
            }
            tx.execute(&stmts.delete, &key).await?;
            let row = [account.into(), address.into(), colour.letter().into()];
            tx.execute(&stmts.insert, &row).await.map_err(taken)?;
            new.push(listed.address.clone());
        }
        tx.commit().await?;
        Ok(new)
    }

    /// Takes addresses off a list. Those that were on it.
    pub async fn unlist(
        &self,
        account: impl Into<AccountKey>,
        direction: Direction,
        colour: Colour,
        addresses: &[String],
    ) -> Result<Vec<String>> {
        let mut tx = self.amavisd.begin().await?;
        let Some(account) = find(&mut tx, &USER, account.into().as_str()).await? else {
            return Ok(Vec::new());
        };
        let mut removed = Vec::new();
        for address in addresses {
            let Some(id) = find(&mut tx, &ADDRESS, address).await? else { continue };
            let row = [account.into(), id.into(), colour.letter().into()];
            if tx.execute(&statements(direction).delete_colour, &row).await?.rows_affected > 0 {
                removed.push(address.clone());
            }
        }
        tx.commit().await?;
        Ok(removed)
    }

    /// Takes all addresses off a list. How many there were.
    pub async fn empty_list(
        &self,
        account: impl Into<AccountKey>,
        direction: Direction,
        colour: Colour,
    ) -> Result<u64> {
        let mut tx = self.amavisd.begin().await?;
        let Some(account) = find(&mut tx, &USER, account.into().as_str()).await? else { return Ok(0) };
        let all = [account.into(), colour.letter().into()];
        let done = tx.execute(&statements(direction).delete_all, &all).await?;
        tx.commit().await?;
        Ok(done.rows_affected)
    }
}

/// The id of the row with this `email`.
async fn find(tx: &mut Transaction, stmt: &Stmt, email: &str) -> Result<Option<i64>> {
    Ok(tx.fetch_optional(stmt, &[Value::bytes(email)]).await?.and_then(|row| row.int_at(0)))
}

/// The row of an account in `users`, made where it is missing.
pub(super) async fn user_id(tx: &mut Transaction, account: &AccountKey) -> Result<i64> {
    id(tx, (&USER, &INSERT_USER), account.as_str(), account.filter_priority()).await
}

async fn id(
    tx: &mut Transaction,
    (known, insert): (&Stmt, &Stmt),
    email: &str,
    priority: i64,
) -> Result<i64> {
    if let Some(id) = find(tx, known, email).await? {
        return Ok(id);
    }
    tx.execute(insert, &[Value::bytes(email), priority.into()]).await.map_err(taken)?;
    Ok(find(tx, known, email).await?.unwrap_or(0))
}
