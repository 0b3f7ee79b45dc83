//! Servers that are connected to again when they come back: the sign of life by which that is found, and the pauses between
//! attempts where no pool of connections has its own.

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
const LONGEST: usize = 400;

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
    /// Whether to try at all.
    ///
    /// # Errors
    /// That of the last attempt while its pause lasts, which is the longer the more attempts have failed.
    pub fn check(&self) -> Result<(), DbError> {
        match &*self.lock() {
            Some(last) if last.when.elapsed() < last.pause => Err(last.error.clone()),
            _ => Ok(()),
        }
    }

    /// Connects within `limit`. The first failure is logged, and the return.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] with what was said.
    pub async fn attempt<C, E: Display>(
        &self,
        server: &str,
        limit: Duration,
        connecting: impl Future<Output = Result<C, E>>,
    ) -> Result<C, DbError> {
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
        let setback = Setback::default();
        let attempt = async |outcome: Result<u8, &'static str>| {
            setback.attempt("db", Duration::from_secs(9), std::future::ready(outcome)).await
        };
        let error = DbError::Unavailable { server: "db".into(), reason: "two lines".into() };
        for pause in [250, 500, 1000, 2000, 4000, 4000].map(Duration::from_millis) {
            assert_eq!(setback.check(), Ok(()));
            assert_eq!(attempt(Err("two\nlines")).await, Err(error.clone()));
            assert_eq!(setback.check(), Err(error.clone()), "its pause is not over");
            if let Some(last) = &mut *setback.lock() {
                assert_eq!(last.pause, pause);
                last.when = Instant::now().checked_sub(pause).unwrap();
            }
        }
        assert_eq!(attempt(Ok(1)).await, Ok(1));
        assert!(setback.lock().is_none());
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
        let (server, looked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (weak, looking) = (Arc::downgrade(&server), looked.clone());
        watch(
            move || {
                looking.fetch_add(1, Ordering::Relaxed);
                weak.upgrade()
            },
            // There at first, then away.
            |server: Arc<AtomicUsize>| async move { server.fetch_add(1, Ordering::Relaxed) == 0 },
        );
        tokio::time::sleep(Duration::from_millis(14_500)).await;
        assert_eq!(server.load(Ordering::Relaxed), 6, "after 0, 10, 11, 12, 13 and 14 seconds");
        assert_eq!(Arc::strong_count(&server), 1, "it is nobody's between the looks");
        drop(server);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(looked.load(Ordering::Relaxed), 7, "the last look found nobody");
    }
}
