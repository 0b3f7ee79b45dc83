//! The tables of an iRedMail server on MySQL/MariaDB, PostgreSQL and SQLite.
//!
//! What a table looks like is written once in the `.tables` files (see `table.rs`); this module turns it into the
//! statements for one server. They create the embedded SQLite files of a machine without a database server, and
//! the databases that tests run against. On an existing iRedMail server nothing is ever created or changed.

mod rows;
mod table;
mod trigger;

use crate::sql::Engine;

/// The four databases of an iRedMail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Database {
    /// Accounts, domains and lists.
    Vmail,
    /// Greylisting, throttling and sessions of the policy service.
    Iredapd,
    /// Mail log, quarantine, policies and white/blacklists of the content filter.
    Amavisd,
    /// Log and settings of the administration panel.
    Iredadmin,
}

impl Database {
    /// All of them, in the order in which they are created.
    pub const ALL: [Database; 4] =
        [Database::Vmail, Database::Iredapd, Database::Amavisd, Database::Iredadmin];

    /// The name iRedMail gives it; also the name of the SQLite file, with `.db`.
    pub const fn name(self) -> &'static str {
        match self {
            Database::Vmail => "vmail",
            Database::Iredapd => "iredapd",
            Database::Amavisd => "amavisd",
            Database::Iredadmin => "iredadmin",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Database::Vmail => include_str!("vmail.tables"),
            Database::Iredapd => include_str!("iredapd.tables"),
            Database::Amavisd => include_str!("amavisd.tables"),
            Database::Iredadmin => include_str!("iredadmin.tables"),
        }
    }
}

/// The statements that make the empty database itself, to be run one by one on a server connection.
pub fn create_database_statements(database: Database, engine: Engine) -> Vec<String> {
    let name = table::quote(engine, database.name());
    match engine {
        Engine::MySql => {
            vec![format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")]
        }
        Engine::Postgres => {
            let mut statements = vec![format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")];
            if database == Database::Amavisd {
                statements.push(format!("ALTER DATABASE {name} SET bytea_output = 'escape'"));
            }
            statements
        }
        Engine::Sqlite => Vec::new(),
    }
}

/// The statements that create all tables, indexes and triggers in an empty database, to be run one by one. The
/// tables are empty afterwards.
pub fn create_statements(database: Database, engine: Engine) -> Vec<String> {
    let tables = table::parse(database.description()).unwrap_or_else(|line| {
        // Part of the program, read in full by the tests of this module.
        unreachable!("unreadable line in {}.tables: {line}", database.name())
    });
    let mut statements: Vec<String> = tables.iter().flat_map(|table| table.create(engine)).collect();
    statements.extend(trigger::create(database, engine).iter().map(|text| (*text).to_owned()));
    statements
}

/// The statements that insert what a fresh installation has, apart from its first domain and postmaster, which
/// the administrator names. To be run after [`create_statements`].
pub fn first_rows(database: Database, engine: Engine) -> Vec<String> {
    rows::insert(database, engine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Db, PoolOptions, Stmt, Value};

    #[test]
    fn every_description_can_be_read() {
        let count_of = |database: Database, engine| {
            let tables = table::parse(database.description()).unwrap();
            tables.iter().filter(|table| !table.create(engine).is_empty()).count()
        };
        let expected = [(Database::Vmail, 20), (Database::Iredapd, 11), (Database::Amavisd, 9)];
        for (database, count) in expected {
            for engine in [Engine::MySql, Engine::Postgres, Engine::Sqlite] {
                assert_eq!(count_of(database, engine), count, "{database:?} {engine:?}");
            }
        }
        for (engine, count) in [(Engine::MySql, 8), (Engine::Postgres, 7), (Engine::Sqlite, 7)] {
            assert_eq!(count_of(Database::Iredadmin, engine), count, "{engine:?}");
        }
    }

    async fn fresh(database: Database, folder: &tempfile::TempDir) -> Db {
        let db = Db::open_file(&folder.path().join("t.db"), &PoolOptions::default());
        let statements = create_statements(database, Engine::Sqlite);
        for statement in statements.into_iter().chain(first_rows(database, Engine::Sqlite)) {
            db.execute_script(statement.clone()).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
        }
        db
    }

    #[tokio::test]
    async fn sqlite_takes_them_all() {
        for database in Database::ALL {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let db = fresh(database, &folder).await;
            db.ping().await.expect("usable");
        }
    }

    #[tokio::test]
    async fn the_domain_of_a_used_quota_fills_itself() {
        const INSERT: Stmt = Stmt::same("INSERT INTO used_quota (username, bytes) VALUES (?, 1)");
        const READ: Stmt = Stmt::same("SELECT domain FROM used_quota WHERE username = ?");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = fresh(Database::Vmail, &folder).await;
        for (username, domain) in [("u@example.com", "example.com"), ("a@b@example.org", "example.org")] {
            db.execute(&INSERT, &[username.into()]).await.expect("inserted");
            let row = db.fetch_optional(&READ, &[username.into()]).await.expect("read").expect("a row");
            assert_eq!(row.text("domain"), Some(domain));
        }
    }

    #[tokio::test]
    async fn the_bare_address_fills_itself() {
        const INSERT: Stmt = Stmt::same("INSERT INTO maddr (email, domain) VALUES (?, ?)");
        const READ: Stmt = Stmt::same("SELECT email_raw FROM maddr WHERE email = ?");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = fresh(Database::Amavisd, &folder).await;
        for (email, bare) in [
            ("u@example.com", "u@example.com"),
            ("u+x@example.com", "u@example.com"),
            ("\"a@b+c\"@example.org", "\"a@b@example.org"),
            ("", ""),
        ] {
            let args = [Value::bytes(email), Value::bytes("com.example")];
            db.execute(&INSERT, &args).await.expect("inserted");
            let row = db.fetch_optional(&READ, &args[..1]).await.expect("read").expect("a row");
            assert_eq!(row.text("email_raw"), Some(bare), "{email}");
        }
    }
}
