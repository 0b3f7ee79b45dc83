//! Who is greylisted and which senders never are: `iredapd.greylisting`, `greylisting_whitelists` and
//! `greylisting_whitelist_domains`.

use super::{Edit, Result, Rules, Scope, column, taken};
use crate::sql::{Row, Stmt};

/// Rules for single senders are set by other tools; here it is always all of them.
const READ: Stmt = Stmt::same("SELECT * FROM greylisting WHERE account = ? AND sender = '@.'");
const READ_ALL: Stmt = Stmt::same("SELECT * FROM greylisting WHERE sender = '@.' ORDER BY account");
const UPDATE: Stmt =
    Stmt::same("UPDATE greylisting SET priority = ?, active = ? WHERE account = ? AND sender = '@.'");
const INSERT: Stmt = Stmt::same(
    "INSERT INTO greylisting (priority, active, account, sender, sender_priority) VALUES (?, ?, ?, '@.', 0)",
);
const DELETE: Stmt = Stmt::same("DELETE FROM greylisting WHERE account = ? AND sender = '@.'");
const SENDERS: Stmt =
    Stmt::same("SELECT sender FROM greylisting_whitelists WHERE account = ? ORDER BY sender");
const INSERT_SENDER: Stmt = Stmt::same("INSERT INTO greylisting_whitelists (account, sender) VALUES (?, ?)");
const DELETE_SENDER: Stmt = Stmt::same("DELETE FROM greylisting_whitelists WHERE account = ? AND sender = ?");
const DOMAINS: Stmt = Stmt::same("SELECT domain FROM greylisting_whitelist_domains ORDER BY domain");
const INSERT_DOMAIN: Stmt = Stmt::same("INSERT INTO greylisting_whitelist_domains (domain) VALUES (?)");
const DELETE_DOMAIN: Stmt = Stmt::same("DELETE FROM greylisting_whitelist_domains WHERE domain = ?");

impl Rules {
    /// The row that says whether exactly this scope is greylisted, if there is one.
    pub async fn greylisting(&self, scope: &Scope) -> Result<Option<Row>> {
        Ok(self.iredapd.fetch_optional(&READ, &[scope.account().into()]).await?)
    }

    /// All such rows.
    pub async fn all_greylisting(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&READ_ALL, &[]).await?)
    }

    /// Says whether this scope is greylisted; `None` leaves it to the wider scope.
    pub async fn set_greylisting(&self, scope: &Scope, active: Option<bool>) -> Result<()> {
        let Some(active) = active else {
            self.iredapd.execute(&DELETE, &[scope.account().into()]).await?;
            return Ok(());
        };
        let row = [scope.policy_priority().into(), active.into(), scope.account().into()];
        let mut tx = self.iredapd.begin().await?;
        if tx.execute(&UPDATE, &row).await?.rows_affected == 0 {
            tx.execute(&INSERT, &row).await.map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }

    /// Senders that are never greylisted for this scope.
    pub async fn greylisting_senders(&self, scope: &Scope) -> Result<Vec<String>> {
        let rows = self.iredapd.fetch_all(&SENDERS, &[scope.account().into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect())
    }

    /// Changes the senders that are never greylisted for this scope.
    pub async fn edit_greylisting_senders(&self, scope: &Scope, edit: &Edit) -> Result<()> {
        let account = scope.account();
        let mut tx = self.iredapd.begin().await?;
        let current = column(&mut tx, &SENDERS, &[(&account).into()]).await?;
        let wanted = edit.apply(current.clone());
        for gone in current.iter().filter(|sender| !wanted.contains(sender)) {
            tx.execute(&DELETE_SENDER, &[(&account).into(), gone.into()]).await?;
        }
        for new in wanted.iter().filter(|sender| !current.contains(sender)) {
            tx.execute(&INSERT_SENDER, &[(&account).into(), new.into()]).await.map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }

    /// Changes the domains whose mail servers, as their SPF and MX records name them, are never greylisted.
    pub async fn edit_greylisting_domains(&self, edit: &Edit) -> Result<()> {
        let mut tx = self.iredapd.begin().await?;
        let current = column(&mut tx, &DOMAINS, &[]).await?;
        let wanted = edit.apply(current.clone());
        for gone in current.iter().filter(|domain| !wanted.contains(domain)) {
            tx.execute(&DELETE_DOMAIN, &[gone.into()]).await?;
        }
        for new in wanted.iter().filter(|domain| !current.contains(domain)) {
            tx.execute(&INSERT_DOMAIN, &[new.into()]).await.map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }
}
