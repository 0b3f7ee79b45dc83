//! Mail aliases: their row in `alias` and one row in `forwardings` for each member.

use super::domain::lock_for_new;
use super::{AccountError, Accounts, Edit, Result, column, domain_of, found, taken};
use crate::sql::{Row, Stmt, Transaction, Value};

/// What is set of an alias, new or not; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AliasChange {
    /// The display name.
    pub name: Option<String>,
    /// Who may send to it: `public`, `domain` and so on.
    pub access_policy: Option<String>,
    /// Whether it is in use.
    pub active: Option<bool>,
    /// Who gets its mail.
    pub members: Option<Edit>,
}

const INSERT: Stmt = Stmt::same(
    "INSERT INTO alias (address, name, accesspolicy, domain, created, active) VALUES (?, ?, ?, ?, ?, ?)",
);
const INSERT_MEMBER: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_list, active) \
     VALUES (?, ?, ?, ?, 1, ?)",
);
const DELETE_MEMBER: Stmt =
    Stmt::same("DELETE FROM forwardings WHERE address = ? AND forwarding = ? AND is_list = 1");
const MEMBERS: Stmt =
    Stmt::same("SELECT forwarding FROM forwardings WHERE address = ? AND is_list = 1 ORDER BY forwarding");
const COUNT: Stmt = Stmt::same("SELECT COUNT(*) FROM alias WHERE domain = ?");
const READ: Stmt = Stmt::same("SELECT * FROM alias WHERE address = ?");
const READ_DOMAIN: Stmt = Stmt::same("SELECT * FROM alias WHERE domain = ? ORDER BY address");
const SET_NAME: Stmt = Stmt::same("UPDATE alias SET name = ? WHERE address = ?");
const SET_POLICY: Stmt = Stmt::same("UPDATE alias SET accesspolicy = ? WHERE address = ?");
const SET_ACTIVE: Stmt = Stmt::same("UPDATE alias SET active = ? WHERE address = ?");
const SET_MEMBERS_ACTIVE: Stmt =
    Stmt::same("UPDATE forwardings SET active = ? WHERE address = ? AND is_list = 1");
const SET_MODIFIED: Stmt = Stmt::same("UPDATE alias SET modified = ? WHERE address = ?");
const DELETES: &[Stmt] = &[
    Stmt::same("DELETE FROM alias WHERE address = ?"),
    Stmt::same("DELETE FROM forwardings WHERE address = ?"),
    Stmt::same("DELETE FROM forwardings WHERE forwarding = ?"),
    Stmt::same("DELETE FROM moderators WHERE address = ?"),
];

impl Accounts {
    /// Makes an alias.
    ///
    /// # Errors
    /// `NoSuchDomain`, `AlreadyExists`, `NotAllowed`, `AccountLimit`.
    pub async fn create_alias(&self, address: &str, alias: &AliasChange, now: &str) -> Result<()> {
        let domain = domain_of(address);
        let mut tx = self.vmail.begin().await?;
        lock_for_new(&mut tx, address, "aliases", &COUNT).await?;
        let active = alias.active.unwrap_or(true);
        let row = [
            address.into(),
            alias.name.clone().unwrap_or_default().into(),
            alias.access_policy.clone().unwrap_or_default().into(),
            domain.into(),
            Value::time(now),
            active.into(),
        ];
        tx.execute(&INSERT, &row).await.map_err(taken)?;
        if let Some(members) = &alias.members {
            change_members(&mut tx, address, members, active).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The row of an alias and its members.
    pub async fn alias(&self, address: &str) -> Result<Option<(Row, Vec<String>)>> {
        let Some(row) = self.vmail.fetch_optional(&READ, &[address.into()]).await? else { return Ok(None) };
        let members = self.vmail.fetch_all(&MEMBERS, &[address.into()]).await?;
        Ok(Some((row, members.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect())))
    }

    /// The rows of the aliases of a domain.
    pub async fn aliases(&self, domain: &str) -> Result<Vec<Row>> {
        Ok(self.vmail.fetch_all(&READ_DOMAIN, &[domain.into()]).await?)
    }

    /// Changes an alias.
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn change_alias(&self, address: &str, change: &AliasChange, now: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        let row = tx.fetch_optional(&READ, &[address.into()]).await?.ok_or(AccountError::NoSuchAccount)?;
        let active = change.active.unwrap_or_else(|| row.flag("active"));
        for (stmt, text) in [(&SET_NAME, &change.name), (&SET_POLICY, &change.access_policy)] {
            if let Some(text) = text {
                tx.execute(stmt, &[text.into(), address.into()]).await?;
            }
        }
        if change.active.is_some() {
            tx.execute(&SET_ACTIVE, &[active.into(), address.into()]).await?;
            tx.execute(&SET_MEMBERS_ACTIVE, &[active.into(), address.into()]).await?;
        }
        if let Some(members) = &change.members {
            change_members(&mut tx, address, members, active).await?;
        }
        tx.execute(&SET_MODIFIED, &[Value::time(now), address.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Removes an alias, also as a member of other aliases.
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn delete_alias(&self, address: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &READ, &[address.into()]).await? {
            return Err(AccountError::NoSuchAccount);
        }
        for stmt in DELETES {
            tx.execute(stmt, &[address.into()]).await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn change_members(tx: &mut Transaction, address: &str, edit: &Edit, active: bool) -> Result<()> {
    let current = column(tx, &MEMBERS, &[address.into()]).await?;
    let mut wanted = edit.apply(current.clone());
    // An alias that delivers to itself would loop.
    wanted.retain(|member| member != address);
    for gone in current.iter().filter(|member| !wanted.contains(member)) {
        tx.execute(&DELETE_MEMBER, &[address.into(), gone.into()]).await?;
    }
    for new in wanted.iter().filter(|member| !current.contains(member)) {
        let row =
            [address.into(), new.into(), domain_of(address).into(), domain_of(new).into(), active.into()];
        tx.execute(&INSERT_MEMBER, &row).await.map_err(taken)?;
    }
    Ok(())
}
