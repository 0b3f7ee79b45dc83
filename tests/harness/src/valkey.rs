//! A private Valkey (or Redis) server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::folder::Folder;
use crate::port::Port;
use crate::prerequisite;
use crate::process::{Process, Start};
use crate::slapd::certificates;
use crate::wait::wait_for;

/// A running server, stopped and removed on drop. It keeps its keys over [`Valkey::stop`] and [`Valkey::resume`].
#[derive(Debug)]
pub struct Valkey {
    process: Option<Process>,
    folder: Folder,
    port: Port,
    tls_port: Option<Port>,
    options: Vec<String>,
    password: Option<String>,
}

impl Valkey {
    /// Starts a server without keys and without a password.
    pub fn start() -> Result<Self> {
        Self::start_with(&[], None)
    }

    /// Starts a server with further options (`--maxmemory 2mb`, word by word), and a password if one is given.
    pub fn start_with(options: &[&str], password: Option<&str>) -> Result<Self> {
        Self::prepared(options, password, None)
    }

    /// Starts a server that also offers TLS, with a certificate for `localhost`.
    pub fn start_encrypted() -> Result<Self> {
        Self::prepared(&[], None, Some(Port::reserve()?))
    }

    fn prepared(options: &[&str], password: Option<&str>, tls_port: Option<Port>) -> Result<Self> {
        let folder = Folder::new("valkey")?;
        if tls_port.is_some() {
            certificates(&folder)?;
        }
        let mut server = Self {
            process: None,
            folder,
            port: Port::reserve()?,
            tls_port,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            password: password.map(str::to_owned),
        };
        server.resume()?;
        Ok(server)
    }

    /// Whether a server is installed (Debian: valkey-server or redis-server).
    pub fn is_installed() -> bool {
        prerequisite::met("Valkey or Redis", program().is_some())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `redis://127.0.0.1:PORT/0`.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    /// `HOST:PORT` of its TLS side.
    pub fn tls_place(&self, host: &str) -> String {
        format!("{host}:{}", self.tls_port.as_ref().map_or(0, Port::number))
    }

    /// The authority that signed its certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its UNIX socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Sends a command and returns the answer as it came over the wire, without the last line end: `+PONG`, `:1`,
    /// `$3\r\nabc`, `-ERR ...`.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut text = Vec::new();
        if let Some(password) = &self.password {
            text.extend(packed(&["AUTH", password]));
        }
        text.extend(packed(words));
        text.extend(packed(&["QUIT"]));
        stream.write_all(&text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the answer")?;
        let answer = match &self.password {
            Some(_) => answer.split_once("\r\n").map_or("", |(_, rest)| rest),
            None => &answer,
        };
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or(answer).trim_end_matches("\r\n").to_owned())
    }

    /// Stops it; its keys are written to disk first.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(Signal::SIGTERM, Duration::from_secs(30)).map(drop),
            None => Ok(()),
        }
    }

    /// Stops it in the middle of everything without ending it ([`Process::freeze`]).
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it does not run")?.freeze()
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it does not run")?.thaw()
    }

    fn encryption(&self) -> Vec<String> {
        let Some(port) = &self.tls_port else { return Vec::new() };
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (port, ca, certificate, key) =
            (port.number().to_string(), file("ca.pem"), file("server.pem"), file("server.key"));
        ["--tls-port", &port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate]
            .into_iter()
            .chain(["--tls-key-file", &key, "--tls-auth-clients", "no"])
            .map(str::to_owned)
            .collect()
    }

    /// Starts it again on the same port with the same keys.
    pub fn resume(&mut self) -> Result<()> {
        let Some(program) = program() else {
            bail!("neither valkey-server nor redis-server is installed (package redis-server)")
        };
        let folder = self.folder.path().display().to_string();
        let password = self.password.clone().unwrap_or_default();
        let mut process = Start::new("valkey", program, self.folder.path().join("log"))
            .args(["--bind", "127.0.0.1", "--port", &self.port.number().to_string(), "--dir", &folder])
            .args(["--unixsocket", &self.socket().display().to_string()])
            .args(["--appendonly", "yes", "--save", "", "--daemonize", "no", "--requirepass", &password])
            .args(self.options.clone())
            .args(self.encryption())
            .spawn()?;
        wait_for("Valkey to answer", || {
            assert!(process.is_running(), "Valkey ended while starting; see {folder}/log");
            self.command(&["PING"]).ok().filter(|answer| answer == "+PONG")
        });
        self.process = Some(process);
        Ok(())
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/bin/valkey-server", "/usr/bin/redis-server", "/usr/local/bin/valkey-server"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

fn packed(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_keys_over_a_restart() {
        if !Valkey::is_installed() {
            return;
        }
        let mut server = Valkey::start_with(&[], Some("Secret-1")).unwrap();
        assert_eq!(server.command(&["SET", "key", "a b"]).unwrap(), "+OK");
        server.stop().unwrap();
        assert!(server.command(&["PING"]).is_err());
        server.resume().unwrap();
        assert_eq!(server.command(&["GET", "key"]).unwrap(), "$3\r\na b");
        assert!(server.command(&["NONSENSE"]).unwrap().starts_with("-ERR"));
    }
}
