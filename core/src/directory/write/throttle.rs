//! Limits on how much an account may send or receive: `iredapd.throttle`.

use super::{Result, Rules, Scope, taken};
use crate::sql::{Row, Stmt, Value};

/// The direction a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleKind {
    /// Mail received.
    Inbound,
    /// Mail sent.
    Outbound,
}

impl ThrottleKind {
    fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
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
const DELETE: Stmt = Stmt::same("DELETE FROM throttle WHERE account = ? AND kind = ?");

impl Rules {
    /// The row of a limit, if one is set for exactly this scope.
    pub async fn throttle(&self, scope: &Scope, kind: ThrottleKind) -> Result<Option<Row>> {
        let args = [scope.account().into(), kind.name().into()];
        Ok(self.iredapd.fetch_optional(&READ, &args).await?)
    }

    /// Sets a limit. What was counted so far stays counted.
    pub async fn set_throttle(&self, scope: &Scope, kind: ThrottleKind, limit: &Throttle) -> Result<()> {
        let row: [Value; 8] = [
            scope.policy_priority().into(),
            limit.period.into(),
            limit.msg_size.into(),
            limit.max_msgs.into(),
            limit.max_quota.into(),
            limit.max_rcpts.into(),
            scope.account().into(),
            kind.name().into(),
        ];
        let mut tx = self.iredapd.begin().await?;
        // PostgreSQL has no unique key here, so an upsert by key is not possible.
        if tx.execute(&UPDATE, &row).await?.rows_affected == 0 {
            tx.execute(&INSERT, &row).await.map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }

    /// Removes a limit with its counters: the wider scope holds again.
    pub async fn remove_throttle(&self, scope: &Scope, kind: ThrottleKind) -> Result<()> {
        let args = [scope.account().into(), kind.name().into()];
        let mut tx = self.iredapd.begin().await?;
        tx.execute(&DELETE_COUNTERS, &args).await?;
        tx.execute(&DELETE, &args).await?;
        Ok(tx.commit().await?)
    }
}
