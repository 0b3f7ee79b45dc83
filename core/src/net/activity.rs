//! When a connection was last used, so that the one that is idle for longest can make room for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// The moment of the last byte read from or written to a connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Activity {
    start: Instant,
    millis: Arc<AtomicU64>,
}

impl Activity {
    /// Active just now.
    pub(crate) fn new() -> Activity {
        Activity { start: Instant::now(), millis: Arc::new(AtomicU64::new(0)) }
    }

    /// Notes that the connection is in use.
    pub(crate) fn touch(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// The moment of the last use.
    pub fn last(&self) -> Instant {
        self.start + std::time::Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}
