//! How long a request waits for databases and for name servers.
//!
//! The figures belong to the task of a connection, which decides about one request at a time. Time is taken only when that
//! task really has to wait: a decision that is ready at once costs no look at the clock, and none costs an allocation. What
//! the task waits for is the database of the rule that is asked, unless the rule says that it asks somebody else.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

tokio::task_local! {
    static WAITS: Waits;
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Database,
    NameServer,
    /// Another policy server or the list API.
    Other,
}

/// What one connection's request in progress has waited for.
struct Waits {
    whom: Cell<Whom>,
    /// Since when, while it does.
    since: Cell<Option<Instant>>,
    database: Cell<Duration>,
    name_server: Cell<Duration>,
}

/// The figures of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) database: Duration,
    pub(crate) name_server: Duration,
}

impl Waits {
    fn none() -> Waits {
        Waits {
            whom: Cell::new(Whom::Database),
            since: Cell::new(None),
            database: Cell::new(Duration::ZERO),
            name_server: Cell::new(Duration::ZERO),
        }
    }

    /// The wait that has begun, if any, is over for now.
    fn settle(&self) {
        let Some(since) = self.since.take() else { return };
        let figure = match self.whom.get() {
            Whom::Database => &self.database,
            Whom::NameServer => &self.name_server,
            Whom::Other => return,
        };
        figure.set(figure.get() + since.elapsed());
    }
}

/// Gives the requests of a connection, which `serve` serves, their figures.
pub(crate) fn of_connection<F: Future>(serve: F) -> impl Future<Output = F::Output> {
    WAITS.scope(Waits::none(), serve)
}

/// A new request begins: it has waited for nothing.
pub(crate) fn begin() {
    let _ = WAITS.try_with(|waits| {
        waits.whom.set(Whom::Database);
        waits.since.set(None);
        waits.database.set(Duration::ZERO);
        waits.name_server.set(Duration::ZERO);
    });
}

/// What the request has waited for until now.
pub(crate) fn figures() -> Figures {
    let read = |waits: &Waits| {
        // Of a request that is given up, what it still waits for is the very thing to know.
        waits.settle();
        Figures { database: waits.database.get(), name_server: waits.name_server.get() }
    };
    WAITS.try_with(read).unwrap_or_default()
}

/// Measures the waits of a decision.
pub(crate) async fn measured<T>(mut decision: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
    poll_fn(|context| {
        let _ = WAITS.try_with(Waits::settle);
        let polled: Poll<T> = decision.as_mut().poll(context);
        if polled.is_pending() {
            let _ = WAITS.try_with(|waits| waits.since.set(Some(Instant::now())));
        }
        polled
    })
    .await
}

/// A question to name servers.
pub(crate) async fn for_name_servers<F: Future>(question: F) -> F::Output {
    let _asked = Asked::new(Whom::NameServer);
    question.await
}

/// A question to another program.
pub(crate) async fn for_others<F: Future>(question: F) -> F::Output {
    let _asked = Asked::new(Whom::Other);
    question.await
}

/// While it lives, somebody else than before is waited for.
struct Asked {
    before: Whom,
}

impl Asked {
    fn new(whom: Whom) -> Asked {
        Asked { before: WAITS.try_with(|waits| waits.whom.replace(whom)).unwrap_or(whom) }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = WAITS.try_with(|waits| waits.whom.set(self.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for real time: the figures are measured on the system's clock.
    async fn pause() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    #[tokio::test]
    async fn each_wait_counts_for_whom_it_was() {
        of_connection(async {
            for (asked, database, name_server) in [
                ("database", true, false),
                ("name server", false, true),
                ("other", false, false),
                ("both", true, true),
            ] {
                begin();
                let decision = async move {
                    match asked {
                        "database" => pause().await,
                        "name server" => for_name_servers(pause()).await,
                        "other" => for_others(pause()).await,
                        _ => {
                            for_name_servers(pause()).await;
                            pause().await;
                        }
                    }
                };
                let start = Instant::now();
                measured(Box::pin(decision)).await;
                let (figures, whole) = (figures(), start.elapsed());
                assert_eq!(!figures.database.is_zero(), database, "{asked}: {figures:?}");
                assert_eq!(!figures.name_server.is_zero(), name_server, "{asked}: {figures:?}");
                assert!(figures.database + figures.name_server <= whole, "{asked}: {figures:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_ready_was_not_waited_for() {
        of_connection(async {
            begin();
            measured(Box::pin(async { for_name_servers(async {}).await })).await;
            assert_eq!(figures(), Figures::default());
        })
        .await;
        measured(Box::pin(pause())).await;
        assert_eq!(figures(), Figures::default(), "outside of a connection nothing is measured");
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_tells_what_it_waits_for() {
        of_connection(async {
            begin();
            let decision = measured(Box::pin(for_name_servers(std::future::pending::<()>())));
            let mut decision = std::pin::pin!(decision);
            assert!(tokio::time::timeout(Duration::from_millis(5), decision.as_mut()).await.is_err());
            let told = figures();
            assert!(!told.name_server.is_zero() && told.database.is_zero(), "{told:?}");
            begin();
            assert_eq!(figures(), Figures::default(), "the next one begins with nothing");
        })
        .await;
    }
}
