//! A private Postfix, wired as iRedMail wires it, in a temporary folder on free ports.

mod maps;
mod wiring;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

pub use wiring::{Filter, Srs, SrsProtocol, Wiring};
use wiring::{Listeners, Scene};

use crate::folder::Folder;
use crate::port::Port;
use crate::process::{Process, Start, run, show_log};
use crate::store::SqlAccess;
use crate::wait::{wait_at_most, wait_for};

/// A Postfix of its own: configuration, queue, data folder, log and listeners.
#[derive(Debug)]
pub struct Postfix {
    // First, so that the master process is stopped before its folder goes away.
    process: Option<Process>,
    mx: Port,
    submission: Port,
    reinject: Port,
    reinject_lists: Port,
    host_name: String,
    folder: Folder,
}

impl Postfix {
    /// Reserves the folder and the ports. Nothing is written or started yet, so that other servers can be told the ports first.
    pub fn reserve(host_name: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a private Postfix needs root: its master process changes accounts");
        }
        Ok(Self {
            process: None,
            mx: Port::reserve()?,
            submission: Port::reserve()?,
            reinject: Port::reserve()?,
            reinject_lists: Port::reserve()?,
            host_name: host_name.to_owned(),
            folder: Folder::new("pf")?,
        })
    }

    /// Writes the configuration and makes the queue folders. Mail for elsewhere goes to `relay`.
    pub fn configure(&self, sql: &SqlAccess, relay: SocketAddr, wiring: &Wiring) -> Result<()> {
        let scene = Scene {
            folder: self.folder.path(),
            host_name: &self.host_name,
            sql,
            relay,
            wiring,
            listeners: Listeners {
                mx: self.mx.number(),
                submission: self.submission.number(),
                reinject: self.reinject.number(),
                reinject_lists: self.reinject_lists.number(),
            },
        };
        self.folder.sub("etc/sql")?;
        self.folder.sub("q")?;
        let data = self.folder.sub("var")?;
        let owner =
            User::from_name("postfix")?.context("account postfix is missing: is Postfix installed?")?;
        chown(&data, Some(owner.uid), Some(owner.gid))?;
        self.folder.write("etc/main.cf", &scene.main_cf())?;
        self.folder.write("etc/master.cf", &scene.master_cf())?;
        for (name, text) in scene.maps() {
            self.folder.write(&format!("etc/sql/{name}"), &text)?;
        }
        run("postfix", &["-c", &self.configuration(), "check"]).map(drop)
    }

    /// Starts the master process and waits until it accepts mail.
    pub fn start(&mut self) -> Result<()> {
        let program = run("postconf", &["-h", "daemon_directory"])?;
        let process = Start::new(
            "Postfix",
            Path::new(program.trim()).join("master"),
            self.folder.path().join("master.log"),
        )
        .args(["-s", "-c", &self.configuration()])
        .spawn()?;
        self.process = Some(process);
        wait_for("Postfix to listen", || std::net::TcpStream::connect(self.mx()).ok());
        Ok(())
    }

    /// Stops it as `postfix stop` does: deliveries in progress end first.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::SIGTERM, Duration::from_secs(20))?;
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        self.folder.path().join("etc").display().to_string()
    }

    /// The folder for the sockets that Dovecot offers (`private` in the queue folder).
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().join("q/private")
    }

    /// The listener for mail from outside.
    pub fn mx(&self) -> SocketAddr {
        self.mx.address()
    }

    /// The listener for users.
    pub fn submission(&self) -> SocketAddr {
        self.submission.address()
    }

    /// Where the content filter gives mail back (10025 on a real server).
    pub fn reinject(&self) -> SocketAddr {
        self.reinject.address()
    }

    /// Where the content filter gives mailing list mail back (10028 on a real server).
    pub fn reinject_lists(&self) -> SocketAddr {
        self.reinject_lists.address()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("maillog")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of the log that contain `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// What `postqueue -j` tells: one JSON object a message.
    pub fn queue(&self) -> Result<Vec<serde_json::Value>> {
        let text = run("postqueue", &["-c", &self.configuration(), "-j"])?;
        text.lines().map(|line| serde_json::from_str(line).context("reading postqueue -j")).collect()
    }

    /// Tries everything in the queue now.
    pub fn flush(&self) -> Result<()> {
        run("postqueue", &["-c", &self.configuration(), "-f"]).map(drop)
    }

    /// Waits, at most two minutes, until nothing is queued any more.
    pub fn wait_until_empty(&self) {
        wait_at_most(Duration::from_secs(120), "the queue to drain", || match self.queue() {
            Ok(queue) if queue.is_empty() => Some(()),
            _ => None,
        });
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.stop();
        if std::thread::panicking() {
            show_log("Postfix", &self.folder.path().join("maillog"));
        }
    }
}
