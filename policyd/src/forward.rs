//! Another policy server, asked as one step of the chain: what iRedAPD's custom plugins were for.
//!
//! It gets the request as it was received. Its answer is taken as it is, `DUNNO` means no opinion.
//!
//! Nothing waits longer than the step's time-out, the wait for a free connection included. A connection carries one
//! question at a time and goes back among the kept ones only after a whole answer with nothing behind it, and is used again only
//! if nothing came since: an answer that comes too late, or a second one, is not taken for that to the next question. A server
//! that fails again and again is left alone for a while, so that not every request waits for it, see `rest.rs`.

mod connection;
mod rest;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use outrider_core::codec::policy::Request;
use outrider_core::codec::policy_answer::AnswerError;
use outrider_core::daemon::DependencyHealth;
use outrider_core::settings::ListenAddress;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::metrics::label;
use crate::settings::{ForwardSettings, OnFailure, ProtocolState, Settings};
use connection::Connection;
use rest::Rest;

/// A connection that nobody used for so long is opened anew: a firewall between may have forgotten it.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// Why a policy server gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("policy server {server}: {cause}")]
pub struct ForwardError {
    server: ListenAddress,
    cause: Cause,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// Every connection had a question.
    #[error("all connections were in use for {0:?}, see max_connections")]
    Busy(Duration),
    /// Those that were asked before have used up the deadline of the request; it was not asked.
    #[error("the deadline of the request leaves it no time")]
    NoTime,
    /// It has failed so often that it is left alone for the moment.
    #[error("not asked, it has failed {} times in a row", rest::TROUBLES)]
    LeftAlone,
    /// It did not take the connection, or not answer, in time.
    #[error("no answer within {0:?}")]
    TooLate(Duration),
    /// It closed the connection instead.
    #[error("it closed the connection without a whole answer")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] std::io::Error),
    /// What came is no answer.
    #[error(transparent)]
    Malformed(#[from] AnswerError),
}

/// One step.
pub struct Forward {
    check: &'static str,
    address: ListenAddress,
    priority: i64,
    states: Vec<ProtocolState>,
    on_failure: OnFailure,
    timeout: Duration,
    free: Semaphore,
    kept: Mutex<Vec<(Connection, Instant)>>,
    up: AtomicBool,
    rest: Rest,
}

impl Forward {
    /// The steps of the settings, in the order of their names. Those without an address are left out; the settings check
    /// reports them.
    pub fn all(settings: &Settings) -> impl Iterator<Item = Forward> {
        settings.forward.iter().filter_map(|(name, step)| Forward::new(name, step))
    }

    fn new(name: &str, settings: &ForwardSettings) -> Option<Forward> {
        Some(Forward {
            check: label(&format!("forward.{name}")),
            address: settings.address.clone()?,
            priority: settings.priority,
            states: settings.states.clone(),
            on_failure: settings.on_failure,
            timeout: settings.timeout.duration(),
            free: Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)),
            kept: Mutex::new(Vec::new()),
            up: AtomicBool::new(true),
            rest: Rest::default(),
        })
    }

    /// `forward.NAME`, as its section in the settings.
    pub fn check(&self) -> &'static str {
        self.check
    }

    /// Larger is asked first.
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// What its failure means.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Whether it is asked in this protocol state.
    pub fn is_asked_in(&self, state: &str) -> bool {
        self.states.iter().any(|own| state.eq_ignore_ascii_case(own.as_str()))
    }

    /// Whether it answered the last time it was asked.
    pub fn health(&self) -> DependencyHealth {
        DependencyHealth {
            name: self.check,
            up: self.up.load(Ordering::Relaxed),
            detail: self.address.to_string(),
            pool: None,
        }
    }

    /// Asks it, for at most `patience`. `None`: it has no opinion.
    ///
    /// # Errors
    /// If it gave no answer. The question may have reached it all the same.
    pub async fn ask(&self, question: &Request, patience: Duration) -> Result<Option<String>, ForwardError> {
        let limit = self.timeout.min(patience);
        let result = self.within(limit, question).await;
        // Where it was not asked, or had little time, nothing new is known about it.
        let is_told = match &result {
            Err(Cause::Busy(_) | Cause::NoTime | Cause::LeftAlone) => false,
            Err(Cause::TooLate(time)) => *time >= self.timeout.mul_f32(0.9),
            _ => true,
        };
        if is_told {
            self.up.store(result.is_ok(), Ordering::Relaxed);
            self.rest.note(result.is_ok());
        }
        let answer = result.map_err(|cause| ForwardError { server: self.address.clone(), cause })?;
        let no_opinion =
            answer.split_ascii_whitespace().next().is_some_and(|w| w.eq_ignore_ascii_case("DUNNO"));
        Ok((!no_opinion).then_some(answer))
    }

    async fn within(&self, limit: Duration, question: &Request) -> Result<String, Cause> {
        if limit.is_zero() {
            return Err(Cause::NoTime);
        }
        if !self.rest.is_over(self.timeout) {
            return Err(Cause::LeftAlone);
        }
        let deadline = Instant::now() + limit;
        // The semaphore is never closed.
        let Ok(Ok(_turn)) = timeout_at(deadline, self.free.acquire()).await else {
            return Err(Cause::Busy(limit));
        };
        let begin = Instant::now();
        // Whatever is given up here takes its connection with it.
        let conversation = timeout_at(deadline, self.converse(question)).await;
        conversation.unwrap_or_else(|_| Err(Cause::TooLate(begin.elapsed())))
    }

    async fn converse(&self, question: &Request) -> Result<String, Cause> {
        let mut bytes = BytesMut::new();
        question.encode(&mut bytes);
        if let Some(mut connection) = self.take() {
            match connection.ask(&bytes).await {
                Ok(answer) => return Ok(self.done(connection, answer)),
                // Closed between two questions, at the moment of the second one.
                Err(_) if !connection.has_spoken() => {}
                Err(cause) => return Err(cause),
            }
        }
        let mut connection = Connection::open(&self.address).await?;
        let answer = connection.ask(&bytes).await?;
        Ok(self.done(connection, answer))
    }

    /// The connection used last, of those that can be used.
    fn take(&self) -> Option<Connection> {
        loop {
            let (connection, since) = self.kept().pop()?;
            if since.elapsed() < LONGEST_IDLE && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn done(&self, connection: Connection, answer: String) -> String {
        let mut kept = self.kept();
        // Those at the bottom may belong to a busier hour.
        kept.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
        if connection.is_finished() {
            kept.push((connection, Instant::now()));
        }
        drop(kept);
        answer
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
