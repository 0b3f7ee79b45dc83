//! Local and excluded domains out of the databases, kept in memory.
//!
//! Look-ups never wait for a database: the lists are read at the start, then every `refresh`, and stay in force
//! while a database is down. Only before the first successful read is there nothing to go by: then look-ups wait
//! for the first attempt to end, within their deadline, and after a failed one get what `on_failure` says.

use crate::directory::BoxFuture;
use crate::srs::DomainList;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// The domains as last read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Local mail domains, in lower case.
    pub(super) local: HashSet<String>,
    /// Domains explicitly excluded.
    pub(super) excluded: DomainList,
}

/// Reads the domains.
pub(super) trait DomainSource: Send + Sync {
    /// All of them, or why not.
    fn read(&self) -> BoxFuture<'_, Result<Known, String>>;
}

/// What is known about domains at a moment.
#[derive(Clone, Debug)]
pub(super) enum Knowledge {
    /// The first attempt to read them has not ended.
    Pending,
    /// They could never be read.
    Unknown,
    /// As last read.
    Known(Arc<Known>),
}

/// The domains and what reads them.
pub(super) struct Domains {
    source: Box<dyn DomainSource>,
    state: RwLock<Knowledge>,
    /// The outcome of the last attempt: `None` before the first one ended.
    last: watch::Sender<Option<Result<(), String>>>,
}

impl Domains {
    /// Nothing is read before the first [`Domains::refresh`].
    pub(super) fn new(source: Box<dyn DomainSource>) -> Self {
        Domains { source, state: RwLock::new(Knowledge::Pending), last: watch::Sender::new(None) }
    }

    /// Domains for which no database is asked: nothing beyond the settings is known, for good.
    pub(super) fn none() -> Self {
        struct Nothing;
        impl DomainSource for Nothing {
            fn read(&self) -> BoxFuture<'_, Result<Known, String>> {
                Box::pin(async { Ok(Known::default()) })
            }
        }
        let domains = Domains::new(Box::new(Nothing));
        *domains.state.write().unwrap_or_else(PoisonError::into_inner) = Knowledge::Known(Arc::default());
        domains
    }

    /// Reads the domains again; a failure leaves those of the last time in force.
    pub(super) async fn refresh(&self) {
        let read = self.source.read().await;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = match read {
            Ok(known) => {
                *state = Knowledge::Known(Arc::new(known));
                Ok(())
            }
            Err(reason) => {
                if matches!(*state, Knowledge::Pending) {
                    *state = Knowledge::Unknown;
                }
                Err(reason)
            }
        };
        drop(state);
        self.log(&outcome);
        self.last.send_replace(Some(outcome));
    }

    /// Says a failure once, and once that it is over.
    fn log(&self, outcome: &Result<(), String>) {
        let before = self.last.borrow().clone();
        match (outcome, before) {
            (Err(reason), None | Some(Ok(()))) => {
                tracing::warn!(event = "domains not read", reason, "the domains known before stay in force");
            }
            (Ok(()), Some(Err(_))) => tracing::info!(event = "domains read again"),
            _ => {}
        }
    }

    /// What is known now.
    pub(super) fn now(&self) -> Knowledge {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what `earlier` knew, for a change of settings: better old domains than none.
    pub(super) fn inherit(&self, earlier: &Domains) {
        if let Knowledge::Known(known) = earlier.now() {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Knowledge::Known(known);
        }
    }

    /// Waits until the first attempt has ended, at most for `patience`.
    pub(super) async fn first_attempt(&self, patience: Duration) {
        if matches!(self.now(), Knowledge::Pending) {
            let mut last = self.last.subscribe();
            // Either way the caller looks at what is known then.
            let _ = tokio::time::timeout(patience, last.wait_for(Option::is_some)).await;
        }
    }

    /// Why the last attempt failed; `None` if it did not, or has not ended.
    pub(super) fn failure(&self) -> Option<String> {
        self.last.borrow().clone().and_then(Result::err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    type Said = Result<Vec<&'static str>, String>;

    /// Answers what it was told to, or nothing at all.
    #[derive(Clone, Default)]
    struct FakeSource(Arc<Mutex<Option<Said>>>);

    impl FakeSource {
        fn of(domains: &[&'static str]) -> Self {
            let source = FakeSource::default();
            source.set(Ok(domains.to_vec()));
            source
        }

        fn set(&self, answer: Said) {
            *self.0.lock().unwrap() = Some(answer);
        }
    }

    impl DomainSource for FakeSource {
        fn read(&self) -> BoxFuture<'_, Result<Known, String>> {
            let answer = self.0.lock().unwrap().clone();
            Box::pin(async move {
                match answer {
                    None => std::future::pending().await,
                    Some(answer) => answer.map(|domains| Known {
                        local: domains.iter().map(|domain| domain.to_string()).collect(),
                        excluded: DomainList::default(),
                    }),
                }
            })
        }
    }

    fn known(domains: &Domains) -> Option<usize> {
        match domains.now() {
            Knowledge::Known(known) => Some(known.local.len()),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_leaves_the_domains_in_force() {
        let source = FakeSource::of(&["a.example"]);
        let domains = Domains::new(Box::new(source.clone()));
        assert!(matches!(domains.now(), Knowledge::Pending));
        domains.refresh().await;
        assert_eq!((known(&domains), domains.failure()), (Some(1), None));
        source.set(Err("connection refused".into()));
        domains.refresh().await;
        assert_eq!((known(&domains), domains.failure()), (Some(1), Some("connection refused".into())));
        source.set(Ok(vec!["a.example", "b.example"]));
        domains.refresh().await;
        assert_eq!((known(&domains), domains.failure()), (Some(2), None));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_first_success_nothing_is_known() {
        let source = FakeSource::default();
        source.set(Err("down".into()));
        let domains = Domains::new(Box::new(source.clone()));
        domains.refresh().await;
        assert!(matches!(domains.now(), Knowledge::Unknown));
        let begin = tokio::time::Instant::now();
        domains.first_attempt(Duration::from_secs(2)).await;
        assert!(begin.elapsed().is_zero());
        source.set(Ok(vec!["a.example"]));
        domains.refresh().await;
        assert_eq!(known(&domains), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_first_attempt_is_bounded() {
        let source = FakeSource::default();
        let domains = Arc::new(Domains::new(Box::new(source.clone())));
        let begin = tokio::time::Instant::now();
        domains.first_attempt(Duration::from_secs(2)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
        source.set(Ok(vec!["a.example"]));
        let waiting = tokio::spawn({
            let domains = domains.clone();
            async move { domains.first_attempt(Duration::from_secs(2)).await }
        });
        domains.refresh().await;
        waiting.await.unwrap();
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn new_settings_inherit() {
        let old = Domains::new(Box::new(FakeSource::of(&["a.example"])));
        old.refresh().await;
        let new = Domains::new(Box::new(FakeSource::default()));
        new.inherit(&old);
        assert_eq!(known(&new), Some(1));
    }
}
