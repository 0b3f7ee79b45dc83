//! The tables of the policy service: each table's statements in one place, in the spelling of each server.
//!
//! Stores know SQL and caching; they decide nothing. Text that goes into a column is cut to the column's width first,
//! because strict servers refuse longer text and the row would be lost.

mod account_cache;
pub mod counters;
pub mod greylisting;
mod later;
pub mod rdns;
pub mod senderscore;
mod server;
pub mod sessions;
pub mod throttle;
pub mod triplet;
pub mod valkey;
pub mod wblist;

use std::future::Future;
use std::time::Duration;

use outrider_core::sql::{Db, DbError, Done, Stmt, Value};

use crate::cache::CacheMeter;
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
    // No text has more characters than bytes.
    match text.len() > characters {
        true => text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end]),
        false => text,
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
}
