//! A bound on failed logins, by account and client, by client alone and by account alone.
//!
//! While a bound is exceeded every login is refused as if the password were wrong, even with the right one, so
//! that guessing gains nothing. The memory is bounded too: the table forgets the oldest entries first.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

/// Entries kept at most.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(20_000).expect("not zero");

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    AccountAndClient(String, String),
    Client(String),
    Account(String),
}

/// Bounds for one window of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Failures of one account from one client. One client may fail five times as often, one account from anywhere ten
    /// times.
    pub(crate) failures: u32,
    /// Seconds.
    pub(crate) window: i64,
}

/// Counts failed logins.
#[derive(Debug)]
pub(crate) struct Limiter {
    counts: Mutex<LruCache<Key, (i64, u32)>>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { counts: Mutex::new(LruCache::new(CAPACITY)) }
    }
}

/// Networks rather than addresses: whoever has an IPv6 address has 2^64 of them.
fn network(client: Option<IpAddr>) -> String {
    match client {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Some(address) => address.to_string(),
        None => "unix".to_owned(),
    }
}

fn keys(account: &str, client: Option<IpAddr>) -> [(Key, u32); 3] {
    let client = network(client);
    [
        (Key::AccountAndClient(account.to_owned(), client.clone()), 1),
        (Key::Client(client), 5),
        (Key::Account(account.to_owned()), 10),
    ]
}

impl Limiter {
    /// Whether a login may be tried now. The attempt counts as a failure from here on, before its password is looked
    /// at, so that attempts at the same time do not all pass the bound; see [`Self::take_back`].
    pub(crate) fn admits(&self, account: &str, client: Option<IpAddr>, now: i64, bound: Bound) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut admitted = true;
        for (key, times) in keys(account, client) {
            let entry = counts.get_or_insert_mut(key, || (now, 0));
            if now - entry.0 >= bound.window {
                *entry = (now, 0);
            }
            admitted &= entry.1 < bound.failures.saturating_mul(times);
            entry.1 = entry.1.saturating_add(1);
        }
        admitted
    }

    /// Uncounts an attempt that [`Self::admits`] counted at `now` and that was no wrong guess.
    pub(crate) fn take_back(&self, account: &str, client: Option<IpAddr>, now: i64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in keys(account, client) {
            // A window that began since does not hold the attempt.
            if let Some((_, count)) = counts.get_mut(&key).filter(|(since, _)| *since <= now) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Notes that an attempt counted at `now` succeeded: the failures before it were mistakes.
    pub(crate) fn succeeded(&self, account: &str, client: Option<IpAddr>, now: i64) {
        self.take_back(account, client, now);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let [(own, _), ..] = keys(account, client);
        counts.pop(&own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { failures: 3, window: 60 };

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_account_from_one_client() {
        let limiter = Limiter::default();
        for now in 0..3 {
            assert!(limiter.admits("a", client("192.0.2.1"), now, BOUND));
        }
        assert!(!limiter.admits("a", client("192.0.2.1"), 10, BOUND));
        assert!(limiter.admits("b", client("192.0.2.1"), 10, BOUND));
        assert!(limiter.admits("a", client("192.0.2.2"), 10, BOUND));
        assert!(limiter.admits("a", client("192.0.2.1"), 60, BOUND));
        limiter.succeeded("a", client("192.0.2.1"), 60);
        for now in 60..63 {
            assert!(limiter.admits("a", client("192.0.2.1"), now, BOUND));
        }
        assert!(!limiter.admits("a", client("192.0.2.1"), 64, BOUND));
    }

    #[test]
    fn attempts_at_the_same_time_do_not_pass_the_bound_together() {
        let limiter = Limiter::default();
        let admitted = std::thread::scope(|scope| {
            let attempt = || limiter.admits("a", client("192.0.2.1"), 0, BOUND);
            let attempts: Vec<_> = (0..40).map(|_| scope.spawn(attempt)).collect();
            attempts.into_iter().map(|attempt| usize::from(attempt.join().unwrap())).sum::<usize>()
        });
        assert_eq!(admitted, 3);
    }

    #[test]
    fn logins_that_succeed_leave_no_count() {
        let limiter = Limiter::default();
        for _ in 0..100 {
            assert!(limiter.admits("a", client("192.0.2.1"), 0, BOUND));
            limiter.succeeded("a", client("192.0.2.1"), 0);
            assert!(limiter.admits("b", client("192.0.2.1"), 0, BOUND));
            limiter.take_back("b", client("192.0.2.1"), 0);
        }
    }

    #[test]
    fn many_accounts_from_one_network_and_one_account_from_many() {
        let limiter = Limiter::default();
        for number in 0..15 {
            limiter.admits(&format!("a{number}"), client(&format!("2001:db8::{number}")), 0, BOUND);
        }
        assert!(!limiter.admits("other", client("2001:db8::ffff"), 1, BOUND));
        assert!(limiter.admits("other", client("2001:db8:1::1"), 1, BOUND));
        for number in 0..30 {
            limiter.admits("root", client(&format!("192.0.2.{number}")), 0, BOUND);
        }
        assert!(!limiter.admits("root", client("198.51.100.1"), 1, BOUND));
    }
}
