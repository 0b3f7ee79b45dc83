//! The four databases of an iRedMail server, on servers or embedded.

use super::{Db, DbError, DbUrl, PoolOptions, Stmt, reconnect};
use crate::daemon::DependencyHealth;
use crate::schema::{Database, create_statements, first_rows};
use crate::settings::{Findings, Interval};
use crate::sql::Engine;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Attempts to create an embedded database while other daemons create theirs in the same folder.
const CREATE_ATTEMPTS: u32 = 5;

crate::settings! {
    /// Where accounts and state are kept. Not set: embedded SQLite files in the state directory, made on first start.
    pub struct DatabaseSettings {
        /// Accounts, domains and lists, such as "mysql://vmail@127.0.0.1/vmail" or "postgresql://vmail@/vmail?host=/run/postgresql".
        #[serde(skip_serializing_if = "Option::is_none")]
        pub vmail: Option<DbUrl> = None,
        /// White/blacklists, content policies, mail log and quarantine.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub amavisd: Option<DbUrl> = None,
        /// Greylisting, throttling and the session log.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub iredapd: Option<DbUrl> = None,
        /// Log and settings of the administration panel.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub iredadmin: Option<DbUrl> = None,
        /// A file that holds the password for `vmail`, in place of one in the URL.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub vmail_password_file: Option<PathBuf> = None,
        /// A file that holds the password for `amavisd`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub amavisd_password_file: Option<PathBuf> = None,
        /// A file that holds the password for `iredapd`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub iredapd_password_file: Option<PathBuf> = None,
        /// A file that holds the password for `iredadmin`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub iredadmin_password_file: Option<PathBuf> = None,
        /// Connections to each database at most.
        pub max_connections: usize = 8,
        /// The longest wait for a connection.
        pub acquire_timeout: Interval = Interval::seconds(2),
        /// The longest wait for the answer to one statement.
        pub statement_timeout: Interval = Interval::seconds(3),
    }
}

impl DatabaseSettings {
    /// Reports what cannot work; `section` is the name of the section these settings stand in.
    pub fn check(&self, section: &str, findings: &mut Findings) {
        if self.max_connections == 0 {
            findings.error(
                format!("{section}.max_connections"),
                "nothing works without a connection",
                "use 8",
            );
        }
        for (key, limit) in
            [("acquire_timeout", self.acquire_timeout), ("statement_timeout", self.statement_timeout)]
        {
            if limit.duration().is_zero() {
                findings.error(format!("{section}.{key}"), "no database answers in no time", "use \"3s\"");
            }
        }
        for database in Database::ALL {
            let key = format!("{section}.{}", database.name());
            let (url, file) = self.of(database);
            if url.is_some_and(|url| url.database().is_empty()) {
                findings.error(&key, "the URL names no database", format!("append /{}", database.name()));
            }
            if let (Some(file), None) = (file, url) {
                findings.warning(
                    format!("{key}_password_file"),
                    format!("{} is not used: {key} is not set", file.display()),
                    format!("set {key}"),
                );
            }
        }
    }

    fn of(&self, database: Database) -> (Option<&DbUrl>, Option<&PathBuf>) {
        match database {
            Database::Vmail => (self.vmail.as_ref(), self.vmail_password_file.as_ref()),
            Database::Amavisd => (self.amavisd.as_ref(), self.amavisd_password_file.as_ref()),
            Database::Iredapd => (self.iredapd.as_ref(), self.iredapd_password_file.as_ref()),
            Database::Iredadmin => (self.iredadmin.as_ref(), self.iredadmin_password_file.as_ref()),
        }
    }

    /// The bounds of the pools.
    pub(crate) fn pool_options(&self) -> PoolOptions {
        PoolOptions {
            max_connections: self.max_connections,
            acquire_timeout: self.acquire_timeout.duration(),
            statement_timeout: self.statement_timeout.duration(),
        }
    }

    /// Whether a server is named for a database, or its embedded file is in `state`.
    pub(crate) fn is_there(&self, database: Database, state: &Path) -> bool {
        self.of(database).0.is_some() || embedded_file(database, state).exists()
    }

    /// Opens one database. Never waits for a server; an embedded file is created with its tables when `state` holds none.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for a password file or a state directory that cannot be used; what SQLite says for an
    /// embedded file that it cannot use.
    pub async fn open(&self, database: Database, state: &Path) -> Result<Db, DbError> {
        let (url, password_file) = self.of(database);
        let options = self.pool_options();
        let db = match url {
            Some(url) => {
                let mut url = url.clone();
                if let Some(file) = password_file {
                    url.read_password(file)?;
                }
                Db::open(&url, &options)?
            }
            None => open_embedded(database, &embedded_file(database, state), &options).await?,
        };
        db.watch();
        Ok(db)
    }
}

/// The four databases, open.
#[derive(Debug, Clone)]
pub struct Databases {
    /// Accounts, domains and lists.
    pub vmail: Db,
    /// White/blacklists, content policies, mail log and quarantine.
    pub amavisd: Db,
    /// Greylisting, throttling and the session log.
    pub iredapd: Db,
    /// Log and settings of the administration panel.
    pub iredadmin: Db,
}

impl Databases {
    /// Opens all four; see [`DatabaseSettings::open`]. To be called inside the runtime.
    ///
    /// # Errors
    /// As [`DatabaseSettings::open`].
    pub async fn open(settings: &DatabaseSettings, state: &Path) -> Result<Databases, DbError> {
        Ok(Databases {
            vmail: settings.open(Database::Vmail, state).await?,
            amavisd: settings.open(Database::Amavisd, state).await?,
            iredapd: settings.open(Database::Iredapd, state).await?,
            iredadmin: settings.open(Database::Iredadmin, state).await?,
        })
    }

    /// Whether each of them is there.
    pub fn health(&self) -> Vec<DependencyHealth> {
        [
            ("vmail", &self.vmail),
            ("amavisd", &self.amavisd),
            ("iredapd", &self.iredapd),
            ("iredadmin", &self.iredadmin),
        ]
        .into_iter()
        .map(|(name, db)| db.health(name))
        .collect()
    }
}

impl Db {
    /// Whether it is there, under the name by which administrators know it.
    pub fn health(&self, name: &'static str) -> DependencyHealth {
        let pool = Some(self.figures());
        DependencyHealth { name, up: self.is_up(), detail: self.place().to_owned(), pool }
    }

    /// Looks after a server in the background until nobody uses the database any more.
    pub(crate) fn watch(&self) {
        let Some(weak) = self.downgrade() else { return };
        reconnect::watch(move || weak.upgrade(), |db: Db| async move { db.ping().await.is_ok() });
    }
}

fn embedded_file(database: Database, state: &Path) -> PathBuf {
    state.join(format!("{}.db", database.name()))
}

async fn open_embedded(database: Database, file: &Path, options: &PoolOptions) -> Result<Db, DbError> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| DbError::Unusable(format!("state directory {}: {error}", folder.display())))?;
    }
    let mut attempt = 1;
    loop {
        // On connections of their own: those that stay begin without the pages of a whole new database in memory.
        match create_tables(database, &Db::open_file(file, options)).await {
            Ok(()) => break,
            // Another daemon is creating the same file, or switching it to write-ahead logging.
            Err(error) if error.is_temporary() && attempt < CREATE_ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
    hide_file(file);
    Ok(Db::open_file(file, options))
}

/// Takes the rights of all others from a database: what is in it is nobody else's business. The files SQLite keeps
/// beside it take over these rights.
pub(crate) fn hide_file(file: &Path) {
    let hide = || {
        let mut rights = std::fs::metadata(file)?.permissions();
        rights.set_mode(rights.mode() & !0o007);
        std::fs::set_permissions(file, rights)
    };
    if let Err(error) = hide() {
        tracing::warn!(file = %file.display(), %error, "cannot hide the database from other accounts");
    }
}

/// All tables or none: a start that is cut short leaves an empty file, and the next one tries again.
async fn create_tables(database: Database, db: &Db) -> Result<(), DbError> {
    const TABLES: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM sqlite_master WHERE type = 'table'");
    let tables = |row: Option<super::Row>| row.and_then(|row| row.int("n")).unwrap_or(0);
    if tables(db.fetch_optional(&TABLES, &[]).await?) > 0 {
        return Ok(());
    }
    let mut transaction = db.begin().await?;
    if tables(transaction.fetch_optional(&TABLES, &[]).await?) == 0 {
        for statement in create_statements(database, Engine::Sqlite) {
            transaction.execute_script(statement).await?;
        }
        for statement in first_rows(database, Engine::Sqlite) {
            transaction.execute_script(statement).await?;
        }
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_state_directory_is_filled_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("state");
        const COUNT: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM greylisting");
        let settings = DatabaseSettings::default();
        let (first, second) =
            tokio::join!(Databases::open(&settings, &state), Databases::open(&settings, &state));
        for databases in [first.expect("opened"), second.expect("opened")] {
            let row = databases.iredapd.fetch_optional(&COUNT, &[]).await.expect("read").expect("a row");
            assert_eq!(row.int("n"), Some(1));
            assert!(databases.health().iter().all(|health| health.up));
        }
        for database in Database::ALL {
            let file = state.join(format!("{}.db", database.name()));
            let mode = std::fs::metadata(&file).expect("there").permissions().mode();
            assert_eq!(mode & 0o007, 0, "{}", file.display());
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_told() {
        let settings = DatabaseSettings {
            vmail: Some("mysql://u@h/".parse().expect("a URL")),
            amavisd_password_file: Some("/nonexistent".into()),
            max_connections: 0,
            ..DatabaseSettings::default()
        };
        let mut findings = Findings::new();
        settings.check("database", &mut findings);
        let text = findings.to_string();
        assert!(
            findings.is_fatal() && text.contains("database.vmail") && text.contains("max_connections"),
            "{text}"
        );
        let settings = DatabaseSettings {
            vmail: Some("mysql://u@h/vmail".parse().expect("a URL")),
            vmail_password_file: Some("/nonexistent".into()),
            ..DatabaseSettings::default()
        };
        let outcome = settings.open(Database::Vmail, Path::new("/nonexistent")).await;
        assert!(matches!(outcome, Err(DbError::Unusable(_))));
    }
}
