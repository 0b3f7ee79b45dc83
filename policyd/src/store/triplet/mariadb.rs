//! First contacts on a MariaDB that tells what it did to each row.
//!
//! One statement makes the rows that are not there, counts one more refusal of those that are there and still have to wait, and
//! tells what each row holds then. Clients that have passed must get no rows. One contact alone asks for that in the same
//! statement; several ask before, since a sub-query for each row costs the server more than another round trip.

use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use super::contact::{Contact, insert, rows};
use super::{Meeting, Seen, Times};

/// Values: the row, the client.
const MEET_ALONE: Stmt = Stmt::same(insert!(
    "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM DUAL WHERE NOT EXISTS \
     (SELECT 1 FROM greylisting_tracking AS old WHERE old.client_address = ? AND old.passed = 1) \
     ON DUPLICATE KEY UPDATE greylisting_tracking.blocked_count = greylisting_tracking.blocked_count \
     + IF(greylisting_tracking.block_expired > VALUES(init_time) \
     AND greylisting_tracking.record_expired >= VALUES(init_time), 1, 0) \
     RETURNING block_expired, record_expired, blocked_count"
));

const MEET: Stmt = Stmt::same(insert!(
    "VALUES ? ON DUPLICATE KEY UPDATE blocked_count = blocked_count \
     + IF(block_expired > VALUES(init_time) AND record_expired >= VALUES(init_time), 1, 0) \
     RETURNING block_expired, record_expired, blocked_count"
));

/// Clients that have passed. A big provider has many rows, of which one would do.
const PASSED: Stmt = Stmt::same(
    "SELECT client_address FROM greylisting_tracking WHERE client_address IN (?) AND passed = 1 LIMIT ?",
);

/// Rows of [`PASSED`] at most.
const SOME: usize = 64;

/// Of each contact what is known then; nothing where the client has passed, or may have.
pub(super) async fn meet(db: &Db, contacts: &[&Contact]) -> Result<Vec<Option<Meeting>>, DbError> {
    let passed = match contacts {
        // The statement asks itself.
        [_] => vec![false],
        _ => passed(db, contacts).await?,
    };
    let is_first = |at: &usize| !passed[*at] && tells_new_from_old(contacts[*at]);
    let firsts: Vec<usize> = (0..contacts.len()).filter(is_first).collect();
    let told = match firsts.iter().map(|&at| contacts[at]).collect::<Vec<_>>().as_slice() {
        [] => Vec::new(),
        [alone] => {
            let [_, _, client] = &alone.key;
            let values: Vec<Value> = alone.row.iter().chain([client]).cloned().collect();
            db.fetch_all(&MEET_ALONE, &values).await?
        }
        // Gives one row for each, in their order.
        several => db.fetch_all(&MEET, &[rows(several)]).await?,
    };
    let mut meetings = vec![None; contacts.len()];
    for (at, row) in firsts.into_iter().zip(told) {
        meetings[at] = meeting(&contacts[at].times, &row);
    }
    Ok(meetings)
}

/// An old row is counted, and so told from a new one, if it has to wait yet: without a time to wait they would look alike.
fn tells_new_from_old(contact: &Contact) -> bool {
    contact.times.block_expired > contact.times.init
}

/// Of each contact whether its client has passed, or may have.
async fn passed(db: &Db, contacts: &[&Contact]) -> Result<Vec<bool>, DbError> {
    let clients = Value::list(contacts.iter().map(|Contact { key: [_, _, client], .. }| client.clone()));
    let rows = db.fetch_all(&PASSED, &[clients, SOME.into()]).await?;
    let passed = |contact: &&Contact| {
        let [_, _, client] = &contact.key;
        let client = client.as_text().unwrap_or_default();
        // As the server compares.
        rows.iter().filter_map(|row| row.text_at(0)).any(|row| row.trim_end().eq_ignore_ascii_case(client))
    };
    match rows.len() < SOME {
        true => Ok(contacts.iter().map(passed).collect()),
        false => Ok(vec![true; contacts.len()]),
    }
}

/// What the row of a contact tells.
fn meeting(times: &Times, row: &Row) -> Option<Meeting> {
    let (block_expired, record_expired, refusals) = (row.int_at(0)?, row.int_at(1)?, row.int_at(2)?);
    if (block_expired, record_expired, refusals) == (times.block_expired, times.record_expired, 1) {
        return Some(Meeting::FIRST);
    }
    let counted = block_expired > times.init && record_expired >= times.init;
    let seen = Seen { client_passed: None, triplet: Some((block_expired, record_expired)) };
    Some(Meeting { counted, ..Meeting::of(seen) })
}
