//! The wish to stop, passed to everything that runs.

use tokio_util::sync::CancellationToken;

/// Told to connections and background work; clones see the same request.
///
/// Whoever gets it finishes the request in progress, begins no new one and returns.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A pair of the switch and the wish.
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let token = CancellationToken::new();
        (ShutdownTrigger { token: token.clone() }, Shutdown { token })
    }

    /// A wish that nobody ever expresses, for tests of a single session.
    pub fn never() -> Shutdown {
        Shutdown { token: CancellationToken::new() }
    }

    /// A switch for one part: the part stops when this switch is pulled or when the whole stops.
    pub fn child(&self) -> (ShutdownTrigger, Shutdown) {
        let token = self.token.child_token();
        (ShutdownTrigger { token: token.clone() }, Shutdown { token })
    }

    /// Whether stopping was asked for.
    pub fn requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns as soon as stopping is asked for. Dropping the future is harmless.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}

/// The switch that belongs to a [`Shutdown`]. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger {
    token: CancellationToken,
}

impl ShutdownTrigger {
    /// Asks everything that holds the [`Shutdown`] to stop.
    pub fn request(&self) {
        self.token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn child_stops_alone_or_with_the_parent() {
        let (all, whole) = Shutdown::new();
        let (one, first) = whole.child();
        let (_two, second) = whole.child();
        one.request();
        first.wait().await;
        assert!(first.requested() && !second.requested() && !whole.requested());
        all.request();
        second.wait().await;
        assert!(whole.requested());
    }
}
