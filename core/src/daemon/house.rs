//! The process around one or several daemons, from good settings to the exit status: privileges, runtime, start.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::member::{Applicant, Candidate, Member};
use super::supervise::{LogSource, Signals, Supervisor};
use super::{Daemon, Environment, StartError, Workers, process};
use crate::clock::TestClock;
use crate::log::{self, LogHandle};
use crate::net::{Inherited, Shutdown};
use crate::privilege::Account;
use crate::settings::{Loaded, LogSettings, ProcessSettings};

/// One process with one or several daemons in it, which share log, account, state folder and runtime.
pub struct House {
    name: &'static str,
    log: LogSettings,
    log_source: Option<LogSource>,
    process: ProcessSettings,
    state_directory: PathBuf,
    test_clock: Option<i64>,
    inherited: bool,
    members: Vec<Box<dyn Candidate>>,
}

impl House {
    /// A house for several daemons; `log_source` is asked again on SIGHUP. Inherited sockets are left alone, since
    /// nothing tells which daemon they are for.
    pub fn new(
        name: &'static str,
        log_source: impl Fn() -> Result<LogSettings, String> + Send + 'static,
        process: ProcessSettings,
        state_directory: PathBuf,
    ) -> Result<House, String> {
        let log = log_source()?;
        let log_source: Option<LogSource> = Some(Box::new(log_source));
        let members = Vec::new();
        Ok(House {
            name,
            log,
            log_source,
            process,
            state_directory,
            test_clock: None,
            inherited: false,
            members,
        })
    }

    /// A house for one daemon, which has the say about log and account.
    pub(super) fn alone<D: Daemon>(
        loaded: Loaded<D::Settings>,
        config: Option<PathBuf>,
        state_directory: PathBuf,
        test_clock: Option<i64>,
    ) -> House {
        use crate::settings::DaemonSettings;
        let (log, process) = {
            let frame = loaded.settings.frame();
            (frame.log.clone(), frame.process.clone())
        };
        let member: Box<dyn Candidate> = Box::new(Applicant::<D>::new(loaded, config));
        let members = vec![member];
        House {
            name: D::NAME,
            log,
            log_source: None,
            process,
            state_directory,
            test_clock,
            inherited: true,
            members,
        }
    }

    /// Adds a daemon; `config` is the file that is read again on reload, the usual one if `None`.
    pub fn add<D: Daemon>(&mut self, loaded: Loaded<D::Settings>, config: Option<PathBuf>) {
        self.members.push(Box::new(Applicant::<D>::new(loaded, config)));
    }

    /// Runs until a signal stops it and gives the exit status (see [`main`](super::main())).
    pub fn run(self) -> ExitCode {
        process::harden();
        let name = self.name;
        let log = match log::install(&self.log, name) {
            Ok(log) => log,
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::from(73);
            }
        };
        let code = match self.start(&log) {
            Ok(()) => 0,
            Err(error) => {
                // Also where the start was typed: the log may be elsewhere.
                tracing::error!(event = "not started", reason = %error);
                eprintln!("{name}: {error}");
                error.exit_code()
            }
        };
        log.flush();
        ExitCode::from(code)
    }

    fn start(mut self, log: &LogHandle) -> Result<(), StartError> {
        process::raise_descriptors(self.members.iter().map(|member| member.connections()).sum());
        let account = Account::from_settings(&self.process)?;
        process::prepare_state(&self.state_directory, account.as_ref())?;
        for member in &mut self.members {
            let inherited = if self.inherited { Inherited::from_environment()? } else { Inherited::none() };
            member.open(inherited)?;
        }
        if let Some(account) = account {
            account.become_it()?;
        }
        // From here on there may be threads.
        log.start_writer().map_err(|error| StartError::Other(Box::new(error)))?;
        let workers = match self.members.as_slice() {
            [alone] => alone.workers(),
            _ => Workers::PerProcessor,
        };
        let threads = match self.process.worker_threads {
            0 => workers.number(std::thread::available_parallelism().map_or(1, usize::from)),
            set => set,
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(threads)
            .enable_all()
            .build()
            .map_err(|error| StartError::Other(Box::new(error)))?;
        let result = runtime.block_on(self.serve(log));
        // Blocking work such as a password check is not worth waiting for.
        runtime.shutdown_timeout(Duration::from_millis(500));
        result
    }

    async fn serve(self, log: &LogHandle) -> Result<(), StartError> {
        // Before anything starts, so that no signal is lost.
        let signals = Signals::new().map_err(|error| StartError::Other(Box::new(error)))?;
        let (trigger, shutdown) = Shutdown::new();
        let mut members: Vec<Box<dyn Member>> = Vec::new();
        for candidate in self.members {
            let mut env = Environment::system(candidate.name(), self.state_directory.clone());
            if let Some(seconds) = self.test_clock {
                env.clock = Arc::new(TestClock::new(seconds));
            }
            let member = candidate.launch(env, shutdown.clone()).await?;
            // Nobody may be reading: that is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", member.ready_line());
            members.push(member);
        }
        Supervisor { members, trigger, log: log.clone(), log_source: self.log_source }.run(signals).await;
        Ok(())
    }
}

impl std::fmt::Debug for House {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members: Vec<&str> = self.members.iter().map(|member| member.name()).collect();
        out.debug_struct("House").field("name", &self.name).field("members", &members).finish_non_exhaustive()
    }
}
