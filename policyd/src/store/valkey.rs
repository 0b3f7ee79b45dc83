//! Throttle counters and greylisting triplets on a Valkey or Redis server, for several hosts with more mail than the
//! SQL server should carry. What they mean is what they mean in SQL, see [`super::throttle`] and
//! [`super::greylisting`].
//!
//! **One step, one script.** The server runs a script from end to end before anything else, so check and count cannot
//! be torn apart, whoever asks at the same moment. Every key has a time to live: nothing has to be cleaned up.
//!
//! **What is read is checked.** A key of another type, and text that is none of our numbers, count as not there and
//! are written over. Text is only compared and turned into numbers, never run.
//!
//! Keys, behind the prefix of the settings:
//!
//! ```text
//! throttle:TID:ACCOUNT           hash    init, msgs, quota, notified
//! greylisting:{CLIENT}:passed    string  Unix seconds until which the client is known
//! greylisting:{CLIENT}:triplets  hash    sender and recipient -> block_expired record_expired blocked_count init
//! greylisting:{CLIENT}:order     zset    the same triplets by record_expired
//! ```
//!
//! One server is asked. A server that sends elsewhere (MOVED, a member of a cluster) is reported and not followed.

mod connection;
mod greylisting;
mod listing;
mod scan;
mod throttle;

pub use connection::Valkey;
pub use greylisting::ValkeyTriplets;
pub use listing::{Found, Waiting};
pub use throttle::{Standing, ValkeyCounters};

/// Seconds for which a key outlives what stands in it, so that hosts whose clocks differ a little see the same.
const SLACK: i64 = 60;

/// A script with what reads and checks values in front of it.
fn script(text: &str) -> redis::Script {
    redis::Script::new(&[include_str!("valkey/read.lua"), text].concat())
}

/// A time to live from `now` until `end`, in seconds: at least one, at most some thirty years.
fn time_to_live(end: i64, now: i64) -> i64 {
    end.saturating_sub(now).saturating_add(SLACK).clamp(1, 1_000_000_000)
}

/// Numbers in scripts are floating-point: whole only up to 2^53.
fn whole(number: i64) -> i64 {
    number.clamp(-(1 << 53), 1 << 53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_bounded() {
        assert_eq!(time_to_live(1000, 900), 160);
        assert_eq!(time_to_live(900, 1000), 1);
        assert_eq!(time_to_live(i64::MAX, -5), 1_000_000_000);
        assert_eq!(whole(i64::MAX), 9_007_199_254_740_992);
    }
}
