//! One connection to a Valkey or Redis server that carries the scripts of all requests.
//!
//! Nothing here waits longer than its time-outs. After a failed attempt to connect further requests fail at once until
//! a pause is over that doubles from attempt to attempt; a sign of life asked for now and then finds the way back. The
//! library's own `ConnectionManager` is not used, because it never tries again after a refused login and keeps a
//! connection on which nothing answers any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use outrider_core::daemon::{DependencyHealth, PoolFigures};
use outrider_core::sql::reconnect::{self, Setback, short};
use outrider_core::sql::{DbError, FailureCounts};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    ScriptInvocation, ServerErrorKind, TlsCertificates,
};
use tokio::time::timeout;

use crate::settings::CounterSettings;

/// Requests that may wait for their turn to be written; more wait for one of these.
const WAITING: usize = 1024;

/// A connection, numbered so that only the one that failed is given up.
struct Lane {
    number: u64,
    connection: MultiplexedConnection,
}

/// What a server is asked.
#[derive(Clone, Copy)]
enum Question<'a> {
    /// Whether it is there.
    LifeSign,
    /// To run this.
    Script(&'a ScriptInvocation<'a>),
}

impl Question<'_> {
    async fn put(self, mut connection: MultiplexedConnection) -> Result<redis::Value, RedisError> {
        match self {
            Question::LifeSign => connection.req_packed_command(&redis::cmd("PING")).await,
            Question::Script(script) => script.invoke_async(&mut connection).await,
        }
    }
}

/// The server.
pub struct Valkey {
    client: Client,
    place: String,
    prefix: String,
    connect_timeout: Duration,
    response_timeout: Duration,
    slot: tokio::sync::Mutex<Option<Lane>>,
    next_number: AtomicU64,
    up: AtomicBool,
    setback: Setback,
    connected: AtomicBool,
    failures: FailureCounts,
}

impl Valkey {
    /// The server of these settings. Connects when something is asked; only the file of authorities is read here. To be
    /// called inside the runtime.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for an address or a file of authorities that cannot be used.
    pub fn new(settings: &CounterSettings) -> Result<Arc<Valkey>, DbError> {
        let place = settings.url.to_string();
        let unusable = |error: RedisError| DbError::Unusable(format!("{place}: {error}"));
        let info = settings.url.as_str().into_connection_info().map_err(unusable)?;
        // The name and version of the library are nobody's business, and cost older servers an error each time.
        let mut login = info.redis_settings().clone().set_skip_set_lib_name();
        if !settings.user.is_empty() {
            login = login.set_username(&settings.user);
        }
        if !settings.password.is_empty() {
            login = login.set_password(settings.password.expose());
        }
        let info = info.set_redis_settings(login);
        let client = match &settings.ca_file {
            Some(file) if settings.url.is_encrypted() => {
                let root_cert = Some(authorities(file)?);
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            _ => Client::open(info),
        };
        let valkey = Arc::new(Valkey {
            client: client.map_err(unusable)?,
            place,
            prefix: settings.prefix.clone(),
            connect_timeout: settings.connect_timeout.duration(),
            response_timeout: settings.response_timeout.duration(),
            slot: tokio::sync::Mutex::new(None),
            next_number: AtomicU64::new(0),
            up: AtomicBool::new(true),
            setback: Setback::default(),
            connected: AtomicBool::new(false),
            failures: FailureCounts::default(),
        });
        let weak = Arc::downgrade(&valkey);
        reconnect::watch(
            move || weak.upgrade(),
            |valkey: Arc<Valkey>| async move { valkey.ask(Question::LifeSign).await.is_ok() },
        );
        Ok(valkey)
    }

    /// Its address, without a password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether it answered the last time it was asked.
    pub fn health(&self) -> DependencyHealth {
        DependencyHealth {
            name: "valkey",
            up: self.up.load(Ordering::Relaxed),
            detail: self.place.clone(),
            pool: Some(PoolFigures {
                used: 0,
                // One connection carries all questions.
                idle: usize::from(self.connected.load(Ordering::Relaxed)),
                errors: self.failures.figures(),
            }),
        }
    }

    /// The full name of a key.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs a script and gives its answer.
    ///
    /// If the connection breaks, the script is sent once more on a new one. It may have run already; then a message is
    /// counted twice, which never lets more pass than the limit.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, DbError> {
        let answer = self.ask(Question::Script(script)).await.and_then(|value| {
            // The error of the library would quote the value.
            T::from_redis_value(value).map_err(|_| {
                self.up.store(false, Ordering::Relaxed);
                DbError::Refused(format!("the answer of {} makes no sense", self.place))
            })
        });
        answer.inspect_err(|error| self.failures.note(error))
    }

    async fn ask(&self, question: Question<'_>) -> Result<redis::Value, DbError> {
        let mut attempt = 1;
        loop {
            let (number, connection) = self.connection().await?;
            let error = match timeout(self.response_timeout, question.put(connection)).await {
                Ok(Ok(value)) => {
                    self.up.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Err(error)) if error.is_timeout() => self.too_late(),
                Ok(Err(error)) => {
                    if !is_answer(&error) {
                        self.give_up(number).await;
                        if error.is_io_error() && attempt == 1 {
                            attempt = 2;
                            continue;
                        }
                    }
                    self.up.store(false, Ordering::Relaxed);
                    return Err(self.refusal(&error));
                }
                Err(_) => self.too_late(),
            };
            // Others may still wait for answers on it; new questions get a connection that works.
            self.give_up(number).await;
            self.up.store(false, Ordering::Relaxed);
            return Err(error);
        }
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), DbError> {
        // Whoever is connecting does so within the same limit.
        let Ok(mut slot) = timeout(self.connect_timeout, self.slot.lock()).await else {
            self.up.store(false, Ordering::Relaxed);
            return Err(DbError::Busy { server: self.place.clone(), limit: self.connect_timeout });
        };
        if let Some(Lane { number, connection }) = &*slot {
            return Ok((*number, connection.clone()));
        }
        self.setback.check().inspect_err(|_| self.up.store(false, Ordering::Relaxed))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(WAITING);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let attempt = self.setback.attempt(&self.place, self.connect_timeout, connecting);
        let connection = attempt.await.inspect_err(|_| self.up.store(false, Ordering::Relaxed))?;
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        *slot = Some(Lane { number, connection: connection.clone() });
        self.connected.store(true, Ordering::Relaxed);
        Ok((number, connection))
    }

    /// Forgets a connection, unless somebody else has replaced it already.
    async fn give_up(&self, number: u64) {
        let mut slot = self.slot.lock().await;
        if slot.as_ref().is_some_and(|lane| lane.number == number) {
            *slot = None;
            self.connected.store(false, Ordering::Relaxed);
        }
    }

    fn too_late(&self) -> DbError {
        DbError::Timeout { server: self.place.clone(), limit: self.response_timeout }
    }

    fn refusal(&self, error: &RedisError) -> DbError {
        let text = short(&error.to_string());
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => DbError::Broken { server: self.place.clone(), reason: text },
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => DbError::Refused(format!(
                "{} is a member of a cluster, which is not supported: {text}",
                self.place
            )),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            ) => DbError::TryAgain(text),
            _ => DbError::Refused(text),
        }
    }
}

/// Whether the server has answered this one question with an error and the connection is as good as before. A login that
/// has become necessary, or a server that has become a replica, may look better on a new connection.
fn is_answer(error: &RedisError) -> bool {
    let stays = match error.kind() {
        ErrorKind::Server(kind) => kind != ServerErrorKind::ReadOnly,
        ErrorKind::Extension => true,
        _ => false,
    };
    stays && !matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

fn authorities(file: &Path) -> Result<Vec<u8>, DbError> {
    std::fs::read(file).map_err(|error| DbError::Unusable(format!("{}: {error}", file.display())))
}
