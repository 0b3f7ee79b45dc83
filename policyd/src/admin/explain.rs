//! Why a limit is what it is: the rows that cover a user or a client, which of them supplies each of the four
//! limits, and what has been counted.

use outrider_core::directory::write::{AccountError, Rules, ThrottleKind};
use outrider_core::lookup::EVERY_CLIENT;
use outrider_core::sql::DbError;

use crate::context::{Context, RuleError};
use crate::limit::{Effective, Limit, account_keys};
use crate::store::throttle::{Limits, Tracked};
use crate::store::valkey::Standing;

/// Whom a question about limits is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The address, lower case, without extension; empty if it is about a client alone.
    pub user: String,
    /// The client's address; empty leaves the limits of clients out.
    pub client: String,
}

/// The limits of one kind for a user or a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The kind.
    pub kind: ThrottleKind,
    /// The user under the domain that its own is an alias of, if it is one.
    pub real_user: Option<String>,
    /// All rows that cover them, the most telling first.
    pub rows: Vec<Limits>,
    /// The four limits.
    pub limits: Vec<Effect>,
    /// The counters that a message would move.
    pub counters: Vec<Counter>,
}

/// One of the four limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Which.
    pub limit: Limit,
    /// Its number, 0 for unlimited; `None` if no row says anything.
    pub value: Option<i64>,
    /// The row that supplies it, as its place in [`Explanation::rows`].
    pub row: Option<usize>,
}

/// What a row contributes to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is the limit.
    Supplies,
    /// It leaves the limit to less telling rows.
    Inherits,
    /// A more telling row has a value already.
    Beaten,
    /// It has no period and counts for nothing.
    Ignored,
}

/// A counter and its period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The row of the limit, and the key under which it counts.
    pub tracked: Tracked,
    /// What was counted in the current period; `None` if nothing was, or the period is over.
    pub counted: Option<Counted>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Messages, once for each recipient.
    pub messages: i64,
    /// Bytes.
    pub bytes: i64,
    /// When the period began, Unix seconds.
    pub since: i64,
    /// When it ends.
    pub until: i64,
}

impl Explanation {
    /// What the row at a place contributes to a limit.
    pub fn part(&self, limit: Limit, place: usize) -> Part {
        let supplier = self.limits.iter().find(|effect| effect.limit == limit).and_then(|effect| effect.row);
        match self.rows.get(place) {
            Some(row) if row.period <= 0 => Part::Ignored,
            _ if supplier == Some(place) => Part::Supplies,
            Some(row) if limit.of(row) < 0 => Part::Inherits,
            _ => Part::Beaten,
        }
    }
}

/// Explains the limits of one kind.
pub(super) async fn explain(
    context: &Context,
    rules: &Rules,
    kind: ThrottleKind,
    subject: &Subject,
) -> Result<Explanation, RuleError> {
    let Subject { user, client } = subject;
    let real_user = if user.is_empty() { None } else { context.under_alias_target(user).await? };
    let mut keys = account_keys(user, real_user.as_deref(), client, &context.settings);
    if client.is_empty() {
        keys.retain(|key| key != EVERY_CLIENT);
    }
    let rows = context.stores.throttle.limits(kind.name(), &keys).await.map_err(table("throttle"))?;
    let effective = Effective::of(&rows);
    let limits = Limit::ALL.map(|limit| {
        let supplier = effective.supplier(limit);
        Effect {
            limit,
            value: supplier.map(|row| limit.of(row)),
            row: supplier.and_then(|supplier| rows.iter().position(|row| row.id == supplier.id)),
        }
    });
    let tracked = effective.tracked(user, client);
    let counters = counters(context, rules, tracked).await?;
    Ok(Explanation { kind, real_user, limits: limits.to_vec(), counters, rows })
}

async fn counters(
    context: &Context,
    rules: &Rules,
    tracked: Vec<Tracked>,
) -> Result<Vec<Counter>, RuleError> {
    let standing = match &context.stores.valkey {
        Some(valkey) => {
            valkey.counters.look(&tracked).await.map_err(context.counters("throttle_tracking"))?
        }
        None => in_table(rules, &tracked).await?,
    };
    let now = context.now();
    let counter = |(tracked, standing): (Tracked, Option<Standing>)| {
        let counted = standing.and_then(|Standing { init, messages, bytes }| {
            let until = init.saturating_add(tracked.period);
            (until >= now).then_some(Counted { messages, bytes, since: init, until })
        });
        Counter { tracked, counted }
    };
    Ok(tracked.into_iter().zip(standing).map(counter).collect())
}

async fn in_table(rules: &Rules, tracked: &[Tracked]) -> Result<Vec<Option<Standing>>, RuleError> {
    let tids: Vec<i64> = tracked.iter().map(|one| one.tid).collect();
    let keys: Vec<String> = tracked.iter().map(|one| one.key.clone()).collect();
    let rows = rules.throttle_counters(&tids, &keys).await.map_err(|error| match error {
        AccountError::Database(cause) => table("throttle_tracking")(cause),
        other => table("throttle_tracking")(DbError::Refused(other.to_string())),
    })?;
    let standing = |one: &Tracked| {
        // Of doubles on PostgreSQL the newest counts.
        let row = rows.iter().rev().find(|row| {
            row.int("tid") == Some(one.tid)
                && row.text("account").is_some_and(|account| account.eq_ignore_ascii_case(&one.key))
        })?;
        Some(Standing {
            init: row.int("init_time")?,
            messages: row.int("cur_msgs").unwrap_or(0),
            bytes: row.int("cur_quota").unwrap_or(0),
        })
    };
    Ok(tracked.iter().map(standing).collect())
}

fn table(table: &'static str) -> impl FnOnce(DbError) -> RuleError {
    crate::context::iredapd(table)
}
