//! Different counters moved at the same moment: one statement and one commit for all of them.
//!
//! Each is moved under the same condition as alone, and the statement tells which were; MySQL, where none can tell that, has
//! a transaction in its place, see `held.rs`. A counter that somebody else holds at the moment is left out: nobody waits
//! for a counter that is not its own.

mod held;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use outrider_core::sql::{Db, DbError, Engine, Stmt, Value};

use super::{Amount, Run, Tracked};

/// What is to be done to a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) counter: Tracked,
    pub(super) amount: Amount,
    pub(super) now: i64,
}

/// Whether a counter moved. Where it did not, it is not known why.
type Moved = Result<bool, DbError>;

macro_rules! change {
    ($with:literal, $from:literal) => {
        concat!(
            "WITH change (setting, who, messages, bytes, moment, span, most_messages, most_bytes) AS (VALUES ?)",
            $with,
            " UPDATE throttle_tracking AS counter SET \
             cur_msgs = CASE WHEN init_time + span < moment THEN messages ELSE cur_msgs + messages END, \
             cur_quota = CASE WHEN init_time + span < moment THEN bytes ELSE cur_quota + bytes END, \
             last_time = moment, period = span, \
             init_time = CASE WHEN init_time + span < moment THEN moment ELSE init_time END FROM ",
            $from,
            " AND (init_time + span < moment OR ((most_messages <= 0 OR cur_msgs + messages <= most_messages) \
             AND (most_bytes <= 0 OR cur_quota <= most_bytes))) RETURNING tid, account",
        )
    };
}

/// SQLite has no rows that others hold. Not for MySQL.
const CHANGE: Stmt = Stmt::per_engine(
    "",
    change!(
        // Row by row, whatever the planner thinks of a join.
        ", mine AS (SELECT held.id, change.* FROM change \
         CROSS JOIN LATERAL (SELECT id FROM throttle_tracking WHERE tid = setting AND account = who \
         ORDER BY id DESC LIMIT 1) AS newest \
         CROSS JOIN LATERAL (SELECT id FROM throttle_tracking WHERE id = newest.id FOR UPDATE SKIP LOCKED) AS held)",
        "mine WHERE counter.id = mine.id"
    ),
    change!("", "change WHERE tid = setting AND account = who"),
);

/// The counters.
pub(super) struct Together {
    db: Db,
    /// The server is an old MySQL or MariaDB.
    one_by_one: AtomicBool,
}

impl Together {
    pub(super) fn new(db: Db) -> Together {
        Together { db, one_by_one: AtomicBool::new(false) }
    }

    /// Makes the changes; of each whether it took place. `None` is one that cannot.
    pub(super) async fn moved(&self, changes: &[Option<Change>]) -> Vec<Moved> {
        let mut outcomes = vec![Ok(false); changes.len()];
        // Two changes of one row, as when its limits have just been set anew, would be one to the statement.
        let mut rows = HashSet::new();
        let possible = changes.iter().enumerate().filter_map(|(at, change)| Some((at, change.as_ref()?)));
        let (places, changes): (Vec<usize>, Vec<&Change>) =
            possible.filter(|(_, change)| rows.insert(row(&change.counter))).unzip();
        for (at, outcome) in places.into_iter().zip(self.move_all(&changes).await) {
            outcomes[at] = outcome;
        }
        outcomes
    }

    async fn move_all(&self, changes: &[&Change]) -> Vec<Moved> {
        if let [Change { counter, amount, now }] = changes {
            return vec![Run::Alone(&self.db).moved(counter, *amount, *now).await];
        }
        if changes.is_empty() || self.one_by_one.load(Ordering::Relaxed) {
            return vec![Ok(false); changes.len()];
        }
        let outcome = match self.db.engine() {
            Engine::MySql => held::moved(&self.db, changes).await,
            Engine::Postgres | Engine::Sqlite => in_one_statement(&self.db, changes).await.map(Some),
        };
        match outcome {
            Ok(Some(moved)) => moved.into_iter().map(Ok).collect(),
            Ok(None) => {
                self.one_by_one.store(true, Ordering::Relaxed);
                vec![Ok(false); changes.len()]
            }
            // Undone as a whole; what one of them did must not happen to the others.
            Err(DbError::TryAgain(_) | DbError::Refused(_)) => vec![Ok(false); changes.len()],
            Err(error) => vec![Err(error); changes.len()],
        }
    }
}

async fn in_one_statement(db: &Db, changes: &[&Change]) -> Result<Vec<bool>, DbError> {
    let rows = padded(changes.iter().map(|change| values(change)).collect());
    let moved = db.fetch_all(&CHANGE, &[rows]).await?;
    let moved: HashSet<(i64, &str)> =
        moved.iter().filter_map(|row| Some((row.int("tid")?, row.text("account")?))).collect();
    Ok(changes.iter().map(|change| moved.contains(&row(&change.counter))).collect())
}

/// What names a row of the table.
fn row(counter: &Tracked) -> (i64, &str) {
    (counter.tid, &counter.key)
}

fn values(change: &Change) -> Vec<Value> {
    let Tracked { tid, period, max_msgs, max_quota, .. } = change.counter;
    let Amount { messages, bytes } = change.amount;
    let key = change.counter.key.as_str().into();
    let numbers = [messages, bytes, change.now, period, max_msgs, max_quota];
    [tid.into(), key].into_iter().chain(numbers.map(Value::from)).collect()
}

/// 2, 4, 8 and so on rows, so that few different statements stay prepared: the last one stands for those that are missing.
fn padded(mut rows: Vec<Vec<Value>>) -> Value {
    if let Some(last) = rows.last().cloned() {
        rows.resize(rows.len().next_power_of_two(), last);
    }
    Value::Rows(rows)
}
