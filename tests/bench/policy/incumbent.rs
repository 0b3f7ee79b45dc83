//! postgrey and postfwd2, the programs Debian offers for two of policyd's tasks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outrider_tests::folder::Folder;
use outrider_tests::port::Port;
use outrider_tests::process::{Process, Start, run as run_program};
use outrider_tests::wait::wait_for;

use super::case::{Case, KNOWN};
use crate::wait_until_open;
use crate::wire::{Peer, ask};

/// What postgrey says to a first contact.
pub(crate) const GREYLISTED: &[&str] = &["action=DEFER_IF_PERMIT "];
/// To a known one; it tells the recipient how long a message was delayed.
pub(crate) const KNOWN_ANSWERS: &[&str] = &["action=DUNNO\n", "action=PREPEND "];

/// Greylisting in memory and a Berkeley DB.
#[derive(Debug)]
pub(crate) struct Postgrey {
    port: Port,
    process: Process,
}

impl Postgrey {
    /// Starts it with an empty database.
    pub(crate) fn start(folder: &Folder) -> Result<Self> {
        let port = Port::reserve()?;
        let data = folder.sub("postgrey")?;
        let process = Start::new("postgrey", "/usr/sbin/postgrey", folder.path().join("postgrey.log"))
            .args(["--inet", &port.address().to_string(), "--dbdir", &data.display().to_string()])
            // delay=1: the known triplets have to be known within the measurement.
            .args(["--delay=1", "--auto-whitelist-clients=0", "--user=root", "--group=root", "--quiet"])
            .spawn()?;
        wait_until_open("postgrey", port.address());
        Ok(Self { port, process })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Lets it see the known triplets once and waits until they may pass.
    pub(crate) fn learn_known(&self) -> Result<()> {
        ask(Case::Known.dialogue(Peer::policy(self.address(), GREYLISTED), 0), KNOWN)?;
        std::thread::sleep(Duration::from_millis(2_100));
        Ok(())
    }
}

/// One rate rule, counted in the memory of its cache process.
#[derive(Debug)]
pub(crate) struct Postfwd {
    port: Port,
    _cache_port: Port,
    /// The number of its first process, kept here as the file with it goes with the folder.
    id: u32,
}

impl Postfwd {
    /// Starts it with the limit that policyd has, too.
    pub(crate) fn start(folder: &Folder) -> Result<Self> {
        let (port, cache_port) = (Port::reserve()?, Port::reserve()?);
        let rules = folder.write(
            "postfwd.cf",
            "id=RATE; protocol_state==END-OF-MESSAGE; sasl_username=~/./; \
             action=rate(sasl_username/2000000000/3600/REJECT limit exceeded)\n",
        )?;
        let home = folder.sub("postfwd")?;
        let pid_file = home.join("pid");
        let (home, pid) = (home.display().to_string(), pid_file.display().to_string());
        run_program("chown", &["postfw:", &home])?;
        // It has no rates in the foreground, so it goes into the background and is ended by its number. No request is answered
        // from its cache: rules with rates switch that off. --perfmon: no log.
        run_program(
            "/usr/sbin/postfwd2",
            &[
                "--file",
                &rules.display().to_string(),
                "--interface=127.0.0.1",
                &format!("--port={}", port.number()),
                "--cache_proto=tcp",
                "--cache_interface=127.0.0.1",
                &format!("--cache_port={}", cache_port.number()),
                "--nodns",
                "--perfmon",
                &format!("--pidfile={pid}"),
                "--user=postfw",
                "--group=postfw",
            ],
        )
        .context("starting postfwd2")?;
        let id = wait_for("postfwd2 to write its number", || {
            std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        let postfwd = Self { port, _cache_port: cache_port, id };
        wait_until_open("postfwd2", postfwd.address());
        Ok(postfwd)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The number of its first process.
    pub(crate) fn id(&self) -> Option<u32> {
        Some(self.id)
    }
}

impl Drop for Postfwd {
    fn drop(&mut self) {
        let Ok(id) = i32::try_from(self.id) else { return };
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        wait_for("postfwd2 to end", || std::net::TcpStream::connect(self.address()).is_err().then_some(()));
    }
}
