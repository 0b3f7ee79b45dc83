//! Bounded waiting for an effect.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long an effect may take before a test fails. Generous: it is a bound against hanging, not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `probe` again and again until it yields a value.
///
/// # Panics
/// After [`PATIENCE`], saying what was waited for.
pub fn wait_for<T>(what: impl Display, probe: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, probe)
}

/// As [`wait_for`] with another bound.
///
/// # Panics
/// When the bound is reached.
pub fn wait_at_most<T>(limit: Duration, what: impl Display, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "still waiting for {what} after {} s", limit.as_secs());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value() {
        let mut calls = 0;
        let value = wait_for("the third call", || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "still waiting for godot")]
    fn gives_up() {
        wait_at_most(Duration::ZERO, "godot", || None::<()>);
    }
}
