//! Table `greylisting_tracking`: which sender came to which recipient from which client, and who has passed.
//!
//! The table has a unique key over the three parts, so two first contacts at the same moment make one row: the
//! second insert is ignored. Every other change of a triplet is one statement, and none depends on a value read before
//! in a way that a concurrent change could spoil: a triplet that two requests see as past its block is marked as
//! passed by both, with the same outcome.
//!
//! First contacts, which are most of what is written here, are in `contact.rs`.

mod contact;
mod mariadb;
mod renewal;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use outrider_core::gather::{Gather, Lanes};
use outrider_core::sql::{Db, DbError, Engine, Stmt, Value};

use self::contact::{Contact, Contacts, Key, look_up};
use self::renewal::Renewals;
use super::later::Later;
use super::{Sweep, fit, write};
use crate::cache::{Cache, CacheMeter};
use crate::network_rate::NetworkRate;
use crate::settings::CacheSettings;

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

/// Triplets of one statement at most: each number of them is a statement that the server keeps prepared.
const MOST: usize = 16;
/// With two at once each would hold fewer triplets, and all together were slower.
const LOOK_LANES: Lanes = Lanes { quick: 1, slow: 4 };
/// Servers look clients up, or write, while the disk takes the contacts before: on MariaDB a fifth more of them. SQLite has
/// one writer.
fn contact_lanes(engine: Engine) -> Lanes {
    let quick = if engine == Engine::Sqlite { 1 } else { 2 };
    Lanes { quick, slow: 4 }
}

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

/// When what says that a client has passed is to be forgotten, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The first of it.
    pub first: i64,
    /// The last of it.
    pub last: i64,
}

impl Known {
    /// All of it at once.
    pub fn until(record_expired: i64) -> Known {
        Known { first: record_expired, last: record_expired }
    }
}

/// What the table knows about a triplet and its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// If the client has passed before: how long that is remembered.
    pub client_passed: Option<Known>,
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
    /// Whether this refusal of a triplet known before is counted already.
    pub counted: bool,
}

impl Meeting {
    /// A first contact that has been written down.
    pub const FIRST: Meeting =
        Meeting { seen: Seen { client_passed: None, triplet: None }, remembered: true, counted: false };

    /// Somebody of whom this is known.
    pub fn of(seen: Seen) -> Meeting {
        Meeting { seen, ..Meeting::FIRST }
    }
}

/// The table.
pub struct TripletStore {
    db: Db,
    reads: Gather<Key, Result<Seen, DbError>>,
    contacts: Gather<Contact, Result<Meeting, DbError>>,
    renewals: Renewals,
    /// Clients known to have passed.
    known: Arc<Cache<String, Known>>,
    /// Triplets of those who come again and again, to be looked up anew.
    due: Later<Key>,
}

impl TripletStore {
    /// The table in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> TripletStore {
        let (reader, writer) = (db.clone(), Arc::new(Contacts::new(db.clone())));
        let known = Arc::new(Cache::new(cache.entries, cache.lifetime.duration(), cache.stale.duration()));
        let (again, memory) = (db.clone(), known.clone());
        let due = Later::new(MOST, move |keys: Vec<Key>| {
            let (db, known) = (again.clone(), memory.clone());
            async move { look_up_again(&db, &known, &keys).await }
        });
        TripletStore {
            reads: Gather::new(MOST, LOOK_LANES, move |keys| {
                let db = reader.clone();
                async move { look_up(&db, &keys).await }
            }),
            contacts: Gather::new(MOST, contact_lanes(db.engine()), move |contacts| {
                let writer = writer.clone();
                async move { writer.meet(contacts).await }
            }),
            renewals: Renewals::new(db.clone()),
            known,
            due,
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
        let with_row = async { ask.await.map(Meeting::of) };
        Ok(self.remembering(triplet, with_row).await?.seen)
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
        let contact = || {
            let (key, row, share) = (key(triplet), new_row(triplet, times), share.clone());
            Contact { key, row, times, client, share }
        };
        let ask = async { self.contacts.ask(contact()).await.unwrap_or_else(given_up) };
        self.remembering(triplet, ask).await
    }

    /// Asks unless the client is known to have passed.
    async fn remembering(
        &self,
        triplet: &Triplet,
        ask: impl Future<Output = Result<Meeting, DbError>>,
    ) -> Result<Meeting, DbError> {
        let passed = |known| Meeting::of(Seen { client_passed: Some(known), triplet: None });
        let client = fit(&triplet.client, 40);
        if let Some(fresh) = self.known.fresh(client) {
            if fresh.due {
                self.due.begin(key(triplet));
            }
            return Ok(passed(fresh.value));
        }
        let meeting = match ask.await {
            Err(error) if error.is_temporary() => {
                return self.known.stale(client).map(passed).ok_or(error);
            }
            other => other?,
        };
        if let Some(known) = meeting.seen.client_passed {
            self.known.put(client.to_owned(), known);
        }
        Ok(meeting)
    }

    /// Remembers a client that has passed until `record_expired`; written down in the background.
    pub fn renew_client(&self, client: &str, record_expired: i64) {
        let client = fit(client, 40);
        self.known.put(client.to_owned(), Known::until(record_expired));
        self.renewals.begin(client.to_owned(), record_expired);
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

/// Looks known clients up before they are forgotten.
async fn look_up_again(db: &Db, known: &Cache<String, Known>, keys: &[Key]) {
    for ([_, _, client], seen) in keys.iter().zip(look_up(db, keys).await) {
        let client = client.as_text().unwrap_or_default();
        match seen.map(|seen| seen.client_passed) {
            Ok(Some(until)) => known.put(client.to_owned(), until),
            Ok(None) => known.forget(client),
            Err(error) => tracing::debug!(%error, "a known client could not be looked up again"),
        }
    }
}

fn new_row(triplet: &Triplet, times: Times) -> Vec<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use outrider_core::sql::PoolOptions;

    #[tokio::test]
    async fn a_known_client_is_as_the_table_says_now() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open_file(&folder.path().join("iredapd.db"), &PoolOptions::default());
        db.execute_script(
            "CREATE TABLE greylisting_tracking (sender TEXT, recipient TEXT, client_address TEXT, block_expired INTEGER, \
             record_expired INTEGER, passed INTEGER); \
             INSERT INTO greylisting_tracking VALUES ('a@b.test', 'c@d.test', '192.0.2.1', 1, 9, 1)",
        )
        .await
        .unwrap();
        let known = Cache::new(2, Duration::from_secs(3600), Duration::ZERO);
        let key = |client: &str| -> Key { ["x@y.test".into(), "c@d.test".into(), client.into()] };
        for client in ["192.0.2.1", "192.0.2.2"] {
            known.put(client.to_owned(), Known::until(5));
        }
        look_up_again(&db, &known, &[key("192.0.2.1"), key("192.0.2.2")]).await;
        assert_eq!(known.fresh("192.0.2.1").map(|fresh| fresh.value), Some(Known::until(9)));
        assert_eq!(known.fresh("192.0.2.2"), None, "its rows are gone");
    }
}
