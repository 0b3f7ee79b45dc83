//! Password work beside the event loop: on the blocking pool, and only so much at a time.
//!
//! Checking a password that belongs to nobody takes as long as checking one that does, so that the time of an
//! answer does not tell which accounts exist.

use std::sync::Arc;
use std::time::Duration;

use outrider_core::random::SharedRandom;
use tokio::sync::Semaphore;

use super::hash::{DefaultScheme, hash};
use super::scheme::verify;

/// How long a password waits for a place among those that are worked on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes and checks stored passwords.
#[derive(Clone)]
pub(crate) struct Vault {
    places: Arc<Semaphore>,
    random: SharedRandom,
    scheme: DefaultScheme,
    dummy: Arc<str>,
}

impl Vault {
    /// At most `parallel` computations run at once; further ones wait.
    pub(crate) fn new(scheme: DefaultScheme, parallel: usize, random: SharedRandom) -> Self {
        let dummy = hash(scheme, "nobody has this password", random.as_ref()).into();
        Self { places: Arc::new(Semaphore::new(parallel.max(1))), random, scheme, dummy }
    }

    /// Whether `password` is the one `stored` was made of. Without a stored value the same work is done for nothing.
    pub(crate) async fn verify(&self, stored: Option<&str>, password: &str) -> bool {
        let exists = stored.is_some();
        let stored = stored.unwrap_or(&self.dummy).to_owned();
        let password = password.to_owned();
        self.run(move || verify(&stored, &password)).await.unwrap_or(false) && exists
    }

    /// What to store for a new password; `None` if there was no place for the work in time or it was lost.
    pub(crate) async fn hash(&self, password: &str) -> Option<String> {
        let (scheme, random, password) = (self.scheme, self.random.clone(), password.to_owned());
        self.run(move || hash(scheme, &password, random.as_ref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // The semaphore is never closed.
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned());
        let place = waiting.await.ok()?.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        done.await.ok()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Vault").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::random::SystemRandom;

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_place_ends() {
        let vault = Vault::new(DefaultScheme::Plain, 1, Arc::new(SystemRandom));
        let place = Arc::clone(&vault.places).acquire_owned().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(60), vault.hash("secret")).await;
        assert_eq!(waited, Ok(None));
        drop(place);
        assert!(vault.hash("secret").await.is_some());
    }
}
