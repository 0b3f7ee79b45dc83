//! Look-ups that several requests share and that go on when nobody can wait for them any longer.
//!
//! A name server may take seconds or never answer. So a look-up runs in a task of its own: requests about the same thing
//! share it, each waits as long as its own deadline allows, and the client's next try finds what came of it. What a failing
//! server spoiled is no result for those who come later: they have it looked up again. The number of results kept and
//! of look-ups under way is bounded; beyond that nothing is started, which counts as not found out.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// Look-ups under way at once.
const UNDER_WAY: usize = 1024;
/// A result is shared by those who wait at the same time, even where nothing is to be kept.
const SHARED_FOR: Duration = Duration::from_millis(1);

/// What a look-up will bring; `None` if it panicked.
type Pending<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Look-ups with the results of the last minutes, by key.
pub struct Lookups<V> {
    results: Mutex<LruCache<String, Lookup<V>>>,
    lifetime: Duration,
    /// Whether a result is worth keeping.
    keep: fn(&V) -> bool,
    free: Arc<Semaphore>,
}

/// A look-up and what came of it.
struct Lookup<V> {
    since: Instant,
    pending: Pending<V>,
    task: AbortHandle,
    /// Whether it ended with a result worth keeping.
    kept: Arc<AtomicBool>,
}

impl<V> Lookup<V> {
    /// One that still runs is shared however long it takes.
    fn serves(&self, lifetime: Duration) -> bool {
        let kept = self.kept.load(Ordering::Acquire) && self.since.elapsed() < lifetime;
        kept || !self.task.is_finished() && self.pending.peek().is_none()
    }
}

impl<V: Clone + Send + Sync + 'static> Lookups<V> {
    /// Nothing is known yet; at most `entries` results are kept for `lifetime`, of those that `keep` finds worth it.
    pub fn new(entries: usize, lifetime: Duration, keep: fn(&V) -> bool) -> Lookups<V> {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        Lookups {
            results: Mutex::new(LruCache::new(entries)),
            lifetime: lifetime.max(SHARED_FOR),
            keep,
            free: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }

    /// The result for `key`: one that is known, or that of the look-up under way, or that of a new one, which `start`
    /// makes if it may. `None` if that takes longer than `patience`, or could not be begun.
    pub async fn get(
        &self,
        key: &str,
        patience: Duration,
        start: impl FnOnce() -> Option<BoxFuture<'static, V>>,
    ) -> Option<V> {
        let pending = self.pending(key, start)?;
        match timeout(patience, pending).await {
            Ok(result) => result,
            Err(_) => {
                tracing::debug!(key, "a look-up goes on in the background");
                None
            }
        }
    }

    fn pending(
        &self,
        key: &str,
        start: impl FnOnce() -> Option<BoxFuture<'static, V>>,
    ) -> Option<Pending<V>> {
        let mut results = self.lock();
        if let Some(lookup) = results.get(key)
            && lookup.serves(self.lifetime)
        {
            return Some(lookup.pending.clone());
        }
        let permit = self.free.clone().try_acquire_owned().ok()?;
        let work = start()?;
        let (keep, kept) = (self.keep, Arc::new(AtomicBool::new(false)));
        let ended = kept.clone();
        let task = tokio::spawn(async move {
            let _permit = permit;
            let result = work.await;
            ended.store(keep(&result), Ordering::Release);
            result
        });
        let (since, handle) = (Instant::now(), task.abort_handle());
        let pending = task.map(Result::ok).boxed().shared();
        results.put(key.to_owned(), Lookup { since, pending: pending.clone(), task: handle, kept });
        Some(pending)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Lookup<V>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn after(seconds: u64, value: u32) -> Option<BoxFuture<'static, u32>> {
        Some(
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                value
            }
            .boxed(),
        )
    }

    fn keeping(entries: usize) -> Lookups<u32> {
        Lookups::new(entries, Duration::from_secs(60), |_| true)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_failure_spoiled_is_looked_up_again() {
        let lookups = Lookups::new(10, Duration::from_secs(60), |value| *value != 0);
        let patience = Duration::from_secs(3);
        let (first, second) = tokio::join!(
            lookups.get("fails", patience, || after(1, 0)),
            lookups.get("fails", patience, || panic!("it is under way")),
        );
        assert_eq!((first, second), (Some(0), Some(0)), "those who wait have to take it");
        assert_eq!(lookups.get("fails", patience, || after(1, 7)).await, Some(7));
        // One that ends when nobody waits any more.
        assert_eq!(lookups.get("slow", patience, || after(10, 0)).await, None);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(lookups.get("slow", patience, || after(1, 8)).await, Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_nobody_waited_for_ages_too() {
        let (lookups, patience) = (keeping(10), Duration::from_secs(3));
        assert_eq!(lookups.get("slow", patience, || after(10, 7)).await, None);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(lookups.get("slow", patience, || after(1, 8)).await, Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_finds_the_result_later() {
        let lookups = keeping(10);
        let patience = Duration::from_secs(3);
        assert_eq!(lookups.get("slow", patience, || after(10, 7)).await, None);
        assert_eq!(lookups.get("slow", patience, || panic!("it is under way")).await, None);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(lookups.get("slow", patience, || panic!("it is known")).await, Some(7));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lookups.get("slow", patience, || after(0, 8)).await, Some(8), "it was forgotten");
        assert_eq!(lookups.get("other", patience, || None).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn look_ups_under_way_are_bounded() {
        let lookups = keeping(10_000);
        let begun = AtomicUsize::new(0);
        for number in 0..UNDER_WAY + 100 {
            let begin = || {
                begun.fetch_add(1, Ordering::Relaxed);
                after(100, 1)
            };
            assert_eq!(lookups.get(&number.to_string(), Duration::ZERO, begin).await, None);
        }
        assert_eq!(begun.load(Ordering::Relaxed), UNDER_WAY);
        tokio::time::sleep(Duration::from_secs(101)).await;
        let patience = Duration::from_secs(200);
        assert_eq!(lookups.get("later", patience, || after(1, 9)).await, Some(9));
    }

    #[tokio::test]
    async fn a_panic_is_no_result() {
        let lookups = keeping(10);
        let panics = || Some(async { panic!("asked to panic") }.boxed());
        assert_eq!(lookups.get("a", Duration::from_secs(5), panics).await, None);
    }
}
