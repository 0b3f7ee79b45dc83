//! Starts `echod` with a settings file in a folder of its own, talks to it, and stops it in any case.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The path of the example daemon, which `cargo test` builds next to this test.
pub(crate) fn echod() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/echod");
    assert!(path.exists(), "{} is missing: run cargo build -p outrider-core --examples", path.display());
    path
}

/// A folder with a settings file, from which daemons are started.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(settings: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.write("echod.toml", settings);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        path
    }

    /// The daemon with its settings file and state folder, not yet started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(echod());
        command.arg("--config").arg(self.path("echod.toml"));
        command.arg("--state-directory").arg(self.path("state"));
        for name in
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM"]
        {
            command.env_remove(name);
        }
        command
    }

    /// Starts the daemon and waits for its ready line.
    pub(crate) fn start(&self) -> Running {
        self.start_command(self.command())
    }

    pub(crate) fn start_command(&self, mut command: Command) -> Running {
        let log = self.path("stderr");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        if !ready.starts_with("ready ") {
            let status = child.wait().unwrap();
            panic!("no ready line but {ready:?}, {status}, {}", std::fs::read_to_string(&log).unwrap());
        }
        Running { child, ready: ready.trim_end().to_owned(), log }
    }

    /// Runs the daemon with arguments until it ends; gives status, output and errors.
    pub(crate) fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command().args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// A daemon at work; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) ready: String,
    log: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The addresses of a role in the ready line.
    pub(crate) fn addresses(&self, role: &str) -> Vec<String> {
        let with_role = |word: &str| word.strip_prefix(&format!("{role}=")).map(str::to_owned);
        self.ready.split(' ').filter_map(with_role).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn client(&self) -> Client<TcpStream> {
        Client::tcp(&self.addresses("echo")[0])
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log contains a text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log().contains(text), || self.log());
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > end => panic!("the daemon does not end; its log:\n{}", self.log()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
    }
}

/// Waits for a condition, or panics with `otherwise`.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}:\n{}", otherwise());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that speaks in lines.
pub(crate) struct Client<S: Read + Write> {
    stream: BufReader<S>,
}

impl Client<TcpStream> {
    pub(crate) fn tcp(address: &str) -> Client<TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }
}

impl Client<UnixStream> {
    pub(crate) fn unix(path: &Path) -> Client<UnixStream> {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn send(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line; empty at the end of the connection.
    pub(crate) fn receive(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.receive()
    }
}

/// A program started by a shell, which can set limits first.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}
