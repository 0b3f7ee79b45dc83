//! What can go wrong between a daemon and its database, from the caller's view.

use crate::net::AuthoritiesError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A failed database operation. No variant carries a password or a bound value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The URL, a password file or a value cannot be used as given: an administrator has to act.
    #[error("{0}")]
    Unusable(String),
    /// No connection can be opened; `reason` is what the server or the system said.
    #[error("cannot reach {server}: {reason}")]
    Unavailable {
        /// The server, without user and password.
        server: String,
        /// What the attempt ended with.
        reason: String,
    },
    /// All connections stayed in use for the whole `acquire_timeout`.
    #[error("no free connection to {server} within {limit:?}")]
    Busy {
        /// The server, without user and password.
        server: String,
        /// The time waited.
        limit: Duration,
    },
    /// The server did not answer within `statement_timeout`; whether a write took place is unknown.
    #[error("no answer from {server} within {limit:?}")]
    Timeout {
        /// The server, without user and password.
        server: String,
        /// The time waited.
        limit: Duration,
    },
    /// The connection broke while a statement was under way; whether a write took place is unknown.
    #[error("lost the connection to {server}: {reason}")]
    Broken {
        /// The server, without user and password.
        server: String,
        /// What the connection ended with.
        reason: String,
    },
    /// A row with the same unique key exists.
    #[error("a row with this key exists: {0}")]
    DuplicateKey(String),
    /// The server refused for now: deadlock, lock wait, read-only replica, full disk.
    #[error("refused for now: {0}")]
    TryAgain(String),
    /// The server refused the statement: missing table or column, wrong type, missing right.
    #[error("refused: {0}")]
    Refused(String),
}

/// The names of [`DbError::class`].
const CLASSES: [&str; 6] = ["unavailable", "busy", "timeout", "broken", "try_again", "refused"];

/// How often a server failed, by the class of the failure.
#[derive(Debug, Default)]
pub struct FailureCounts([AtomicU64; CLASSES.len()]);

impl FailureCounts {
    /// Counts a failure; what is an answer is none.
    pub fn note(&self, error: &DbError) {
        if let Some(class) = error.class() {
            self.0[class].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The failures so far, by the names of their classes.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        std::iter::zip(CLASSES, &self.0)
            .map(|(class, count)| (class, count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// A database that asks for TLS cannot be used without authorities.
impl From<AuthoritiesError> for DbError {
    fn from(error: AuthoritiesError) -> DbError {
        DbError::Unusable(error.to_string())
    }
}

impl DbError {
    /// Whether the statement failed because a row with the same unique key exists.
    pub fn is_duplicate_key(&self) -> bool {
        matches!(self, DbError::DuplicateKey(_))
    }

    /// Whether the same statement may succeed later without anybody's doing.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            DbError::Unavailable { .. }
                | DbError::Busy { .. }
                | DbError::Timeout { .. }
                | DbError::Broken { .. }
                | DbError::TryAgain(_)
        )
    }

    /// The class of the failure, for metrics; `None` for what is an answer rather than a failure.
    fn class(&self) -> Option<usize> {
        Some(match self {
            DbError::Unavailable { .. } => 0,
            DbError::Busy { .. } => 1,
            DbError::Timeout { .. } => 2,
            DbError::Broken { .. } => 3,
            DbError::TryAgain(_) => 4,
            DbError::Refused(_) => 5,
            DbError::Unusable(_) | DbError::DuplicateKey(_) => return None,
        })
    }

    /// Whether the connection itself is gone, so that another one may do better.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, DbError::Broken { .. })
    }

    /// Sorts what the driver reports while a statement runs.
    pub(crate) fn from_statement(error: sqlx::Error, server: &str) -> DbError {
        match error {
            sqlx::Error::Database(error) => DbError::from_server(error.as_ref(), server),
            sqlx::Error::Io(error) => broken(server, &error),
            sqlx::Error::Tls(error) => broken(server, &error),
            sqlx::Error::Protocol(reason) => broken(server, &reason),
            sqlx::Error::WorkerCrashed => broken(server, &"the worker thread ended"),
            sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut => broken(server, &"closed"),
            other => DbError::Refused(other.to_string()),
        }
    }

    /// Sorts what the driver reports while a connection is opened.
    pub(crate) fn from_connect(error: &sqlx::Error, server: &str) -> DbError {
        let reason = match error {
            sqlx::Error::Database(error) => error.message().to_owned(),
            sqlx::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        DbError::Unavailable { server: server.to_owned(), reason }
    }

    /// Whether the server closes the connection with this refusal: MySQL does when a statement is larger than
    /// `max_allowed_packet`.
    pub(crate) fn closes_connection(error: &sqlx::Error) -> bool {
        matches!(error, sqlx::Error::Database(error) if mysql_number(error.as_ref()) == 1153)
    }

    fn from_server(error: &dyn sqlx::error::DatabaseError, server: &str) -> DbError {
        let message = error.message().to_owned();
        if error.is_unique_violation() {
            return DbError::DuplicateKey(message);
        }
        let number = mysql_number(error);
        let code = error.code().unwrap_or_default();
        // 1053 shutdown, 1927 killed, 57P01..3 PostgreSQL stopping: the session is over.
        if matches!(number, 1053 | 1927) || code.starts_with("57P") {
            return broken(server, &message);
        }
        // MySQL: too many connections, table full, lock wait, deadlock, read-only, statement interrupted.
        let mysql = matches!(
            number,
            1040 | 1114 | 1203 | 1205 | 1213 | 1226 | 1290 | 1317 | 1792 | 1836 | 1969 | 3024 | 3100
        );
        // PostgreSQL classes: 40 transaction rollback, 53 insufficient resources; read-only, lock, cancelled.
        let postgres = number == 0
            && code.len() == 5
            && (code.starts_with("40")
                || code.starts_with("53")
                || matches!(&*code, "25006" | "55P03" | "57014"));
        // SQLite: primary result codes busy, locked, read-only, i/o, full in the low byte.
        let sqlite = code.len() < 5
            && number == 0
            && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13));
        if mysql || postgres || sqlite { DbError::TryAgain(message) } else { DbError::Refused(message) }
    }
}

/// MySQL's number of an error, 0 for other servers.
pub(super) fn mysql_number(error: &dyn sqlx::error::DatabaseError) -> u16 {
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map_or(0, |error| error.number())
}

fn broken(server: &str, reason: &dyn std::fmt::Display) -> DbError {
    DbError::Broken { server: server.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_broken_connections() {
        let error =
            DbError::from_statement(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()), "db");
        assert!(error.is_broken() && error.is_temporary() && !error.is_duplicate_key());
    }

    #[test]
    fn a_decoding_mistake_is_no_temporary_error() {
        let error = DbError::from_statement(sqlx::Error::RowNotFound, "db");
        assert!(!error.is_temporary() && !error.is_broken());
    }
}
