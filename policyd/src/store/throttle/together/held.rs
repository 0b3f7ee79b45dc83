//! MySQL and MariaDB: the counters are held, looked at and written in one transaction.
//!
//! No `UPDATE` there tells which rows it moved. Four round trips, but one commit, and less work for the server than a
//! statement for each counter.

use std::collections::HashMap;

use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use super::{Change, padded};
use crate::store::throttle::Tracked;

/// Counters of one row of `throttle`, without those that somebody else holds. MariaDB before 10.6 and MySQL before 8 refuse.
const HOLD: Stmt = Stmt::same(
    "SELECT id, account, cur_msgs, cur_quota, init_time FROM throttle_tracking \
     WHERE tid = ? AND account IN (?) FOR UPDATE SKIP LOCKED",
);

/// All rows are there; a number that the column does not take fails the statement.
const SET: Stmt = Stmt::same(
    "INSERT INTO throttle_tracking (id, tid, account, period, cur_msgs, cur_quota, init_time, last_time) VALUES ? \
     ON DUPLICATE KEY UPDATE period = VALUES(period), cur_msgs = VALUES(cur_msgs), cur_quota = VALUES(cur_quota), \
     init_time = VALUES(init_time), last_time = VALUES(last_time)",
);

/// Makes the changes of counters with the same row of `throttle` as the first; of each whether it took place. `None`: the
/// server cannot leave out what somebody else holds.
///
/// # Errors
/// Nothing took place, unless the connection was lost while it was committed.
pub(super) async fn moved(db: &Db, changes: &[&Change]) -> Result<Option<Vec<bool>>, DbError> {
    let Some(tid) = changes.first().map(|change| change.counter.tid) else { return Ok(None) };
    let keys = changes.iter().filter(|change| change.counter.tid == tid);
    let keys = Value::list(keys.map(|change| change.counter.key.as_str()));
    let mut transaction = db.begin().await?;
    let held = match transaction.fetch_all(&HOLD, &[tid.into(), keys]).await {
        Ok(held) => held,
        Err(error) => {
            transaction.rollback().await?;
            return if matches!(error, DbError::Refused(_)) { Ok(None) } else { Err(error) };
        }
    };
    let held: HashMap<&str, &Row> = held.iter().filter_map(|row| Some((row.text("account")?, row))).collect();
    let row = |change: &&Change| {
        if change.counter.tid == tid { changed(change, held.get(change.counter.key.as_str())?) } else { None }
    };
    let rows: Vec<Option<Vec<Value>>> = changes.iter().map(row).collect();
    let moved = rows.iter().map(Option::is_some).collect();
    let rows: Vec<Vec<Value>> = rows.into_iter().flatten().collect();
    if rows.is_empty() {
        transaction.rollback().await?;
        return Ok(Some(moved));
    }
    if let Err(error) = transaction.execute(&SET, &[padded(rows)]).await {
        transaction.rollback().await?;
        return Err(error);
    }
    transaction.commit().await?;
    Ok(Some(moved))
}

/// The row after the change, if the limits allow it.
fn changed(change: &Change, row: &Row) -> Option<Vec<Value>> {
    let (Change { counter, amount, now }, number) = (change, |column| row.int(column));
    let Tracked { tid, key, period, max_msgs, max_quota } = counter;
    let (id, init_time) = (number("id")?, number("init_time")?);
    let (messages, bytes) = (number("cur_msgs")?, number("cur_quota")?);
    let after = if init_time.saturating_add(*period) < *now {
        (amount.messages, amount.bytes, *now)
    } else {
        let messages = messages.saturating_add(amount.messages);
        if (*max_msgs > 0 && messages > *max_msgs) || (*max_quota > 0 && bytes > *max_quota) {
            return None;
        }
        (messages, bytes.saturating_add(amount.bytes), init_time)
    };
    let (messages, bytes, init_time) = after;
    Some(vec![
        id.into(),
        (*tid).into(),
        key.as_str().into(),
        (*period).into(),
        messages.into(),
        bytes.into(),
        init_time.into(),
        (*now).into(),
    ])
}
