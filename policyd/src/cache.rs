//! Short memory: values read a moment ago, used again.
//!
//! A cache holds a bounded number of entries and drops the one unused for longest. An entry is *fresh* for the
//! lifetime of the settings (a few seconds, so that a change made by an administrator works soon) and may be used
//! *stale* while its database is away. With a lifetime of zero nothing is ever fresh, but stale values are kept for
//! that emergency. An entry that is still used when half of its lifetime is over is *due*: who hears that has it read anew in the
//! background (`later.rs`), and those who come often never wait for the database.

use std::borrow::Borrow;
use std::future::Future;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lru::LruCache;
use outrider_core::metrics::{Counter, Gauge};
use tokio::time::Instant;

/// A bounded map of values with their age. `V` should be cheap to clone.
pub struct Cache<K, V> {
    entries: Mutex<LruCache<K, Entry<V>>>,
    lifetime: Duration,
    stale: Duration,
    meter: OnceLock<CacheMeter>,
}

struct Entry<V> {
    since: Instant,
    /// Somebody has heard that it is due.
    told: bool,
    value: V,
}

/// A fresh value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh<V> {
    /// The value.
    pub value: V,
    /// Whether it should be read anew. Said once.
    pub due: bool,
}

/// How useful a cache is.
#[derive(Clone, Debug, Default)]
pub struct CacheMeter {
    /// Questions answered from memory.
    pub hits: Counter,
    /// Questions that memory could not answer.
    pub misses: Counter,
    /// Values in memory.
    pub size: Gauge,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// An empty cache of at most `size` entries.
    pub fn new(size: usize, lifetime: Duration, stale: Duration) -> Cache<K, V> {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        Cache { entries: Mutex::new(LruCache::new(size)), lifetime, stale, meter: OnceLock::new() }
    }

    /// Counts from now on.
    pub fn measure(&self, meter: CacheMeter) {
        // Who measures first goes on measuring.
        let _ = self.meter.set(meter);
    }

    /// The value, if it is fresh.
    pub fn fresh<Q: ?Sized + Hash + Eq>(&self, key: &Q) -> Option<Fresh<V>>
    where
        K: Borrow<Q>,
    {
        let found = match self.lifetime.is_zero() {
            true => None,
            false => fresh(&mut self.lock(), key, Instant::now(), self.lifetime),
        };
        self.count(u64::from(found.is_some()), u64::from(found.is_none()));
        found
    }

    /// The fresh values of several keys, in their order.
    pub fn all_fresh(&self, keys: &[K]) -> Vec<Option<Fresh<V>>> {
        if self.lifetime.is_zero() {
            self.count(0, keys.len() as u64);
            return vec![None; keys.len()];
        }
        let (mut entries, now) = (self.lock(), Instant::now());
        let values: Vec<Option<Fresh<V>>> =
            keys.iter().map(|key| fresh(&mut entries, key, now, self.lifetime)).collect();
        drop(entries);
        let hits = values.iter().flatten().count();
        self.count(hits as u64, (values.len() - hits) as u64);
        values
    }

    fn count(&self, hits: u64, misses: u64) {
        if let Some(meter) = self.meter.get() {
            meter.hits.inc_by(hits);
            meter.misses.inc_by(misses);
        }
    }

    /// The value, if it is not too old to be used in an emergency.
    pub fn stale<Q: ?Sized + Hash + Eq>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if self.stale.is_zero() {
            return None;
        }
        let mut entries = self.lock();
        let entry = entries.get(key)?;
        (entry.since.elapsed() < self.stale).then(|| entry.value.clone())
    }

    /// Remembers a value as of now.
    pub fn put(&self, key: K, value: V) {
        let mut entries = self.lock();
        entries.put(key, Entry { since: Instant::now(), told: false, value });
        if let Some(meter) = self.meter.get() {
            meter.size.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        }
    }

    /// Forgets a value.
    pub fn forget<Q: ?Sized + Hash + Eq>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.lock().pop(key);
    }

    /// The fresh value, else what `fetch` brings, else - if that failed for the moment - the stale value.
    ///
    /// # Errors
    /// That of `fetch`, if there is nothing to use instead or `is_temporary` says that the failure will stay.
    pub async fn get_or_fetch<E>(
        &self,
        key: K,
        fetch: impl Future<Output = Result<V, E>>,
        is_temporary: impl FnOnce(&E) -> bool,
    ) -> Result<V, E> {
        if let Some(fresh) = self.fresh(&key) {
            return Ok(fresh.value);
        }
        match fetch.await {
            Ok(value) => {
                self.put(key, value.clone());
                Ok(value)
            }
            Err(error) if is_temporary(&error) => self.stale(&key).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// A panic elsewhere leaves the map as it was: nothing runs inside the lock but the map itself.
    fn lock(&self) -> MutexGuard<'_, LruCache<K, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh<K, V, Q>(
    entries: &mut LruCache<K, Entry<V>>,
    key: &Q,
    now: Instant,
    lifetime: Duration,
) -> Option<Fresh<V>>
where
    K: Hash + Eq + Borrow<Q>,
    V: Clone,
    Q: ?Sized + Hash + Eq,
{
    let entry = entries.get_mut(key)?;
    let age = now.duration_since(entry.since);
    if age >= lifetime {
        return None;
    }
    let due = age >= lifetime / 2 && !entry.told;
    entry.told |= due;
    Some(Fresh { value: entry.value.clone(), due })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn young<V>(value: V) -> Option<Fresh<V>> {
        Some(Fresh { value, due: false })
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_asks_hears_that_a_value_is_due() {
        let cache = Cache::new(2, Duration::from_secs(5), Duration::from_secs(60));
        cache.put("a", 1);
        tokio::time::advance(Duration::from_millis(2499)).await;
        assert_eq!(cache.fresh("a"), young(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.fresh("a"), Some(Fresh { value: 1, due: true }));
        assert_eq!(cache.all_fresh(&["a"]), [young(1)]);
        cache.put("a", 2);
        assert_eq!(cache.fresh("a"), young(2));
        tokio::time::advance(Duration::from_millis(4999)).await;
        assert_eq!(cache.all_fresh(&["a"]), [Some(Fresh { value: 2, due: true })]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.fresh("a"), None, "nobody has seen to it");
        cache.forget("a");
        assert_eq!(cache.stale("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn values_age() {
        let cache = Cache::new(2, Duration::from_secs(5), Duration::from_secs(60));
        cache.put("a", 1);
        assert_eq!(cache.fresh("a"), young(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.fresh("a"), None);
        assert_eq!(cache.all_fresh(&["a"]), [None]);
        assert_eq!(cache.stale("a"), Some(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(cache.stale("a"), None);
    }

    #[tokio::test]
    async fn hits_and_misses_are_counted() {
        let cache = Cache::new(2, Duration::from_secs(5), Duration::from_secs(60));
        let meter = CacheMeter::default();
        cache.measure(meter.clone());
        assert_eq!(cache.fresh("a"), None);
        cache.put("a", 1);
        assert_eq!(cache.fresh("a"), young(1));
        assert_eq!(cache.fresh("a"), young(1));
        assert_eq!((meter.hits.get(), meter.misses.get(), meter.size.get()), (2, 1, 1));
        cache.put("b", 2);
        assert_eq!(cache.all_fresh(&["b", "c", "a"]), [young(2), None, young(1)]);
        assert_eq!((meter.hits.get(), meter.misses.get(), meter.size.get()), (4, 2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn old_values_serve_while_the_source_is_away() {
        let cache = Cache::new(2, Duration::from_secs(5), Duration::from_secs(60));
        let fetch = |value: Result<i32, &'static str>| async move { value };
        assert_eq!(cache.get_or_fetch("a", fetch(Ok(1)), |_| true).await, Ok(1));
        assert_eq!(cache.get_or_fetch("a", fetch(Ok(2)), |_| true).await, Ok(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.get_or_fetch("a", fetch(Err("down")), |_| true).await, Ok(1));
        assert_eq!(
            cache.get_or_fetch("a", fetch(Err("no such table")), |_| false).await,
            Err("no such table")
        );
        assert_eq!(cache.get_or_fetch("a", fetch(Ok(2)), |_| true).await, Ok(2));
        assert_eq!(cache.get_or_fetch("b", fetch(Err("down")), |_| true).await, Err("down"));
    }

    #[tokio::test]
    async fn size_and_lifetime_are_bounds() {
        let cache = Cache::new(2, Duration::ZERO, Duration::from_secs(60));
        for key in 0..3 {
            cache.put(key, key);
        }
        assert_eq!(cache.fresh(&2), None);
        assert_eq!(cache.all_fresh(&[1, 2]), [None, None]);
        assert_eq!((cache.stale(&0), cache.stale(&1), cache.stale(&2)), (None, Some(1), Some(2)));
    }
}
