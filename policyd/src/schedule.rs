//! Work that is done a while after the start and then once an interval, at a moment that differs from host to host.

use std::future::Future;
use std::time::Duration;

use outrider_core::daemon::Shutdown;
use outrider_core::random::SharedRandom;

/// How often the settings are looked at again while the work is switched off.
const SWITCHED_OFF: Duration = Duration::from_secs(60);

/// Runs `work` whenever its time has come, until shutdown. The interval is asked for anew each time; while it is zero
/// nothing is done.
pub(crate) async fn run<F: Future<Output = ()>>(
    interval: impl Fn() -> Duration,
    work: impl Fn() -> F,
    random: SharedRandom,
    shutdown: Shutdown,
) {
    let mut first = true;
    loop {
        let interval = interval();
        let pause = if interval.is_zero() { SWITCHED_OFF } else { pause(interval, first, random.next_u64()) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.wait() => return,
        }
        if !interval.is_zero() {
            first = false;
            tokio::select! {
                () = work() => {}
                () = shutdown.wait() => return,
            }
        }
    }
}

/// A tenth of the interval after the start, then the whole; each up to a tenth longer.
fn pause(interval: Duration, first: bool, chance: u64) -> Duration {
    let tenth = interval / 10;
    let spread = tenth.mul_f64(chance as f64 / u64::MAX as f64);
    (if first { tenth } else { interval }) + spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_do_it_at_different_moments() {
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(hour, true, 0), Duration::from_secs(360));
        assert_eq!(pause(hour, false, 0), hour);
        assert_eq!(pause(hour, false, u64::MAX), Duration::from_secs(3960));
    }
}
