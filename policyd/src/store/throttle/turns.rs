//! Who waits for a counter that somebody else holds.
//!
//! The server lets a statement wait for a row that another session has changed and not committed yet: an
//! administrator's open transaction, another host that hangs. Each such wait keeps a connection. So only one message of each
//! counter waits there, a few of all, and the others wait here, where it costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Line, OwnedMutexGuard, Semaphore, SemaphorePermit};

use super::Tracked;

/// What a message waits for: the same counters are the same line.
type Name = Vec<(i64, String)>;

/// The lines of messages.
pub(super) struct Turns {
    lines: Mutex<HashMap<Name, Arc<Line<()>>>>,
    places: Semaphore,
}

/// The right to wait in the server. Given back when it is dropped.
pub(super) struct Turn<'a> {
    _first: OwnedMutexGuard<()>,
    _place: Option<SemaphorePermit<'a>>,
    _standing: InLine<'a>,
}

impl Turns {
    /// At most `places` messages wait in the server at once.
    pub(super) fn new(places: usize) -> Turns {
        Turns { lines: Mutex::default(), places: Semaphore::new(places.max(1)) }
    }

    /// Waits until it is the first for these counters and there is a place.
    pub(super) async fn take(&self, counters: &[Tracked]) -> Turn<'_> {
        let standing = self.stand_in_line(counters);
        let first = standing.line.clone().lock_owned().await;
        // Never closed.
        let place = self.places.acquire().await.ok();
        Turn { _first: first, _place: place, _standing: standing }
    }

    /// The turn if nobody has it at the moment. It needs no place.
    pub(super) fn try_take(&self, counter: &Tracked) -> Option<Turn<'_>> {
        let standing = self.stand_in_line(std::slice::from_ref(counter));
        let first = standing.line.clone().try_lock_owned().ok()?;
        Some(Turn { _first: first, _place: None, _standing: standing })
    }

    fn stand_in_line(&self, counters: &[Tracked]) -> InLine<'_> {
        let name: Name = counters.iter().map(|counter| (counter.tid, counter.key.clone())).collect();
        let line = self.lock().entry(name.clone()).or_default().clone();
        InLine { turns: self, name, line }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<Line<()>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in a line; the last one who leaves takes the line away.
struct InLine<'a> {
    turns: &'a Turns,
    name: Name,
    line: Arc<Line<()>>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lock();
        // The map's and this one.
        if Arc::strong_count(&self.line) <= 2 {
            lines.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn counter(key: &str) -> Tracked {
        Tracked { tid: 1, key: key.into(), period: 60, max_msgs: 9, max_quota: 0 }
    }

    async fn waits<T>(turn: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(1), turn).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_each_counter_and_a_few_of_all() {
        let turns = Turns::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|key| [counter(key)]);
        let first = turns.take(&a).await;
        assert!(waits(turns.take(&a)).await, "somebody has it");
        assert!(turns.try_take(&a[0]).is_none());
        let second = turns.take(&b).await;
        assert!(waits(turns.take(&c)).await, "no place");
        drop(turns.try_take(&c[0]).expect("nobody has it"));
        drop(first);
        let third = turns.take(&a).await;
        drop((second, third));
        assert!(turns.lock().is_empty(), "nothing is left behind");
    }
}
