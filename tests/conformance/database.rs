//! A private database with the iRedMail tables for a conformance run.
//!
//! `outrider-test-database mysql|postgres|sqlite` starts a server (or makes a folder of SQLite files), prints
//! `ready URL` and removes everything when its standard input is closed. The URL names no database:
//! `mysql://user:password@host:port/`, `postgresql://...`, `sqlite:///folder`.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use outrider_core::schema::{Database, create_statements};
use outrider_core::sql::{Db, Engine, PoolOptions};
use outrider_tests::folder::Folder;
use outrider_tests::mariadb::MariaDb;
use outrider_tests::postgres::Postgres;
use outrider_tests::store::Store;

fn main() -> ExitCode {
    let kind = std::env::args().nth(1).unwrap_or_default();
    match run(&kind) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrider-test-database: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(kind: &str) -> Result<()> {
    match kind {
        "mysql" => serve(&MariaDb::start()?),
        "postgres" => serve(&Postgres::start()?),
        "sqlite" => {
            let folder = Folder::new("sqlite")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(create_files(&folder))?;
            wait(&format!("sqlite://{}", folder.path().display()))
        }
        _ => bail!("usage: outrider-test-database mysql|postgres|sqlite"),
    }
}

fn serve(store: &dyn Store) -> Result<()> {
    wait(&store.access().url(""))
}

async fn create_files(folder: &Folder) -> Result<()> {
    for database in Database::ALL {
        let file = folder.path().join(format!("{}.db", database.name()));
        let db = Db::open_file(&file, &PoolOptions::default());
        for statement in create_statements(database, Engine::Sqlite) {
            db.execute_script(statement).await.with_context(|| format!("creating {}", file.display()))?;
        }
    }
    Ok(())
}

/// Says where it is, then stays until whoever started us closes our input or ends.
fn wait(url: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {url}")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
