//! Who is greylisted and which senders never are: `iredapd.greylisting` and `greylisting_whitelists`.

use std::collections::HashSet;

use super::{AccountKey, Edit, Result, Rules, Scope, column, taken};
use crate::sql::{Row, Stmt};

/// The panel knows rules about all senders only.
const READ: Stmt = Stmt::same("SELECT * FROM greylisting WHERE account = ? AND sender = '@.'");
const READ_ALL: Stmt = Stmt::same("SELECT * FROM greylisting WHERE sender = '@.' ORDER BY account");
/// In the order in which they are looked at.
const RULES: Stmt = Stmt::same("SELECT * FROM greylisting ORDER BY priority DESC, sender_priority DESC, id");
const UPDATE: Stmt = Stmt::same(
    "UPDATE greylisting SET priority = ?, sender_priority = ?, active = ? WHERE account = ? AND sender = ?",
);
const INSERT: Stmt = Stmt::same(
    "INSERT INTO greylisting (priority, sender_priority, active, account, sender) VALUES (?, ?, ?, ?, ?)",
);
const DELETE: Stmt = Stmt::same("DELETE FROM greylisting WHERE account = ? AND sender = ?");
const SENDERS: Stmt =
    Stmt::same("SELECT sender FROM greylisting_whitelists WHERE account = ? ORDER BY sender");
const ALL_SENDERS: Stmt =
    Stmt::same("SELECT account, sender, comment FROM greylisting_whitelists ORDER BY account, sender");
const INSERT_SENDER: Stmt = Stmt::same("INSERT INTO greylisting_whitelists (account, sender) VALUES (?, ?)");
const DELETE_SENDER: Stmt = Stmt::same("DELETE FROM greylisting_whitelists WHERE account = ? AND sender = ?");

/// What an [`Edit`] made of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// Values that are there now and were not before.
    pub added: Vec<String>,
    /// Values that are gone.
    pub removed: Vec<String>,
}

/// Values as we write them. Rows of other programs may hold capitals.
pub(super) fn lowered(rows: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    rows.iter().map(|row| row.to_lowercase()).filter(|value| seen.insert(value.clone())).collect()
}

impl Edited {
    /// What has to change for `current` to become as the edit wants it.
    pub(super) fn between(current: Vec<String>, edit: &Edit) -> Edited {
        let wanted = edit.apply(current.clone());
        let added = wanted.iter().filter(|value| !current.contains(value)).cloned().collect();
        let removed = current.into_iter().filter(|value| !wanted.contains(value)).collect();
        Edited { added, removed }
    }
}

impl Rules {
    /// The row that says whether exactly this scope is greylisted, if there is one.
    pub async fn greylisting(&self, scope: &Scope) -> Result<Option<Row>> {
        Ok(self.iredapd.fetch_optional(&READ, &[scope.account().into()]).await?)
    }

    /// All such rows.
    pub async fn all_greylisting(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&READ_ALL, &[]).await?)
    }

    /// All rules, also those about single senders, the most telling first.
    pub async fn greylisting_rules(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&RULES, &[]).await?)
    }

    /// Says whether this scope is greylisted; `None` leaves it to the wider scope.
    pub async fn set_greylisting(&self, scope: &Scope, active: Option<bool>) -> Result<()> {
        self.set_greylisting_rule(&scope.into(), &AccountKey::everybody(), active).await.map(drop)
    }

    /// Says whether mail of a sender to an account is greylisted; `None` leaves it to the less telling rule. False if
    /// there was no rule to remove.
    pub async fn set_greylisting_rule(
        &self,
        account: &AccountKey,
        sender: &AccountKey,
        active: Option<bool>,
    ) -> Result<bool> {
        let key = [account.as_str().into(), sender.as_str().into()];
        let Some(active) = active else {
            return Ok(self.iredapd.execute(&DELETE, &key).await?.rows_affected > 0);
        };
        let [account_value, sender_value] = key;
        let row = [
            account.policy_priority().into(),
            sender.policy_priority().into(),
            active.into(),
            account_value,
            sender_value,
        ];
        let mut tx = self.iredapd.begin().await?;
        if tx.execute(&UPDATE, &row).await?.rows_affected == 0 {
            tx.execute(&INSERT, &row).await.map_err(taken)?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Senders that are never greylisted for this scope.
    pub async fn greylisting_senders(&self, scope: &Scope) -> Result<Vec<String>> {
        let rows = self.iredapd.fetch_all(&SENDERS, &[scope.account().into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect())
    }

    /// The senders that are never greylisted, of all accounts.
    pub async fn all_greylisting_senders(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&ALL_SENDERS, &[]).await?)
    }

    /// Changes the senders that are never greylisted for this account.
    pub async fn edit_greylisting_senders(
        &self,
        account: impl Into<AccountKey>,
        edit: &Edit,
    ) -> Result<Edited> {
        let account = account.into();
        let mut tx = self.iredapd.begin().await?;
        let rows = column(&mut tx, &SENDERS, &[account.as_str().into()]).await?;
        let edited = Edited::between(lowered(&rows), &edit.lowered());
        for row in rows.iter().filter(|row| edited.removed.contains(&row.to_lowercase())) {
            tx.execute(&DELETE_SENDER, &[account.as_str().into(), row.into()]).await?;
        }
        for new in &edited.added {
            tx.execute(&INSERT_SENDER, &[account.as_str().into(), new.into()]).await.map_err(taken)?;
        }
        tx.commit().await?;
        Ok(edited)
    }
}
