//! Which SQL server holds the accounts, and how Postfix, Dovecot and the daemons reach it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use crate::mariadb::MariaDb;
use crate::postgres::Postgres;

/// The servers iRedMail can be installed on (with accounts in SQL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// MariaDB or MySQL.
    MariaDb,
    /// PostgreSQL.
    Postgres,
}

impl Server {
    /// The map type of Postfix and the driver name of Dovecot.
    pub fn driver(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::Postgres => "pgsql",
        }
    }

    /// The scheme of a database URL.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::Postgres => "postgresql",
        }
    }

    /// Joins SQL expressions into one string.
    pub fn concat(self, parts: &[&str]) -> String {
        match self {
            Self::MariaDb => format!("CONCAT({})", parts.join(", ")),
            Self::Postgres => parts.join(" || "),
        }
    }

    /// Quotes a column name (some of `mailbox` hold a hyphen).
    pub fn column(self, name: &str) -> String {
        match self {
            Self::MariaDb => format!("`{name}`"),
            Self::Postgres => format!("\"{name}\""),
        }
    }
}

/// Address and account of a SQL server; the databases are called `vmail`, `iredapd`, `amavisd` and `iredadmin`.
#[derive(Debug, Clone)]
pub struct SqlAccess {
    /// Which kind.
    pub server: Server,
    /// Where it listens.
    pub address: SocketAddr,
    /// Account that may read and write all four databases.
    pub user: String,
    /// Its password.
    pub password: String,
    /// MariaDB's UNIX socket, or the folder of PostgreSQL's, if the daemons are to use it in place of the address.
    pub socket: Option<PathBuf>,
}

impl SqlAccess {
    /// The URL of one database, as in the daemons' settings.
    pub fn url(&self, database: &str) -> String {
        let socket =
            self.socket.as_ref().map(|path| format!("?socket={}", path.display())).unwrap_or_default();
        format!(
            "{}://{}:{}@{}/{database}{socket}",
            self.server.scheme(),
            self.user,
            self.password,
            self.address
        )
    }
}

/// A running SQL server with the four iRedMail databases, private to one test.
pub trait Store: std::fmt::Debug + Send {
    /// How to reach it over TCP.
    fn access(&self) -> SqlAccess;
    /// How to reach it over its UNIX socket.
    fn access_over_socket(&self) -> SqlAccess;
    /// Runs one or more statements, separated by `;`, against one of the databases.
    fn execute(&self, database: &str, sql: &str) -> Result<()>;
    /// The rows of a query, columns separated by a tab.
    fn query(&self, database: &str, sql: &str) -> Result<Vec<String>>;
    /// Stops the server, as an administrator would; its data stay.
    fn stop(&mut self) -> Result<()>;
    /// Starts it again on the same port.
    fn resume(&mut self) -> Result<()>;
}

/// Starts a server of this kind with the four databases, empty but for their tables.
pub fn start(server: Server) -> Result<Box<dyn Store>> {
    Ok(match server {
        Server::MariaDb => Box::new(MariaDb::start()?),
        Server::Postgres => Box::new(Postgres::start()?),
    })
}
