//! A private MariaDB (or MySQL) server with the four iRedMail databases.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
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
pub struct MariaDb {
    process: Option<Process>,
    folder: Folder,
    port: Port,
    options: Vec<String>,
}

impl MariaDb {
    /// Starts a server with empty iRedMail tables. Its writes survive a crash of the server, not one of the machine.
    pub fn start() -> Result<Self> {
        Self::start_with(&["--innodb-flush-log-at-trx-commit=2"])
    }

    /// Starts a server with further options of `mariadbd`; without any it is as durable as it comes.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        let folder = Folder::new("maria")?;
        let data = folder.path().join("data");
        let socket_folder = folder.sub("run")?;
        // Not /tmp: a server that starts there removes the temporary tables of all others.
        let scratch = folder.sub("tmp")?;
        let mut install = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            // Its temporary tables have guessable names: two servers in one folder remove each other's.
            format!("--tmpdir={}", socket_folder.display()),
            "--auth-root-authentication-method=normal".to_owned(),
            "--skip-test-db".to_owned(),
            "--skip-name-resolve".to_owned(),
            format!("--tmpdir={}", scratch.display()),
        ];
        if nix::unistd::geteuid().is_root() {
            install.push("--user=mysql".to_owned());
            for folder in [&socket_folder, &scratch] {
                run("chown", &["mysql:", &folder.display().to_string()])?;
            }
        }
        let install: Vec<&str> = install.iter().map(String::as_str).collect();
        run("mariadb-install-db", &install)?;
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
        prerequisite::met("MariaDB", program().is_some() && run("mariadb", &["--version"]).is_ok())
    }

    /// Its UNIX socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/server.sock")
    }

    fn create_databases(&self) -> Result<()> {
        let mut sql = format!(
            "CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO '{USER}'@'%';\n\
             CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON *.* TO '{USER}'@'localhost';\n"
        );
        for database in Database::ALL {
            let statements = create_database_statements(database, Engine::MySql)
                .into_iter()
                .chain([format!("USE {}", database.name())])
                .chain(create_statements(database, Engine::MySql));
            for statement in statements {
                sql.push_str(&statement);
                sql.push_str(";\n");
            }
        }
        let file = self.folder.write("schema.sql", &sql)?;
        self.client("root", None, &["-e", &format!("source {}", file.display())]).map(drop)
    }

    fn client(&self, user: &str, database: Option<&str>, arguments: &[&str]) -> Result<String> {
        let socket = format!("--socket={}", self.socket().display());
        let user_option = format!("--user={user}");
        let password = format!("--password={PASSWORD}");
        let mut all = vec!["--no-defaults", &socket, &user_option, "--batch", "--raw", "--skip-column-names"];
        if user == USER {
            all.push(&password);
        }
        all.push("--default-character-set=utf8mb4");
        all.extend(arguments);
        all.extend(database);
        run("mariadb", &all)
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", "/usr/sbin/mysqld", "/usr/libexec/mariadbd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

impl Store for MariaDb {
    fn access(&self) -> SqlAccess {
        SqlAccess {
            server: Server::MariaDb,
            address: self.port.address(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            socket: None,
        }
    }

    fn access_over_socket(&self) -> SqlAccess {
        SqlAccess { socket: Some(self.socket()), ..self.access() }
    }

    fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.client(USER, Some(database), &["-e", sql]).map(drop)
    }

    fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        Ok(self.client(USER, Some(database), &["-e", sql])?.lines().map(str::to_owned).collect())
    }

    fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Signal::SIGTERM, Duration::from_secs(30)).map(drop),
            None => Ok(()),
        }
    }

    fn resume(&mut self) -> Result<()> {
        let Some(program) = program() else { bail!("mariadbd is not installed (package mariadb-server)") };
        let folder = self.folder.path();
        let log = log_file(folder)?;
        let option = |name: &str, path: &str| format!("--{name}={}", folder.join(path).display());
        let process = Start::new("mariadbd", program, log)
            .arg("--no-defaults")
            .arg(option("datadir", "data"))
            .arg(option("tmpdir", "run"))
            .arg(option("socket", "run/server.sock"))
            .arg(option("tmpdir", "tmp"))
            .arg(option("pid-file", "run/server.pid"))
            .arg(format!("--port={}", self.port.number()))
            .args([
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--skip-log-bin",
                "--performance-schema=OFF",
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=32M",
                "--character-set-server=utf8mb4",
                "--collation-server=utf8mb4_general_ci",
            ])
            .args(self.options.clone())
            .account("mysql")
            .spawn()?;
        self.process = Some(process);
        wait_for("MariaDB to answer", || {
            let gone = !self.process.as_mut().is_some_and(Process::is_running);
            assert!(!gone, "MariaDB ended while starting; see {}", self.folder.path().join("log").display());
            self.client("root", None, &["-e", "SELECT 1"]).ok()
        });
        Ok(())
    }
}

/// The log, writable for whatever account the server runs as.
fn log_file(folder: &Path) -> Result<PathBuf> {
    let log = folder.join("log");
    fs::OpenOptions::new().create(true).append(true).open(&log).context("making the log")?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_rows_over_a_restart() {
        if !MariaDb::is_installed() {
            return;
        }
        let mut server = MariaDb::start().unwrap();
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
