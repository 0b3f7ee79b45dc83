//! Throttle counters.

use std::sync::{Arc, LazyLock};

use outrider_core::sql::DbError;
use redis::Script;

use super::connection::Valkey;
use super::scan::{Scan, forget};
use super::{script, time_to_live, whole};
use crate::store::fit;
use crate::store::throttle::{Amount, Counted, Tracked};

static COUNT: LazyLock<Script> = LazyLock::new(|| script(include_str!("throttle.lua")));
static CLAIM: LazyLock<Script> = LazyLock::new(|| script(include_str!("claim.lua")));
static LOOK: LazyLock<Script> = LazyLock::new(|| script(include_str!("look.lua")));

/// What stands in a counter. `init` is in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When its period began.
    pub init: i64,
    /// Messages, once for each recipient.
    pub messages: i64,
    /// Bytes.
    pub bytes: i64,
}

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
        self.key_of(counter.tid, &counter.key)
    }

    fn key_of(&self, tid: i64, account: &str) -> String {
        self.server.key(&format!("throttle:{tid}:{}", fit(account, 255)))
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

    /// What stands in each of these counters, if anything does; its period may be over.
    pub async fn look(&self, tracked: &[Tracked]) -> Result<Vec<Option<Standing>>, DbError> {
        if tracked.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = LOOK.prepare_invoke();
        for counter in tracked {
            script.key(self.key(counter));
        }
        let answer: Vec<[i64; 3]> = self.server.run(&script).await?;
        if answer.len() != tracked.len() {
            return Err(no_sense());
        }
        let standing =
            |[init, messages, bytes]: [i64; 3]| (init >= 0).then_some(Standing { init, messages, bytes });
        Ok(answer.into_iter().map(standing).collect())
    }

    /// Forgets what these limits have counted under an account; how many counters there were.
    pub async fn forget(&self, tids: &[i64], account: &str) -> Result<u64, DbError> {
        let keys: Vec<String> = tids.iter().map(|&tid| self.key_of(tid, account)).collect();
        forget(&self.server, &keys).await
    }

    /// Forgets everything that a limit has counted; how many counters there were. Looks through all keys of the server,
    /// within bounds; counters that are left belong to nothing and go when their periods are over.
    pub async fn forget_limit(&self, tid: i64) -> Result<u64, DbError> {
        let mut scan = Scan::new(&self.server, &format!("throttle:{tid}:"), "");
        let mut forgotten = 0;
        while let Some(keys) = scan.next(&self.server).await? {
            forgotten += forget(&self.server, &keys).await?;
        }
        Ok(forgotten)
    }
}

fn no_sense() -> DbError {
    DbError::Refused("the answer of the counting script makes no sense".to_owned())
}
