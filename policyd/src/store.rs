//! The tables of the policy service: each table's statements in one place, in the spelling of each server.
//!
//! Stores know SQL and caching; they decide nothing. Text that goes into a column is cut to the column's width first,
//! because strict servers refuse longer text and the row would be lost.

pub mod counters;
pub mod greylisting;
pub mod rdns;
pub mod senderscore;
mod server;
pub mod sessions;
pub mod throttle;
pub mod triplet;
pub mod valkey;
pub mod wblist;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outrider_core::sql::{Db, DbError, Done, Stmt, Value};

use crate::cache::{Cache, CacheMeter};
use crate::settings::CacheSettings;

/// All stores, over the databases `iredapd` and `amavisd`.
pub struct Stores {
    /// Greylisting settings and whitelists.
    pub greylisting: greylisting::GreylistingStore,
    /// Triplets of greylisting.
    pub triplets: triplet::TripletStore,
    /// Limits and their counters.
    pub throttle: throttle::ThrottleStore,
    /// White- and blacklists of addresses.
    pub wblist: wblist::WblistStore,
    /// White- and blacklists of reverse names.
    pub rdns: rdns::RdnsStore,
    /// Reputation scores.
    pub senderscore: senderscore::SenderscoreStore,
    /// The session log.
    pub sessions: sessions::SessionStore,
    /// Counters and triplets, where they are kept beside the database.
    pub valkey: Option<counters::ValkeyStores>,
}

impl Stores {
    /// Stores with empty caches; asks no database yet.
    pub fn new(iredapd: &Db, amavisd: &Db, cache: &CacheSettings) -> Stores {
        Stores {
            greylisting: greylisting::GreylistingStore::new(iredapd.clone(), cache),
            triplets: triplet::TripletStore::new(iredapd.clone(), cache),
            throttle: throttle::ThrottleStore::new(iredapd.clone(), cache),
            wblist: wblist::WblistStore::new(amavisd.clone(), cache),
            rdns: rdns::RdnsStore::new(iredapd.clone(), cache),
            senderscore: senderscore::SenderscoreStore::new(iredapd.clone()),
            sessions: sessions::SessionStore::new(iredapd.clone()),
            valkey: None,
        }
    }

    /// Measures all caches from now on; `meter` makes the meter of a name.
    pub fn measure(&self, meter: &dyn Fn(&'static str) -> CacheMeter) {
        self.greylisting.measure(meter);
        match &self.valkey {
            Some(valkey) => valkey.triplets.measure(meter("known_clients")),
            None => self.triplets.measure(meter("known_clients")),
        }
        self.throttle.measure(meter("throttle"));
        self.wblist.measure(meter("wblist"));
        self.rdns.measure(meter("wblist_rdns"));
    }
}

/// A cache with one entry for each account key, filled for several keys by one query.
pub(crate) struct AccountCache<V>(Cache<String, Arc<V>>);

impl<V: Default> AccountCache<V> {
    pub(crate) fn new(settings: &CacheSettings) -> AccountCache<V> {
        let (lifetime, stale) = (settings.lifetime.duration(), settings.stale.duration());
        AccountCache(Cache::new(settings.entries, lifetime, stale))
    }

    /// Counts from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.0.measure(meter);
    }

    /// The values of all keys. `fetch` is asked for those not known and gives what the table holds; keys without
    /// rows have the default. While the database is away old values serve, if there is one for every key.
    pub(crate) async fn get_all<F>(
        &self,
        keys: &[String],
        fetch: impl FnOnce(Vec<String>) -> F,
    ) -> Result<Vec<Arc<V>>, DbError>
    where
        F: Future<Output = Result<HashMap<String, V>, DbError>>,
    {
        let mut known = self.0.all_fresh(keys);
        let unknown = |known: &[Option<Arc<V>>]| -> Vec<usize> {
            known.iter().enumerate().filter(|(_, value)| value.is_none()).map(|(at, _)| at).collect()
        };
        let missing = unknown(&known);
        if !missing.is_empty() {
            match fetch(missing.iter().map(|&at| keys[at].clone()).collect()).await {
                Ok(rows) => {
                    let rows: HashMap<String, Arc<V>> =
                        rows.into_iter().map(|(key, value)| (key, Arc::new(value))).collect();
                    for at in missing {
                        let value = rows.get(&keys[at]).cloned().unwrap_or_default();
                        self.0.put(keys[at].clone(), value.clone());
                        known[at] = Some(value);
                    }
                }
                Err(error) if error.is_temporary() => {
                    for at in missing {
                        known[at] = Some(self.0.stale(&keys[at]).ok_or_else(|| error.clone())?);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(known.into_iter().flatten().collect())
    }
}

/// Runs a write again that the server has undone in favour of another (a deadlock, a lock not given in time).
pub(crate) async fn write(db: &Db, stmt: &Stmt, args: &[Value]) -> Result<Done, DbError> {
    again(|| db.execute(stmt, args)).await
}

/// The same for anything that writes.
pub(crate) async fn again<T, F>(write: impl Fn() -> F) -> Result<T, DbError>
where
    F: Future<Output = Result<T, DbError>>,
{
    for _ in 0..2 {
        match write().await {
            Err(DbError::TryAgain(_)) => {}
            other => return other,
        }
    }
    write().await
}

/// A row that is there already is as good as a new one. MySQL has no other way to leave it alone that does not hide real
/// mistakes too.
pub(crate) fn ignore_duplicate(outcome: Result<(), DbError>) -> Result<(), DbError> {
    match outcome {
        Err(error) if error.is_duplicate_key() => Ok(()),
        other => other,
    }
}

/// How a table is rid of rows that have had their time: in steps of so many rows in the order of their ids, each step
/// one short statement. That reads the table once from end to end whatever indexes it has, holds no lock for
/// long, and does no harm when several hosts do it at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// Gives the last id of the next step; values: the last id of this one, the number of rows.
    pub(crate) step: Stmt,
    /// Deletes within a step; values: the id before it, its last id, the time.
    pub(crate) delete: Stmt,
    /// Whether rows were written in the order of their times: then the first step without an old one is the last.
    pub(crate) ordered: bool,
}

/// Pause between two steps, for everybody else.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

impl Sweep {
    /// Deletes what is older than `time`, going through `batch` rows at a time; the number of rows deleted.
    pub(crate) async fn run(&self, db: &Db, time: i64, batch: u32) -> Result<u64, DbError> {
        self.run_until(db, time, batch, u64::MAX).await
    }

    /// The same, but ends with the step in which `enough` rows are gone.
    pub(crate) async fn run_until(
        &self,
        db: &Db,
        time: i64,
        batch: u32,
        enough: u64,
    ) -> Result<u64, DbError> {
        let (mut last, mut deleted) = (0_i64, 0);
        loop {
            let row = db.fetch_optional(&self.step, &[last.into(), batch.into()]).await?;
            let Some(next) = row.and_then(|row| row.int_at(0)) else { return Ok(deleted) };
            let done = write(db, &self.delete, &[last.into(), next.into(), time.into()]).await?;
            deleted += done.rows_affected;
            if (self.ordered && done.rows_affected == 0) || deleted >= enough {
                return Ok(deleted);
            }
            last = next;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Text cut to at most `characters`, as column widths count.
pub(crate) fn fit(text: &str, characters: usize) -> &str {
    match text.char_indices().nth(characters) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(fit("müller", 2), "mü");
        assert_eq!(fit("müller", 6), "müller");
        assert_eq!(fit("", 0), "");
    }

    #[tokio::test]
    async fn one_query_for_the_keys_that_are_not_known() {
        let cache: AccountCache<Vec<i64>> = AccountCache::new(&CacheSettings::default());
        let keys = |list: &[&str]| list.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let rows = |_| async { Ok(HashMap::from([("a".to_owned(), vec![1])])) };
        let values = cache.get_all(&keys(&["a", "b"]), rows).await.unwrap();
        assert_eq!(values.iter().map(|value| value.len()).collect::<Vec<_>>(), [1, 0]);
        let only_new = |missing: Vec<String>| async move {
            assert_eq!(missing, ["c"]);
            Ok(HashMap::new())
        };
        assert_eq!(cache.get_all(&keys(&["a", "c"]), only_new).await.unwrap()[0][0], 1);
    }

    /// As in `alice@example.com.`, whose last suffix is empty like that of everybody.
    #[tokio::test]
    async fn a_key_asked_for_twice_keeps_its_rows() {
        let cache: AccountCache<Vec<i64>> = AccountCache::new(&CacheSettings::default());
        let keys = ["@.".to_owned(), "@.".to_owned()];
        let rows = |_| async { Ok(HashMap::from([("@.".to_owned(), vec![1])])) };
        assert!(cache.get_all(&keys, rows).await.unwrap().iter().all(|rows| **rows == [1]));
        let nothing = |_| async { panic!("it is known") };
        assert_eq!(*cache.get_all(&keys[..1], nothing).await.unwrap()[0], [1]);
    }
}
