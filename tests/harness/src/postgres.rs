//! A private PostgreSQL server with the four iRedMail databases.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use outrider_core::schema::{Database, create_database_statements, create_statements};
use outrider_core::sql::Engine;

use crate::folder::Folder;
use crate::port::Port;
use crate::prerequisite;
use crate::process::{Process, Start, run};
use crate::store::{Server, SqlAccess, Store};
use crate::wait::wait_for;

/// The account that may do everything; the daemons use it too.
const USER: &str = "outrider";
const PASSWORD: &str = "Secret-1";

/// A running server, stopped and removed on drop.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    folder: Folder,
    port: Port,
    options: Vec<String>,
}

impl Postgres {
    /// Starts a server with empty iRedMail tables. Its writes survive a crash of the server, not one of the machine.
    pub fn start() -> Result<Self> {
        Self::start_with(&["fsync=off"])
    }

    /// Starts a server with further settings (`name=value`); without any it is as durable as it comes.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        let Some(programs) = programs() else { bail!("PostgreSQL is not installed (package postgresql)") };
        let folder = Folder::new("pg")?;
        let home = folder.sub("run")?;
        if nix::unistd::geteuid().is_root() {
            run("chown", &["postgres:", &home.display().to_string()])?;
        }
        let password = folder.write("password", PASSWORD)?;
        let initdb = programs.join("initdb").display().to_string();
        let arguments = [
            initdb,
            format!("--pgdata={}", home.join("data").display()),
            format!("--username={USER}"),
            format!("--pwfile={}", password.display()),
            "--auth-host=scram-sha-256".to_owned(),
            "--auth-local=trust".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C.UTF-8".to_owned(),
            "--no-sync".to_owned(),
        ];
        run_as_postgres(&arguments)?;
        let mut server = Self {
            process: None,
            folder,
            port: Port::reserve()?,
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        server.resume()?;
        server.create_databases()?;
        Ok(server)
    }

    /// Whether the programs are installed.
    pub fn is_installed() -> bool {
        prerequisite::met("PostgreSQL", programs().is_some() && run("psql", &["--version"]).is_ok())
    }

    /// The folder with its UNIX socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn create_databases(&self) -> Result<()> {
        for database in Database::ALL {
            for statement in create_database_statements(database, Engine::Postgres) {
                self.client("postgres", &["-c", &statement])?;
            }
            let sql = create_statements(database, Engine::Postgres).join(";\n");
            let file = self.folder.write("schema.sql", &sql)?;
            self.client(database.name(), &["--single-transaction", "-f", &file.display().to_string()])?;
        }
        Ok(())
    }

    fn client(&self, database: &str, arguments: &[&str]) -> Result<String> {
        let host = format!("--host={}", self.socket_folder().display());
        let port = format!("--port={}", self.port.number());
        let user = format!("--username={USER}");
        let name = format!("--dbname={database}");
        let mut all = vec![
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--field-separator=\t",
            "--set=ON_ERROR_STOP=1",
            &host,
            &port,
            &user,
            &name,
        ];
        all.extend(arguments);
        run("psql", &all)
    }
}

/// The folder of the newest version's programs, which Debian keeps out of the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))?;
    newest.join("initdb").exists().then_some(newest)
}

/// PostgreSQL refuses to run as root.
fn run_as_postgres(command: &[String]) -> Result<String> {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    if nix::unistd::geteuid().is_root() {
        let mut all = vec!["--reuid=postgres", "--regid=postgres", "--init-groups", "--"];
        all.extend(command);
        return run("setpriv", &all);
    }
    run(command[0], &command[1..])
}

impl Store for Postgres {
    fn access(&self) -> SqlAccess {
        SqlAccess {
            server: Server::Postgres,
            address: self.port.address(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            socket: None,
        }
    }

    fn access_over_socket(&self) -> SqlAccess {
        SqlAccess { socket: Some(self.socket_folder()), ..self.access() }
    }

    fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.client(database, &["-c", sql]).map(drop)
    }

    fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        Ok(self.client(database, &["-c", sql])?.lines().map(str::to_owned).collect())
    }

    fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            // SIGINT: end the sessions at once instead of waiting for the clients to leave.
            Some(mut process) => process.stop(Signal::SIGINT, Duration::from_secs(30)).map(drop),
            None => Ok(()),
        }
    }

    fn resume(&mut self) -> Result<()> {
        let Some(programs) = programs() else { bail!("PostgreSQL is not installed (package postgresql)") };
        let home = self.socket_folder();
        let mut start = Start::new("postgres", programs.join("postgres"), self.folder.path().join("log"))
            .args(["-D", &home.join("data").display().to_string()])
            .args(["-p", &self.port.number().to_string()])
            .args(["-k", &home.display().to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"])
            .account("postgres");
        for option in &self.options {
            start = start.args(["-c", option]);
        }
        self.process = Some(start.spawn()?);
        wait_for("PostgreSQL to answer", || {
            let gone = !self.process.as_mut().is_some_and(Process::is_running);
            assert!(
                !gone,
                "PostgreSQL ended while starting; see {}",
                self.folder.path().join("log").display()
            );
            self.client("postgres", &["-c", "SELECT 1"]).ok()
        });
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGTERM, which dropping the process would send, waits for clients.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_rows_over_a_restart() {
        if !Postgres::is_installed() {
            return;
        }
        let mut server = Postgres::start().unwrap();
        server
            .execute("vmail", "INSERT INTO domain (domain) VALUES ('example.com'), ('o''example.org')")
            .unwrap();
        server.stop().unwrap();
        assert!(server.query("vmail", "SELECT 1").is_err());
        server.resume().unwrap();
        let rows = server.query("vmail", "SELECT domain, active FROM domain ORDER BY domain").unwrap();
        assert_eq!(rows, ["example.com\t1", "o'example.org\t1"]);
    }
}
