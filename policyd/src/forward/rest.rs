//! A server that fails again and again is left alone; now and then one request tries it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row, without an answer in between. One slow answer is no reason not to ask for others.
pub(super) const TROUBLES: u32 = 5;
/// How long it is left alone then.
const REST: Duration = Duration::from_secs(1);

/// How the last requests fared.
#[derive(Default)]
pub(super) struct Rest(Mutex<State>);

#[derive(Default)]
struct State {
    troubles: u32,
    until: Option<Instant>,
}

impl Rest {
    /// Whether a request may be sent. Of those that come after a rest it is one, which may take `patience`.
    pub(super) fn is_over(&self, patience: Duration) -> bool {
        let (mut state, now) = (self.lock(), Instant::now());
        if state.troubles < TROUBLES {
            return true;
        }
        let is_over = state.until.is_none_or(|until| until <= now);
        if is_over {
            state.until = Some(now + patience + REST);
        }
        is_over
    }

    /// How a request ended.
    pub(super) fn note(&self, answered: bool) {
        let mut state = self.lock();
        match answered {
            true => *state = State::default(),
            false => {
                state.troubles = state.troubles.saturating_add(1);
                state.until = Some(Instant::now() + REST);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_after_each_rest() {
        let (rest, patience) = (Rest::default(), Duration::from_secs(2));
        for _ in 0..TROUBLES {
            assert!(rest.is_over(patience));
            rest.note(false);
        }
        assert!(!rest.is_over(patience));
        tokio::time::advance(REST).await;
        assert!(rest.is_over(patience), "one tries");
        assert!(!rest.is_over(patience), "the others do not");
        tokio::time::advance(patience + REST).await;
        assert!(rest.is_over(patience), "that one was given up");
        rest.note(true);
        assert!(rest.is_over(patience) && rest.is_over(patience));
        rest.note(false);
        assert!(rest.is_over(patience), "one failure is nothing yet");
    }
}
