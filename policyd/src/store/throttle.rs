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
//! Messages of the same moment go together, see `group.rs` and `together.rs`, and none of them waits there for a counter that
//! another session holds. Those whose counter did not move find out why, and only who has nothing else left waits, see
//! `lines.rs`.
//!
//! When a message counts towards two settings (one supplies the number, the other the bytes) both counters move in
//! one transaction or none does, see `several.rs`.

mod counter;
mod group;
mod lines;
mod several;
mod together;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_core::gather::{Gather, Lanes};
use outrider_core::sql::{Db, DbError, Row, Stmt, Value};
use tokio::time::sleep;

use super::account_cache::AccountCache;
use super::{Sweep, fit};
use crate::cache::CacheMeter;
use crate::settings::CacheSettings;
pub use counter::{Amount, Tracked};
use counter::{Run, Standing};
use group::Count;
use lines::Lines;
use several::Several;
use together::{Together, Tried};

const LIMITS: Stmt = Stmt::same(
    "SELECT id, kind, account, priority, period, msg_size, max_msgs, max_quota, max_rcpts \
     FROM throttle WHERE kind IN (?) AND account IN (?) ORDER BY id",
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
const LANES: Lanes = Lanes { quick: 1, slow: 4 };
/// After so many lost races the error is reported; one race is one lost.
const ATTEMPTS: u32 = 8;
/// Who lost a race waits a little longer each time before the next.
const PAUSE: Duration = Duration::from_millis(1);

/// The tables.
pub struct ThrottleStore {
    db: Db,
    /// Messages counted together with others, whatever their counters.
    counts: Gather<Count, Result<Tried, DbError>>,
    /// Those that have to wait for their counter; whether it moved.
    waiting: Arc<Lines<Count, Result<bool, DbError>>>,
    /// Those with several counters.
    several: Lines<Several, Result<Counted, DbError>>,
    limits: AccountCache<Vec<Limits>>,
}

impl ThrottleStore {
    /// The tables in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> ThrottleStore {
        // Of 8 connections 2 wait for counters, 3 move several; one more may wait below `together`.
        let (few, some) = (db.most_connections() / 4, db.most_connections() * 3 / 8);
        let server = db.clone();
        let waiting = Arc::new(Lines::new(MOST, few, move |counts: Vec<Count>| {
            let db = server.clone();
            async move { group::count_in_turn(&db, &counts).await }
        }));
        let server = db.clone();
        let several = Lines::new(1, some, move |messages: Vec<Several>| {
            let db = server.clone();
            async move { several::count_each(&db, &messages).await }
        });
        let together = Arc::new(Together::new(db.clone(), waiting.clone()));
        let counts = Gather::new(MOST, LANES, move |counts: Vec<Count>| {
            let together = together.clone();
            async move { group::count_all(&together, &counts).await }
        });
        let reader = db.clone();
        let limits = AccountCache::new(cache, move |keys| read_limits(reader.clone(), keys));
        ThrottleStore { db, counts, waiting, several, limits }
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
        let keys: Vec<String> = accounts.iter().map(|account| limits_key(kind, account)).collect();
        let found = self.limits.get_all(&keys).await?;
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
            [one] => self.count_one(Count { counter: one.clone(), amount, now }).await,
            several => {
                let name = lines::name(several);
                let message = Several { counters: tracked, amount, now };
                self.several.ask(name, message).await.unwrap_or_else(|| Err(contended()))
            }
        }
    }

    async fn count_one(&self, count: Count) -> Result<Counted, DbError> {
        let name = lines::name(std::slice::from_ref(&count.counter));
        loop {
            match self.counts.ask(count.clone()).await.unwrap_or_else(|| Err(contended()))? {
                Tried::Moved => return Ok(Counted::Accepted),
                Tried::NotMoved => return self.count_alone(count, name).await,
                Tried::Held => self.waiting.until_free(&name).await,
            }
        }
    }

    /// Counts a message whose counter was not moved together with others: it is exceeded, missing, or held.
    async fn count_alone(&self, count: Count, name: lines::Name) -> Result<Counted, DbError> {
        let Count { counter, amount, now } = &count;
        let mut run = Run::Alone(&self.db);
        for attempt in 0..ATTEMPTS {
            pause(attempt).await;
            let standing = run.standing(counter, *amount, *now).await?;
            if let Standing::Exceeded { has_row, by_messages } = standing {
                return Ok(Counted::Exceeded { at: counter.clone(), has_row, by_messages });
            }
            let waited = self.waiting.ask(name.clone(), count.clone()).await;
            match waited.unwrap_or_else(|| Err(contended())) {
                Ok(true) => return Ok(Counted::Accepted),
                Ok(false) | Err(DbError::TryAgain(_)) => {}
                Err(error) => return Err(error),
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

/// Before another attempt.
async fn pause(attempt: u32) {
    if attempt > 0 {
        sleep(PAUSE * attempt).await;
    }
}

fn contended() -> DbError {
    DbError::TryAgain("a throttle counter was changed by too many others at once".to_owned())
}

/// The cache is shared by the kinds; a kind has no blank.
fn limits_key(kind: &str, account: &str) -> String {
    format!("{kind} {account}")
}

/// The limits of these keys, and maybe of others.
async fn read_limits(db: Db, keys: Vec<String>) -> Result<HashMap<String, Vec<Limits>>, DbError> {
    let (mut kinds, accounts): (Vec<&str>, Vec<&str>) =
        keys.iter().filter_map(|key| key.split_once(' ')).unzip();
    kinds.sort_unstable();
    kinds.dedup();
    let rows = db.fetch_all(&LIMITS, &[Value::list(kinds), Value::list(accounts)]).await?;
    let mut limits: HashMap<String, Vec<Limits>> = HashMap::new();
    for row in &rows {
        if let (Some(kind), Some(row)) = (row.text("kind"), read_row(row)) {
            // MySQL finds them with blanks at the end as well.
            limits
                .entry(limits_key(&kind.trim_end().to_lowercase(), &row.account.trim_end().to_lowercase()))
                .or_default()
                .push(row);
        }
    }
    Ok(limits)
}

fn read_row(row: &Row) -> Option<Limits> {
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
