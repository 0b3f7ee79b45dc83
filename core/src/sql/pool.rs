//! Connections to one server: bounded in number, opened when needed, thrown away when in doubt.
//!
//! Nothing here waits for a server that is down longer than one attempt: after a failed attempt further requests fail
//! at once for [`RETRY_PAUSE`], then one of them tries again. A connection whose statement was abandoned in
//! the middle is closed, never handed on, and after one broken connection all idle ones are given up, so that
//! the second try of a statement always runs on a fresh one. Between statements a connection is not tested (that would
//! be a round trip each); only after [`IDLE_TEST`] of rest it is.

use super::error::FailureCounts;
use super::{DbError, Done, Row, Value};
use crate::daemon::PoolFigures;
use std::borrow::Cow;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// After a failed attempt to connect, the time in which no further one is made.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A connection that rested this long is tested before use.
const IDLE_TEST: Duration = Duration::from_secs(10);
/// A connection that rested this long is closed instead.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

/// What the pool has to know of a kind of server.
pub(crate) trait Server: Send + Sync + 'static {
    /// One connection; dropping it closes it.
    type Connection: Send + 'static;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    fn fetch(
        connection: &mut Self::Connection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    fn execute(
        connection: &mut Self::Connection,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> impl Future<Output = Result<Done, sqlx::Error>> + Send;

    /// Statements without values, possibly several; what cannot be prepared.
    fn script(
        connection: &mut Self::Connection,
        sql: Cow<'static, str>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Bounds of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Connections at most.
    pub max_connections: usize,
    /// The longest wait for a free connection, and for a new one to open.
    pub acquire_timeout: Duration,
    /// The longest wait for the answer to one statement.
    pub statement_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(3),
        }
    }
}

struct Idle<C> {
    connection: C,
    generation: u64,
    since: Instant,
}

pub(crate) struct Pool<S: Server> {
    server: S,
    place: String,
    options: PoolOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<S::Connection>>>,
    /// Grows when a connection breaks: older connections are not used again.
    generation: AtomicU64,
    up: AtomicBool,
    last_failure: Mutex<Option<(Instant, DbError)>>,
    failures: FailureCounts,
}

impl<S: Server> Pool<S> {
    pub(crate) fn new(server: S, place: String, options: PoolOptions) -> Arc<Pool<S>> {
        Arc::new(Pool {
            server,
            place,
            permits: Arc::new(Semaphore::new(options.max_connections.max(1))),
            options,
            idle: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
            up: AtomicBool::new(true),
            last_failure: Mutex::new(None),
            failures: FailureCounts::default(),
        })
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Whether the last connection or statement found the server there.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// A connection for one statement or one transaction.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease<S>, DbError> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.options.acquire_timeout, waiting).await else {
            let (server, limit) = (self.place.clone(), self.options.acquire_timeout);
            return Err(self.noted(DbError::Busy { server, limit }));
        };
        while let Some(mut idle) = self.pop_idle() {
            let rest = idle.since.elapsed();
            if idle.generation != self.generation() || rest > IDLE_LIMIT {
                continue;
            }
            if rest < IDLE_TEST || self.test(&mut idle.connection).await {
                return Ok(self.lease_of(idle.connection, idle.generation, permit));
            }
            self.end_generation();
        }
        let generation = self.generation();
        let connection = self.connect().await?;
        Ok(self.lease_of(connection, generation, permit))
    }

    async fn connect(&self) -> Result<S::Connection, DbError> {
        if let Some((when, error)) = &*lock(&self.last_failure)
            && when.elapsed() < RETRY_PAUSE
        {
            return Err(error.clone());
        }
        let outcome = match timeout(self.options.acquire_timeout, self.server.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(DbError::from_connect(&error, &self.place)),
            Err(_) => Err(DbError::Unavailable {
                server: self.place.clone(),
                reason: format!("no answer within {:?}", self.options.acquire_timeout),
            }),
        };
        let outcome = outcome.map_err(|error| self.noted(error));
        *lock(&self.last_failure) = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        self.set_up(outcome.is_ok());
        outcome
    }

    /// Counts a failure.
    fn noted(&self, error: DbError) -> DbError {
        self.failures.note(&error);
        error
    }

    /// Connections at most.
    pub(crate) fn most_connections(&self) -> usize {
        self.options.max_connections.max(1)
    }

    /// Connections and failures so far.
    pub(crate) fn figures(&self) -> PoolFigures {
        let most = self.most_connections();
        PoolFigures {
            used: most - self.permits.available_permits().min(most),
            idle: lock(&self.idle).len(),
            errors: self.failures.figures(),
        }
    }

    /// Whether a rested connection still answers.
    async fn test(&self, connection: &mut S::Connection) -> bool {
        let question = S::fetch(connection, Cow::Borrowed("SELECT 1"), &[]);
        matches!(timeout(self.options.acquire_timeout, question).await, Ok(Ok(_)))
    }

    fn lease_of(
        self: &Arc<Self>,
        connection: S::Connection,
        generation: u64,
        permit: OwnedSemaphorePermit,
    ) -> Lease<S> {
        Lease {
            connection: Some(connection),
            generation,
            clean: true,
            pool: Arc::clone(self),
            _permit: permit,
        }
    }

    fn pop_idle(&self) -> Option<Idle<S::Connection>> {
        lock(&self.idle).pop()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Gives up all connections opened so far.
    fn end_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Dropped outside the lock: closing a connection may take a moment.
        let old = std::mem::take(&mut *lock(&self.idle));
        drop(old);
    }

    /// Remembers whether the server is there; a change is worth a line in the log.
    pub(crate) fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!(database = %self.place, "database is back");
            } else {
                tracing::warn!(database = %self.place, "database cannot be reached");
            }
        }
    }
}

/// A connection in use. It goes back to the pool when dropped, unless a statement on it broke or was abandoned.
pub(crate) struct Lease<S: Server> {
    connection: Option<S::Connection>,
    generation: u64,
    clean: bool,
    pool: Arc<Pool<S>>,
    _permit: OwnedSemaphorePermit,
}

impl<S: Server> Lease<S> {
    pub(crate) async fn fetch(
        &mut self,
        sql: Cow<'static, str>,
        args: &[&Value],
    ) -> Result<Vec<Row>, DbError> {
        let (connection, limit) = self.begin()?;
        let outcome = timeout(limit, S::fetch(connection, sql, args)).await;
        self.end(outcome)
    }

    pub(crate) async fn execute(&mut self, sql: Cow<'static, str>, args: &[&Value]) -> Result<Done, DbError> {
        let (connection, limit) = self.begin()?;
        let outcome = timeout(limit, S::execute(connection, sql, args)).await;
        self.end(outcome)
    }

    pub(crate) async fn script(&mut self, sql: Cow<'static, str>, limit: Duration) -> Result<(), DbError> {
        let (connection, _) = self.begin()?;
        let outcome = timeout(limit, S::script(connection, sql)).await;
        self.end(outcome)
    }

    /// From here on the connection counts as abandoned until [`Lease::settle`]: a transaction is open.
    pub(crate) fn unsettle(&mut self) {
        self.clean = false;
    }

    /// The transaction is over.
    pub(crate) fn settle(&mut self) {
        self.clean = self.connection.is_some();
    }

    /// The longest wait for one statement.
    pub(crate) fn statement_timeout(&self) -> Duration {
        self.pool.options.statement_timeout
    }

    fn begin(&mut self) -> Result<(&mut S::Connection, Duration), DbError> {
        self.clean = false;
        let limit = self.pool.options.statement_timeout;
        match &mut self.connection {
            Some(connection) => Ok((connection, limit)),
            None => Err(DbError::Broken {
                server: self.pool.place.clone(),
                reason: "an earlier statement of the transaction ended it".to_owned(),
            }),
        }
    }

    fn end<T>(
        &mut self,
        outcome: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, DbError> {
        match outcome {
            Ok(Ok(value)) => {
                self.clean = true;
                self.pool.set_up(true);
                Ok(value)
            }
            Ok(Err(error)) => {
                let closed = DbError::closes_connection(&error);
                let error = self.pool.noted(DbError::from_statement(error, &self.pool.place));
                if error.is_broken() {
                    self.connection = None;
                    self.pool.end_generation();
                } else if closed {
                    self.connection = None;
                } else {
                    self.clean = true;
                }
                Err(error)
            }
            Err(_) => {
                // The answer may still come: nobody else may use this connection.
                self.connection = None;
                let (server, limit) = (self.pool.place.clone(), self.pool.options.statement_timeout);
                Err(self.pool.noted(DbError::Timeout { server, limit }))
            }
        }
    }
}

impl<S: Server> Drop for Lease<S> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.clean && self.generation == self.pool.generation() {
            let idle = Idle { connection, generation: self.generation, since: Instant::now() };
            lock(&self.pool.idle).push(idle);
        }
    }
}

/// The lock, whatever a panicking holder left: the values behind it are whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
