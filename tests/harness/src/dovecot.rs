//! A private Dovecot: LMTP for delivery, SASL for submission, users from SQL as on an iRedMail server.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown};

use crate::folder::Folder;
use crate::process::{Process, Start, run, show_log};
use crate::store::{Server, SqlAccess};
use crate::wait::{wait_at_most, wait_for};

/// uid and gid of the mail store, as iRedMail's `vmail`. No such account needs to exist.
pub const MAIL_ID: u32 = 2000;
/// The `storagenode` of the sample accounts.
pub const NODE: &str = "vmail1";

/// Dovecot with its mail store.
#[derive(Debug)]
pub struct Dovecot {
    process: Option<Process>,
    sockets: PathBuf,
    quota_status: Option<u16>,
    folder: Folder,
}

impl Dovecot {
    /// Reserves the folder; the accounts can then be told where their mail lies.
    pub fn reserve() -> Result<Self> {
        let folder = Folder::new("dc")?;
        let mail = folder.sub("mail")?;
        chown(&mail, Some(Uid::from_raw(MAIL_ID)), Some(Gid::from_raw(MAIL_ID)))
            .context("giving the mail store away")?;
        Ok(Self { process: None, sockets: PathBuf::new(), quota_status: None, folder })
    }

    /// The `storagebasedirectory` of the accounts.
    pub fn storage(&self) -> String {
        self.folder.path().join("mail").display().to_string()
    }

    /// Lets Dovecot's own quota-status answer on this port, as iRedMail configures it.
    pub fn offer_quota_status(&mut self, port: u16) {
        self.quota_status = Some(port);
    }

    /// The process number of the master process.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::id)
    }

    /// Writes the configuration, starts, and waits for the LMTP and SASL sockets in `sockets`.
    pub fn start(&mut self, sql: &SqlAccess, sockets: &Path) -> Result<()> {
        sockets.clone_into(&mut self.sockets);
        self.folder.sub("run")?;
        self.folder.sub("state")?;
        self.folder.write("sql.conf", &user_queries(sql))?;
        self.folder.write("dict.conf", &quota_dictionary(sql))?;
        let configuration = self.folder.write("dovecot.conf", &self.configuration(sql))?;
        let process = Start::new("Dovecot", "/usr/sbin/dovecot", self.folder.path().join("output.log"))
            .args(["-F", "-c", &configuration.display().to_string()])
            .spawn()?;
        self.process = Some(process);
        for name in ["dovecot-lmtp", "dovecot-auth"] {
            wait_for(format_args!("Dovecot's socket {name}"), || {
                UnixStream::connect(self.sockets.join(name)).ok()
            });
        }
        Ok(())
    }

    fn configuration(&self, sql: &SqlAccess) -> String {
        let folder = self.folder.path().display();
        let sockets = self.sockets.display();
        let driver = sql.server.driver();
        let quota_status = self.quota_status.map_or_else(String::new, |port| {
            format!(
                "service quota-status {{\n  executable = quota-status -p postfix\n  client_limit = 1\n  inet_listener {{\n    \
                 address = 127.0.0.1\n    port = {port}\n  }}\n}}\n\
                 plugin {{\n  quota_status_success = DUNNO\n  quota_status_nouser = DUNNO\n  \
                 quota_status_overquota = \"552 5.2.2 Mailbox is full\"\n}}\n"
            )
        });
        format!(
            "{quota_status}base_dir = {folder}/run\n\
             state_dir = {folder}/state\n\
             log_path = {folder}/dovecot.log\n\
             protocols = lmtp\n\
             listen = 127.0.0.1\n\
             ssl = no\n\
             disable_plaintext_auth = no\n\
             auth_mechanisms = PLAIN LOGIN\n\
             auth_username_format = %Lu\n\
             mail_uid = {MAIL_ID}\n\
             mail_gid = {MAIL_ID}\n\
             first_valid_uid = {MAIL_ID}\n\
             mail_location = maildir:~/Maildir\n\
             mail_plugins = quota\n\
             recipient_delimiter = +\n\
             lmtp_save_to_detail_mailbox = no\n\
             namespace inbox {{\n  inbox = yes\n}}\n\
             passdb {{\n  driver = sql\n  args = {folder}/sql.conf\n}}\n\
             userdb {{\n  driver = sql\n  args = {folder}/sql.conf\n}}\n\
             dict {{\n  quotadict = {driver}:{folder}/dict.conf\n}}\n\
             plugin {{\n  quota = dict:user::proxy::quotadict\n  quota_grace = 10%%\n}}\n\
             service auth {{\n  unix_listener {sockets}/dovecot-auth {{\n    mode = 0666\n  }}\n  unix_listener auth-userdb {{\n    mode = 0666\n  }}\n}}\n\
             service lmtp {{\n  unix_listener {sockets}/dovecot-lmtp {{\n    mode = 0666\n  }}\n}}\n\
             service dict {{\n  unix_listener dict {{\n    mode = 0666\n  }}\n}}\n\
             service stats {{\n  unix_listener stats-writer {{\n    mode = 0666\n  }}\n}}\n"
        )
    }

    /// Removes all mail of an account, as a user who empties the mailbox does.
    pub fn expunge(&self, address: &str) -> Result<()> {
        let configuration = self.folder.path().join("dovecot.conf").display().to_string();
        run("doveadm", &["-c", &configuration, "expunge", "-u", address, "mailbox", "*", "all"]).map(|_| ())
    }

    /// The messages of an account, in the order of their file names.
    pub fn messages(&self, address: &str) -> Vec<Vec<u8>> {
        let Some((user, domain)) = address.split_once('@') else { return Vec::new() };
        let maildir = self.folder.path().join(format!("mail/{NODE}/{domain}/{user}/Maildir"));
        let mut files: Vec<PathBuf> = ["new", "cur"]
            .iter()
            .filter_map(|name| fs::read_dir(maildir.join(name)).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect();
        files.sort();
        files.iter().filter_map(|file| fs::read(file).ok()).collect()
    }

    /// Waits for the message of an account whose header or body contains `mark`.
    pub fn wait_for_message(&self, address: &str, mark: &str) -> Vec<u8> {
        wait_at_most(
            Duration::from_secs(90),
            format_args!("a message with {mark:?} in the mailbox of {address}"),
            || {
                self.messages(address)
                    .into_iter()
                    .find(|message| message.windows(mark.len()).any(|window| window == mark.as_bytes()))
            },
        )
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.stop(Signal::SIGTERM, Duration::from_secs(10));
        }
        if std::thread::panicking() {
            show_log("Dovecot", &self.folder.path().join("dovecot.log"));
        }
    }
}

fn user_queries(sql: &SqlAccess) -> String {
    let server = sql.server;
    let conditions = || {
        // Dovecot's variables: the service in lower case, and "secured" on a secured connection.
        let enabled = server.column("enable%Ls%Lc");
        format!(
            "mailbox.username='%Lu' AND mailbox.{enabled}=1 AND mailbox.active=1 AND mailbox.domain=domain.domain AND \
             domain.backupmx=0 AND domain.active=1"
        )
    };
    let home = server.concat(&[
        "mailbox.storagebasedirectory",
        "'/'",
        "mailbox.storagenode",
        "'/'",
        "mailbox.maildir",
    ]);
    let mail = server.concat(&["mailbox.mailboxformat", "':~/'", "mailbox.mailboxfolder"]);
    let rule = match server {
        Server::MariaDb => "CONCAT('*:bytes=', mailbox.quota*1048576)",
        Server::Postgres => "'*:bytes=' || mailbox.quota*1048576",
    };
    let mut text = connection(sql);
    let _ = writeln!(text, "default_pass_scheme = CRYPT");
    let _ = writeln!(
        text,
        "password_query = SELECT mailbox.password, mailbox.allow_nets FROM mailbox, domain WHERE {}",
        conditions()
    );
    let _ = writeln!(
        text,
        "user_query = SELECT LOWER('%Lu') AS master_user, LOWER({home}) AS home, {mail} AS mail, {rule} AS quota_rule \
         FROM mailbox, domain WHERE {}",
        conditions()
    );
    let _ = writeln!(text, "iterate_query = SELECT username AS user FROM mailbox");
    text
}

fn connection(sql: &SqlAccess) -> String {
    format!(
        "driver = {}\nconnect = host={} port={} dbname=vmail user={} password={}\n",
        sql.server.driver(),
        sql.address.ip(),
        sql.address.port(),
        sql.user,
        sql.password
    )
}

fn quota_dictionary(sql: &SqlAccess) -> String {
    let mut text = format!(
        "connect = host={} port={} dbname=vmail user={} password={}\n",
        sql.address.ip(),
        sql.address.port(),
        sql.user,
        sql.password
    );
    for (pattern, field) in [("priv/quota/storage", "bytes"), ("priv/quota/messages", "messages")] {
        let _ = writeln!(
            text,
            "map {{\n  pattern = {pattern}\n  table = used_quota\n  username_field = username\n  value_field = {field}\n}}"
        );
    }
    text
}
