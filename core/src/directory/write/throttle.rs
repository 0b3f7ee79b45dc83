//! Limits on how much an account may send or receive: `iredapd.throttle`.

use super::{AccountKey, Result, Rules, taken};
use crate::address::Reading;
use crate::lookup::Form;
use crate::sql::{Row, Stmt, Value};

/// The direction a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKind {
    /// Mail received.
    Inbound,
    /// Mail sent by our users.
    Outbound,
    /// Mail sent by others.
    External,
}

impl ThrottleKind {
    /// All of them.
    pub const ALL: [ThrottleKind; 3] =
        [ThrottleKind::Outbound, ThrottleKind::Inbound, ThrottleKind::External];

    /// The word in the column `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::External => "external",
        }
    }
}

/// A limit; -1 leaves a number to the wider scope, 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// The window in seconds.
    pub period: i64,
    /// Octets of one message.
    pub msg_size: i64,
    /// Messages in a window.
    pub max_msgs: i64,
    /// Octets in a window.
    pub max_quota: i64,
    /// Recipients in a window.
    pub max_rcpts: i64,
}

const READ: Stmt = Stmt::same("SELECT * FROM throttle WHERE account = ? AND kind = ? ORDER BY id");
const UPDATE: Stmt = Stmt::same(
    "UPDATE throttle SET priority = ?, period = ?, msg_size = ?, max_msgs = ?, max_quota = ?, max_rcpts = ? \
     WHERE account = ? AND kind = ?",
);
const INSERT: Stmt = Stmt::same(
    "INSERT INTO throttle (priority, period, msg_size, max_msgs, max_quota, max_rcpts, account, kind) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
);
const DELETE_COUNTERS: Stmt = Stmt::same(
    "DELETE FROM throttle_tracking WHERE tid IN (SELECT id FROM throttle WHERE account = ? AND kind = ?)",
);
const READ_ALL: Stmt = Stmt::same("SELECT * FROM throttle ORDER BY kind, priority DESC, account, id");
const COUNTERS: Stmt = Stmt::same(
    "SELECT tid, account, period, cur_msgs, cur_quota, init_time, last_time FROM throttle_tracking \
     WHERE tid IN (?) AND account IN (?) ORDER BY id",
);
/// By way of the settings, because the index begins with their numbers.
const RESET: Stmt = Stmt::same(
    "DELETE FROM throttle_tracking WHERE tid IN (SELECT id FROM throttle WHERE kind IN (?)) AND account = ?",
)
.repeatable();
const SET_PRIORITY: Stmt = Stmt::same("UPDATE throttle SET priority = ? WHERE id = ?").repeatable();
const DELETE: Stmt = Stmt::same("DELETE FROM throttle WHERE account = ? AND kind = ?");

impl Rules {
    /// The row of a limit, if one is set for exactly this account.
    pub async fn throttle(&self, account: impl Into<AccountKey>, kind: ThrottleKind) -> Result<Option<Row>> {
        let args = [account.into().as_str().into(), kind.name().into()];
        Ok(self.iredapd.fetch_optional(&READ, &args).await?)
    }

    /// Sets a limit. What was counted so far stays counted.
    pub async fn set_throttle(
        &self,
        account: impl Into<AccountKey>,
        kind: ThrottleKind,
        limit: &Throttle,
    ) -> Result<()> {
        let account = account.into();
        let row: [Value; 8] = [
            account.policy_priority().into(),
            limit.period.into(),
            limit.msg_size.into(),
            limit.max_msgs.into(),
            limit.max_quota.into(),
            limit.max_rcpts.into(),
            account.as_str().into(),
            kind.name().into(),
        ];
        let mut tx = self.iredapd.begin().await?;
        // PostgreSQL has no unique key here, so an upsert by key is not possible.
        if tx.execute(&UPDATE, &row).await?.rows_affected == 0 {
            tx.execute(&INSERT, &row).await.map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }

    /// Removes a limit with its counters: the wider scope holds again. How many rows of limits there were.
    pub async fn remove_throttle(&self, account: impl Into<AccountKey>, kind: ThrottleKind) -> Result<u64> {
        let args = [account.into().as_str().into(), kind.name().into()];
        let mut tx = self.iredapd.begin().await?;
        tx.execute(&DELETE_COUNTERS, &args).await?;
        let done = tx.execute(&DELETE, &args).await?;
        tx.commit().await?;
        Ok(done.rows_affected)
    }

    /// The rows of all limits, by kind and the most telling first.
    pub async fn throttles(&self) -> Result<Vec<Row>> {
        Ok(self.iredapd.fetch_all(&READ_ALL, &[]).await?)
    }

    /// The counters that limits (by their numbers) keep under these keys, the newest last.
    pub async fn throttle_counters(&self, tids: &[i64], keys: &[String]) -> Result<Vec<Row>> {
        let args = [Value::list(tids.iter().copied()), Value::list(keys.iter())];
        Ok(self.iredapd.fetch_all(&COUNTERS, &args).await?)
    }

    /// Forgets what has been counted under a key; how many counters there were.
    pub async fn reset_throttle(&self, key: &str, kinds: &[ThrottleKind]) -> Result<u64> {
        let kinds = Value::list(kinds.iter().map(|kind| kind.name()));
        Ok(self.iredapd.execute(&RESET, &[kinds, key.into()]).await?.rows_affected)
    }

    /// Gives every limit the priority of its account's form. The limits changed, with the priority they had and the new
    /// one, and the accounts that have no form.
    pub async fn fix_throttle_priorities(&self) -> Result<(Vec<FixedPriority>, Vec<String>)> {
        let (mut fixed, mut unknown) = (Vec::new(), Vec::new());
        for row in self.throttles().await? {
            let (Some(id), Some(account)) = (row.int("id"), row.string("account")) else { continue };
            let old = row.int("priority").unwrap_or(0);
            let form = Form::of(&account.to_lowercase());
            let of_address = || AccountKey::parse_as(&account, Reading::Rfc5321).map(|key| key.form());
            match form.or_else(of_address).map(Form::priority) {
                Some(new) if new != old => {
                    self.iredapd.execute(&SET_PRIORITY, &[new.into(), id.into()]).await?;
                    fixed.push(FixedPriority { id, account, old, new });
                }
                Some(_) => {}
                None => unknown.push(account),
            }
        }
        Ok((fixed, unknown))
    }
}

/// A limit whose priority was not that of its account's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPriority {
    /// The number of the row.
    pub id: i64,
    /// Its account.
    pub account: String,
    /// The priority it had.
    pub old: i64,
    /// The priority it has now.
    pub new: i64,
}
