//! Tables `wblist`, `outbound_wblist`, `users` and `mailaddr` of the database amavisd, read only.
//!
//! Addresses are binary columns: they are compared byte by byte, and rows are expected in lower case. One joined query
//! brings all list entries about pairs of accounts and correspondents; their order of importance is made here.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrider_core::network;
use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use super::later::Later;
use crate::cache::{Cache, CacheMeter};
use crate::settings::CacheSettings;

const INBOUND: Stmt = Stmt::same(
    "SELECT w.wb, u.email AS account, u.id AS account_id, u.priority AS account_priority, m.id AS other_id, \
     m.priority AS other_priority, m.email FROM wblist w JOIN users u ON u.id = w.rid \
     JOIN mailaddr m ON m.id = w.sid WHERE u.email IN (?) AND m.email IN (?)",
);

const OUTBOUND: Stmt = Stmt::same(
    "SELECT w.wb, u.email AS account, u.id AS account_id, u.priority AS account_priority, m.id AS other_id, \
     m.priority AS other_priority, m.email FROM outbound_wblist w JOIN users u ON u.id = w.sid \
     JOIN mailaddr m ON m.id = w.rid WHERE u.email IN (?) AND m.email IN (?)",
);

/// A network can be written in many ways (`/24`, `/024`, `/255.255.255.0`), so networks are compared here and not by the
/// database. Those of IPv4 that begin with one octet lie next to each other in the index of the column: `/` follows `.`.
const NETWORKS_V4: Stmt = Stmt::per_engine(
    "{SELECT email FROM mailaddr WHERE email > ? AND email < ? AND email LIKE '%/%'}",
    "{SELECT email FROM mailaddr WHERE email > ? AND email < ? AND position('\\057'::bytea IN email) > 0}",
    "{SELECT email FROM mailaddr WHERE email > ? AND email < ? AND instr(email, CAST('/' AS BLOB)) > 0}",
);

const NETWORKS_V6: Stmt = Stmt::per_engine(
    "SELECT email FROM mailaddr WHERE email LIKE '%:%/%'",
    "SELECT email FROM mailaddr WHERE position('\\072'::bytea IN email) > 0 AND position('\\057'::bytea IN email) > 0",
    "SELECT email FROM mailaddr WHERE instr(email, CAST(':' AS BLOB)) > 0 AND instr(email, CAST('/' AS BLOB)) > 0",
);

/// Questions of one statement at most.
const MOST: usize = 32;

/// The flag of the entry that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `W`
    White,
    /// `B`
    Black,
}

/// The tables.
pub struct WblistStore {
    lists: Arc<Lists>,
    /// Questions to be asked anew.
    due: Later<Question>,
}

/// The tables, and what was read in them.
struct Lists {
    db: Db,
    decisions: Cache<String, Option<Flag>>,
    networks: Cache<Option<u8>, Networks>,
}

/// Listed networks with their spelling.
type Networks = Arc<[(IpNet, Vec<u8>)]>;

/// Whose lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    /// Those of recipients, about senders.
    Inbound,
    /// Those of senders, about recipients.
    Outbound,
}

/// What is asked about accounts and those they have to do with.
struct Question {
    /// Under which the answer is remembered.
    key: String,
    list: List,
    accounts: Vec<String>,
    others: Vec<String>,
    /// Whose networks are looked for too.
    client: Option<IpAddr>,
}

impl WblistStore {
    /// The tables in this database.
    pub fn new(db: Db, cache: &CacheSettings) -> WblistStore {
        let decisions = Cache::new(cache.entries, cache.lifetime.duration(), cache.stale.duration());
        // One for each first octet, and one for IPv6. What is decided by them is remembered on top, and a change in the tables
        // has to be noticed in time all the same; a second spares many clients the question.
        let lifetime = cache.lifetime.duration().min(Duration::from_secs(1));
        let networks = Cache::new(257, lifetime, cache.stale.duration());
        let lists = Arc::new(Lists { db, decisions, networks });
        let again = lists.clone();
        let due = Later::new(MOST, move |questions: Vec<Question>| {
            let lists = again.clone();
            async move {
                for list in [List::Inbound, List::Outbound] {
                    let of_list = |question: &&Question| question.list == list;
                    let questions: Vec<&Question> = questions.iter().filter(of_list).collect();
                    if let Err(error) = lists.read(list, &questions).await {
                        tracing::debug!(%error, "white- and blacklists could not be read anew");
                    }
                }
            }
        });
        WblistStore { lists, due }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.lists.decisions.measure(meter);
    }

    /// The entry of the recipients' lists that decides about mail from `senders`, a client at `client`.
    ///
    /// The most telling account comes first, within it the most telling sender; networks come last.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn inbound(
        &self,
        recipients: &[String],
        senders: &[String],
        client: Option<IpAddr>,
    ) -> Result<Option<Flag>, DbError> {
        self.decide(List::Inbound, recipients, senders, client).await
    }

    /// The entry of the senders' outbound lists that decides about mail to `recipients`.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn outbound(&self, senders: &[String], recipients: &[String]) -> Result<Option<Flag>, DbError> {
        self.decide(List::Outbound, senders, recipients, None).await
    }

    async fn decide(
        &self,
        list: List,
        accounts: &[String],
        others: &[String],
        client: Option<IpAddr>,
    ) -> Result<Option<Flag>, DbError> {
        let key = cache_key(list, accounts, others);
        let question = || {
            let (accounts, others) = (accounts.to_vec(), others.to_vec());
            Question { key: key.clone(), list, accounts, others, client }
        };
        if let Some(fresh) = self.lists.decisions.fresh(&key) {
            if fresh.due {
                self.due.begin(question());
            }
            return Ok(fresh.value);
        }
        match self.lists.read(list, &[&question()]).await {
            Ok(flags) => Ok(flags.into_iter().next().flatten()),
            Err(error) if error.is_temporary() => self.lists.decisions.stale(&key).ok_or(error),
            Err(error) => Err(error),
        }
    }
}

impl Lists {
    /// Asks the tables several questions about one of the lists, and remembers what they say.
    async fn read(&self, list: List, questions: &[&Question]) -> Result<Vec<Option<Flag>>, DbError> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let mut names = Vec::with_capacity(questions.len());
        for Question { others, client, .. } in questions {
            let mut own: Vec<Vec<u8>> = others.iter().map(|key| key.as_bytes().to_vec()).collect();
            if let Some(client) = client {
                // Seldom needed: each request in waiting would hold the room of its statement otherwise.
                own.extend(Box::pin(self.networks_of(*client)).await?);
            }
            names.push(own);
        }
        let accounts: HashSet<&String> = questions.iter().flat_map(|question| &question.accounts).collect();
        let all: HashSet<&Vec<u8>> = names.iter().flatten().collect();
        let stmt = match list {
            List::Inbound => &INBOUND,
            List::Outbound => &OUTBOUND,
        };
        let rows = self.db.fetch_all(stmt, &[Value::bytes_list(accounts), Value::bytes_list(all)]).await?;
        let mut flags = Vec::with_capacity(questions.len());
        for (Question { key, accounts, .. }, names) in questions.iter().zip(names) {
            let is = |row: &Row, column: &str, name: &[u8]| {
                row.bytes(column).is_some_and(|value| value.eq_ignore_ascii_case(name))
            };
            let is_asked = |row: &&Row| {
                questions.len() == 1
                    || (accounts.iter().any(|account| is(row, "account", account.as_bytes()))
                        && names.iter().any(|name| is(row, "email", name)))
            };
            let entries = rows.iter().filter(is_asked).filter_map(entry);
            let flag = entries.min_by_key(|(rank, _)| *rank).map(|(_, flag)| flag);
            self.decisions.put(key.clone(), flag);
            flags.push(flag);
        }
        Ok(flags)
    }

    /// Spellings under which networks that contain the client are listed.
    async fn networks_of(&self, client: IpAddr) -> Result<Vec<Vec<u8>>, DbError> {
        let octet = match client {
            IpAddr::V4(client) => Some(client.octets()[0]),
            IpAddr::V6(_) => None,
        };
        let fetch = async {
            let rows = match octet {
                Some(octet) => self.db.fetch_all(&NETWORKS_V4, &[Value::Rows(ranges(octet))]).await?,
                None => self.db.fetch_all(&NETWORKS_V6, &[]).await?,
            };
            Ok(rows.iter().filter_map(listed_network).collect::<Networks>())
        };
        let networks = self.networks.get_or_fetch(octet, fetch, DbError::is_temporary).await?;
        let containing = networks.iter().filter(|(network, _)| network.contains(&client));
        Ok(containing.map(|(_, spelling)| spelling.clone()).collect())
    }
}

/// Between which values networks lie that may hold addresses with this first octet. Those shorter than /8 begin with
/// fewer of its bits.
fn ranges(octet: u8) -> Vec<Vec<Value>> {
    let mut octets: Vec<u8> = (0..=8).map(|bits| u8::MAX.checked_shl(bits).unwrap_or(0) & octet).collect();
    octets.dedup();
    octets
        .iter()
        .map(|first| vec![Value::bytes(format!("{first}.")), Value::bytes(format!("{first}/"))])
        .collect()
}

fn listed_network(row: &Row) -> Option<(IpNet, Vec<u8>)> {
    let network = row.text("email").filter(|entry| entry.contains('/')).and_then(network::parse_strict)?;
    Some((network, row.bytes("email")?.to_vec()))
}

/// The client's address is among the senders, so the networks that contain it follow from the key. No key holds a
/// line end.
fn cache_key(list: List, accounts: &[String], others: &[String]) -> String {
    let list = match list {
        List::Inbound => "in",
        List::Outbound => "out",
    };
    [list, &accounts.join("\n"), "", &others.join("\n")].join("\n")
}

/// Smaller decides first.
type Rank = (Reverse<i64>, i64, bool, Reverse<i64>, i64);

fn entry(row: &Row) -> Option<(Rank, Flag)> {
    let flag = match row.text("wb")? {
        "W" => Flag::White,
        "B" => Flag::Black,
        _ => return None,
    };
    let is_network =
        row.bytes("email")?.contains(&b'/') && row.text("email").and_then(network::parse_strict).is_some();
    let rank = (
        Reverse(row.int("account_priority").unwrap_or(0)),
        row.int("account_id")?,
        is_network,
        Reverse(row.int("other_priority").unwrap_or(0)),
        row.int("other_id")?,
    );
    Some((rank, flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_octets_of_networks_that_hold_a_client() {
        for (octet, firsts) in [
            (203, &["203.", "202.", "200.", "192.", "128.", "0."][..]),
            (255, &["255.", "254.", "252.", "248.", "240.", "224.", "192.", "128.", "0."]),
            (10, &["10.", "8.", "0."]),
            (0, &["0."]),
        ] {
            let lower: Vec<Value> = ranges(octet).into_iter().map(|mut pair| pair.remove(0)).collect();
            let expected: Vec<Value> = firsts.iter().map(Value::bytes).collect();
            assert_eq!(lower, expected, "{octet}");
        }
    }
}
