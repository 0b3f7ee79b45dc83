//! Servers that are connected to again when they come back: databases, directories, key-value stores.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::DbError;

/// The pause after the first failed attempt to connect, and the longest one.
const PAUSE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
/// How often a server is asked for a sign of life while it is there, and while it is not.
const WATCH: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];
/// Characters of what is told about a failure at most.
const LONGEST: usize = 200;

/// The attempts to connect to one server that have failed since it was last there.
#[derive(Debug, Default)]
pub struct Setback(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    when: Instant,
    pause: Duration,
    error: DbError,
}

impl Setback {
    /// Connects within `limit`, unless that has failed a moment ago. The first failure is logged, and the return.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] with what was said; for a while, the longer the more attempts fail, the same again.
    pub async fn attempt<C, E: Display>(
        &self,
        server: &str,
        limit: Duration,
        connecting: impl Future<Output = Result<C, E>>,
    ) -> Result<C, DbError> {
        if let Some(last) = &*self.lock()
            && last.when.elapsed() < last.pause
        {
            return Err(last.error.clone());
        }
        let reason = match timeout(limit, connecting).await {
            Ok(Ok(connection)) => {
                if self.lock().take().is_some() {
                    tracing::info!(event = "connected again", server);
                }
                return Ok(connection);
            }
            Ok(Err(error)) => short(&error.to_string()),
            Err(_) => format!("no connection within {limit:?}"),
        };
        let error = DbError::Unavailable { server: server.to_owned(), reason };
        let mut last = self.lock();
        if last.is_none() {
            tracing::warn!(event = "not connected", %error);
        }
        let pause = last.as_ref().map_or(PAUSE[0], |last| (last.pause * 2).min(PAUSE[1]));
        *last = Some(Last { when: Instant::now(), pause, error: error.clone() });
        Err(error)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of what a server said, on one line.
pub fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// Asks for a sign of life now and then until `server` is nobody's any more, so that health is known and the way back is found
/// without a request having to try.
pub fn watch<S, A>(
    server: impl Fn() -> Option<S> + Send + 'static,
    is_there: impl Fn(S) -> A + Send + 'static,
) where
    S: Send + 'static,
    A: Future<Output = bool> + Send,
{
    tokio::spawn(async move {
        while let Some(server) = server() {
            let pause = WATCH[usize::from(!is_there(server).await)];
            tokio::time::sleep(pause).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn who_has_failed_is_left_alone_for_a_moment() {
        let (setback, attempts) = (Setback::default(), AtomicUsize::new(0));
        let attempt = async |outcome: Result<u8, &'static str>| {
            let connecting = async {
                attempts.fetch_add(1, Ordering::Relaxed);
                outcome
            };
            setback.attempt("db", Duration::from_secs(9), connecting).await
        };
        let error = DbError::Unavailable { server: "db".into(), reason: "two lines".into() };
        assert_eq!(attempt(Err("two\nlines")).await, Err(error.clone()));
        assert_eq!(attempt(Ok(1)).await, Err(error), "its pause is not over");
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        if let Some(last) = &mut *setback.lock() {
            last.pause = Duration::ZERO;
        }
        assert_eq!(attempt(Ok(1)).await, Ok(1));
        assert_eq!(attempt(Ok(2)).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_given_up() {
        let waiting = std::future::pending::<Result<u8, &str>>();
        let outcome = Setback::default().attempt("db", Duration::from_secs(1), waiting).await;
        assert_eq!(
            outcome,
            Err(DbError::Unavailable { server: "db".into(), reason: "no connection within 1s".into() })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn watched_until_nobody_uses_it() {
        let server = Arc::new(AtomicUsize::new(0));
        let weak = Arc::downgrade(&server);
        // There at first, then away.
        watch(
            move || weak.upgrade(),
            |server: Arc<AtomicUsize>| async move { server.fetch_add(1, Ordering::Relaxed) == 0 },
        );
        tokio::time::sleep(Duration::from_millis(14_500)).await;
        assert_eq!(server.load(Ordering::Relaxed), 6, "after 0, 10, 11, 12, 13 and 14 seconds");
        let weak = Arc::downgrade(&server);
        drop(server);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(weak.upgrade().is_none());
    }
}
