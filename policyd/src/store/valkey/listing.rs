//! Triplets as an administrator asks for them: those of a client by its keys, others by a search through all.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use outrider_core::sql::DbError;
use redis::Script;

use super::greylisting::ValkeyTriplets;
use super::scan::{STEP, Scan, forget, literal};
use super::script;
use crate::store::fit;

static PAGE: LazyLock<Script> = LazyLock::new(|| script(include_str!("page.lua")));

/// A triplet's name, block_expired, record_expired, blocked_count and init.
type Entry = (Vec<u8>, i64, i64, i64, i64);

/// Clients asked about at once.
const AT_ONCE: usize = 16;
/// Pages of one client: it cannot have more triplets than fit.
const MOST_PAGES: usize = 4 * ValkeyTriplets::MOST;

/// A triplet that has not passed. Times are Unix seconds. The first contact comes first in order, the newest least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it first came.
    pub init: Reverse<i64>,
    /// The client's key.
    pub client: String,
    /// The sender without extension.
    pub sender: String,
    /// The recipient without extension.
    pub recipient: String,
    /// From when on it may come.
    pub block_expired: i64,
    /// Until when it is remembered.
    pub record_expired: i64,
    /// How often it was asked to come again.
    pub blocked_count: i64,
}

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest triplets first.
    pub waiting: Vec<Waiting>,
    /// Whether there may be more, because the search ended before all keys were looked at.
    pub cut: bool,
}

/// The newest of what comes along, each once.
struct Newest {
    limit: usize,
    waiting: BTreeSet<Waiting>,
}

impl Newest {
    fn put(&mut self, one: Waiting) {
        self.waiting.insert(one);
        if self.waiting.len() > self.limit {
            self.waiting.pop_last();
        }
    }
}

impl ValkeyTriplets {
    /// The newest triplets of a client, at most `limit`.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn of_client(&self, client: &str, limit: usize) -> Result<Vec<Waiting>, DbError> {
        let mut newest = Newest { limit, waiting: BTreeSet::new() };
        for one in self.waiting(fit(client, 40), "*").await? {
            newest.put(one);
        }
        Ok(newest.waiting.into_iter().collect())
    }

    /// The newest triplets of all clients that are `wanted`, at most `limit`; their names hold `text`.
    pub async fn search(
        &self,
        text: &str,
        wanted: impl Fn(&Waiting) -> bool,
        limit: usize,
    ) -> Result<Found, DbError> {
        let (begin, end) = ("greylisting:{", "}:triplets");
        let begin_of_key = self.server().key(begin);
        let pattern = format!("*{}*", literal(text));
        let mut scan = Scan::new(self.server(), begin, end);
        let mut newest = Newest { limit, waiting: BTreeSet::new() };
        while let Some(names) = scan.next(self.server()).await? {
            let client =
                |name: &String| Some(name.strip_prefix(&begin_of_key)?.strip_suffix(end)?.to_owned());
            let clients: Vec<String> = names.iter().filter_map(client).collect();
            let mut pages = stream::iter(clients.iter().map(|client| self.waiting(client, &pattern)))
                .buffer_unordered(AT_ONCE);
            while let Some(page) = pages.try_next().await? {
                page.into_iter().filter(|one| wanted(one)).for_each(|one| newest.put(one));
            }
        }
        Ok(Found { waiting: newest.waiting.into_iter().collect(), cut: scan.is_cut() })
    }

    /// Forgets clients, known or waiting; how many keys there were.
    pub async fn forget_clients(&self, clients: &[&str]) -> Result<u64, DbError> {
        let keys = |client: &&str| ["passed", "triplets", "order"].map(|what| self.key(client, what));
        let keys: Vec<String> = clients.iter().flat_map(keys).collect();
        forget(self.server(), &keys).await
    }

    async fn waiting(&self, client: &str, pattern: &str) -> Result<Vec<Waiting>, DbError> {
        let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
        for _ in 0..MOST_PAGES {
            let mut script = PAGE.key(self.key(client, "triplets"));
            script.arg(&cursor).arg(pattern).arg(STEP);
            let (next, page): (String, Vec<Entry>) = self.server().run(&script).await?;
            for (name, block_expired, record_expired, blocked_count, init) in page {
                let name = String::from_utf8(name).ok();
                let Some((sender, recipient)) = name.as_deref().and_then(parts) else { continue };
                all.push(Waiting {
                    init: Reverse(init),
                    client: client.to_owned(),
                    sender: sender.to_owned(),
                    recipient: recipient.to_owned(),
                    block_expired,
                    record_expired,
                    blocked_count,
                });
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        Ok(all)
    }
}

/// Sender and recipient of a triplet's name, see [`super::greylisting`].
fn parts(name: &str) -> Option<(&str, &str)> {
    let (length, text) = name.split_once(':')?;
    text.split_at_checked(length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_triplets() {
        assert_eq!(parts("8:s@x.testr@y.test"), Some(("s@x.test", "r@y.test")));
        assert_eq!(parts("0:r@y.test"), Some(("", "r@y.test")));
        for nonsense in ["", "r@y.test", "99:short", "-1:x", "1:é"] {
            assert_eq!(parts(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_newest_stay() {
        let one = |init, sender: &str| Waiting {
            init: Reverse(init),
            client: String::new(),
            sender: sender.to_owned(),
            recipient: String::new(),
            block_expired: 0,
            record_expired: 0,
            blocked_count: 0,
        };
        let mut newest = Newest { limit: 2, waiting: BTreeSet::new() };
        for (init, sender) in [(5, "a"), (7, "b"), (5, "a"), (6, "c"), (7, "b")] {
            newest.put(one(init, sender));
        }
        let senders: Vec<String> = newest.waiting.into_iter().map(|one| one.sender).collect();
        assert_eq!(senders, ["b", "c"]);
    }
}
