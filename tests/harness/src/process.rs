//! Child processes that cannot outlive the test, with their output kept for the case that it fails.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// The lines of a log shown when a test fails.
const SHOWN: usize = 120;

/// What to start: program, arguments, and where its output goes.
#[derive(Debug)]
pub struct Start {
    label: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    account: Option<String>,
    log: PathBuf,
}

impl Start {
    /// `program` with its output (both streams) appended to `log`.
    pub fn new(label: &str, program: impl AsRef<Path>, log: impl Into<PathBuf>) -> Self {
        Self {
            label: label.to_owned(),
            arguments: vec![program.as_ref().display().to_string()],
            environment: Vec::new(),
            account: None,
            log: log.into(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs as this account (and its groups) when the test runs as root; servers such as PostgreSQL refuse root.
    pub fn account(mut self, account: &str) -> Self {
        if nix::unistd::geteuid().is_root() {
            self.account = Some(account.to_owned());
        }
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Process> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        // setpriv (util-linux) asks the kernel to end the child with us; the standard library cannot without unsafe code.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if let Some(account) = &self.account {
            command.args([&format!("--reuid={account}"), &format!("--regid={account}"), "--init-groups"]);
        }
        command
            .arg("--")
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn_from_lasting_thread(command).with_context(|| format!("starting {}", self.label))?;
        Ok(Process { label: self.label, child: Some(child), log: self.log })
    }
}

/// The kernel sends the parent-death signal when the *thread* that started the child ends, so all children are started by one thread that
/// stays until the process ends.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<std::sync::Mutex<Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        std::sync::Mutex::new(orders)
    });
    let (answer, result) = channel();
    let order = (command, answer);
    starter
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send(order)
        .map_err(|_| anyhow!("the starting thread has ended"))?;
    Ok(result.recv()??)
}

/// A running child, killed on drop; its log is printed when the test is failing.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// The process number, as long as it has not been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().ok_or_else(|| anyhow!("{} has ended", self.label))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("sending {signal} to {}", self.label))
    }

    /// Stops it in the middle of everything (SIGSTOP) without ending it; connections stay open. Each of its threads stands still when this
    /// returns: the signal alone leaves those on other processors running for a moment, long enough for an answer.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let id = self.id().ok_or_else(|| anyhow!("{} has ended", self.label))?;
        wait_for(format_args!("{} to stand still", self.label), || stands_still(id).transpose())
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sends a signal and waits for the end, at most `limit`; then kills it and reports that as an error.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if self.child.is_some() {
            self.signal(signal)?;
        }
        let Some(mut child) = self.child.take() else { return Ok(ExitStatus::from_raw(0)) };
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end within {} s of {signal}", self.label, limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it without any chance to tidy up (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop(Signal::SIGTERM, Duration::from_secs(5));
        if std::thread::panicking() {
            show_log(&self.label, &self.log);
        }
    }
}

/// Something once every thread of a process is stopped (`proc_pid_stat(5)`: the state follows the name, which may hold spaces and
/// parentheses).
fn stands_still(id: u32) -> Result<Option<()>> {
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        let state = match fs::read_to_string(thread?.path().join("stat")) {
            Ok(stat) => stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next()),
            // It has ended since it was listed.
            Err(_) => None,
        };
        if state != Some('T') {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// Prints the end of a log to standard error.
pub fn show_log(label: &str, log: &Path) {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(SHOWN);
    eprintln!("---- log of {label} ({skipped} earlier lines left out) ----");
    for line in &lines[skipped..] {
        eprintln!("{line}");
    }
}

/// Runs a program to its end and returns its standard output; anything but status 0 is an error with both streams.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{stdout}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn stops_on_request_and_keeps_the_output() {
        let folder = Folder::new("proc").unwrap();
        let mut process = Start::new("shell", "/bin/sh", folder.path().join("log"))
            .args(["-c", "echo hello; exec sleep 1000"])
            .spawn()
            .unwrap();
        wait_for("the greeting", || {
            fs::read_to_string(process.log()).unwrap().contains("hello").then_some(())
        });
        assert!(process.is_running());
        let status = process.stop(Signal::SIGTERM, Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
        assert!(!process.is_running());
    }

    #[test]
    fn a_frozen_process_does_nothing_until_it_is_thawed() {
        let folder = Folder::new("frozen").unwrap();
        let process = Start::new("shell", "/bin/sh", folder.path().join("log"))
            .args(["-c", "while :; do echo line; done"])
            .spawn()
            .unwrap();
        let written = || fs::metadata(process.log()).unwrap().len();
        wait_for("its first lines", || (written() > 0).then_some(()));
        process.freeze().unwrap();
        let until_then = written();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(written(), until_then);
        process.thaw().unwrap();
        wait_for("more lines", || (written() > until_then).then_some(()));
    }

    #[test]
    fn failing_programs_report_their_words() {
        let error = run("sh", &["-c", "echo reason >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("reason"), "{error}");
    }
}
