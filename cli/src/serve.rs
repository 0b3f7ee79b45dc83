//! `outrider serve`: all daemons, or chosen ones, in one process.
//!
//! They share the log, the account and the state folder, and so the embedded databases in it. Each keeps its own
//! settings file and its own listeners, and says `ready service=...` once clients can connect.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrider_core::daemon::{Daemon, DaemonSettings, Findings, FrameSettings, House, ListenerSpec};
use outrider_core::settings::{
    self, Documented, LimitSettings, LogSettings, MetricsSettings, ProcessSettings, SectionDoc, SettingsError,
};

use crate::config::{self, file_of};
use crate::daemons::{Name, Visitor, selected};

/// The name of the settings file of the process itself, and of the process in the log.
const NAME: &str = "outrider";

/// Runs the daemons in one process until SIGTERM or SIGINT; SIGHUP loads all settings again.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with the settings files: outrider.toml for log and account, NAME.toml for each daemon; none is needed
    #[arg(long, value_name = "DIR", default_value = config::FOLDER)]
    config: PathBuf,
    /// Folder for the daemons' own files, among them the embedded databases
    #[arg(long, value_name = "DIR", default_value = "/var/lib/outrider")]
    state_directory: PathBuf,
    /// Daemons to run; all of them if none is named
    #[arg(value_enum)]
    daemons: Vec<Name>,
}

outrider_core::settings! {
    /// The process of `outrider serve`: what its daemons share. Their own sections of this name are not used then.
    pub(crate) struct Settings {
        /// What is logged, in which form and where to.
        pub(crate) log: LogSettings = LogSettings::default(),
        /// The account and the resources of the process.
        pub(crate) process: ProcessSettings = ProcessSettings::default(),
        // The process itself has no listeners, hence neither of these in its file.
        #[serde(skip)]
        metrics: MetricsSettings = MetricsSettings::default(),
        #[serde(skip)]
        limits: LimitSettings = LimitSettings::default(),
    }
}

impl DaemonSettings for Settings {
    const SERVES_CLIENTS: bool = false;

    fn listeners(&self) -> Vec<ListenerSpec> {
        Vec::new()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, _findings: &mut Findings) {}

    fn describe() -> SectionDoc {
        Self::document()
    }
}

/// Runs the verb until a signal ends it.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let file = arguments.config.join("outrider.toml");
    let shared = match load(&file) {
        Ok(shared) => shared,
        Err(error) => return refuse(&error),
    };
    let log_source = move || load(&file).map(|settings| settings.log).map_err(|error| error.to_string());
    let mut house = match House::new(NAME, log_source, shared.process, arguments.state_directory) {
        Ok(house) => house,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(crate::exit::CONFIGURATION);
        }
    };
    for name in selected(&arguments.daemons) {
        if let Err(error) = name.accept(MoveIn { house: &mut house, folder: &arguments.config }) {
            return refuse(&error);
        }
    }
    house.run()
}

fn load(file: &Path) -> Result<Settings, SettingsError> {
    Ok(settings::load::<Settings>(file.exists().then_some(file), NAME)?.settings)
}

fn refuse(error: &SettingsError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(error.exit_code())
}

struct MoveIn<'a> {
    house: &'a mut House,
    folder: &'a Path,
}

impl Visitor for MoveIn<'_> {
    type Output = Result<(), SettingsError>;

    fn visit<D: Daemon>(self) -> Self::Output {
        let file = file_of::<D>(self.folder);
        let file = file.exists().then_some(file);
        let loaded = settings::load::<D::Settings>(file.as_deref(), D::NAME)?;
        if !loaded.findings.is_empty() {
            eprintln!("{}", loaded.findings);
        }
        self.house.add::<D>(loaded, file);
        Ok(())
    }
}
