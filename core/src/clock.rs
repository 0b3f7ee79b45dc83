//! The time of day, passed in wherever a decision depends on it.
//!
//! Greylisting windows, SRS time stamps and signature dates are all functions of "now". They take a [`Clock`]
//! so that tests, conformance runs and simulations choose that moment; only the binaries use [`SystemClock`].
//! Deadlines and idle time are not the business of this module: they use tokio's monotonic (and pausable) time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of the time of day.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 00:00 UTC; negative before.
    fn unix_millis(&self) -> i64;

    /// Whole seconds since 1970-01-01 00:00 UTC.
    fn unix_seconds(&self) -> i64 {
        self.unix_millis().div_euclid(1000)
    }
}

/// A clock shared by the parts of a daemon.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_millis(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct TestClock {
    millis: AtomicI64,
}

impl TestClock {
    /// A clock that shows `seconds` since 1970.
    pub fn new(seconds: i64) -> TestClock {
        TestClock { millis: AtomicI64::new(seconds.saturating_mul(1000)) }
    }

    /// Shows `seconds` since 1970 from now on; going back is allowed.
    pub fn set(&self, seconds: i64) {
        self.millis.store(seconds.saturating_mul(1000), Ordering::SeqCst);
    }

    /// Moves the clock by `seconds`, which may be negative.
    pub fn advance(&self, seconds: i64) {
        self.millis.fetch_add(seconds.saturating_mul(1000), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_millis(&self) -> i64 {
        self.millis.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_clock_moves_only_when_told() {
        let clock = TestClock::new(1_742_040_000);
        assert_eq!(clock.unix_seconds(), 1_742_040_000);
        clock.advance(61);
        assert_eq!(clock.unix_seconds(), 1_742_040_061);
        clock.set(-1);
        assert_eq!((clock.unix_seconds(), clock.unix_millis()), (-1, -1000));
    }

    #[test]
    fn system_clock_is_later_than_this_code() {
        let clock = SystemClock;
        assert!(clock.unix_seconds() > 1_735_689_600, "2025-01-01");
        assert_eq!(clock.unix_millis().div_euclid(1000) - clock.unix_seconds(), 0);
    }
}
