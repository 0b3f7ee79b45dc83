//! Work that nobody waits for, such as reading anew what will be asked for again.
//!
//! It goes batch by batch, one at a time and with a pause after each: few statements, and never more than one connection. What does
//! not find room is left undone: who hands something in can do without.

use std::sync::Arc;
use std::time::Duration;

use outrider_core::gather::{Gather, Lanes};
use tokio::sync::Semaphore;

/// What may wait at most.
const WAITING: usize = 4096;
/// In which the next batch gathers.
const PAUSE: Duration = Duration::from_millis(20);

/// A queue of such work.
pub(crate) struct Later<Q> {
    batches: Arc<Gather<Q, ()>>,
    room: Arc<Semaphore>,
}

impl<Q: Send + 'static> Later<Q> {
    /// `work` gets 1 to `most` at a time.
    pub(crate) fn new<F>(most: usize, work: impl Fn(Vec<Q>) -> F + Send + Sync + 'static) -> Later<Q>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let batches = Gather::new(most, Lanes::ONE, move |batch: Vec<Q>| {
            let (number, work) = (batch.len(), work(batch));
            async move {
                work.await;
                tokio::time::sleep(PAUSE).await;
                vec![(); number]
            }
        });
        Later { batches: Arc::new(batches), room: Arc::new(Semaphore::new(WAITING)) }
    }

    /// Hands something in.
    pub(crate) fn begin(&self, item: Q) {
        let Ok(place) = self.room.clone().try_acquire_owned() else { return };
        let batches = self.batches.clone();
        tokio::spawn(async move {
            let _place = place;
            batches.ask(item).await;
        });
    }
}
