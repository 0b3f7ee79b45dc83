//! Who waits for a counter that somebody else holds.
//!
//! The server lets a statement wait for a row that another session has changed and not committed yet: an
//! administrator's open transaction, another host that hangs. Each such wait keeps a connection. So messages that have to
//! wait for the same counters stand in a line, those of one moment wait together, and of all lines only a few wait in the
//! server at once.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrider_core::gather::{Gather, Lanes};
use tokio::sync::{Notify, Semaphore};

use super::Tracked;

/// What messages wait for: the same counters are the same line.
pub(super) type Name = Vec<(i64, String)>;

/// The line for these counters.
pub(super) fn name(counters: &[Tracked]) -> Name {
    counters.iter().map(|counter| (counter.tid, counter.key.clone())).collect()
}

type Work<Q, A> = dyn Fn(Vec<Q>) -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> + Send + Sync;

/// Lines of messages `Q` that get answers `A`.
pub(super) struct Lines<Q, A> {
    lines: Mutex<HashMap<Name, Arc<Gather<Q, A>>>>,
    /// Counters that somebody moves who is in no line.
    alone: Mutex<HashSet<Name>>,
    /// Told when somebody left.
    left: Notify,
    /// Messages of a line that wait together at most.
    most: usize,
    work: Arc<Work<Q, A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Lines<Q, A> {
    /// `work` gets 1 to `most` messages of a line, and has one of the `places`.
    pub(super) fn new<W, F>(most: usize, places: Arc<Semaphore>, work: W) -> Lines<Q, A>
    where
        W: Fn(Vec<Q>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let work = Arc::new(work);
        let work = move |messages| -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> {
            let (work, places) = (work.clone(), places.clone());
            Box::pin(async move {
                // Never closed.
                let _place = places.acquire().await;
                work(messages).await
            })
        };
        let left = Notify::new();
        Lines { lines: Mutex::default(), alone: Mutex::default(), left, most, work: Arc::new(work) }
    }

    /// The answer to a message in its line; `None` if the work on it panicked. The line goes on when the requester gives
    /// up, so that those who come later do not begin another.
    pub(super) async fn ask(self: &Arc<Self>, name: Name, message: Q) -> Option<A> {
        let place = self.stand_in(name);
        let answer = tokio::spawn(async move { place.line.ask(message).await });
        answer.await.ok().flatten()
    }

    /// The right to move these counters without standing in their line, if there is none and nobody else does.
    pub(super) fn try_alone(&self, name: Name) -> Option<Alone<'_>> {
        if lock(&self.lines).contains_key(&name) || !lock(&self.alone).insert(name.clone()) {
            return None;
        }
        Some(Alone { alone: &self.alone, left: &self.left, name })
    }

    /// Waits until nobody moves these counters or waits to do so.
    pub(super) async fn until_free(&self, name: &Name) {
        loop {
            let mut left = pin!(self.left.notified());
            // Who leaves from here on is noticed.
            left.as_mut().enable();
            if !lock(&self.lines).contains_key(name) && !lock(&self.alone).contains(name) {
                return;
            }
            left.await;
        }
    }

    fn stand_in(self: &Arc<Self>, name: Name) -> Place<Q, A> {
        let begin = || {
            let work = self.work.clone();
            Arc::new(Gather::new(self.most, Lanes::ONE, move |messages| work(messages)))
        };
        let line = lock(&self.lines).entry(name.clone()).or_insert_with(begin).clone();
        Place { lines: self.clone(), name, line }
    }
}

/// Somebody in a line; the last one who leaves takes the line away.
struct Place<Q, A> {
    lines: Arc<Lines<Q, A>>,
    name: Name,
    line: Arc<Gather<Q, A>>,
}

impl<Q, A> Drop for Place<Q, A> {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines.lines);
        // The map's and this one.
        if Arc::strong_count(&self.line) <= 2 {
            lines.remove(&self.name);
            self.lines.left.notify_waiters();
        }
    }
}

/// Somebody who moves counters and is in no line.
pub(super) struct Alone<'a> {
    alone: &'a Mutex<HashSet<Name>>,
    left: &'a Notify,
    name: Name,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        lock(self.alone).remove(&self.name);
        self.left.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    fn counters(key: &str) -> Name {
        vec![(1, key.to_owned())]
    }

    /// Lines whose work takes so many seconds and tells how many came together.
    fn lines(places: usize) -> Arc<Lines<u64, usize>> {
        Arc::new(Lines::new(8, Arc::new(Semaphore::new(places)), |messages: Vec<u64>| async move {
            sleep(Duration::from_secs(messages[0])).await;
            vec![messages.len(); messages.len()]
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_one_counter_wait_together_and_a_few_of_all() {
        let (lines, begin) = (lines(2), Instant::now());
        let mut asked = Vec::new();
        for key in ["a", "a", "a", "b", "c"] {
            let (lines, name) = (lines.clone(), counters(key));
            asked.push(tokio::spawn(async move { (lines.ask(name, 10).await, begin.elapsed().as_secs()) }));
            sleep(Duration::from_millis(1)).await;
        }
        for (asked, (together, seconds)) in
            asked.into_iter().zip([(1, 10), (2, 20), (2, 20), (1, 10), (1, 20)])
        {
            assert_eq!(asked.await.unwrap(), (Some(together), seconds));
        }
        assert!(lock(&lines.lines).is_empty(), "nothing is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_there_until_its_work_is_done() {
        let lines = lines(2);
        let gave_up = timeout(Duration::from_secs(1), lines.ask(counters("a"), 10)).await;
        assert!(gave_up.is_err());
        assert!(lines.try_alone(counters("a")).is_none(), "somebody still waits in the server");
        let alone = lines.try_alone(counters("b")).expect("nobody is there");
        assert!(lines.try_alone(counters("b")).is_none());
        drop(alone);
        assert!(lines.try_alone(counters("b")).is_some());
        let begin = Instant::now();
        lines.until_free(&counters("b")).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        lines.until_free(&counters("a")).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(9));
        let alone = lines.try_alone(counters("a")).expect("nobody is there");
        let free = tokio::spawn({
            let lines = lines.clone();
            async move { lines.until_free(&counters("a")).await }
        });
        sleep(Duration::from_secs(1)).await;
        assert!(!free.is_finished());
        drop(alone);
        free.await.expect("no panic");
    }
}
