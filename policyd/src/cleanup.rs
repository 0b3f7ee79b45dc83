//! Removal of rows that have had their time.
//!
//! Several hosts may do it at once; a table whose database is busy or away is left for the next time.

use outrider_core::settings::Interval;
use outrider_core::sql::DbError;

use crate::context::Context;

/// What became of one table.
#[derive(Debug)]
pub struct Swept {
    /// Which.
    pub table: &'static str,
    /// Rows removed.
    pub removed: Result<u64, DbError>,
}

/// Goes through all tables once.
pub(crate) async fn sweep(context: &Context) -> Vec<Swept> {
    let (stores, settings, now) = (&context.stores, &context.settings, context.now());
    let before = |keep: Interval| now.saturating_sub_unsigned(keep.duration().as_secs());
    let batch = settings.cleanup.batch;
    let scores = before(settings.senderscore.keep);
    let sessions = before(settings.session_log.keep);
    let triplets = match stores.triplets.forget_expired(now, batch).await {
        Ok(expired) => {
            let surplus = stores.triplets.shrink(settings.greylisting.most_contacts, batch).await;
            surplus.map(|surplus| expired + surplus)
        }
        failed => failed,
    };
    vec![
        Swept { table: "greylisting_tracking", removed: triplets },
        Swept { table: "throttle_tracking", removed: stores.throttle.forget_expired(now, batch).await },
        Swept { table: "senderscore_cache", removed: stores.senderscore.forget_before(scores, batch).await },
        Swept { table: "smtp_sessions", removed: stores.sessions.forget_before(sessions, batch).await },
    ]
}

/// The same, for the log.
pub(crate) async fn once(context: &Context) {
    for Swept { table, removed } in sweep(context).await {
        match removed {
            Ok(0) => {}
            Ok(rows) => tracing::info!(event = "cleanup", table, rows),
            Err(error) => {
                tracing::warn!(event = "cleanup", table, %error, "old rows stay until the next time");
            }
        }
    }
}
