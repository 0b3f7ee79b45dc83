//! Tables `greylisting`, `greylisting_whitelists`, `greylisting_whitelist_domain_spf`,
//! `greylisting_whitelist_domains` and `greylisting_tracking`.
//!
//! The triplet table has a unique key over its three parts, so two first contacts at the same moment make one row: the
//! second insert is ignored. Every other change of a triplet is one statement, and none depends on a value read before
//! in a way that a concurrent change could spoil: a triplet that two requests see as past its block is marked as
//! passed by both, with the same outcome.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use outrider_core::network;
use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use super::{AccountCache, Sweep, fit, write};
use crate::cache::Cache;
use crate::settings::CacheSettings;

const SETTINGS: Stmt = Stmt::same(
    "SELECT id, account, priority, sender, sender_priority, active FROM greylisting WHERE account IN (?) ORDER BY id",
);

const WHITELISTS: Stmt = Stmt::same(
    "SELECT account, sender FROM greylisting_whitelist_domain_spf WHERE account IN (?) \
     UNION ALL SELECT account, sender FROM greylisting_whitelists WHERE account IN (?)",
);

/// Passed rows of the client (how many, and which is forgotten first) and the row of the triplet, in one round trip.
const SEEN: Stmt = Stmt::same(
    "SELECT 1 AS kind, COUNT(*) AS found, MIN(record_expired) AS record_expired, 0 AS block_expired \
     FROM greylisting_tracking WHERE client_address = ? AND passed = 1 \
     UNION ALL SELECT 2, 1, record_expired, block_expired \
     FROM greylisting_tracking WHERE sender = ? AND recipient = ? AND client_address = ?",
);

const RENEW_CLIENT: Stmt =
    Stmt::same("UPDATE greylisting_tracking SET record_expired = ? WHERE client_address = ? AND passed = 1")
        .repeatable();

const INSERT: Stmt = Stmt::per_engine(
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0)",
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0) \
     ON CONFLICT DO NOTHING",
    "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
     block_expired, record_expired, blocked_count, passed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0) \
     ON CONFLICT DO NOTHING",
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

const ADD_WHITELIST: Stmt = Stmt::per_engine(
    "INSERT INTO greylisting_whitelists (account, sender, comment) VALUES (?, ?, ?)",
    "INSERT INTO greylisting_whitelists (account, sender, comment) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "INSERT INTO greylisting_whitelists (account, sender, comment) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
);

const ADD_WHITELIST_DOMAIN: Stmt = Stmt::per_engine(
    "INSERT INTO greylisting_whitelist_domains (domain) VALUES (?)",
    "INSERT INTO greylisting_whitelist_domains (domain) VALUES (?) ON CONFLICT DO NOTHING",
    "INSERT INTO greylisting_whitelist_domains (domain) VALUES (?) ON CONFLICT DO NOTHING",
);

/// One row of `greylisting`: whether mail of these senders to this account is greylisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The row's number, which decides between equal priorities.
    pub id: i64,
    /// How telling the account is; larger wins.
    pub priority: i64,
    /// The sender form, lower case: an address or key, a client address, or a network.
    pub sender: String,
    /// How telling the sender is; larger wins.
    pub sender_priority: i64,
    /// Whether greylisting is on.
    pub active: bool,
}

/// Whitelisted senders of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whitelist {
    exact: HashSet<String>,
    networks: Vec<IpNet>,
}

impl Whitelist {
    fn add(&mut self, sender: &str) {
        if sender.contains('/')
            && let Some(network) = network::parse_strict(sender)
        {
            self.networks.push(network);
        } else {
            self.exact.insert(sender.to_lowercase());
        }
    }

    /// Whether one of the sender's keys or the client's address is listed.
    pub fn covers(&self, senders: &[String], client: IpAddr) -> bool {
        senders.iter().any(|sender| self.exact.contains(sender))
            || self.networks.iter().any(|network| network.contains(&client))
    }
}

/// Sender, recipient and client of a first contact.
#[derive(Clone, Copy, Debug)]
pub struct Triplet<'a> {
    /// Sender without extension; may be empty.
    pub sender: &'a str,
    /// The domain of it.
    pub sender_domain: &'a str,
    /// Recipient without extension.
    pub recipient: &'a str,
    /// The domain of it.
    pub recipient_domain: &'a str,
    /// The client's address.
    pub client_address: &'a str,
}

/// What the table knows about a triplet and its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// If the client has passed before: when the first of its passed rows is to be forgotten, Unix seconds.
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

/// The greylisting tables.
pub struct GreylistingStore {
    db: Db,
    settings: AccountCache<Vec<Setting>>,
    whitelists: AccountCache<Whitelist>,
    /// Clients known to have passed, and when the first of their rows is to be forgotten.
    known: Cache<String, i64>,
}

impl GreylistingStore {
    /// The tables in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> GreylistingStore {
        GreylistingStore {
            db,
            settings: AccountCache::new(cache),
            whitelists: AccountCache::new(cache),
            known: Cache::new(cache.entries, cache.lifetime.duration(), cache.lifetime.duration()),
        }
    }

    /// Settings of the accounts, the most telling first.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn settings(&self, accounts: &[String]) -> Result<Vec<Setting>, DbError> {
        let fetch = |missing: Vec<String>| async move {
            let rows = self.db.fetch_all(&SETTINGS, &[Value::list(missing)]).await?;
            let mut settings: HashMap<String, Vec<Setting>> = HashMap::new();
            for row in &rows {
                if let Some((account, setting)) = read_setting(row) {
                    settings.entry(account).or_default().push(setting);
                }
            }
            Ok(settings)
        };
        let found = self.settings.get_all(accounts, fetch).await?;
        let mut settings: Vec<Setting> = found.iter().flat_map(|list| list.iter().cloned()).collect();
        settings.sort_by_key(|setting| (-setting.priority, -setting.sender_priority, setting.id));
        Ok(settings)
    }

    /// The whitelists of the accounts.
    pub async fn whitelists(&self, accounts: &[String]) -> Result<Vec<Arc<Whitelist>>, DbError> {
        let fetch = |missing: Vec<String>| async move {
            let accounts = Value::list(missing);
            let rows = self.db.fetch_all(&WHITELISTS, &[accounts.clone(), accounts]).await?;
            let mut lists: HashMap<String, Whitelist> = HashMap::new();
            for row in &rows {
                if let (Some(account), Some(sender)) = (row.text("account"), row.text("sender")) {
                    lists.entry(account.to_lowercase()).or_default().add(sender);
                }
            }
            Ok(lists)
        };
        self.whitelists.get_all(accounts, fetch).await
    }

    /// What is known about a triplet. Of a client that has passed, the triplet itself may be left out.
    pub async fn seen(&self, triplet: &Triplet<'_>) -> Result<Seen, DbError> {
        let client = fit(triplet.client_address, 40);
        if let Some(until) = self.known.fresh(client) {
            return Ok(Seen { client_passed: Some(until), triplet: None });
        }
        let [sender, recipient, _] = key(triplet);
        let rows = self.db.fetch_all(&SEEN, &[client.into(), sender, recipient, client.into()]).await?;
        let mut seen = Seen::default();
        for row in &rows {
            let record_expired = row.int("record_expired").unwrap_or(0);
            if row.int("kind") == Some(2) {
                seen.triplet = Some((row.int("block_expired").unwrap_or(0), record_expired));
            } else if row.int("found").unwrap_or(0) > 0 {
                seen.client_passed = Some(record_expired);
                self.known.put(client.to_owned(), record_expired);
            }
        }
        Ok(seen)
    }

    /// Remembers a client that has passed until `record_expired`.
    pub async fn renew_client(&self, client_address: &str, record_expired: i64) -> Result<(), DbError> {
        let client = fit(client_address, 40);
        write(&self.db, &RENEW_CLIENT, &[record_expired.into(), client.into()]).await?;
        self.known.put(client.to_owned(), record_expired);
        Ok(())
    }

    /// Forgets triplets and clients whose time is over at `now`, going through `batch` rows at a time; how many.
    pub async fn forget_expired(&self, now: i64, batch: u32) -> Result<u64, DbError> {
        EXPIRED.run(&self.db, now, batch).await
    }

    /// Records a first contact. If somebody else did at the same moment, that row stays.
    pub async fn insert(&self, triplet: &Triplet<'_>, times: Times) -> Result<(), DbError> {
        let [sender, recipient, client] = key(triplet);
        let args = [
            sender,
            recipient,
            client,
            fit(triplet.sender_domain, 255).into(),
            fit(triplet.recipient_domain, 255).into(),
            times.init.into(),
            times.block_expired.into(),
            times.record_expired.into(),
        ];
        ignore_duplicate(write(&self.db, &INSERT, &args).await.map(drop))
    }

    /// Makes a forgotten triplet a first contact again.
    pub async fn restart(&self, triplet: &Triplet<'_>, times: Times) -> Result<(), DbError> {
        let [sender, recipient, client] = key(triplet);
        let args = [
            fit(triplet.sender_domain, 255).into(),
            fit(triplet.recipient_domain, 255).into(),
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
    pub async fn count(&self, triplet: &Triplet<'_>) -> Result<(), DbError> {
        write(&self.db, &COUNT, &key(triplet)).await.map(drop)
    }

    /// Marks a triplet as passed and forgets the client's others that have not.
    pub async fn pass(&self, triplet: &Triplet<'_>, record_expired: i64) -> Result<(), DbError> {
        let [sender, recipient, client] = key(triplet);
        write(&self.db, &PASS, &[record_expired.into(), sender, recipient, client.clone()]).await?;
        write(&self.db, &FORGET_UNPASSED, &[client]).await.map(drop)
    }

    /// Adds a whitelist row; an existing one stays.
    pub async fn add_whitelist(&self, account: &str, sender: &str, comment: &str) -> Result<(), DbError> {
        let args = [fit(account, 100).into(), fit(sender, 100).into(), fit(comment, 255).into()];
        ignore_duplicate(write(&self.db, &ADD_WHITELIST, &args).await.map(drop))
    }

    /// Adds a domain whose mail servers are to be whitelisted; an existing one stays.
    pub async fn add_whitelist_domain(&self, domain: &str) -> Result<(), DbError> {
        let args = [fit(domain, 255).into()];
        ignore_duplicate(write(&self.db, &ADD_WHITELIST_DOMAIN, &args).await.map(drop))
    }
}

fn key(triplet: &Triplet<'_>) -> [Value; 3] {
    [
        fit(triplet.sender, 255).into(),
        fit(triplet.recipient, 255).into(),
        fit(triplet.client_address, 40).into(),
    ]
}

fn read_setting(row: &Row) -> Option<(String, Setting)> {
    let setting = Setting {
        id: row.int("id")?,
        priority: row.int("priority").unwrap_or(0),
        sender: row.text("sender")?.to_lowercase(),
        sender_priority: row.int("sender_priority").unwrap_or(0),
        active: row.int("active") == Some(1),
    };
    Some((row.text("account")?.to_lowercase(), setting))
}

/// MySQL has no other way to leave an existing row alone that does not hide real mistakes too.
fn ignore_duplicate(outcome: Result<(), DbError>) -> Result<(), DbError> {
    match outcome {
        Err(error) if error.is_duplicate_key() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitelist_entries_by_form() {
        let mut list = Whitelist::default();
        for sender in [
            "Friend@Sender.test",
            "@sender.org",
            "203.0.113.10",
            "198.51.100.0/24",
            "192.0.2.1/24",
            "10.0.0.*",
        ] {
            list.add(sender);
        }
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let covers =
            |sender: &str, client: &str| list.covers(&[sender.to_owned(), client.to_owned()], ip(client));
        assert!(covers("friend@sender.test", "192.0.2.9"));
        assert!(covers("@sender.org", "192.0.2.9"));
        assert!(covers("x", "203.0.113.10"));
        assert!(covers("x", "198.51.100.9"));
        assert!(!covers("x", "192.0.2.9"), "a network with host bits names nobody");
        assert!(covers("10.0.0.*", "10.0.0.9"), "the wildcard form comes as a key of the sender");
    }
}
