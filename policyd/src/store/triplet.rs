//! Table `greylisting_tracking`: which sender came to which recipient from which client, and who has passed.
//!
//! The table has a unique key over the three parts, so two first contacts at the same moment make one row: the
//! second insert is ignored. Every other change of a triplet is one statement, and none depends on a value read before
//! in a way that a concurrent change could spoil: a triplet that two requests see as past its block is marked as
//! passed by both, with the same outcome.
//!
//! First contacts are most of what a server without any reputation of its clients has to write down. Those of the same
//! moment are looked up in one round trip and written in one statement, and each is answered after that is durable.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use outrider_core::gather::{Gather, Lanes};
use outrider_core::sql::{Db, DbError, Engine, Row, Stmt, Value};

use super::{Sweep, fit, ignore_duplicate, write};
use crate::cache::{Cache, CacheMeter};
use crate::network_rate::NetworkRate;
use crate::settings::CacheSettings;

/// A passed row of the client and the row of the triplet. Which of the passed rows does not matter: they are renewed
/// together, and a big provider may have many thousands of them. Values: a number that comes back, the client, the
/// number, the triplet.
const SEEN: Stmt = Stmt::per_engine(
    "(SELECT ? AS number, 1 AS kind, record_expired, 0 AS block_expired \
     FROM greylisting_tracking WHERE client_address = ? AND passed = 1 LIMIT 1) \
     UNION ALL (SELECT ?, 2, record_expired, block_expired \
     FROM greylisting_tracking WHERE sender = ? AND recipient = ? AND client_address = ?)",
    "(SELECT ? AS number, 1 AS kind, record_expired, 0 AS block_expired \
     FROM greylisting_tracking WHERE client_address = ? AND passed = 1 LIMIT 1) \
     UNION ALL (SELECT ?, 2, record_expired, block_expired \
     FROM greylisting_tracking WHERE sender = ? AND recipient = ? AND client_address = ?)",
    // SQLite takes no parentheses around the parts of a union, and a limit only within a table.
    "SELECT * FROM (SELECT ? AS number, 1 AS kind, record_expired, 0 AS block_expired \
     FROM greylisting_tracking WHERE client_address = ? AND passed = 1 LIMIT 1) AS client \
     UNION ALL SELECT ?, 2, record_expired, block_expired \
     FROM greylisting_tracking WHERE sender = ? AND recipient = ? AND client_address = ?",
);

const RENEW_CLIENT: Stmt =
    Stmt::same("UPDATE greylisting_tracking SET record_expired = ? WHERE client_address = ? AND passed = 1")
        .repeatable();

/// MySQL can leave existing rows alone only in ways that hide real mistakes or trouble its replication; there the
/// statement fails as a whole and the rows are tried one by one.
const INSERT: Stmt = Stmt::per_engine(
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES ?",
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES ? ON CONFLICT DO NOTHING",
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES ? ON CONFLICT DO NOTHING",
);

const RESTART: Stmt = Stmt::same(
    "UPDATE greylisting_tracking SET sender_domain = ?, rcpt_domain = ?, init_time = ?, block_expired = ?, \
     record_expired = ?, blocked_count = 1, passed = 0 WHERE sender = ? AND recipient = ? AND client_address = ?",
)
.repeatable();

const COUNT: Stmt = Stmt::same(
    "UPDATE greylisting_tracking SET blocked_count = blocked_count + 1 \
     WHERE sender = ? AND recipient = ? AND client_address = ?",
);

const PASS: Stmt = Stmt::same(
    "UPDATE greylisting_tracking SET record_expired = ?, passed = 1 \
     WHERE sender = ? AND recipient = ? AND client_address = ?",
)
.repeatable();

const FORGET_UNPASSED: Stmt =
    Stmt::same("DELETE FROM greylisting_tracking WHERE client_address = ? AND passed = 0").repeatable();

const EXPIRED: Sweep = Sweep {
    step: Stmt::same(
        "SELECT MAX(id) FROM (SELECT id FROM greylisting_tracking WHERE id > ? ORDER BY id LIMIT ?) AS step",
    ),
    delete: Stmt::same("DELETE FROM greylisting_tracking WHERE id > ? AND id <= ? AND record_expired < ?")
        .repeatable(),
    ordered: false,
};

const ROWS: Stmt = Stmt::same("SELECT COUNT(*) FROM greylisting_tracking");

/// Contacts that have not passed, oldest first.
const OLDEST: Sweep = Sweep {
    step: EXPIRED.step,
    delete: Stmt::same("DELETE FROM greylisting_tracking WHERE id > ? AND id <= ? AND passed = ?")
        .repeatable(),
    ordered: false,
};

/// A first contact and the look at what is known in one round trip, where that takes no more locks than the row: MySQL would
/// lock the neighbourhood of the client's rows, and two clients could block each other.
const INSERT_UNKNOWN: Stmt = Stmt::same(
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ? \
     WHERE NOT EXISTS (SELECT 1 FROM greylisting_tracking WHERE client_address = ? AND passed = 1) \
     ON CONFLICT DO NOTHING",
);

/// Triplets of one statement at most: each number of them is a statement that the server keeps prepared.
const MOST: usize = 16;
/// With two at once each would hold fewer contacts, and all together were slower.
const LANES: Lanes = Lanes { quick: 1, slow: 4 };

/// Sender, recipient and client of a first contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triplet {
    /// Sender without extension; may be empty.
    pub sender: String,
    /// The domain of it.
    pub sender_domain: String,
    /// Recipient without extension.
    pub recipient: String,
    /// The domain of it.
    pub recipient_domain: String,
    /// The client's address, or the key of those that count as one.
    pub client: String,
}

/// What the table knows about a triplet and its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// If the client has passed before: when one of its passed rows is to be forgotten, Unix seconds.
    pub client_passed: Option<i64>,
    /// The triplet's `(block_expired, record_expired)`, Unix seconds.
    pub triplet: Option<(i64, i64)>,
}

/// The times of a new or renewed triplet, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Now.
    pub init: i64,
    /// From then on the client may come.
    pub block_expired: i64,
    /// From then on the row may be forgotten.
    pub record_expired: i64,
}

/// A contact: what was known before, and whether a first one has been written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// What the table knew before.
    pub seen: Seen,
    /// Whether there is a row now. Only a first contact of a network that has had its share is not written down.
    pub remembered: bool,
}

/// The three values that name a row: sender, recipient, client.
type Key = [Value; 3];
/// The columns of a new row.
type NewRow = Vec<Value>;

/// A contact that waits for its turn.
struct Contact {
    key: Key,
    row: NewRow,
    client: IpAddr,
    share: Arc<NetworkRate>,
}

/// The table.
pub struct TripletStore {
    db: Db,
    reads: Gather<Key, Result<Seen, DbError>>,
    contacts: Gather<Contact, Result<Meeting, DbError>>,
    /// Clients known to have passed, and when one of their rows is to be forgotten.
    known: Cache<String, i64>,
}

impl TripletStore {
    /// The table in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> TripletStore {
        let (reader, writer) = (db.clone(), db.clone());
        TripletStore {
            reads: Gather::new(MOST, LANES, move |keys| {
                let db = reader.clone();
                async move { look_up(&db, &keys).await }
            }),
            contacts: Gather::new(MOST, LANES, move |contacts| {
                let db = writer.clone();
                async move { meet(&db, contacts).await }
            }),
            known: Cache::new(cache.entries, cache.lifetime.duration(), cache.stale.duration()),
            db,
        }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.known.measure(meter);
    }

    /// What is known about a triplet. Of a client that has passed, the triplet itself may be left out; while the database is
    /// away a client is taken for known that was so not long ago.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn seen(&self, triplet: &Triplet) -> Result<Seen, DbError> {
        let ask = async { self.reads.ask(key(triplet)).await.unwrap_or_else(given_up) };
        let with_row = async { ask.await.map(|seen| Meeting { seen, remembered: true }) };
        Ok(self.remembering(fit(&triplet.client, 40), with_row).await?.seen)
    }

    /// The same, and a first contact is written down, if `share` allows the client's network one more. If somebody else
    /// did at the same moment, that row stays.
    pub async fn meet(
        &self,
        triplet: &Triplet,
        times: Times,
        client: IpAddr,
        share: &Arc<NetworkRate>,
    ) -> Result<Meeting, DbError> {
        let contact =
            || Contact { key: key(triplet), row: new_row(triplet, times), client, share: share.clone() };
        let ask = async { self.contacts.ask(contact()).await.unwrap_or_else(given_up) };
        self.remembering(fit(&triplet.client, 40), ask).await
    }

    /// Asks unless the client is known to have passed.
    async fn remembering(
        &self,
        client: &str,
        ask: impl Future<Output = Result<Meeting, DbError>>,
    ) -> Result<Meeting, DbError> {
        let known =
            |until| Meeting { seen: Seen { client_passed: Some(until), triplet: None }, remembered: true };
        if let Some(until) = self.known.fresh(client) {
            return Ok(known(until));
        }
        let meeting = match ask.await {
            Err(error) if error.is_temporary() => {
                return self.known.stale(client).map(known).ok_or(error);
            }
            other => other?,
        };
        if let Some(until) = meeting.seen.client_passed {
            self.known.put(client.to_owned(), until);
        }
        Ok(meeting)
    }

    /// Remembers a client that has passed until `record_expired`.
    pub async fn renew_client(&self, client: &str, record_expired: i64) -> Result<(), DbError> {
        let client = fit(client, 40);
        write(&self.db, &RENEW_CLIENT, &[record_expired.into(), client.into()]).await?;
        self.known.put(client.to_owned(), record_expired);
        Ok(())
    }

    /// Forgets triplets and clients whose time is over at `now`, going through `batch` rows at a time; how many.
    pub async fn forget_expired(&self, now: i64, batch: u32) -> Result<u64, DbError> {
        EXPIRED.run(&self.db, now, batch).await
    }

    /// Forgets the oldest contacts that have not passed until about `most` rows are left; how many went. 0 leaves all.
    pub async fn shrink(&self, most: u64, batch: u32) -> Result<u64, DbError> {
        let row = self.db.fetch_optional(&ROWS, &[]).await?;
        let rows = row.and_then(|row| row.int_at(0)).and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        match rows.checked_sub(most) {
            Some(surplus @ 1..) if most > 0 => OLDEST.run_until(&self.db, 0, batch, surplus).await,
            _ => Ok(0),
        }
    }

    /// Makes a forgotten triplet a first contact again.
    pub async fn restart(&self, triplet: &Triplet, times: Times) -> Result<(), DbError> {
        let [sender, recipient, client] = key(triplet);
        let args = [
            fit(&triplet.sender_domain, 255).into(),
            fit(&triplet.recipient_domain, 255).into(),
            times.init.into(),
            times.block_expired.into(),
            times.record_expired.into(),
            sender,
            recipient,
            client,
        ];
        write(&self.db, &RESTART, &args).await.map(drop)
    }

    /// Counts one more refusal.
    pub async fn count(&self, triplet: &Triplet) -> Result<(), DbError> {
        write(&self.db, &COUNT, &key(triplet)).await.map(drop)
    }

    /// Marks a triplet as passed and forgets the client's others that have not.
    pub async fn pass(&self, triplet: &Triplet, record_expired: i64) -> Result<(), DbError> {
        let [sender, recipient, client] = key(triplet);
        write(&self.db, &PASS, &[record_expired.into(), sender, recipient, client.clone()]).await?;
        write(&self.db, &FORGET_UNPASSED, &[client]).await.map(drop)
    }
}

fn new_row(triplet: &Triplet, times: Times) -> NewRow {
    let mut row = Vec::from(key(triplet));
    row.extend([
        fit(&triplet.sender_domain, 255).into(),
        fit(&triplet.recipient_domain, 255).into(),
        times.init.into(),
        times.block_expired.into(),
        times.record_expired.into(),
        1.into(),
        0.into(),
    ]);
    row
}

fn key(triplet: &Triplet) -> Key {
    [fit(&triplet.sender, 255).into(), fit(&triplet.recipient, 255).into(), fit(&triplet.client, 40).into()]
}

/// The batch that the request was part of has panicked.
fn given_up<T>() -> Result<T, DbError> {
    Err(DbError::TryAgain("the statement was given up".to_owned()))
}

/// Looks all of them up and writes down those of whom nothing is known.
async fn meet(db: &Db, contacts: Vec<Contact>) -> Vec<Result<Meeting, DbError>> {
    if let [contact] = contacts.as_slice()
        && db.engine() != Engine::MySql
        && contact.share.take(contact.client)
    {
        match insert_unknown(db, contact).await {
            Ok(true) => return vec![Ok(Meeting { seen: Seen::default(), remembered: true })],
            Ok(false) => contact.share.give_back(contact.client),
            Err(error) => return vec![Err(error)],
        }
    }
    let keys: Vec<Key> = contacts.iter().map(|contact| contact.key.clone()).collect();
    let mut meetings: Vec<_> = look_up(db, &keys)
        .await
        .into_iter()
        .zip(&contacts)
        .map(|(seen, contact)| {
            seen.map(|seen| {
                let remembered = seen != Seen::default() || contact.share.take(contact.client);
                Meeting { seen, remembered }
            })
        })
        .collect();
    let is_new = |meeting: &Result<Meeting, DbError>| matches!(meeting, Ok(Meeting { seen, remembered: true }) if *seen == Seen::default());
    let new = std::iter::zip(contacts, &meetings).filter(|(_, meeting)| is_new(meeting));
    let rows: Vec<NewRow> = new.map(|(contact, _)| contact.row).collect();
    if rows.is_empty() {
        return meetings;
    }
    let written = insert(db, rows).await;
    for (meeting, written) in meetings.iter_mut().filter(|meeting| is_new(meeting)).zip(written) {
        if let Err(error) = written {
            *meeting = Err(error);
        }
    }
    meetings
}

/// Whether nothing was known of the client and the triplet, so that a row was made.
async fn insert_unknown(db: &Db, contact: &Contact) -> Result<bool, DbError> {
    let mut args = contact.row.clone();
    args.push(contact.key[2].clone());
    Ok(write(db, &INSERT_UNKNOWN, &args).await?.rows_affected > 0)
}

async fn look_up(db: &Db, keys: &[Key]) -> Vec<Result<Seen, DbError>> {
    let sets = keys.iter().enumerate().map(|(number, [sender, recipient, client])| {
        let (number, client) = (Value::from(number), client.clone());
        vec![number.clone(), client.clone(), number, sender.clone(), recipient.clone(), client]
    });
    match db.fetch_each(&SEEN, sets.collect()).await {
        Ok(rows) => sort_out(&rows, keys.len()).into_iter().map(Ok).collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn sort_out(rows: &[Row], length: usize) -> Vec<Seen> {
    let mut all = vec![Seen::default(); length];
    for row in rows {
        let number = row.int("number").and_then(|number| usize::try_from(number).ok());
        let Some(seen) = number.and_then(|number| all.get_mut(number)) else { continue };
        let record_expired = row.int("record_expired").unwrap_or(0);
        if row.int("kind") == Some(2) {
            seen.triplet = Some((row.int("block_expired").unwrap_or(0), record_expired));
        } else {
            seen.client_passed = Some(record_expired);
        }
    }
    all
}

async fn insert(db: &Db, rows: Vec<NewRow>) -> Vec<Result<(), DbError>> {
    let count = rows.len();
    let outcome = db.execute(&INSERT, &[Value::Rows(rows.clone())]).await.map(drop);
    match outcome {
        Ok(()) => return vec![Ok(()); count],
        Err(error) if count == 1 && !matches!(error, DbError::TryAgain(_)) => {
            return vec![ignore_duplicate(Err(error))];
        }
        // What one row did must not happen to the others: a double, a deadlock, text that a column does not take.
        Err(DbError::DuplicateKey(_) | DbError::TryAgain(_) | DbError::Refused(_)) => {}
        Err(error) => return vec![Err(error); count],
    }
    let mut outcomes = Vec::with_capacity(count);
    for row in rows {
        let outcome = write(db, &INSERT, &[Value::Rows(vec![row])]).await.map(drop);
        outcomes.push(ignore_duplicate(outcome));
    }
    outcomes
}
