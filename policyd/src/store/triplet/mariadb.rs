//! First contacts on a MariaDB that tells what it did to each row.
//!
//! One statement makes the rows that are not there, counts one more refusal of those that are there and still have to wait, and
//! tells what each row holds then. Clients that have passed must get no rows. One contact alone asks for that in the same
//! statement; several ask before: another round trip, but `INSERT ... SELECT` would keep the next ones waiting until its end.

use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use super::contact::{Contact, insert, rows};
use super::{Meeting, Seen, Times};

/// What becomes of rows that are there, and what is told of all.
macro_rules! counted {
    ($($insert:tt)+) => {
        insert!(
            $($insert)+ " ON DUPLICATE KEY UPDATE greylisting_tracking.blocked_count = greylisting_tracking.blocked_count \
             + IF(greylisting_tracking.block_expired > VALUES(init_time) \
             AND greylisting_tracking.record_expired >= VALUES(init_time), 1, 0) \
             RETURNING block_expired, record_expired, blocked_count"
        )
    };
}

/// Values: the row, the key, the client. If the client has passed, it tells nothing.
///
/// What is greatest the server reads from the end of an index while it plans the statement: that takes a third of the time of
/// an `EXISTS`, which it has to carry out. An `INSERT ... SELECT` holds the lock of the table's ids from the first that it asks for
/// to its end, also while it waits for a row that somebody else holds, and all who insert would wait with it: so a row that
/// is there is named by its id.
const MEET_ALONE: Stmt = Stmt::same(counted!(
    with id "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT own.id FROM greylisting_tracking AS own \
     WHERE own.sender = ? AND own.recipient = ? AND own.client_address = ?) FROM DUAL WHERE \
     (SELECT MAX(old.passed) FROM greylisting_tracking AS old WHERE old.client_address = ?) IS NOT TRUE"
));

/// Values: the rows.
const MEET: Stmt = Stmt::same(counted!("VALUES ?"));

/// Clients that have passed. A big provider has many rows, of which one would do.
const PASSED: Stmt = Stmt::same(
    "SELECT client_address FROM greylisting_tracking WHERE client_address IN (?) AND passed = 1 LIMIT ?",
);

/// Rows of [`PASSED`] at most.
const SOME: usize = 64;

/// Of each contact what is known then; nothing where the client has passed, or may have, and where a new row would look like an
/// old one.
pub(super) async fn meet(db: &Db, contacts: &[&Contact]) -> Result<Vec<Option<Meeting>>, DbError> {
    let told_apart: Vec<&Contact> =
        contacts.iter().copied().filter(|contact| tells_new_from_old(contact)).collect();
    let mut met = match told_apart.as_slice() {
        [] => Vec::new(),
        [alone] => vec![meet_alone(db, alone).await?],
        several => meet_several(db, several).await?,
    }
    .into_iter();
    let meeting = |contact: &&Contact| if tells_new_from_old(contact) { met.next().flatten() } else { None };
    Ok(contacts.iter().map(meeting).collect())
}

/// In one statement.
async fn meet_alone(db: &Db, contact: &Contact) -> Result<Option<Meeting>, DbError> {
    let [_, _, client] = &contact.key;
    let values: Vec<Value> = contact.row.iter().chain(&contact.key).chain([client]).cloned().collect();
    let told = db.fetch_optional(&MEET_ALONE, &values).await?;
    Ok(told.and_then(|row| meeting(&contact.times, &row)))
}

/// In two.
async fn meet_several(db: &Db, contacts: &[&Contact]) -> Result<Vec<Option<Meeting>>, DbError> {
    let passed = passed(db, contacts).await?;
    let firsts = contacts.iter().zip(&passed).filter(|(_, passed)| !**passed).map(|(contact, _)| *contact);
    let mut told = match firsts.collect::<Vec<_>>().as_slice() {
        [] => Vec::new(),
        // Gives one row for each, in their order.
        firsts => db.fetch_all(&MEET, &[rows(firsts)]).await?,
    }
    .into_iter();
    let mut next = |contact: &Contact| told.next().and_then(|row| meeting(&contact.times, &row));
    Ok(contacts
        .iter()
        .zip(passed)
        .map(|(contact, passed)| if passed { None } else { next(contact) })
        .collect())
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
