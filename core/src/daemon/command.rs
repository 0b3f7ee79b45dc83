//! The command line of a daemon.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::house::House;
use super::{Daemon, man};
use crate::settings::{self, Loaded, reference};

/// What can be asked of a daemon. Name and description are the daemon's and are added later.
#[derive(Clone, Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Read settings from this file instead of /etc/outrider/NAME.toml; fragments are read from NAME.d beside it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Check the settings, report every problem, open nothing
    #[arg(long, short = 't')]
    check: bool,
    /// Print all settings in force, secrets hidden
    #[arg(long)]
    show_config: bool,
    /// With --show-config: print only what differs from the defaults
    #[arg(long, requires = "show_config")]
    non_default: bool,
    /// Print the default of every setting
    #[arg(long)]
    show_defaults: bool,
    /// Print the reference of all settings, as a settings file in which everything is commented out
    #[arg(long)]
    config_docs: bool,
    /// Keep the daemon's own files in this folder instead of /var/lib/outrider/NAME
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) state_directory: Option<PathBuf>,
    /// Stop the clock at this moment, for tests that need the same answer every day
    #[arg(long, value_name = "UNIXSECONDS", hide = true, allow_negative_numbers = true)]
    pub(super) test_clock: Option<i64>,
    /// Print the manual page
    #[arg(long, hide = true)]
    man_page: bool,
}

/// The main function of a daemon's binary.
///
/// Exit status: 0 after an orderly stop, 64 wrong usage, 66 settings file missing, 70 internal error, 71 no socket, 73 no
/// log, 74 a file that cannot be used, 77 no permission, 78 wrong settings; 130 and 143 after a second SIGINT or SIGTERM.
pub fn main<D: Daemon>() -> ExitCode {
    // Before any TLS object exists; an error only means that somebody was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = match parse::<D>(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" for standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    if arguments.show_defaults {
        return print(&toml_text(&D::Settings::default()));
    }
    if arguments.config_docs {
        return print(&reference::<D::Settings>(D::NAME));
    }
    if arguments.man_page {
        return print(&man::page::<D>(&command::<D>()));
    }
    let loaded = match settings::load::<D::Settings>(arguments.config.as_deref(), D::NAME) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if arguments.show_config {
        return print(&show(&loaded, arguments.non_default));
    }
    if !loaded.findings.is_empty() {
        eprintln!("{}", loaded.findings);
    }
    if arguments.check {
        return print(&format!("{}: settings are good ({} files read)\n", D::NAME, loaded.files.len()));
    }
    let state = arguments.state_directory.unwrap_or_else(|| state_directory(D::NAME));
    House::alone::<D>(loaded, arguments.config, state, arguments.test_clock).run()
}

/// Where the daemon keeps its files: what systemd made for it, or the usual place.
fn state_directory(name: &str) -> PathBuf {
    let given = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    match given.split(':').next() {
        Some(first) if first.starts_with('/') => PathBuf::from(first),
        _ => PathBuf::from("/var/lib/outrider").join(name),
    }
}

fn command<D: Daemon>() -> clap::Command {
    let name = format!("outrider-{}", D::NAME);
    Arguments::command().name(D::NAME).bin_name(&name).display_name(&name).about(D::ABOUT)
}

fn parse<D: Daemon>(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Arguments, clap::Error> {
    Arguments::from_arg_matches(&command::<D>().try_get_matches_from(words)?)
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(74),
        _ => ExitCode::SUCCESS,
    }
}

fn toml_text<T: serde::Serialize>(settings: &T) -> String {
    // Settings consist of strings, numbers, lists and sections, which TOML can all express.
    toml::to_string(settings).unwrap_or_else(|error| format!("# {error}\n"))
}

fn show<T: settings::DaemonSettings>(loaded: &Loaded<T>, non_default: bool) -> String {
    if !non_default {
        return toml_text(&loaded.settings);
    }
    let defaults = toml::Table::try_from(T::default()).unwrap_or_default();
    let mut values = toml::Table::try_from(&loaded.settings).unwrap_or_default();
    remove_equal(&mut values, &defaults);
    toml_text(&values)
}

/// Leaves only what differs.
fn remove_equal(values: &mut toml::Table, defaults: &toml::Table) {
    values.retain(|key, value| match (value, defaults.get(key)) {
        (toml::Value::Table(below), Some(toml::Value::Table(default))) => {
            remove_equal(below, default);
            !below.is_empty()
        }
        (value, default) => Some(&*value) != default,
    });
}
