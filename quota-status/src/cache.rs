//! Answers of the database remembered for a few seconds. What may be remembered is the business of who asks: usage near
//! a limit always comes fresh.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest name that is remembered, in octets: no address is longer (RFC 5321 section 4.5.3.1), and a memory bounded
/// by its entries must not be filled with attributes of 8 KiB each.
const LONGEST_NAME: usize = 512;

/// The memory; empty for ever when its life is zero.
pub(crate) struct Cache<T> {
    life: Duration,
    entries: Mutex<LruCache<String, (Instant, T)>>,
}

impl<T: Clone> Cache<T> {
    pub(crate) fn new(life: Duration, size: usize) -> Self {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        Cache { life, entries: Mutex::new(LruCache::new(size)) }
    }

    /// What was found out about `name` a short while ago.
    pub(crate) fn get(&self, name: &str) -> Option<T> {
        if self.life.is_zero() {
            return None;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, found) = entries.get(name)?;
        if *until > Instant::now() {
            return Some(found.clone());
        }
        entries.pop(name);
        None
    }

    /// Remembers what was found out.
    pub(crate) fn put(&self, name: &str, found: T) {
        if self.life.is_zero() || name.len() > LONGEST_NAME {
            return;
        }
        let entry = (Instant::now() + self.life, found);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).put(name.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn not_for_long_and_not_for_ever_more() {
        let cache = Cache::new(Duration::from_secs(3), 2);
        for name in ["a", "b", "c"] {
            cache.put(name, 1);
        }
        assert_eq!((cache.get("a"), cache.get("c")), (None, Some(1)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(cache.get("c"), None);
        let long = "x".repeat(LONGEST_NAME + 1);
        cache.put(&long, 1);
        assert_eq!(cache.get(&long), None);
        let off = Cache::new(Duration::ZERO, 2);
        off.put("a", 1);
        assert_eq!(off.get("a"), None);
    }
}
