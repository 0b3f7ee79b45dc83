//! A private Dovecot that only keeps mail: users from a file, maildir quota, doveadm over HTTP. No database, no Postfix.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown};

use crate::authority::Authority;
use crate::dovecot::MAIL_ID;
use crate::folder::Folder;
use crate::port::Port;
use crate::prerequisite;
use crate::process::{Process, Start, run, show_log};
use crate::wait::wait_for;

const PROGRAM: &str = "/usr/sbin/dovecot";

/// The running server.
#[derive(Debug)]
pub struct MailStore {
    process: Option<Process>,
    port: Port,
    encrypted: bool,
    authority: Authority,
    folder: Folder,
}

impl MailStore {
    /// The key of its HTTP interface.
    pub const API_KEY: &str = "Key of \"the\" store: 1+1=2";

    /// Whether it can be started here: Dovecot is installed, and we may give files away.
    pub fn is_possible() -> bool {
        let is_root = nix::unistd::geteuid().is_root();
        prerequisite::met("Dovecot (or this is not root)", Path::new(PROGRAM).exists() && is_root)
    }

    /// Starts it with these users, each with a limit in bytes, 0 for none. `encrypted` is whether doveadm speaks TLS.
    pub fn start(users: &[(&str, u64)], encrypted: bool) -> Result<Self> {
        let folder = Folder::new("ms")?;
        folder.sub("run")?;
        folder.sub("state")?;
        let mail = folder.sub("mail")?;
        chown(&mail, Some(Uid::from_raw(MAIL_ID)), Some(Gid::from_raw(MAIL_ID)))
            .context("giving the mail store away")?;
        let mut list = String::new();
        for (user, limit) in users {
            let home = mail.join(user);
            let _ = writeln!(
                list,
                "{user}:{{PLAIN}}secret:{MAIL_ID}:{MAIL_ID}::{}::userdb_quota_rule=*:bytes={limit}",
                home.display()
            );
        }
        folder.write("users", &list)?;
        let (port, authority) = (Port::reserve()?, Authority::new("root")?);
        let mut store = Self { process: None, port, encrypted, authority, folder };
        store.folder.write("dovecot.conf", &store.configuration())?;
        store.resume()?;
        Ok(store)
    }

    /// Starts it, after [`MailStore::stop`] again.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("output.log");
        let arguments = ["-F", "-c", &self.configuration_file().display().to_string()];
        self.process = Some(Start::new("Dovecot", PROGRAM, log).args(arguments).spawn()?);
        let address = self.doveadm();
        wait_for(format_args!("doveadm on {address}"), || TcpStream::connect(address).ok());
        Ok(())
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Signal::SIGTERM, Duration::from_secs(10)).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Where doveadm answers, over TLS with a certificate for 127.0.0.1.
    pub fn doveadm(&self) -> SocketAddr {
        self.port.address()
    }

    /// The authority that signed the certificate.
    pub fn authority(&self) -> PathBuf {
        self.authority.ca()
    }

    /// Its configuration.
    pub fn configuration_file(&self) -> PathBuf {
        self.folder.path().join("dovecot.conf")
    }

    /// The `storagebasedirectory` and `storagenode` of accounts that live here; `maildir` is the address.
    pub fn storage(&self) -> (String, &'static str) {
        (self.folder.path().display().to_string(), "mail")
    }

    /// Hands a message to a user's mailbox as Postfix' pipe does. The status is not success when Dovecot refuses it.
    pub fn deliver(&self, user: &str, message: &[u8]) -> Result<ExitStatus> {
        let mut delivery = Command::new("/usr/lib/dovecot/dovecot-lda")
            .args(["-e", "-f", "bob@world.example", "-d", user, "-c"])
            .arg(self.configuration_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting dovecot-lda")?;
        // One that refuses need not read to the end.
        let _ = delivery.stdin.take().context("no standard input")?.write_all(message);
        Ok(delivery.wait()?)
    }

    /// Removes all mail of a user, through Dovecot.
    pub fn expunge(&self, user: &str) -> Result<()> {
        let configuration = self.configuration_file().display().to_string();
        run("doveadm", &["-c", &configuration, "expunge", "-u", user, "mailbox", "*", "all"]).map(|_| ())
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let port = self.port.number();
        let encrypted = if self.encrypted { "yes" } else { "no" };
        format!(
            "base_dir = {folder}/run\n\
             state_dir = {folder}/state\n\
             log_path = {folder}/dovecot.log\n\
             protocols = lmtp\n\
             listen = 127.0.0.1\n\
             ssl = yes\n\
             ssl_cert = <{certificate}\n\
             ssl_key = <{private}\n\
             mail_uid = {MAIL_ID}\n\
             mail_gid = {MAIL_ID}\n\
             first_valid_uid = {MAIL_ID}\n\
             mail_location = maildir:~/Maildir\n\
             mail_plugins = quota\n\
             postmaster_address = postmaster@d.example\n\
             doveadm_api_key = {key}\n\
             passdb {{\n  driver = passwd-file\n  args = {folder}/users\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = {folder}/users\n}}\n\
             plugin {{\n  quota = maildir:User quota\n  quota_grace = 10%%\n}}\n\
             service doveadm {{\n  inet_listener http {{\n    address = 127.0.0.1\n    port = {port}\n    ssl = {encrypted}\n  }}\n}}\n\
             service stats {{\n  unix_listener stats-writer {{\n    mode = 0666\n  }}\n}}\n",
            key = Self::API_KEY,
            certificate = self.authority.certificate().display(),
            private = self.authority.key().display(),
        )
    }
}

impl Drop for MailStore {
    fn drop(&mut self) {
        let _ = self.stop();
        if std::thread::panicking() {
            show_log("Dovecot", &self.folder.path().join("dovecot.log"));
        }
    }
}
