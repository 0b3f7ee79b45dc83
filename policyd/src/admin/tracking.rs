//! Triplets of the table `greylisting_tracking`, as an administrator asks for them.

use std::net::IpAddr;

use outrider_core::sql::{Db, DbError, Row, Stmt, Value};

const OF_CLIENT: Stmt = Stmt::same(
    "SELECT sender, recipient, client_address, init_time, block_expired, record_expired, blocked_count, passed \
     FROM greylisting_tracking WHERE client_address = ? ORDER BY init_time DESC, id DESC LIMIT ?",
);
/// By way of the domains, which have indexes; the addresses themselves have none that begins with them.
const OF_ADDRESS: Stmt = Stmt::same(
    "SELECT sender, recipient, client_address, init_time, block_expired, record_expired, blocked_count, passed \
     FROM greylisting_tracking WHERE (sender_domain = ? AND sender = ?) OR (rcpt_domain = ? AND recipient = ?) \
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

/// Whose triplets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of a client.
    Client(IpAddr),
    /// Those with this address (lower case) as sender or recipient.
    Address(String),
    /// Those with senders or recipients in this domain (lower case).
    Domain(String),
}

/// One row. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The sender without extension.
    pub sender: String,
    /// The recipient without extension.
    pub recipient: String,
    /// The client.
    pub client_address: String,
    /// When it first came.
    pub init_time: i64,
    /// From when on it may come.
    pub block_expired: i64,
    /// Until when it is remembered.
    pub record_expired: i64,
    /// How often it was asked to come again.
    pub blocked_count: i64,
    /// Whether it came again in time.
    pub passed: bool,
}

/// The newest triplets, at most `limit`.
pub(super) async fn triplets(db: &Db, whose: &Whose, limit: u32) -> Result<Vec<Tracked>, DbError> {
    let limit = Value::from(limit);
    let rows = match whose {
        Whose::Client(client) => db.fetch_all(&OF_CLIENT, &[client.to_string().into(), limit]).await,
        Whose::Address(address) => {
            let domain = address.split_once('@').map_or(address.as_str(), |(_, domain)| domain);
            let pair = || [Value::from(domain), Value::from(address)];
            let [domain, address] = pair();
            let [again, address_again] = pair();
            db.fetch_all(&OF_ADDRESS, &[domain, address, again, address_again, limit]).await
        }
        Whose::Domain(domain) => db.fetch_all(&OF_DOMAIN, &[domain.into(), domain.into(), limit]).await,
    };
    Ok(rows?.iter().map(read).collect())
}

fn read(row: &Row) -> Tracked {
    let (text, number) = (|name| row.string(name).unwrap_or_default(), |name| row.int(name).unwrap_or(0));
    Tracked {
        sender: text("sender"),
        recipient: text("recipient"),
        client_address: text("client_address"),
        init_time: number("init_time"),
        block_expired: number("block_expired"),
        record_expired: number("record_expired"),
        blocked_count: number("blocked_count"),
        passed: row.flag("passed"),
    }
}

/// Forgets the triplets of clients that are whitelisted now; how many.
pub(crate) async fn forget_clients(db: &Db, clients: &[&str]) -> Result<u64, DbError> {
    let mut forgotten = 0;
    for some in clients.chunks(BATCH) {
        let done = db.execute(&FORGET_CLIENTS, &[Value::list(some.iter().copied())]).await?;
        forgotten += done.rows_affected;
    }
    Ok(forgotten)
}
