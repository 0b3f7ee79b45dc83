//! Users remembered for a few seconds: those that do not exist and those far from their limit. Usage of a mailbox near
//! its limit always comes fresh.

use crate::limit::far_from_limit;
use lru::LruCache;
use outrider_core::directory::QuotaAccount;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What is known about a name.
pub(crate) type Found = Option<QuotaAccount>;

/// The memory; empty for ever when its life is zero.
pub(crate) struct Cache {
    life: Duration,
    users: Mutex<LruCache<String, (Instant, Found)>>,
}

impl Cache {
    pub(crate) fn new(life: Duration, size: usize) -> Self {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        Cache { life, users: Mutex::new(LruCache::new(size)) }
    }

    /// What was found out about `name` a short while ago.
    pub(crate) fn get(&self, name: &str) -> Option<Found> {
        if self.life.is_zero() {
            return None;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, found) = users.get(name)?;
        if *until > Instant::now() {
            return Some(found.clone());
        }
        users.pop(name);
        None
    }

    /// Remembers what was found out, if it may be.
    pub(crate) fn put(&self, name: &str, found: &Found) {
        let keep = found.as_ref().is_none_or(|account| {
            account.usage_failure.is_none()
                && account.limit_bytes >= 0
                && far_from_limit(account.limit_bytes, account.used_bytes.unwrap_or(0))
        });
        if keep && !self.life.is_zero() {
            let entry = (Instant::now() + self.life, found.clone());
            self.users.lock().unwrap_or_else(PoisonError::into_inner).put(name.to_owned(), entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit_bytes: i64, used: i64) -> Found {
        Some(QuotaAccount {
            username: "u@d.example".into(),
            limit_bytes,
            used_bytes: Some(used),
            usage_failure: None,
        })
    }

    const MB: i64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn only_what_cannot_matter_is_remembered_and_not_for_long() {
        let cache = Cache::new(Duration::from_secs(3), 10);
        cache.put("unknown", &None);
        cache.put("far", &account(MB, 1000));
        cache.put("unlimited", &account(0, i64::MAX));
        cache.put("near", &account(MB, 1_000_000));
        cache.put("wrong", &account(-1, 0));
        assert_eq!(cache.get("unknown"), Some(None));
        assert_eq!(cache.get("far"), Some(account(MB, 1000)));
        assert_eq!(cache.get("unlimited"), Some(account(0, i64::MAX)));
        assert_eq!(cache.get("near"), None);
        assert_eq!(cache.get("wrong"), None);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(cache.get("far"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds() {
        let cache = Cache::new(Duration::from_secs(3), 2);
        for name in ["a", "b", "c"] {
            cache.put(name, &None);
        }
        assert_eq!((cache.get("a"), cache.get("c")), (None, Some(None)));
        let off = Cache::new(Duration::ZERO, 2);
        off.put("a", &None);
        assert_eq!(off.get("a"), None);
    }
}
