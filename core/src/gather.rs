//! Requests of the same moment worked on together.
//!
//! A request that comes while nothing is under way is worked on at once and alone. Those that come meanwhile wait and are
//! the next batch: the busier it is, the larger the batches, and nobody ever waits for others to come. Where several may be
//! under way, the next is begun beside the others as soon as it is as large as they are together: so each is worth its cost.
//! Those who have waited longer than a batch should take do not wait for one that hangs: another is begun beside it. The work
//! runs in tasks of its own, so that it goes on when a requester gives up at its deadline; of who gave up before that, nothing
//! is done.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// Who has waited so long begins a batch beside those under way.
pub const SLOW: Duration = Duration::from_millis(5);

/// Batches under way at once, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// While they are quick. A second one makes use of the time in which the first waits for the disk.
    pub quick: usize,
    /// When one takes longer than [`SLOW`].
    pub slow: usize,
}

impl Lanes {
    /// One batch after the other, however long each takes.
    pub const ONE: Lanes = Lanes { quick: 1, slow: 1 };
}

/// What works on a batch: answers in the order of the requests.
type Work<Q, A> = dyn Fn(Vec<Q>) -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> + Send + Sync;

/// Collects requests `Q` and hands out answers `A`.
pub struct Gather<Q, A> {
    shared: Arc<Shared<Q, A>>,
}

struct Shared<Q, A> {
    waiting: Mutex<Waiting<Q, A>>,
    /// Requests of one batch at most.
    most: usize,
    /// Batches under way at once, at most.
    lanes: Lanes,
    work: Box<Work<Q, A>>,
}

struct Waiting<Q, A> {
    requests: VecDeque<Request<Q, A>>,
    running: usize,
    /// Requests in the batches under way.
    in_work: usize,
}

struct Request<Q, A> {
    question: Q,
    came: Instant,
    answer: oneshot::Sender<A>,
}

impl<Q, A> Waiting<Q, A> {
    /// Whether those who wait are enough for a batch beside those under way, or have waited long enough.
    fn are_due(&self) -> bool {
        let first = self.requests.front();
        first.is_some_and(|first| self.requests.len() >= self.in_work || first.came.elapsed() >= SLOW)
    }
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// `work` gets batches of 1 to `most` requests, as many at once as `lanes` says.
    pub fn new<W, F>(most: usize, lanes: Lanes, work: W) -> Gather<Q, A>
    where
        W: Fn(Vec<Q>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let waiting = Mutex::new(Waiting { requests: VecDeque::new(), running: 0, in_work: 0 });
        let work =
            Box::new(move |batch| -> Pin<Box<dyn Future<Output = Vec<A>> + Send>> { Box::pin(work(batch)) });
        Gather { shared: Arc::new(Shared { waiting, most: most.max(1), lanes, work }) }
    }

    /// The answer to one request; `None` if the work on its batch panicked or left it out.
    pub async fn ask(&self, request: Q) -> Option<A> {
        let (answer, mut receiver) = oneshot::channel();
        self.shared.lock().requests.push_back(Request { question: request, came: Instant::now(), answer });
        self.begin(self.shared.lanes.quick);
        if let Ok(answer) = timeout(SLOW, &mut receiver).await {
            return answer.ok();
        }
        self.begin(self.shared.lanes.slow);
        receiver.await.ok()
    }

    /// Begins a batch if one is due and fewer than `most` are under way.
    fn begin(&self, most: usize) {
        {
            let mut waiting = self.shared.lock();
            if waiting.running >= most || !waiting.are_due() {
                return;
            }
            waiting.running += 1;
        }
        Running::spawn(self.shared.clone());
    }
}

impl<Q, A> Shared<Q, A> {
    fn lock(&self) -> MutexGuard<'_, Waiting<Q, A>> {
        // Nothing but the queue itself runs inside the lock, so a panic elsewhere left it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next requests, without those that nobody waits for any more; none if they are not due yet.
    fn take_batch(&self) -> Vec<Request<Q, A>> {
        let (mut waiting, mut batch) = (self.lock(), Vec::new());
        if !waiting.are_due() {
            return batch;
        }
        while batch.len() < self.most
            && let Some(request) = waiting.requests.pop_front()
        {
            if !request.answer.is_closed() {
                batch.push(request);
            }
        }
        waiting.in_work += batch.len();
        batch
    }
}

/// Counts as running until it is dropped, after a panic too.
struct Running<Q: Send + 'static, A: Send + 'static> {
    shared: Arc<Shared<Q, A>>,
    begun: bool,
    /// Requests of its batch.
    in_work: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Running<Q, A> {
    /// Works in a task. Not to be called under the lock: a runtime that is shutting down drops the task, and what is in it,
    /// at once.
    fn spawn(shared: Arc<Shared<Q, A>>) {
        let mut running = Running { shared, begun: false, in_work: 0 };
        let work = async move {
            running.begun = true;
            running.run().await;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work);
        }
    }

    /// Works as long as batches are due.
    async fn run(&mut self) {
        loop {
            let batch = self.shared.take_batch();
            if batch.is_empty() {
                return;
            }
            self.in_work = batch.len();
            let (questions, senders): (Vec<Q>, Vec<_>) =
                batch.into_iter().map(|request| (request.question, request.answer)).unzip();
            let answers = (self.shared.work)(questions).await;
            self.shared.lock().in_work -= std::mem::take(&mut self.in_work);
            for (sender, answer) in senders.into_iter().zip(answers) {
                // Who gave up at its deadline is not there any more.
                let _ = sender.send(answer);
            }
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Drop for Running<Q, A> {
    fn drop(&mut self) {
        {
            let mut waiting = self.shared.lock();
            waiting.in_work -= self.in_work;
            // A task that never ran belongs to a runtime that is shutting down: another would fare no better.
            if !waiting.are_due() || !self.begun {
                waiting.running -= 1;
                return;
            }
        }
        // Somebody came between the last look at the queue and now, or a panic left others waiting.
        Running::spawn(self.shared.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn who_comes_meanwhile_is_the_next_batch() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let gather = Arc::new(Gather::new(4, Lanes::ONE, move |batch: Vec<u32>| {
            seen.lock().unwrap().push(batch.len());
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                batch.into_iter().map(|number| number * 2).collect()
            }
        }));
        let tasks: Vec<_> = (0..7)
            .map(|number| {
                let gather = gather.clone();
                tokio::spawn(async move { gather.ask(number).await })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number as u32 * 2));
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 7);
        assert!(sizes.iter().all(|&size| size <= 4) && sizes.len() <= 4, "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_beside_others_is_as_large_as_they_are() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let gather = Arc::new(Gather::new(8, Lanes { quick: 2, slow: 2 }, move |batch: Vec<u32>| {
            seen.lock().unwrap().push(batch.len());
            async move {
                tokio::time::sleep(Duration::from_millis(4)).await;
                batch
            }
        }));
        let begun = || sizes.lock().unwrap().clone();
        let mut tasks = Vec::new();
        for (milliseconds, requests, batches) in [
            (0, 1, &[1][..]),
            (0, 1, &[1, 1]),
            (0, 4, &[1, 1]),
            // Both are over; beside the four that are under way now, three are not enough.
            (6, 3, &[1, 1, 4]),
            (0, 1, &[1, 1, 4, 4]),
        ] {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            for number in 0..requests {
                let gather = gather.clone();
                tasks.push(tokio::spawn(async move { gather.ask(number).await }));
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(begun(), batches);
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(begun().len(), 4);
        assert_eq!(gather.shared.lock().in_work, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_hangs_leaves_the_other_lane_free() {
        let gather = Arc::new(Gather::new(1, Lanes { quick: 1, slow: 2 }, |batch: Vec<u64>| async move {
            tokio::time::sleep(Duration::from_secs(batch[0])).await;
            batch
        }));
        let slow = tokio::spawn({
            let gather = gather.clone();
            async move { gather.ask(3600).await }
        });
        tokio::task::yield_now().await;
        let start = Instant::now();
        assert_eq!(gather.ask(1).await, Some(1));
        assert_eq!(start.elapsed(), Duration::from_secs(1) + SLOW);
        assert_eq!(slow.await.unwrap(), Some(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_long_is_not_too_few_for_a_lane_that_becomes_free() {
        let hour = 3_600_000;
        let gather = Arc::new(Gather::new(4, Lanes { quick: 1, slow: 2 }, |batch: Vec<u64>| async move {
            tokio::time::sleep(Duration::from_millis(batch[0])).await;
            batch
        }));
        // One is quick enough; four hang beside it, and both lanes are taken.
        for (milliseconds, request) in [(0, 20), (1, hour), (0, hour), (0, hour), (0, hour)] {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            let gather = gather.clone();
            tokio::spawn(async move { gather.ask(request).await });
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
        let start = Instant::now();
        assert_eq!(gather.ask(1).await, Some(1));
        assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
    }

    #[test]
    fn a_runtime_that_ends_ends_the_waiting_too() {
        let gather = Arc::new(Gather::new(1, Lanes { quick: 2, slow: 4 }, |batch: Vec<u32>| async move {
            std::future::pending::<()>().await;
            batch
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for number in 0..50 {
            let gather = gather.clone();
            runtime.spawn(async move { gather.ask(number).await });
        }
        runtime.shutdown_timeout(Duration::from_secs(60));
        assert!(gather.shared.waiting.try_lock().is_ok());
    }

    #[tokio::test]
    async fn a_panic_costs_its_batch_only() {
        let gather = Gather::new(1, Lanes::ONE, |batch: Vec<u32>| async move {
            assert!(batch[0] != 13, "asked to panic");
            batch
        });
        let (unlucky, after) = tokio::join!(gather.ask(13), gather.ask(14));
        assert_eq!((unlucky, after), (None, Some(14)));
        assert_eq!(gather.ask(15).await, Some(15));
        assert_eq!(gather.shared.lock().in_work, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_done_for_who_gave_up_in_the_queue() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let seen = done.clone();
        let gather = Arc::new(Gather::new(8, Lanes::ONE, move |batch: Vec<u32>| {
            seen.lock().unwrap().extend(batch.iter().copied());
            async move {
                tokio::time::sleep(Duration::from_secs(10)).await;
                batch
            }
        }));
        let first = tokio::spawn({
            let gather = gather.clone();
            async move { gather.ask(1).await }
        });
        tokio::task::yield_now().await;
        assert!(timeout(Duration::from_secs(1), gather.ask(2)).await.is_err());
        assert_eq!(gather.ask(3).await, Some(3));
        assert_eq!(first.await.unwrap(), Some(1));
        assert_eq!(*done.lock().unwrap(), [1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_when_the_requester_gives_up() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let gather = Gather::new(8, Lanes::ONE, move |batch: Vec<u32>| {
            let count = count.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                count.fetch_add(batch.len(), Ordering::Relaxed);
                batch
            }
        });
        assert!(timeout(Duration::from_millis(1), gather.ask(1)).await.is_err());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}
