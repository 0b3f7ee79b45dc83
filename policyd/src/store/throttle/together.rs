//! Different counters moved at the same moment: one statement and one commit for all of them.
//!
//! Each is moved under the same condition as alone, and the statement tells which were. A counter that somebody else holds at
//! the moment is left out: nobody waits for a counter that is not its own. MySQL, and a MariaDB before 10.6 or with a
//! binary log of statements, cannot do that: there each is moved alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use outrider_core::sql::{Db, DbError, Engine, Stmt, Value};
use tokio::sync::Mutex;

use super::counter::Run;
use super::group::Count;
use super::lines::{self, Lines};
use super::{Amount, Tracked};
use crate::store::server::Server;

/// How the attempt to move a counter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Moved,
    /// Why not is not known.
    NotMoved,
    /// Not tried: other messages of this process are moving it, or wait for it.
    Held,
}

impl From<bool> for Tried {
    fn from(moved: bool) -> Tried {
        if moved { Tried::Moved } else { Tried::NotMoved }
    }
}

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

/// For MariaDB an insert of rows that are all there: no `UPDATE` tells which rows it moved. It reads the table first,
/// because only values that are compared with a column itself find its index whatever its character set, and compares
/// octets then: of two accounts that are the same to the table (`jose`, `josé`) only one may move the row. Values: the
/// changes without the row of `throttle`, then that, then the accounts. SQLite has no rows that others hold.
const CHANGE: Stmt = Stmt::per_engine(
    "INSERT INTO throttle_tracking (id, tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
     SELECT counter.id, counter.tid, counter.account, span, \
     CASE WHEN init_time + span < moment THEN messages ELSE cur_msgs + messages END, \
     CASE WHEN init_time + span < moment THEN bytes ELSE cur_quota + bytes END, \
     CASE WHEN init_time + span < moment THEN moment ELSE init_time END, moment \
     FROM throttle_tracking AS counter STRAIGHT_JOIN ({SELECT ? AS who, ? AS messages, ? AS bytes, ? AS moment, \
     ? AS span, ? AS most_messages, ? AS most_bytes}) AS wanted ON BINARY counter.account = who \
     WHERE counter.tid = ? AND counter.account IN (?) \
     AND (init_time + span < moment OR ((most_messages <= 0 OR cur_msgs + messages <= most_messages) \
     AND (most_bytes <= 0 OR cur_quota <= most_bytes))) FOR UPDATE SKIP LOCKED \
     ON DUPLICATE KEY UPDATE period = VALUES(period), cur_msgs = VALUES(cur_msgs), cur_quota = VALUES(cur_quota), \
     init_time = VALUES(init_time), last_time = VALUES(last_time) RETURNING tid, account",
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
    server: Server,
    waiting: Arc<Lines<Count, Result<bool, DbError>>>,
    /// Held by the one that may wait in the server.
    may_wait: Mutex<()>,
}

impl Together {
    pub(super) fn new(db: Db, waiting: Arc<Lines<Count, Result<bool, DbError>>>) -> Together {
        Together { server: Server::new(db.clone()), db, waiting, may_wait: Mutex::default() }
    }

    /// Makes the changes; of each whether it took place. `None` is one that cannot.
    pub(super) async fn moved(&self, changes: &[Option<Count>]) -> Vec<Result<Tried, DbError>> {
        let mut outcomes = vec![Ok(Tried::NotMoved); changes.len()];
        // Two changes of one row, as when its limits have just been set anew, would be one to the statement.
        let mut rows = HashSet::new();
        let possible = changes.iter().enumerate().filter_map(|(at, change)| Some((at, change.as_ref()?)));
        let (places, changes): (Vec<usize>, Vec<&Count>) =
            possible.filter(|(_, change)| rows.insert(row(&change.counter))).unzip();
        for (at, outcome) in places.into_iter().zip(self.move_all(&changes).await) {
            outcomes[at] = outcome;
        }
        outcomes
    }

    async fn move_all(&self, changes: &[&Count]) -> Vec<Result<Tried, DbError>> {
        let outcome = match changes {
            [] => return Vec::new(),
            [alone] => self.move_alone(alone).await.map(|tried| vec![tried]),
            _ => self.move_together(changes).await.map(|moved| moved.into_iter().map(Tried::from).collect()),
        };
        match outcome {
            Ok(tried) => tried.into_iter().map(Ok).collect(),
            // Undone as a whole; what one of them did must not happen to the others.
            Err(DbError::TryAgain(_) | DbError::Refused(_)) => vec![Ok(Tried::NotMoved); changes.len()],
            Err(error) => vec![Err(error); changes.len()],
        }
    }

    /// The quickest way for one, but it waits if somebody else holds the counter: if one does so, no other.
    async fn move_alone(&self, change: &Count) -> Result<Tried, DbError> {
        let Count { counter, amount, now } = change;
        let Some(mover) = self.waiting.try_alone(&lines::name(std::slice::from_ref(counter))) else {
            return Ok(Tried::Held);
        };
        let moved = match self.may_wait.try_lock() {
            Ok(_waits) => Run::Alone(&self.db).moved(counter, *amount, *now).await,
            Err(_) => self.move_together(&[change]).await.map(|moved| moved.contains(&true)),
        };
        drop(mover);
        // Those who were told that it is held come back now. They are to be part of the next batch, which begins at once, else
        // those who come anew would be before them again and again.
        tokio::task::yield_now().await;
        Ok(moved?.into())
    }

    async fn move_together(&self, changes: &[&Count]) -> Result<Vec<bool>, DbError> {
        match self.db.engine() {
            Engine::MySql if !self.server.skips_locked_rows().await? => Ok(vec![false; changes.len()]),
            Engine::MySql => in_inserts(&self.db, changes).await,
            Engine::Postgres | Engine::Sqlite => {
                let rows = padded(changes.iter().map(|change| values(change)).collect());
                in_one_statement(&self.db, changes, &[rows]).await
            }
        }
    }
}

/// One for each row of `throttle`.
async fn in_inserts(db: &Db, changes: &[&Count]) -> Result<Vec<bool>, DbError> {
    let mut settings: HashMap<i64, Vec<usize>> = HashMap::new();
    for (at, change) in changes.iter().enumerate() {
        settings.entry(change.counter.tid).or_default().push(at);
    }
    let mut outcomes = vec![false; changes.len()];
    for (tid, places) in settings {
        let same: Vec<&Count> = places.iter().map(|&at| changes[at]).collect();
        match in_one_insert(db, tid, &same).await {
            Ok(moved) => places.into_iter().zip(moved).for_each(|(at, moved)| outcomes[at] = moved),
            // What came before lasts; the others are tried alone.
            Err(_) if outcomes.contains(&true) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

async fn in_one_insert(db: &Db, tid: i64, changes: &[&Count]) -> Result<Vec<bool>, DbError> {
    let mut rows: Vec<Vec<Value>> = changes.iter().map(|change| values(change).split_off(1)).collect();
    let accounts = Value::List(rows.iter().filter_map(|row| row.first().cloned()).collect());
    // The last one again would move its row twice.
    let nobody = [Value::Null].into_iter().chain([0; 6].map(Value::from)).collect();
    rows.resize(rows.len().next_power_of_two(), nobody);
    in_one_statement(db, changes, &[Value::Rows(rows), tid.into(), accounts]).await
}

async fn in_one_statement(db: &Db, changes: &[&Count], args: &[Value]) -> Result<Vec<bool>, DbError> {
    let moved = db.fetch_all(&CHANGE, args).await?;
    let moved: HashSet<(i64, &str)> =
        moved.iter().filter_map(|row| Some((row.int("tid")?, row.text("account")?))).collect();
    Ok(changes.iter().map(|change| moved.contains(&row(&change.counter))).collect())
}

/// What names a row of the table.
fn row(counter: &Tracked) -> (i64, &str) {
    (counter.tid, &counter.key)
}

fn values(change: &Count) -> Vec<Value> {
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
