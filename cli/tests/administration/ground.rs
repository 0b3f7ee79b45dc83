//! The tables of a server, and the command that works on them.

use std::borrow::Cow;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use outrider_core::schema::Database;
use outrider_core::sql::{DatabaseSettings, Db, Stmt};
use outrider_tests::dns_server::DnsServer;
use outrider_tests::folder::Folder;
use outrider_tests::store::Store;
use outrider_tests::valkey::Valkey;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Calls the command with nobody to ask.
pub(crate) fn command(arguments: &[&str]) -> Output {
    prepared(Path::new(env!("CARGO_BIN_EXE_outrider")), arguments).output().unwrap()
}

fn prepared(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) complaint: String,
}

/// Where the checks run.
pub(crate) struct Ground {
    folder: Folder,
    pub(crate) dns: DnsServer,
    runtime: Runtime,
    iredapd: Db,
    amavisd: Db,
    _store: Option<Box<dyn Store>>,
}

impl Ground {
    pub(crate) fn sqlite() -> Ground {
        Ground::new(None, "")
    }

    pub(crate) fn server(store: Box<dyn Store>) -> Ground {
        Ground::new(Some(store), "")
    }

    /// Tables in SQLite, counters and contacts on this server.
    pub(crate) fn with_valkey(server: &Valkey) -> Ground {
        let counters = format!(
            "[counters]\nstore = \"valkey\"\nurl = \"{}\"\n[greylisting]\nkey = \"organization\"\n",
            server.url()
        );
        Ground::new(None, &counters)
    }

    fn new(store: Option<Box<dyn Store>>, further: &str) -> Ground {
        let folder = Folder::new("verbs").unwrap();
        let dns = DnsServer::start().unwrap();
        let mut text =
            format!("[dns]\nservers = [\"{}\"]\ntimeout = \"500ms\"\nattempts = 1\n", dns.address());
        let mut settings = DatabaseSettings::default();
        if let Some(store) = &store {
            let url = |name: &str| store.access().url(name);
            text.push_str("[database]\n");
            for name in ["vmail", "amavisd", "iredapd"] {
                text.push_str(&format!("{name} = \"{}\"\n", url(name)));
            }
            settings.amavisd = Some(url("amavisd").parse().unwrap());
            settings.iredapd = Some(url("iredapd").parse().unwrap());
            settings.vmail = Some(url("vmail").parse().unwrap());
        }
        text.push_str(further);
        folder.write("policyd.toml", &text).unwrap();
        std::fs::set_permissions(
            folder.path().join("policyd.toml"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let runtime = Runtime::new().unwrap();
        let open = |database| runtime.block_on(settings.open(database, folder.path())).unwrap();
        let (iredapd, amavisd) = (open(Database::Iredapd), open(Database::Amavisd));
        open(Database::Vmail);
        Ground { folder, dns, runtime, iredapd, amavisd, _store: store }
    }

    fn place(&self) -> [&str; 4] {
        let folder = self.folder.path().to_str().unwrap();
        ["--config", folder, "--state-directory", folder]
    }

    fn finished(output: Output) -> Called {
        Called {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8(output.stdout).unwrap(),
            complaint: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Calls `outrider` with arguments separated by blanks.
    pub(crate) fn call(&self, arguments: &str) -> Called {
        Self::finished(self.start(arguments).wait_with_output().unwrap())
    }

    /// The same without waiting for its end.
    pub(crate) fn start(&self, arguments: &str) -> Child {
        let mut words: Vec<&str> = arguments.split(' ').collect();
        words.extend(self.place());
        prepared(Path::new(env!("CARGO_BIN_EXE_outrider")), &words).spawn().unwrap()
    }

    /// Calls that has to go well, with what it prints as JSON.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let called = self.call(&format!("{arguments} --json"));
        assert_eq!((called.code, called.complaint.as_str()), (0, ""), "{arguments}: {called:?}");
        serde_json::from_str(&called.text).unwrap()
    }

    /// Calls one of the tools by its old name, through a link.
    pub(crate) fn tool(&self, name: &str, arguments: &str) -> Called {
        let link = self.folder.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_outrider"), &link).unwrap();
        }
        let mut words: Vec<&str> = arguments.split(' ').filter(|word| !word.is_empty()).collect();
        words.extend(self.place());
        Self::finished(prepared(&link, &words).output().unwrap())
    }

    /// Runs fixed text on the tables of policyd.
    pub(crate) fn script(&self, sql: impl Into<Cow<'static, str>>) {
        let sql = sql.into();
        let done = self.runtime.block_on(self.iredapd.execute_script(sql.clone()));
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// Gives a listed address another spelling.
    pub(crate) fn respell(&self, address: &str, spelling: &str) {
        let update = Stmt::same("UPDATE mailaddr SET email = ? WHERE email = ?");
        let [address, spelling] = [address, spelling].map(outrider_core::sql::Value::bytes);
        let done = self.runtime.block_on(self.amavisd.execute(&update, &[spelling, address])).unwrap();
        assert_eq!(done.rows_affected, 1);
    }

    /// The rows of a query on the tables of policyd, columns separated by blanks.
    pub(crate) fn rows(&self, sql: &'static str) -> Vec<String> {
        self.rows_of(&self.iredapd, sql)
    }

    /// The same on the tables of lists.
    pub(crate) fn list_rows(&self, sql: &'static str) -> Vec<String> {
        self.rows_of(&self.amavisd, sql)
    }

    fn rows_of(&self, db: &Db, sql: &'static str) -> Vec<String> {
        let rows = self.runtime.block_on(db.fetch_all(&Stmt::same(sql), &[])).unwrap();
        let columns = |row: &outrider_core::sql::Row| {
            let names: Vec<String> = row.names().map(str::to_owned).collect();
            let values = names.iter().map(|name| row.string(name).unwrap_or_default());
            values.collect::<Vec<_>>().join(" ")
        };
        rows.iter().map(columns).collect()
    }
}
