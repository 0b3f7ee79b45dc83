//! The daemons under test: their real binaries, started, killed and restarted on the same ports.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::folder::keep_private;
use crate::process::{Process, Start};
use crate::wait::PATIENCE;

/// Where the built binaries are: `OUTRIDER_BIN_DIR`, or the profile folder (`target/debug`) this test executable lies in.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("OUTRIDER_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            // target/PROFILE/deps/TEST-HASH, or target/PROFILE/PROGRAM.
            let folder = own.parent().context("the executable has no folder")?;
            if folder.ends_with("deps") {
                folder.parent().unwrap_or(folder).to_owned()
            } else {
                folder.to_owned()
            }
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: build it first (cargo build --workspace --bins)", path.display());
    }
    Ok(path)
}

/// One daemon with its settings file and state directory.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    process: Option<Process>,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    addresses: BTreeMap<String, String>,
}

impl Daemon {
    /// Starts `name` with `settings` (TOML) in `folder` and waits for its ready line.
    pub fn start(name: &str, folder: &Path, settings: &str) -> Result<Self> {
        Self::start_with(name, folder, settings, &[])
    }

    /// As [`Daemon::start`], with variables of the environment.
    pub fn start_with(
        name: &str,
        folder: &Path,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        fs::create_dir_all(folder.join("state"))?;
        let environment =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut daemon = Self {
            name: name.to_owned(),
            process: None,
            folder: folder.to_owned(),
            environment,
            addresses: BTreeMap::new(),
        };
        daemon.write_settings(settings)?;
        daemon.resume()?;
        Ok(daemon)
    }

    /// Replaces the settings file; takes effect with the next start or reload.
    pub fn write_settings(&self, settings: &str) -> Result<()> {
        let path = self.settings();
        fs::write(&path, settings)?;
        // It holds passwords of databases.
        keep_private(&path)
    }

    fn settings(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Starts it (again) and waits for its ready line.
    pub fn resume(&mut self) -> Result<()> {
        let before = fs::metadata(self.log_file()).map(|metadata| metadata.len()).unwrap_or(0);
        let mut start = Start::new(&self.name, binary(&self.name)?, self.log_file())
            .args(["--config", &self.settings().display().to_string()])
            .args(["--state-directory", &self.folder.join("state").display().to_string()]);
        for (name, value) in &self.environment {
            start = start.env(name, value);
        }
        let mut process = start.spawn()?;
        let began = std::time::Instant::now();
        loop {
            if let Some(addresses) = self.ready_line(before)? {
                self.addresses = addresses;
                self.process = Some(process);
                return Ok(());
            }
            if !process.is_running() || began.elapsed() > PATIENCE {
                bail!("{} did not get ready:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `ready service=policyd policy=127.0.0.1:7777 ...`, looked for behind the first `offset` bytes of the log.
    fn ready_line(&self, offset: u64) -> Result<Option<BTreeMap<String, String>>> {
        let bytes = fs::read(self.log_file())?;
        let fresh =
            String::from_utf8_lossy(bytes.get(usize::try_from(offset)?..).unwrap_or_default()).into_owned();
        // Only whole lines: the last one may still be growing.
        let Some((whole, _)) = fresh.rsplit_once('\n') else { return Ok(None) };
        let start = format!("ready service={}", self.name);
        Ok(whole.lines().find(|line| line.starts_with(&start)).map(|line| {
            line.split(' ')
                .filter_map(|word| word.split_once('='))
                .map(|(role, address)| (role.to_owned(), address.to_owned()))
                .collect()
        }))
    }

    /// The address of a listener, by its role in the ready line.
    pub fn address(&self, role: &str) -> Result<SocketAddr> {
        let text = self
            .addresses
            .get(role)
            .ok_or_else(|| anyhow!("{} has no listener {role}: {:?}", self.name, self.addresses))?;
        text.parse().with_context(|| format!("address of {role}: {text}"))
    }

    /// All its TCP listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.values().filter_map(|text| text.parse().ok()).collect()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Ends it without warning (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// Asks it to end (SIGTERM), waits, and reports the exit status if it is not zero.
    pub fn terminate(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(Signal::SIGTERM, Duration::from_secs(30))?;
        if !status.success() {
            bail!("{} ended with {status} on SIGTERM:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Sends a signal, for example SIGHUP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().ok_or_else(|| anyhow!("{} is not running", self.name))?.signal(signal)
    }

    /// The process number.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::id)
    }

    /// True as long as it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.as_ref()?.id()?)).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
    }
}
