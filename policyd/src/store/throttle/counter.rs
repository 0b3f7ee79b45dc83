//! One counter: moved if its limits allow it, looked at, made.

use outrider_core::sql::{Db, DbError, Done, Engine, Stmt, Transaction, Value};

/// Moves the counter of a row if its limits allow it. On MySQL assignments work from left to right, so `init_time`, by which
/// the others tell whether the period is over, comes last.
macro_rules! count {
    ($row:literal) => {
        count!($row, "", "", "")
    };
    ($row:literal, $messages:literal, $bytes:literal, $end:literal) => {
        concat!(
            "UPDATE throttle_tracking SET cur_msgs = ",
            $messages,
            "CASE WHEN init_time + ? < ? THEN ? ELSE cur_msgs + ? END",
            $end,
            ", cur_quota = ",
            $bytes,
            "CASE WHEN init_time + ? < ? THEN ? ELSE cur_quota + ? END",
            $end,
            ", last_time = ?, period = ?, init_time = CASE WHEN init_time + ? < ? THEN ? ELSE init_time END WHERE ",
            $row,
            " AND (init_time + ? < ? OR ((? <= 0 OR cur_msgs + ? <= ?) AND (? <= 0 OR cur_quota <= ?)))"
        )
    };
}

const COUNT: Stmt = Stmt::per_engine(
    count!("tid = ? AND account = ?"),
    // Without a unique key there may be several rows; the newest counts.
    count!("id = (SELECT MAX(id) FROM throttle_tracking WHERE tid = ? AND account = ?)"),
    count!("tid = ? AND account = ?"),
);

/// The same for the narrow columns of iRedMail's MySQL schema, when the sum does not fit: the counter stays at the
/// column's end. Sites that widened their columns never come here.
const COUNT_SATURATING: Stmt =
    Stmt::same(count!("tid = ? AND account = ?", "LEAST(16777215, ", "LEAST(4294967295, ", ")"));

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

/// Why a counter did not move.
pub(super) enum Standing {
    /// Its limit, or that of an empty counter.
    Exceeded { has_row: bool, by_messages: bool },
    /// Its limits allow it: somebody held it, or it was at its limit a moment ago.
    Allowed,
    /// There is no row.
    Missing,
}

/// How one counter of several fared.
pub(super) enum Step {
    Moved,
    Exceeded { has_row: bool, by_messages: bool },
    Lost,
}

/// Runs statements alone or within a transaction.
pub(super) enum Run<'a> {
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
    pub(super) async fn moved(
        &mut self,
        counter: &Tracked,
        amount: Amount,
        now: i64,
    ) -> Result<bool, DbError> {
        // More than a whole period allows never counts, not even on a period that is over.
        if counter.max_msgs > 0 && amount.messages > counter.max_msgs {
            return Ok(false);
        }
        let args = count_args(counter, amount, now);
        let outcome = match self.execute(&COUNT, &args).await {
            Err(DbError::Refused(_)) if self.engine() == Engine::MySql => {
                self.execute(&COUNT_SATURATING, &args).await
            }
            other => other,
        };
        Ok(outcome?.rows_affected > 0)
    }

    pub(super) async fn standing(
        &mut self,
        counter: &Tracked,
        amount: Amount,
        now: i64,
    ) -> Result<Standing, DbError> {
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
            false => Standing::Allowed,
        })
    }

    /// [`Run::moved`], [`Run::standing`] and the making of a row.
    pub(super) async fn count(
        &mut self,
        counter: &Tracked,
        amount: Amount,
        now: i64,
    ) -> Result<Step, DbError> {
        if self.moved(counter, amount, now).await? {
            return Ok(Step::Moved);
        }
        match self.standing(counter, amount, now).await? {
            Standing::Exceeded { has_row, by_messages } => Ok(Step::Exceeded { has_row, by_messages }),
            Standing::Allowed => Ok(Step::Lost),
            Standing::Missing => {
                let made = match self {
                    Run::Alone(db) => create(db, counter, amount, now).await?,
                    Run::Within(transaction) => create_within(transaction, counter, amount, now).await?,
                };
                Ok(if made { Step::Moved } else { Step::Lost })
            }
        }
    }
}

fn count_args(counter: &Tracked, amount: Amount, now: i64) -> [Value; 22] {
    let Tracked { tid, period, max_msgs, max_quota, .. } = *counter;
    let Amount { messages, bytes } = amount;
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
        now.into(),
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
