//! The databases policyd is measured on: embedded SQLite, MariaDB, PostgreSQL, each as durable as it comes.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use outrider_core::sql::{DatabaseSettings, Databases, Db, DbUrl, PoolOptions, Stmt};
use outrider_tests::folder::Folder;
use outrider_tests::mariadb::MariaDb;
use outrider_tests::postgres::Postgres;
use outrider_tests::process::run as run_program;
use outrider_tests::settings::{self, Caching};
use outrider_tests::store::{SqlAccess, Store};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    MariaDb,
    Postgres,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Sqlite, Self::MariaDb, Self::Postgres];

    /// Its name for a reader.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::MariaDb => "MariaDB",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// The kind of a name on the command line.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        match name {
            "sqlite" => Some(Self::Sqlite),
            "mariadb" | "mysql" => Some(Self::MariaDb),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// Joins SQL expressions into one string.
    pub(crate) fn concat(self, parts: &[&str]) -> String {
        match self {
            Self::MariaDb => format!("CONCAT({})", parts.join(", ")),
            // In SQLite || binds closer than arithmetic.
            Self::Sqlite | Self::Postgres => format!("({})", parts.join(") || (")),
        }
    }
}

/// The way to a server: what iRedAPD's settings name, or what is nearer on the same machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Socket,
}

impl Over {
    /// The way of a name on the command line.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        match name {
            "tcp" => Some(Self::Tcp),
            "socket" => Some(Self::Socket),
            _ => None,
        }
    }

    /// Its name for a reader.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP on loopback",
            Self::Socket => "UNIX socket",
        }
    }
}

/// A database with the iRedMail tables, and a folder for the daemon.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    pub(crate) folder: Folder,
    /// None: files in the daemon's state directory.
    server: Option<Box<dyn Store>>,
    over: Over,
}

impl Engine {
    /// Starts the server, or makes the files.
    pub(crate) fn start(kind: Kind, over: Over) -> Result<Self> {
        let folder = Folder::new("bench")?;
        // No option that touches commits. The tables of five million rows are larger than a buffer pool of the stock size: whoever has them gives it more.
        let server: Option<Box<dyn Store>> = match kind {
            Kind::Sqlite => None,
            Kind::MariaDb => Some(Box::new(MariaDb::start_with(&[
                "--innodb-buffer-pool-size=1G",
                "--innodb-log-file-size=96M",
            ])?)),
            Kind::Postgres => Some(Box::new(Postgres::start_with(&[])?)),
        };
        if server.is_none() {
            let state = folder.sub("state")?;
            tokio::runtime::Runtime::new()?
                .block_on(Databases::open(&DatabaseSettings::default(), &state))
                .context("making the embedded databases")?;
        }
        Ok(Self { kind, folder, server, over })
    }

    fn access(&self, server: &dyn Store) -> SqlAccess {
        match self.over {
            Over::Tcp => server.access(),
            Over::Socket => server.access_over_socket(),
        }
    }

    fn file(&self, database: &str) -> PathBuf {
        self.folder.path().join(format!("state/{database}.db"))
    }

    /// Runs statements, separated by `;`.
    pub(crate) fn execute(&self, database: &str, sql: &str) -> Result<()> {
        match &self.server {
            Some(server) => server.execute(database, sql),
            None => self.sqlite(database, sql).map(drop),
        }
    }

    /// The rows of a query, columns separated by a tab.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        match &self.server {
            Some(server) => server.query(database, sql),
            None => Ok(self.sqlite(database, sql)?.lines().map(str::to_owned).collect()),
        }
    }

    fn sqlite(&self, database: &str, sql: &str) -> Result<String> {
        let file = self.file(database).display().to_string();
        let script = self.folder.write("statements.sql", sql)?;
        let read = format!(".read {}", script.display());
        // Whoever had the file open last may still be closing it.
        run_program(
            "sqlite3",
            &["-batch", "-bail", "-separator", "\t", "-cmd", ".timeout 30000", &file, &read],
        )
    }

    /// policyd.toml for it, all rules as installed.
    pub(crate) fn settings(&self, listen: SocketAddr, dns: SocketAddr) -> String {
        match &self.server {
            Some(server) => settings::policyd(listen, &self.access(server.as_ref()), dns, Caching::Default),
            None => settings::policyd_embedded(listen, dns),
        }
    }

    /// The database `iredapd` through the daemons' own library.
    pub(crate) fn db(&self, connections: usize) -> Result<Db> {
        let options = PoolOptions { max_connections: connections, ..PoolOptions::default() };
        Ok(match &self.server {
            Some(server) => {
                let url: DbUrl =
                    self.access(server.as_ref()).url("iredapd").parse().context("URL of the database")?;
                Db::open(&url, &options)?
            }
            None => Db::open_file(&self.file("iredapd"), &options),
        })
    }

    /// Name and version, and what a commit waits for.
    pub(crate) fn version(&self) -> Result<String> {
        const VERSION: Stmt = Stmt::per_engine(
            "SELECT VERSION() AS version",
            "SELECT current_setting('server_version') AS version",
            "SELECT sqlite_version() AS version",
        );
        let db = self.db(1)?;
        let row = tokio::runtime::Runtime::new()?.block_on(db.fetch_optional(&VERSION, &[]))?;
        let version = row.as_ref().and_then(|row| row.text("version")).unwrap_or("unknown").to_owned();
        let durability = match self.kind {
            Kind::Sqlite => "write-ahead log, synchronous=FULL",
            Kind::MariaDb => "innodb_flush_log_at_trx_commit=1",
            Kind::Postgres => "fsync=on, synchronous_commit=on",
        };
        Ok(format!("{} {version} ({durability})", self.kind.title()))
    }
}
