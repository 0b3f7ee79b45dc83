//! Removal of rows that have had their time.
//!
//! It runs a while after the start and then once an interval, at a moment that differs from host to host. Several
//! hosts may do it at once; a table whose database is busy or away is left for the next time.

use std::sync::Arc;
use std::time::Duration;

use outrider_core::daemon::Shutdown;
use outrider_core::random::SharedRandom;
use outrider_core::settings::Interval;
use outrider_core::sql::DbError;

use crate::daemon::Snapshot;

/// How often the settings are looked at again while the removal is switched off.
const SWITCHED_OFF: Duration = Duration::from_secs(60);

pub(crate) async fn run(snapshot: impl Fn() -> Arc<Snapshot>, random: SharedRandom, shutdown: Shutdown) {
    let mut first = true;
    loop {
        let interval = snapshot().context.settings.cleanup.interval.duration();
        let pause = if interval.is_zero() { SWITCHED_OFF } else { pause(interval, first, random.next_u64()) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.wait() => return,
        }
        if !interval.is_zero() {
            first = false;
            let snapshot = snapshot();
            tokio::select! {
                () = once(&snapshot) => {}
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

/// Goes through all tables once.
pub(crate) async fn once(snapshot: &Snapshot) {
    let context = &snapshot.context;
    let (stores, settings, now) = (&context.stores, &context.settings, context.now());
    let before = |keep: Interval| now.saturating_sub_unsigned(keep.duration().as_secs());
    report("greylisting_tracking", stores.triplets.forget_expired(now).await);
    report("greylisting_tracking", stores.triplets.shrink(settings.greylisting.most_contacts).await);
    report("throttle_tracking", stores.throttle.forget_expired(now).await);
    report("senderscore_cache", stores.senderscore.forget_before(before(settings.senderscore.keep)).await);
    report("smtp_sessions", stores.sessions.forget_before(before(settings.session_log.keep)).await);
}

fn report(table: &'static str, outcome: Result<u64, DbError>) {
    match outcome {
        Ok(0) => {}
        Ok(rows) => tracing::info!(event = "cleanup", table, rows),
        Err(error) => tracing::warn!(event = "cleanup", table, %error, "old rows stay until the next time"),
    }
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
