//! Who waits for a counter that somebody else holds.
//!
//! The server lets a statement wait for a row that another session has changed and not committed yet: an
//! administrator's open transaction, another host that hangs. Each such wait keeps a connection. So messages that have to
//! wait for the same counters stand in a line, those of one moment wait together, and of all lines only a few wait in the
//! server at once. In this process nobody else moves the counters meanwhile.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Those in which somebody stands.
    lines: Mutex<HashMap<Name, Arc<Gather<Q, A>>>>,
    moving: Arc<Moving>,
    /// How many lines wait in the server at once.
    places: Arc<Semaphore>,
    /// Messages of a line that wait together at most.
    most: usize,
    work: Arc<Work<Q, A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Lines<Q, A> {
    /// `work` gets 1 to `most` messages of a line; it runs for `places` lines at once.
    pub(super) fn new<W, F>(most: usize, places: usize, work: W) -> Lines<Q, A>
    where
        W: Fn(Vec<Q>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        Lines {
            lines: Mutex::default(),
            moving: Arc::default(),
            places: Arc::new(Semaphore::new(places.max(1))),
            most,
            work: Arc::new(move |messages| Box::pin(work(messages))),
        }
    }

    /// The answer to a message in its line; `None` if the work on it panicked.
    pub(super) async fn ask(&self, name: Name, message: Q) -> Option<A> {
        let place = self.stand_in(name);
        match &place.line {
            Some(line) => line.ask(message).await,
            None => None,
        }
    }

    /// The right to move these counters without standing in their line, if there is none and nobody else does.
    pub(super) fn try_alone(&self, name: &Name) -> Option<Mover> {
        if lock(&self.lines).contains_key(name) { None } else { self.moving.try_begin(name) }
    }

    /// Waits until whoever moves these counters now does not any more, and nobody stands in their line. Somebody else may have begun
    /// since: a busy counter is hardly ever free.
    pub(super) async fn until_free(&self, name: &Name) {
        let mover = || lock(&self.moving.names).get(name).copied();
        let now = mover();
        let has_left = || now.is_none() || mover() != now;
        let is_free = || !lock(&self.lines).contains_key(name) && has_left();
        self.moving.until(|| is_free().then_some(())).await;
    }

    fn stand_in(&self, name: Name) -> Place<'_, Q, A> {
        let begin = || Arc::new(self.begin(name.clone()));
        let line = lock(&self.lines).entry(name.clone()).or_insert_with(begin).clone();
        Place { lines: &self.lines, moving: &self.moving, name, line: Some(line) }
    }

    fn begin(&self, name: Name) -> Gather<Q, A> {
        let (moving, places, work) = (self.moving.clone(), self.places.clone(), self.work.clone());
        Gather::new(self.most, Lanes::ONE, move |messages| {
            let (moving, places, work, name) = (moving.clone(), places.clone(), work.clone(), name.clone());
            async move {
                // Also of an earlier line, whose messages have all given up while it waited.
                let _mover = moving.until(|| moving.try_begin(&name)).await;
                // Never closed.
                let _place = places.acquire().await;
                work(messages).await
            }
        })
    }
}

/// Somebody in a line; the last one who leaves takes the line away. What it works on is worked on to the end.
struct Place<'a, Q, A> {
    lines: &'a Mutex<HashMap<Name, Arc<Gather<Q, A>>>>,
    moving: &'a Moving,
    name: Name,
    /// Always there until the place is left.
    line: Option<Arc<Gather<Q, A>>>,
}

impl<Q, A> Drop for Place<'_, Q, A> {
    fn drop(&mut self) {
        let mut lines = lock(self.lines);
        self.line = None;
        if lines.get(&self.name).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.name);
            self.moving.left.notify_waiters();
        }
    }
}

/// The counters that are being moved, each with the number of its mover.
#[derive(Default)]
struct Moving {
    names: Mutex<HashMap<Name, u64>>,
    /// How many have begun.
    begun: AtomicU64,
    /// Told when one is not any more, or a line is gone.
    left: Notify,
}

impl Moving {
    fn try_begin(self: &Arc<Moving>, name: &Name) -> Option<Mover> {
        let mut names = lock(&self.names);
        if names.contains_key(name) {
            return None;
        }
        names.insert(name.clone(), self.begun.fetch_add(1, Ordering::Relaxed));
        Some(Mover { moving: self.clone(), name: name.clone() })
    }

    /// Waits until `attempt` gives something.
    async fn until<T>(&self, attempt: impl Fn() -> Option<T>) -> T {
        loop {
            let mut left = pin!(self.left.notified());
            // Who leaves from here on is noticed.
            left.as_mut().enable();
            if let Some(done) = attempt() {
                return done;
            }
            left.await;
        }
    }
}

/// Somebody who moves counters.
pub(super) struct Mover {
    moving: Arc<Moving>,
    name: Name,
}

impl Drop for Mover {
    fn drop(&mut self) {
        lock(&self.moving.names).remove(&self.name);
        self.moving.left.notify_waiters();
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
        Arc::new(Lines::new(8, places, |messages: Vec<u64>| async move {
            sleep(Duration::from_secs(messages[0])).await;
            vec![messages.len(); messages.len()]
        }))
    }

    /// A busy counter has its next mover before those who waited can look.
    #[tokio::test(start_paused = true)]
    async fn who_waited_for_a_mover_does_not_wait_for_the_next_one_too() {
        let (lines, name) = (lines(1), counters("a"));
        let first = lines.try_alone(&name).expect("nobody moves it");
        let waits = tokio::spawn({
            let (lines, name) = (lines.clone(), name.clone());
            async move { lines.until_free(&name).await }
        });
        sleep(Duration::from_millis(1)).await;
        assert!(!waits.is_finished());
        drop(first);
        let _next = lines.try_alone(&name).expect("nobody moves it");
        timeout(Duration::from_secs(1), waits).await.expect("in time").unwrap();
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

    /// Many who leave at the same moment, on several threads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_last_who_leaves_takes_the_line_away() {
        let lines: Arc<Lines<u64, u64>> =
            Arc::new(Lines::new(8, 2, |messages: Vec<u64>| async move { messages }));
        for _ in 0..2000 {
            let asked: Vec<_> = (0..6)
                .map(|number| {
                    let lines = lines.clone();
                    tokio::spawn(async move { lines.ask(counters("a"), number).await })
                })
                .collect();
            for (asked, number) in asked.into_iter().zip(0..) {
                assert_eq!(asked.await.unwrap(), Some(number));
            }
            assert!(lock(&lines.lines).is_empty());
            lines.until_free(&counters("a")).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_there_until_its_work_is_done() {
        let lines = lines(2);
        let gave_up = timeout(Duration::from_secs(1), lines.ask(counters("a"), 10)).await;
        assert!(gave_up.is_err());
        assert!(lines.try_alone(&counters("a")).is_none(), "somebody still waits in the server");
        let alone = lines.try_alone(&counters("b")).expect("nobody is there");
        assert!(lines.try_alone(&counters("b")).is_none());
        drop(alone);
        assert!(lines.try_alone(&counters("b")).is_some());
        let begin = Instant::now();
        lines.until_free(&counters("b")).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        lines.until_free(&counters("a")).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(9));
        let alone = lines.try_alone(&counters("a")).expect("nobody is there");
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
