//! Tables `throttle` (limits) and `throttle_tracking` (counters).
//!
//! **Check and count is one step.** A counter is moved by one `UPDATE` whose condition is the limit itself. The
//! server locks the row, looks at its newest version and either moves it or leaves it alone, so N connections of
//! M processes together let through exactly what one after the other would. If no row was moved there are two
//! reasons: the limit is reached, or there is no row yet; only then it is looked up, and made if it is missing.
//!
//! Making it is a race between first messages. MySQL and SQLite have a unique key over (tid, account). PostgreSQL
//! has none in iRedMail's schema, so there the row is inserted under an advisory lock derived from the key. Whoever comes
//! second finds the row and counts on it. Doubles that other programs left on PostgreSQL are harmless: only the
//! newest row of a key is read and written.
//!
//! Messages that move the same counter at the same moment go together, see `group.rs`.
//!
//! When a message counts towards two settings (one supplies the number, the other the bytes) both counters move in
//! one transaction or none does, always in the same order.

mod group;
mod together;

use std::collections::HashMap;
use std::sync::Arc;

use outrider_core::gather::{Gather, Lanes};
use outrider_core::sql::{Db, DbError, Done, Engine, Row, Stmt, Transaction, Value};

use super::{AccountCache, Sweep, fit};
use crate::cache::CacheMeter;
use crate::settings::CacheSettings;
use group::Count;
use together::Together;

const LIMITS: Stmt = Stmt::same(
    "SELECT id, account, priority, period, msg_size, max_msgs, max_quota, max_rcpts \
     FROM throttle WHERE kind = ? AND account IN (?) ORDER BY id",
);

/// Moves a counter if the limits allow it. On MySQL assignments work from left to right, so `init_time`, by which the
/// others tell whether the period is over, comes last.
const COUNT: Stmt = Stmt::per_engine(
    "UPDATE throttle_tracking SET cur_msgs = CASE WHEN init_time + ? < ? THEN ? ELSE cur_msgs + ? END, \
     cur_quota = CASE WHEN init_time + ? < ? THEN ? ELSE cur_quota + ? END, last_time = ?, period = ?, \
     init_time = CASE WHEN init_time + ? < ? THEN ? ELSE init_time END \
     WHERE tid = ? AND account = ? \
     AND (init_time + ? < ? OR ((? <= 0 OR cur_msgs + ? <= ?) AND (? <= 0 OR cur_quota <= ?)))",
    "UPDATE throttle_tracking SET cur_msgs = CASE WHEN init_time + ? < ? THEN ? ELSE cur_msgs + ? END, \
     cur_quota = CASE WHEN init_time + ? < ? THEN ? ELSE cur_quota + ? END, last_time = ?, period = ?, \
     init_time = CASE WHEN init_time + ? < ? THEN ? ELSE init_time END \
     WHERE id = (SELECT MAX(id) FROM throttle_tracking WHERE tid = ? AND account = ?) \
     AND (init_time + ? < ? OR ((? <= 0 OR cur_msgs + ? <= ?) AND (? <= 0 OR cur_quota <= ?)))",
    "UPDATE throttle_tracking SET cur_msgs = CASE WHEN init_time + ? < ? THEN ? ELSE cur_msgs + ? END, \
     cur_quota = CASE WHEN init_time + ? < ? THEN ? ELSE cur_quota + ? END, last_time = ?, period = ?, \
     init_time = CASE WHEN init_time + ? < ? THEN ? ELSE init_time END \
     WHERE tid = ? AND account = ? \
     AND (init_time + ? < ? OR ((? <= 0 OR cur_msgs + ? <= ?) AND (? <= 0 OR cur_quota <= ?)))",
);

/// The same for the narrow columns of iRedMail's MySQL schema, when the sum does not fit: the counter stays at the
/// column's end. Sites that widened their columns never come here.
const COUNT_SATURATING: Stmt = Stmt::same(
    "UPDATE throttle_tracking SET \
     cur_msgs = LEAST(16777215, CASE WHEN init_time + ? < ? THEN ? ELSE cur_msgs + ? END), \
     cur_quota = LEAST(4294967295, CASE WHEN init_time + ? < ? THEN ? ELSE cur_quota + ? END), \
     last_time = ?, period = ?, init_time = CASE WHEN init_time + ? < ? THEN ? ELSE init_time END \
     WHERE tid = ? AND account = ? \
     AND (init_time + ? < ? OR ((? <= 0 OR cur_msgs + ? <= ?) AND (? <= 0 OR cur_quota <= ?)))",
);

const COUNTER: Stmt = Stmt::same(
    "SELECT cur_msgs, cur_quota, init_time, last_notify_time FROM throttle_tracking \
     WHERE tid = ? AND account = ? ORDER BY id DESC LIMIT 1",
);

/// Values: a number derived from the key.
const LOCK_KEY: Stmt = Stmt::same("SELECT pg_advisory_xact_lock(?) IS NULL");

const CREATE: Stmt = Stmt::per_engine(
    "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
     VALUES (?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
     SELECT ?, ?, ?, ?, ?, ?, ? \
     WHERE NOT EXISTS (SELECT 1 FROM throttle_tracking WHERE tid = ? AND account = ?) ON CONFLICT DO NOTHING",
    "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
     SELECT ?, ?, ?, ?, ?, ?, ? \
     WHERE NOT EXISTS (SELECT 1 FROM throttle_tracking WHERE tid = ? AND account = ?)",
);

/// Takes the right to notify: one of any number of simultaneous requests gets it.
const CLAIM_NOTIFICATION: Stmt = Stmt::same(
    "UPDATE throttle_tracking SET last_notify_time = ? WHERE tid = ? AND account = ? \
     AND (last_notify_time = 0 OR last_notify_time <= init_time OR last_notify_time > init_time + ?)",
);

const EXPIRED: Sweep = Sweep {
    step: Stmt::same(
        "SELECT MAX(id) FROM (SELECT id FROM throttle_tracking WHERE id > ? ORDER BY id LIMIT ?) AS step",
    ),
    delete: Stmt::same("DELETE FROM throttle_tracking WHERE id > ? AND id <= ? AND init_time + period < ?")
        .repeatable(),
    ordered: false,
};

/// One row of `throttle`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The row's number, to which the counters refer.
    pub id: i64,
    /// The account key.
    pub account: String,
    /// How telling it is; larger wins.
    pub priority: i64,
    /// Seconds in which messages and bytes are counted; 0: the row is ignored.
    pub period: i64,
    /// Largest message in bytes. For all limits: -1 inherits from a less telling row, 0 is unlimited.
    pub msg_size: i64,
    /// Messages a period, counted once for each recipient.
    pub max_msgs: i64,
    /// Bytes a period.
    pub max_quota: i64,
    /// Recipients of one message.
    pub max_rcpts: i64,
}

/// One counter and what has to be true before it moves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tracked {
    /// `throttle.id`.
    pub tid: i64,
    /// Whose counter.
    pub key: String,
    /// Seconds of the period.
    pub period: i64,
    /// Messages allowed; not limited if 0 or less.
    pub max_msgs: i64,
    /// Bytes allowed before this message; not limited if 0 or less.
    pub max_quota: i64,
}

/// What is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Recipients.
    pub messages: i64,
    /// Size in bytes.
    pub bytes: i64,
}

/// How counting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// All counters moved.
    Accepted,
    /// No counter moved.
    Exceeded {
        /// The one that did not allow it.
        at: Tracked,
        /// Whether it has a row.
        has_row: bool,
        /// Whether it is the number of messages that is exceeded; else it is that of bytes.
        by_messages: bool,
    },
}

/// Messages counted together at most.
const MOST: usize = 64;
const LANES: Lanes = Lanes { quick: 1, slow: 8 };
/// After so many lost races the error is reported; one race is one lost.
const ATTEMPTS: usize = 8;

/// The tables.
pub struct ThrottleStore {
    db: Db,
    /// Whether a message was counted together with others.
    counts: Gather<Count, Result<bool, DbError>>,
    limits: AccountCache<Vec<Limits>>,
}

impl ThrottleStore {
    /// The tables in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> ThrottleStore {
        let counters = Arc::new(Together::new(db.clone()));
        let counts = Gather::new(MOST, LANES, move |counts| {
            let counters = counters.clone();
            async move { group::count_all(&counters, &counts).await }
        });
        ThrottleStore { db, counts, limits: AccountCache::new(cache) }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.limits.measure(meter);
    }

    /// The limits of one kind (`outbound`, `inbound`, `external`) for the accounts, the most telling first.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn limits(&self, kind: &str, accounts: &[String]) -> Result<Vec<Limits>, DbError> {
        // The cache is shared by the kinds; a kind has no blank.
        let keys: Vec<String> = accounts.iter().map(|account| format!("{kind} {account}")).collect();
        let fetch = |missing: Vec<String>| async move {
            let accounts = missing.iter().filter_map(|key| Some(key.split_once(' ')?.1));
            let rows = self.db.fetch_all(&LIMITS, &[kind.into(), Value::list(accounts)]).await?;
            let mut limits: HashMap<String, Vec<Limits>> = HashMap::new();
            for row in rows.iter().filter_map(read_limits) {
                limits.entry(format!("{kind} {}", row.account.to_lowercase())).or_default().push(row);
            }
            Ok(limits)
        };
        let found = self.limits.get_all(&keys, fetch).await?;
        let mut limits: Vec<Limits> = found.iter().flat_map(|list| list.iter().cloned()).collect();
        limits.sort_by_key(|row| (-row.priority, row.id));
        Ok(limits)
    }

    /// Counts a message on all counters if all of them allow it, at `now` (Unix seconds).
    pub async fn count(
        &self,
        mut tracked: Vec<Tracked>,
        amount: Amount,
        now: i64,
    ) -> Result<Counted, DbError> {
        for counter in &mut tracked {
            counter.key = fit(&counter.key, 255).to_owned();
        }
        tracked.sort();
        match tracked.as_slice() {
            [] => Ok(Counted::Accepted),
            [one] => {
                let count = Count { counter: one.clone(), amount, now };
                match self.counts.ask(count).await {
                    Some(Ok(true)) => Ok(Counted::Accepted),
                    Some(Ok(false)) => count_one(&self.db, one, amount, now).await,
                    Some(Err(error)) => Err(error),
                    None => Err(contended()),
                }
            }
            several => self.count_several(several, amount, now).await,
        }
    }

    async fn count_several(
        &self,
        counters: &[Tracked],
        amount: Amount,
        now: i64,
    ) -> Result<Counted, DbError> {
        'again: for _ in 0..ATTEMPTS {
            let mut transaction = self.db.begin().await?;
            for counter in counters {
                let mut run = Run::Within(&mut transaction);
                match run.count(counter, amount, now).await {
                    Ok(Step::Moved) => {}
                    Ok(Step::Lost) => {
                        transaction.rollback().await?;
                        continue 'again;
                    }
                    Ok(Step::Exceeded { has_row, by_messages }) => {
                        transaction.rollback().await?;
                        return Ok(Counted::Exceeded { at: counter.clone(), has_row, by_messages });
                    }
                    // A deadlock of this transaction with another: the server has undone it already.
                    Err(DbError::TryAgain(_)) => continue 'again,
                    Err(error) => return Err(error),
                }
            }
            match transaction.commit().await {
                Err(DbError::TryAgain(_)) => {}
                other => return other.map(|()| Counted::Accepted),
            }
        }
        Err(contended())
    }

    /// Forgets counters whose period is over at `now`, going through `batch` rows at a time; how many.
    pub async fn forget_expired(&self, now: i64, batch: u32) -> Result<u64, DbError> {
        EXPIRED.run(&self.db, now, batch).await
    }

    /// Whether the caller should notify: true for one request a period. Without a row there is nothing to remember it
    /// by, and every refusal notifies.
    pub async fn claim_notification(&self, counter: &Tracked, now: i64) -> Result<bool, DbError> {
        let args = [now.into(), counter.tid.into(), fit(&counter.key, 255).into(), counter.period.into()];
        Ok(self.db.execute(&CLAIM_NOTIFICATION, &args).await?.rows_affected > 0)
    }
}

async fn count_one(db: &Db, counter: &Tracked, amount: Amount, now: i64) -> Result<Counted, DbError> {
    let mut run = Run::Alone(db);
    for _ in 0..ATTEMPTS {
        if run.moved(counter, amount, now).await? {
            return Ok(Counted::Accepted);
        }
        match run.standing(counter, amount, now).await? {
            Standing::Exceeded { has_row, by_messages } => {
                return Ok(Counted::Exceeded { at: counter.clone(), has_row, by_messages });
            }
            Standing::Changed => {}
            Standing::Missing => {
                if create(db, counter, amount, now).await? {
                    return Ok(Counted::Accepted);
                }
            }
        }
    }
    Err(contended())
}

fn contended() -> DbError {
    DbError::TryAgain("a throttle counter was changed by too many others at once".to_owned())
}

fn read_limits(row: &Row) -> Option<Limits> {
    let number = |column| row.int(column).unwrap_or(-1);
    Some(Limits {
        id: row.int("id")?,
        account: row.text("account")?.to_owned(),
        priority: row.int("priority").unwrap_or(0),
        period: row.int("period").unwrap_or(0),
        msg_size: number("msg_size"),
        max_msgs: number("max_msgs"),
        max_quota: number("max_quota"),
        max_rcpts: number("max_rcpts"),
    })
}

/// Why a counter did not move.
enum Standing {
    /// Its limit, or that of an empty counter.
    Exceeded { has_row: bool, by_messages: bool },
    /// It was at its limit a moment ago, but no longer.
    Changed,
    /// There is no row.
    Missing,
}

/// How one counter of several fared.
enum Step {
    Moved,
    Exceeded { has_row: bool, by_messages: bool },
    Lost,
}

/// Runs statements alone or within a transaction.
enum Run<'a> {
    Alone(&'a Db),
    Within(&'a mut Transaction),
}

impl Run<'_> {
    fn engine(&self) -> Engine {
        match self {
            Run::Alone(db) => db.engine(),
            Run::Within(transaction) => transaction.engine(),
        }
    }

    async fn execute(&mut self, stmt: &Stmt, args: &[Value]) -> Result<Done, DbError> {
        match self {
            Run::Alone(db) => db.execute(stmt, args).await,
            Run::Within(transaction) => transaction.execute(stmt, args).await,
        }
    }

    /// Moves the counter if its limits allow it.
    async fn moved(&mut self, counter: &Tracked, amount: Amount, now: i64) -> Result<bool, DbError> {
        // More than a whole period allows never counts, not even on a period that is over.
        if counter.max_msgs > 0 && amount.messages > counter.max_msgs {
            return Ok(false);
        }
        let args = count_args(counter, amount, now);
        let outcome = match self.execute(&COUNT, &args).await {
            Err(DbError::Refused(_)) if self.engine() == Engine::MySql => {
                self.execute(&COUNT_SATURATING, &args).await
            }
            // Two updates of one row never deadlock, but a server under load may say so.
            Err(DbError::TryAgain(_)) if matches!(self, Run::Alone(_)) => self.execute(&COUNT, &args).await,
            other => other,
        };
        Ok(outcome?.rows_affected > 0)
    }

    async fn standing(&mut self, counter: &Tracked, amount: Amount, now: i64) -> Result<Standing, DbError> {
        let args = [counter.tid.into(), counter.key.as_str().into()];
        let row = match self {
            Run::Alone(db) => db.fetch_optional(&COUNTER, &args).await?,
            Run::Within(transaction) => transaction.fetch_optional(&COUNTER, &args).await?,
        };
        let Some(row) = row else {
            let first_too_many = counter.max_msgs > 0 && amount.messages > counter.max_msgs;
            return Ok(match first_too_many {
                true => Standing::Exceeded { has_row: false, by_messages: true },
                false => Standing::Missing,
            });
        };
        let number = |column| row.int(column).unwrap_or(0);
        let over = number("init_time").saturating_add(counter.period) < now;
        let (messages, bytes) = if over { (0, 0) } else { (number("cur_msgs"), number("cur_quota")) };
        let too_many = counter.max_msgs > 0 && messages.saturating_add(amount.messages) > counter.max_msgs;
        let too_much = counter.max_quota > 0 && bytes > counter.max_quota;
        Ok(match too_many || too_much {
            true => Standing::Exceeded { has_row: true, by_messages: too_many },
            false => Standing::Changed,
        })
    }

    /// [`Run::moved`], [`Run::standing`] and the making of a row within a transaction.
    async fn count(&mut self, counter: &Tracked, amount: Amount, now: i64) -> Result<Step, DbError> {
        if self.moved(counter, amount, now).await? {
            return Ok(Step::Moved);
        }
        match self.standing(counter, amount, now).await? {
            Standing::Exceeded { has_row, by_messages } => Ok(Step::Exceeded { has_row, by_messages }),
            Standing::Changed => Ok(Step::Lost),
            Standing::Missing => {
                let Run::Within(transaction) = self else { return Ok(Step::Lost) };
                let made = create_within(transaction, counter, amount, now).await?;
                Ok(if made { Step::Moved } else { Step::Lost })
            }
        }
    }
}

fn count_args(counter: &Tracked, amount: Amount, now: i64) -> [Value; 22] {
    let Tracked { tid, period, max_msgs, max_quota, .. } = *counter;
    let (Amount { messages, bytes }, init) = (amount, now);
    [
        period.into(),
        now.into(),
        messages.into(),
        messages.into(),
        period.into(),
        now.into(),
        bytes.into(),
        bytes.into(),
        now.into(),
        period.into(),
        period.into(),
        now.into(),
        init.into(),
        tid.into(),
        counter.key.as_str().into(),
        period.into(),
        now.into(),
        max_msgs.into(),
        messages.into(),
        max_msgs.into(),
        max_quota.into(),
        max_quota.into(),
    ]
}

/// Makes the row of a counter with its first message on it; false if somebody else made one first.
async fn create(db: &Db, counter: &Tracked, amount: Amount, now: i64) -> Result<bool, DbError> {
    if db.engine() == Engine::Postgres {
        let mut transaction = db.begin().await?;
        let made = create_within(&mut transaction, counter, amount, now).await?;
        transaction.commit().await?;
        return Ok(made);
    }
    made(db.execute(&CREATE, &create_args(db.engine(), counter, amount, now)).await)
}

async fn create_within(
    transaction: &mut Transaction,
    counter: &Tracked,
    amount: Amount,
    now: i64,
) -> Result<bool, DbError> {
    if transaction.engine() == Engine::Postgres {
        transaction.fetch_optional(&LOCK_KEY, &[lock_number(counter).into()]).await?;
    }
    made(transaction.execute(&CREATE, &create_args(transaction.engine(), counter, amount, now)).await)
}

fn made(outcome: Result<Done, DbError>) -> Result<bool, DbError> {
    match outcome {
        Ok(done) => Ok(done.rows_affected > 0),
        Err(error) if error.is_duplicate_key() => Ok(false),
        Err(error) => Err(error),
    }
}

fn create_args(engine: Engine, counter: &Tracked, amount: Amount, now: i64) -> Vec<Value> {
    let (mut messages, mut bytes) = (amount.messages, amount.bytes);
    if engine == Engine::MySql {
        (messages, bytes) = (messages.min(16_777_215), bytes.min(4_294_967_295));
    }
    let mut args: Vec<Value> = vec![
        counter.tid.into(),
        counter.key.as_str().into(),
        counter.period.into(),
        messages.into(),
        bytes.into(),
        now.into(),
        now.into(),
    ];
    if engine != Engine::MySql {
        args.extend([counter.tid.into(), counter.key.as_str().into()]);
    }
    args
}

/// The same number in every process: FNV-1a over table, setting and key.
fn lock_number(counter: &Tracked) -> i64 {
    let text = format!("throttle_tracking {} {}", counter.tid, counter.key);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_key_never_changes() {
        let counter = |tid, key: &str| Tracked { tid, key: key.into(), period: 1, max_msgs: 0, max_quota: 0 };
        assert_eq!(lock_number(&counter(1, "a@example.com")), lock_number(&counter(1, "a@example.com")));
        assert_ne!(lock_number(&counter(1, "a@example.com")), lock_number(&counter(2, "a@example.com")));
        assert_ne!(lock_number(&counter(1, "a@example.com")), lock_number(&counter(1, "b@example.com")));
    }
}
