//! First contacts, those of the same moment together.
//!
//! They are written in one statement, which looks at clients and triplets too and tells which rows it made; each is answered
//! after that is durable. Those that make no row are looked up, in one round trip for all of them. MariaDB has its own way,
//! see `mariadb.rs`. MySQL, and a MariaDB before 10.5 or with a binary log of statements, cannot tell, or would lock the
//! neighbourhood of what they look at: there all are looked up first.

use std::net::IpAddr;
use std::sync::Arc;

use outrider_core::sql::{Db, DbError, Engine, Row, Stmt, Value};

use super::{Known, Meeting, Seen, Times, mariadb};
use crate::network_rate::NetworkRate;
use crate::store::again;
use crate::store::server::Server;

/// The passed rows of the client and the row of the triplet. Of the passed rows some tell enough: they are renewed
/// together, and a big provider may have many thousands of them. Values of each: a number that comes back, the client, the
/// number, the triplet.
const SEEN: Stmt = Stmt::same(
    "{SELECT ? AS number, 1 AS kind, MIN(record_expired) AS record_expired, MAX(record_expired) AS other \
     FROM (SELECT record_expired FROM greylisting_tracking WHERE client_address = ? AND passed = 1 LIMIT 100) AS client \
     UNION ALL SELECT ?, 2, record_expired, block_expired \
     FROM greylisting_tracking WHERE sender = ? AND recipient = ? AND client_address = ?}",
);

/// An insertion into all columns, with or without an id behind them.
macro_rules! insert {
    ($($rest:literal)+) => {
        insert!(@columns "passed) " $($rest)+)
    };
    (with id $($rest:literal)+) => {
        insert!(@columns "passed, id) " $($rest)+)
    };
    (@columns $($rest:literal)+) => {
        concat!(
            "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
             block_expired, record_expired, blocked_count, ",
            $($rest),+
        )
    };
}
pub(super) use insert;

/// Writes rows down, all or none.
const WRITE: Stmt = Stmt::same(insert!("VALUES ?"));

/// Writes down those whose client has not passed and that are not there yet, and tells which. Existing rows are left alone.
const WRITE_NEW: Stmt = Stmt::same(concat!(
    "WITH first (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) AS (VALUES ?) ",
    insert!(
        "SELECT * FROM first WHERE NOT EXISTS \
         (SELECT 1 FROM greylisting_tracking AS old WHERE old.client_address = first.client_address AND old.passed = 1) \
         ON CONFLICT DO NOTHING RETURNING sender, recipient, client_address"
    )
));

/// The three values that name a row: sender, recipient, client.
pub(super) type Key = [Value; 3];

/// A contact that waits for its turn.
pub(super) struct Contact {
    pub(super) key: Key,
    /// The columns of its row, the key in front.
    pub(super) row: Vec<Value>,
    /// Those of the row.
    pub(super) times: Times,
    pub(super) client: IpAddr,
    pub(super) share: Arc<NetworkRate>,
}

/// What is settled so far.
type Meetings = Vec<Option<Result<Meeting, DbError>>>;

/// The places of those that are not settled.
fn open(meetings: &Meetings) -> Vec<usize> {
    (0..meetings.len()).filter(|&at| meetings[at].is_none()).collect()
}

/// Those who come, and the table.
pub(super) struct Contacts {
    db: Db,
    server: Server,
}

impl Contacts {
    pub(super) fn new(db: Db) -> Contacts {
        Contacts { server: Server::new(db.clone()), db }
    }

    /// Looks all of them up and writes down those of whom nothing is known.
    pub(super) async fn meet(&self, contacts: Vec<Contact>) -> Vec<Result<Meeting, DbError>> {
        let mut meetings: Meetings = vec![None; contacts.len()];
        let one_step =
            self.db.engine() != Engine::MySql || self.server.tells_what_it_wrote().await.unwrap_or(false);
        if one_step {
            self.write(Step::WriteNew, &contacts, &mut meetings).await;
        }
        self.look_up_rest(&contacts, &mut meetings).await;
        let put_off = self.write(Step::Write, &contacts, &mut meetings).await;
        let rest = |at| Ok(Meeting { remembered: !put_off.contains(&at), ..Meeting::FIRST });
        meetings.into_iter().enumerate().map(|(at, meeting)| meeting.unwrap_or_else(|| rest(at))).collect()
    }

    /// Settles those of whom something is known.
    async fn look_up_rest(&self, contacts: &[Contact], meetings: &mut Meetings) {
        let rest = open(meetings);
        if rest.is_empty() {
            return;
        }
        let keys: Vec<Key> = rest.iter().map(|&at| contacts[at].key.clone()).collect();
        for (at, seen) in rest.into_iter().zip(look_up(&self.db, &keys).await) {
            if !matches!(&seen, Ok(seen) if *seen == Seen::default()) {
                meetings[at] = Some(seen.map(Meeting::of));
            }
        }
    }

    /// Settles those that make a row, or of which the write tells more. Gives back the places of those whose network has had its share.
    async fn write(&self, step: Step, contacts: &[Contact], meetings: &mut Meetings) -> Vec<usize> {
        let may = |at: &usize| contacts[*at].share.take(contacts[*at].client);
        let (firsts, put_off): (Vec<usize>, Vec<usize>) = open(meetings).into_iter().partition(may);
        let rows: Vec<&Contact> = firsts.iter().map(|&at| &contacts[at]).collect();
        for (at, made) in firsts.into_iter().zip(step.insert(&self.db, &rows).await) {
            if !matches!(made, Ok(Some(Meeting::FIRST))) {
                contacts[at].share.give_back(contacts[at].client);
            }
            meetings[at] = match made {
                Ok(meeting) => meeting.map(Ok),
                // Where texts in another character set cannot be compared, looking them up still can.
                Err(DbError::Refused(_)) if step == Step::WriteNew => None,
                Err(error) => Some(Err(error)),
            };
        }
        put_off
    }
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// [`WRITE_NEW`], on MariaDB [`mariadb::meet`].
    WriteNew,
    /// [`WRITE`].
    Write,
}

impl Step {
    /// Inserts rows; of each what is known now.
    async fn insert(self, db: &Db, contacts: &[&Contact]) -> Vec<Result<Option<Meeting>, DbError>> {
        match contacts {
            [] => return Vec::new(),
            [alone] => return vec![self.insert_alone(db, alone).await],
            _ => {}
        }
        match self.insert_together(db, contacts).await {
            // What one row did must not happen to the others: a double, a deadlock, text that a column does not take.
            Err(DbError::DuplicateKey(_) | DbError::TryAgain(_) | DbError::Refused(_)) => {}
            Err(error) => return contacts.iter().map(|_| Err(error.clone())).collect(),
            Ok(made) => return made.into_iter().map(Ok).collect(),
        }
        let mut outcomes = Vec::with_capacity(contacts.len());
        for contact in contacts {
            outcomes.push(self.insert_alone(db, contact).await);
        }
        outcomes
    }

    async fn insert_alone(self, db: &Db, contact: &Contact) -> Result<Option<Meeting>, DbError> {
        match again(|| self.insert_together(db, std::slice::from_ref(&contact))).await {
            Ok(made) => Ok(made.into_iter().flatten().next()),
            Err(error) if error.is_duplicate_key() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One statement for all of them. Of two that are the same the first is made.
    async fn insert_together(self, db: &Db, contacts: &[&Contact]) -> Result<Vec<Option<Meeting>>, DbError> {
        // Who writes the same rows at the same moment, on another host, takes them in the same order: no deadlock.
        let mut order: Vec<usize> = (0..contacts.len()).collect();
        order.sort_by(|&one, &other| names(contacts[one]).cmp(names(contacts[other])));
        let sorted: Vec<&Contact> = order.iter().map(|&at| contacts[at]).collect();
        let outcomes = match (self, db.engine()) {
            (Step::Write, _) => {
                db.execute(&WRITE, &[rows(&sorted)]).await?;
                vec![Some(Meeting::FIRST); sorted.len()]
            }
            (Step::WriteNew, Engine::MySql) => mariadb::meet(db, &sorted).await?,
            (Step::WriteNew, _) => write_new(db, &sorted).await?,
        };
        let mut meetings = vec![None; contacts.len()];
        for (at, outcome) in order.into_iter().zip(outcomes) {
            meetings[at] = outcome;
        }
        Ok(meetings)
    }
}

async fn write_new(db: &Db, contacts: &[&Contact]) -> Result<Vec<Option<Meeting>>, DbError> {
    let mut made = db.fetch_all(&WRITE_NEW, &[rows(contacts)]).await?;
    let is_made = |contact: &&Contact| {
        let at = made.iter().position(|made| contact.key == made.values())?;
        made.swap_remove(at);
        Some(Meeting::FIRST)
    };
    Ok(contacts.iter().map(is_made).collect())
}

/// The rows of contacts.
pub(super) fn rows(contacts: &[&Contact]) -> Value {
    Value::Rows(contacts.iter().map(|contact| contact.row.clone()).collect())
}

/// Sender, recipient and client.
fn names(contact: &Contact) -> impl Iterator<Item = &str> {
    contact.key.iter().filter_map(Value::as_text)
}

/// What the table knows about each of them, in one round trip, and one for each that has letters beyond ASCII: for those a
/// column in another character set may have the whole question asked again without them.
pub(super) async fn look_up(db: &Db, keys: &[Key]) -> Vec<Result<Seen, DbError>> {
    let plain = |key: &Key| key.iter().filter_map(Value::as_text).all(str::is_ascii);
    let together: Vec<&Key> = keys.iter().filter(|key| plain(key)).collect();
    let mut seen = match together.is_empty() {
        true => Vec::new(),
        false => look_up_together(db, &together).await,
    }
    .into_iter();
    let mut outcomes = Vec::with_capacity(keys.len());
    for key in keys {
        let outcome = if plain(key) { seen.next() } else { look_up_together(db, &[key]).await.pop() };
        outcomes.push(outcome.unwrap_or_else(|| Ok(Seen::default())));
    }
    outcomes
}

async fn look_up_together(db: &Db, keys: &[&Key]) -> Vec<Result<Seen, DbError>> {
    let sets = keys.iter().enumerate().map(|(number, [sender, recipient, client])| {
        let (number, client) = (Value::from(number), client.clone());
        vec![number.clone(), client.clone(), number, sender.clone(), recipient.clone(), client]
    });
    match db.fetch_all(&SEEN, &[Value::Rows(sets.collect())]).await {
        Ok(rows) => sort_out(&rows, keys.len()).into_iter().map(Ok).collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn sort_out(rows: &[Row], length: usize) -> Vec<Seen> {
    let mut all = vec![Seen::default(); length];
    for row in rows {
        let number = row.int("number").and_then(|number| usize::try_from(number).ok());
        let Some(seen) = number.and_then(|number| all.get_mut(number)) else { continue };
        // A client without passed rows has nothing there.
        let (Some(record_expired), Some(other)) = (row.int("record_expired"), row.int("other")) else {
            continue;
        };
        if row.int("kind") == Some(2) {
            seen.triplet = Some((other, record_expired));
        } else {
            seen.client_passed = Some(Known { first: record_expired, last: other });
        }
    }
    all
}
