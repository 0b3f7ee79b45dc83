//! How much one client network may cause in a minute.
//!
//! A network is the /24 of an IPv4 or the /64 of an IPv6 client: who has one address of it usually has all. Counting starts
//! anew each minute. The number of networks remembered is bounded; the one unheard of for longest is forgotten.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use outrider_core::network;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// Networks remembered.
const NETWORKS: usize = 10_000;

/// Counts what each network did in the current minute.
pub struct NetworkRate {
    a_minute: u32,
    counts: Mutex<LruCache<IpAddr, (Instant, u32)>>,
}

impl NetworkRate {
    /// Allows each network so much a minute; everything if 0.
    pub fn new(a_minute: u32) -> NetworkRate {
        let networks = NonZeroUsize::new(NETWORKS).unwrap_or(NonZeroUsize::MIN);
        NetworkRate { a_minute, counts: Mutex::new(LruCache::new(networks)) }
    }

    /// Whether the client's network may do it once more; if so it is counted.
    pub fn take(&self, client: IpAddr) -> bool {
        if self.a_minute == 0 {
            return true;
        }
        let now = Instant::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = counts.get_or_insert_mut(network::of_client(client).addr(), || (now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        if *count >= self.a_minute {
            return false;
        }
        *count += 1;
        true
    }

    /// What was counted last did not take place.
    pub fn give_back(&self, client: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = counts.get_mut(&network::of_client(client).addr()) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn networks_are_counted_apart_and_for_a_minute() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rate = NetworkRate::new(2);
        let table = [
            ("192.0.2.1", true),
            ("192.0.2.200", true),
            ("192.0.2.3", false),
            ("192.0.3.1", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", true),
            ("2001:db8::2", false),
            ("2001:db8:0:1::1", true),
        ];
        for (client, expected) in table {
            assert_eq!(rate.take(ip(client)), expected, "{client}");
        }
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!rate.take(ip("192.0.2.1")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(rate.take(ip("192.0.2.1")) && rate.take(ip("192.0.2.1")));
        rate.give_back(ip("192.0.2.9"));
        rate.give_back(ip("198.51.100.1"));
        assert!(rate.take(ip("192.0.2.1")) && !rate.take(ip("192.0.2.1")));
        assert!((0..1000).all(|_| NetworkRate::new(0).take(ip("192.0.2.1"))));
    }
}
