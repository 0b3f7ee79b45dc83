//! Tables `greylisting`, `greylisting_whitelists`, `greylisting_whitelist_domain_spf` and
//! `greylisting_whitelist_domains`: who is greylisted. Who came already is in [`super::triplet`].
//!
//! Accounts are asked for in lower case. Rows with capitals in this column are found on MySQL only: folding it as well
//! (`LOWER(account) IN (?)`) would keep the other servers from using its index. So accounts are written in lower case.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use outrider_core::network;
use outrider_core::sql::{Db, DbError, Engine, Row, Stmt, Value};

use super::account_cache::AccountCache;
use super::{fit, ignore_duplicate, write};
use crate::cache::CacheMeter;
use crate::settings::CacheSettings;

const SETTINGS: Stmt = Stmt::same(
    "SELECT id, account, priority, sender, sender_priority, active FROM greylisting WHERE account IN (?) ORDER BY id",
);

const WHITELISTS: Stmt = Stmt::same(
    "SELECT account, sender FROM greylisting_whitelist_domain_spf WHERE account IN (?) \
     UNION ALL SELECT account, sender FROM greylisting_whitelists WHERE account IN (?)",
);

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

/// The greylisting tables.
pub struct GreylistingStore {
    db: Db,
    settings: AccountCache<Vec<Setting>>,
    whitelists: AccountCache<Whitelist>,
}

impl GreylistingStore {
    /// The tables in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> GreylistingStore {
        let reader = db.clone();
        let settings = AccountCache::new(cache, move |accounts| read_settings(reader.clone(), accounts));
        let reader = db.clone();
        let whitelists = AccountCache::new(cache, move |accounts| read_whitelists(reader.clone(), accounts));
        GreylistingStore { db, settings, whitelists }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: &dyn Fn(&'static str) -> CacheMeter) {
        self.settings.measure(meter("greylisting"));
        self.whitelists.measure(meter("greylisting_whitelists"));
    }

    /// Settings of the accounts, the most telling first.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn settings(&self, accounts: &[String]) -> Result<Vec<Setting>, DbError> {
        let found = self.settings.get_all(accounts).await?;
        let mut settings: Vec<Setting> = found.iter().flat_map(|list| list.iter().cloned()).collect();
        settings.sort_by_key(|setting| (-setting.priority, -setting.sender_priority, setting.id));
        Ok(settings)
    }

    /// The whitelists of the accounts.
    pub async fn whitelists(&self, accounts: &[String]) -> Result<Vec<Arc<Whitelist>>, DbError> {
        self.whitelists.get_all(accounts).await
    }

    /// Adds a whitelist row; an existing one stays.
    pub async fn add_whitelist(&self, account: &str, sender: &str, comment: &str) -> Result<(), DbError> {
        let width = if self.db.engine() == Engine::MySql { 100 } else { 255 };
        if !holds(account, width) || !holds(sender, width) {
            return Ok(());
        }
        let args = [account.into(), sender.into(), fit(comment, 255).into()];
        ignore_duplicate(write(&self.db, &ADD_WHITELIST, &args).await.map(drop))
    }

    /// Adds a domain whose mail servers are to be whitelisted; an existing one stays.
    pub async fn add_whitelist_domain(&self, domain: &str) -> Result<(), DbError> {
        if !holds(domain, 255) {
            return Ok(());
        }
        ignore_duplicate(write(&self.db, &ADD_WHITELIST_DOMAIN, &[domain.into()]).await.map(drop))
    }
}

/// Whether a column of this width holds a name. One that it does not hold is left out: cut, it would name somebody else.
fn holds(name: &str, width: usize) -> bool {
    let holds = fit(name, width) == name;
    if !holds {
        tracing::info!(event = "not whitelisted", %name, reason = "longer than the column");
    }
    holds
}

async fn read_settings(db: Db, accounts: Vec<String>) -> Result<HashMap<String, Vec<Setting>>, DbError> {
    let rows = db.fetch_all(&SETTINGS, &[Value::list(accounts)]).await?;
    let mut settings: HashMap<String, Vec<Setting>> = HashMap::new();
    for row in &rows {
        if let Some((account, setting)) = read_setting(row) {
            settings.entry(account).or_default().push(setting);
        }
    }
    Ok(settings)
}

async fn read_whitelists(db: Db, accounts: Vec<String>) -> Result<HashMap<String, Whitelist>, DbError> {
    let accounts = Value::list(accounts);
    let rows = db.fetch_all(&WHITELISTS, &[accounts.clone(), accounts]).await?;
    let mut lists: HashMap<String, Whitelist> = HashMap::new();
    for row in &rows {
        if let (Some(account), Some(sender)) = (row.text("account"), row.text("sender")) {
            lists.entry(account_of(account)).or_default().add(sender);
        }
    }
    Ok(lists)
}

/// The account that a row was found by. MySQL compares without the blanks at the end.
fn account_of(text: &str) -> String {
    text.trim_end().to_lowercase()
}

fn read_setting(row: &Row) -> Option<(String, Setting)> {
    let setting = Setting {
        id: row.int("id")?,
        priority: row.int("priority").unwrap_or(0),
        sender: row.text("sender")?.to_lowercase(),
        sender_priority: row.int("sender_priority").unwrap_or(0),
        active: row.int("active") == Some(1),
    };
    Some((account_of(row.text("account")?), setting))
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
