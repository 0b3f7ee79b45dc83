//! Contacts as an administrator asks for them, from the table `greylisting_tracking` or a Valkey server.

use std::net::IpAddr;

use ipnet::IpNet;
use outrider_core::network;
use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

use crate::context::Context;
use crate::plugin::greylisting::sender_key;
use crate::store::valkey::{ValkeyTriplets, Waiting};

const OF_CLIENTS: Stmt = Stmt::same(
    "SELECT sender, recipient, client_address, init_time, block_expired, record_expired, blocked_count, passed \
     FROM greylisting_tracking WHERE client_address IN (?) ORDER BY init_time DESC, id DESC LIMIT ?",
);
/// By way of the domains, which have indexes on servers; no index begins with the recipient. An embedded database is read from one end
/// to the other: half a second for five million contacts, which nobody waits for but the administrator.
const OF_ADDRESS: Stmt = Stmt::same(
    "SELECT sender, recipient, client_address, init_time, block_expired, record_expired, blocked_count, passed \
     FROM greylisting_tracking WHERE (sender_domain = ? AND sender IN (?)) OR (rcpt_domain = ? AND recipient = ?) \
     ORDER BY init_time DESC, id DESC LIMIT ?",
);
const OF_DOMAIN: Stmt = Stmt::same(
    "SELECT sender, recipient, client_address, init_time, block_expired, record_expired, blocked_count, passed \
     FROM greylisting_tracking WHERE sender_domain = ? OR rcpt_domain = ? \
     ORDER BY init_time DESC, id DESC LIMIT ?",
);
const FORGET_CLIENTS: Stmt =
    Stmt::same("DELETE FROM greylisting_tracking WHERE client_address IN (?)").repeatable();

/// Clients of one statement.
const BATCH: usize = 200;

/// Whose contacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of a client, and of the network that it counts for where a pool counts as one client.
    Client(IpAddr),
    /// Those of clients that count as one because of their network.
    Network(IpNet),
    /// Those of clients that count as one because of a domain: `name:example.com`, `spf:example.com` (lower case).
    Pool(String),
    /// Those with this address (lower case) as sender or recipient.
    Address(String),
    /// Those with senders or recipients in this domain (lower case).
    Domain(String),
}

impl Whose {
    /// What stands in the place of the client.
    fn clients(&self) -> Vec<String> {
        match self {
            Whose::Client(client) => vec![client.to_string(), network::of_client(*client).to_string()],
            Whose::Network(network) => vec![network.to_string()],
            Whose::Pool(key) => vec![key.clone()],
            Whose::Address(_) | Whose::Domain(_) => Vec::new(),
        }
    }
}

/// One contact. Times are Unix seconds. Of a client that has passed a Valkey server keeps nothing but that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The client, or the key of those that count as one.
    pub client_address: String,
    /// Who wrote to whom, and when.
    pub contact: Option<Contact>,
    /// Until when it is remembered.
    pub record_expired: i64,
    /// Whether it came again in time.
    pub passed: bool,
}

/// Who wrote to whom, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The sender without extension.
    pub sender: String,
    /// The recipient without extension.
    pub recipient: String,
    /// When it first came.
    pub init_time: i64,
    /// From when on it may come.
    pub block_expired: i64,
    /// How often it was asked to come again.
    pub blocked_count: i64,
}

/// What was found, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Known clients first, then the newest contacts.
    pub tracked: Vec<Tracked>,
    /// Clients that have passed are not among them, because their contacts are not kept.
    pub without_passed: bool,
    /// The search ended before everything was looked at.
    pub cut: bool,
}

/// The newest contacts, at most `limit`.
pub(super) async fn tracked(
    context: &Context,
    db: &Db,
    whose: &Whose,
    limit: u32,
) -> Result<Answer, DbError> {
    // A sender may stand there with its numbers folded.
    let senders = |address: &str| {
        let mut senders = vec![address.to_owned()];
        senders.push(sender_key(address, context.settings.greylisting.fold_sender_digits));
        senders.dedup();
        senders
    };
    match &context.stores.valkey {
        Some(valkey) => on_valkey(&valkey.triplets, whose, senders, limit).await,
        None => in_table(db, whose, senders, limit).await,
    }
}

async fn in_table(
    db: &Db,
    whose: &Whose,
    senders: impl Fn(&str) -> Vec<String>,
    limit: u32,
) -> Result<Answer, DbError> {
    let limit = Value::from(limit);
    let rows = match whose {
        Whose::Client(_) | Whose::Network(_) | Whose::Pool(_) => {
            db.fetch_all(&OF_CLIENTS, &[Value::list(whose.clients()), limit]).await
        }
        Whose::Address(address) => {
            let domain = || Value::from(domain_of(address));
            let senders = Value::list(senders(address));
            db.fetch_all(&OF_ADDRESS, &[domain(), senders, domain(), address.into(), limit]).await
        }
        Whose::Domain(domain) => db.fetch_all(&OF_DOMAIN, &[domain.into(), domain.into(), limit]).await,
    };
    Ok(Answer { tracked: rows?.iter().map(read).collect(), ..Answer::default() })
}

async fn on_valkey(
    triplets: &ValkeyTriplets,
    whose: &Whose,
    senders: impl Fn(&str) -> Vec<String>,
    limit: u32,
) -> Result<Answer, DbError> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut answer = Answer::default();
    let mut waiting = Vec::new();
    for client in whose.clients() {
        if let Some(until) = triplets.known_until(&client).await? {
            let known = Tracked {
                client_address: client.clone(),
                contact: None,
                record_expired: until,
                passed: true,
            };
            answer.tracked.push(known);
        }
        waiting.extend(triplets.of_client(&client, most).await?);
    }
    // Both parts of a name are searched for at once: what is found is looked at again.
    let found = match whose {
        Whose::Client(_) | Whose::Network(_) | Whose::Pool(_) => None,
        Whose::Address(address) => {
            let senders = senders(address);
            let wanted = |one: &Waiting| senders.contains(&one.sender) || one.recipient == *address;
            // All spellings have the domain in common.
            Some(triplets.search(&format!("@{}", domain_of(address)), wanted, most).await?)
        }
        Whose::Domain(domain) => {
            let of_domain = |address: &str| address.contains('@') && domain_of(address) == domain;
            let wanted = |one: &Waiting| of_domain(&one.sender) || of_domain(&one.recipient);
            Some(triplets.search(&format!("@{domain}"), wanted, most).await?)
        }
    };
    if let Some(found) = found {
        answer.cut = found.cut;
        answer.without_passed = true;
        waiting = found.waiting;
    }
    waiting.sort();
    answer.tracked.extend(waiting.into_iter().map(not_passed));
    answer.tracked.truncate(most);
    Ok(answer)
}

fn domain_of(address: &str) -> &str {
    address.split_once('@').map_or(address, |(_, domain)| domain)
}

fn not_passed(one: Waiting) -> Tracked {
    Tracked {
        client_address: one.client,
        contact: Some(Contact {
            sender: one.sender,
            recipient: one.recipient,
            init_time: one.init.0,
            block_expired: one.block_expired,
            blocked_count: one.blocked_count,
        }),
        record_expired: one.record_expired,
        passed: false,
    }
}

fn read(row: &Row) -> Tracked {
    let (text, number) = (|name| row.string(name).unwrap_or_default(), |name| row.int(name).unwrap_or(0));
    Tracked {
        client_address: text("client_address"),
        contact: Some(Contact {
            sender: text("sender"),
            recipient: text("recipient"),
            init_time: number("init_time"),
            block_expired: number("block_expired"),
            blocked_count: number("blocked_count"),
        }),
        record_expired: number("record_expired"),
        passed: row.flag("passed"),
    }
}

/// Forgets the contacts of clients that are whitelisted now. Those of a pool stay: its other addresses may not be.
pub(crate) async fn forget_clients(context: &Context, db: &Db, clients: &[&str]) -> Result<(), DbError> {
    for some in clients.chunks(BATCH) {
        match &context.stores.valkey {
            Some(valkey) => valkey.triplets.forget_clients(some).await.map(drop)?,
            None => db.execute(&FORGET_CLIENTS, &[Value::list(some.iter().copied())]).await.map(drop)?,
        }
    }
    Ok(())
}
