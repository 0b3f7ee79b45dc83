//! Throttle counters.

use std::sync::{Arc, LazyLock};

use outrider_core::sql::DbError;
use redis::Script;

use super::connection::Valkey;
use super::{script, time_to_live, whole};
use crate::store::fit;
use crate::store::throttle::{Amount, Counted, Tracked};

static COUNT: LazyLock<Script> = LazyLock::new(|| script(include_str!("throttle.lua")));
static CLAIM: LazyLock<Script> = LazyLock::new(|| script(include_str!("claim.lua")));

/// The counters of [`crate::store::throttle`].
pub struct ValkeyCounters {
    server: Arc<Valkey>,
}

impl ValkeyCounters {
    /// The counters on this server.
    pub fn new(server: Arc<Valkey>) -> ValkeyCounters {
        ValkeyCounters { server }
    }

    fn key(&self, counter: &Tracked) -> String {
        self.server.key(&format!("throttle:{}:{}", counter.tid, fit(&counter.key, 255)))
    }

    /// Counts a message on all counters if all of them allow it, at `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn count(
        &self,
        mut tracked: Vec<Tracked>,
        amount: Amount,
        now: i64,
    ) -> Result<Counted, DbError> {
        if tracked.is_empty() {
            return Ok(Counted::Accepted);
        }
        tracked.sort();
        let mut script = COUNT.prepare_invoke();
        script.arg(now).arg(whole(amount.messages)).arg(whole(amount.bytes));
        for counter in &tracked {
            script
                .key(self.key(counter))
                .arg(counter.period)
                .arg(whole(counter.max_msgs))
                .arg(whole(counter.max_quota))
                .arg(time_to_live(counter.period, 0));
        }
        let answer: Vec<i64> = self.server.run(&script).await?;
        match answer.as_slice() {
            [1] => Ok(Counted::Accepted),
            &[0, at, has_row @ (0 | 1), by_messages @ (0 | 1)] => {
                let at = usize::try_from(at).ok().and_then(|at| tracked.into_iter().nth(at.checked_sub(1)?));
                let at = at.ok_or_else(no_sense)?;
                Ok(Counted::Exceeded { at, has_row: has_row == 1, by_messages: by_messages == 1 })
            }
            _ => Err(no_sense()),
        }
    }

    /// Whether the caller should notify: true for one request a period.
    pub async fn claim_notification(&self, counter: &Tracked, now: i64) -> Result<bool, DbError> {
        let mut script = CLAIM.key(self.key(counter));
        script.arg(now).arg(counter.period);
        Ok(self.server.run::<i64>(&script).await? == 1)
    }
}

fn no_sense() -> DbError {
    DbError::Refused("the answer of the counting script makes no sense".to_owned())
}
