//! The tools of iRedAPD by their own names: `outrider`, called through a link of that name (with or without `.py`), takes
//! the tool's arguments and does what it did, so that cron jobs and notes of an administrator go on working.
//!
//! Nothing is asked before something is removed, as the tools never asked, and nothing to remove is a success. Where a tool
//! printed a plain list or passed over an address that is none, so does it here: scripts read that.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Parser};

use super::desk::{self, Place};
use super::greylist::{self, Pair};
use super::wblist::{self, Colours, WhoseList};
use super::{cleanup, senderscore, throttle, whitelist};
use crate::config;
use crate::exit;
use crate::failure::Failure;

/// One of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    GreylistingAdmin,
    WblistAdmin,
    SpfToGreylistWhitelists,
    CleanupDb,
    SenderscoreAdmin,
    FixThrottlePriority,
}

impl Tool {
    const ALL: [(&str, Tool); 6] = [
        ("greylisting_admin", Tool::GreylistingAdmin),
        ("wblist_admin", Tool::WblistAdmin),
        ("spf_to_greylist_whitelists", Tool::SpfToGreylistWhitelists),
        ("cleanup_db", Tool::CleanupDb),
        ("senderscore_admin", Tool::SenderscoreAdmin),
        ("fix_throttle_priority", Tool::FixThrottlePriority),
    ];

    /// The tool of the name under which the program was called.
    pub(crate) fn called_as(program: &OsStr) -> Option<Tool> {
        let name = Path::new(program).file_name()?.to_str()?;
        let name = name.strip_suffix(".py").unwrap_or(name);
        Tool::ALL.iter().find(|(known, _)| *known == name).map(|(_, tool)| *tool)
    }

    /// Does what the tool does with these arguments, the first of which is its name.
    pub(crate) fn run(self, arguments: Vec<OsString>) -> ExitCode {
        let done = match self {
            Tool::GreylistingAdmin => GreylistingAdmin::try_parse_from(arguments).map(GreylistingAdmin::run),
            Tool::WblistAdmin => WblistAdmin::try_parse_from(arguments).map(WblistAdmin::run),
            Tool::SpfToGreylistWhitelists => {
                SpfToGreylistWhitelists::try_parse_from(arguments).map(SpfToGreylistWhitelists::run)
            }
            Tool::CleanupDb => CleanupDb::try_parse_from(arguments)
                .map(|tool| desk::run(&tool.folders.place(), cleanup::clean_up)),
            Tool::SenderscoreAdmin => SenderscoreAdmin::try_parse_from(arguments).map(SenderscoreAdmin::run),
            Tool::FixThrottlePriority => FixThrottlePriority::try_parse_from(arguments)
                .map(|tool| desk::run(&tool.folders.place(), throttle::fix_priority)),
        };
        done.unwrap_or_else(|error| {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 })
        })
    }
}

/// What the tools took from their own settings file.
#[derive(Debug, clap::Args)]
struct Folders {
    /// Folder with the settings file policyd.toml
    #[arg(long, value_name = "DIR", default_value = config::FOLDER)]
    config: PathBuf,
    /// Folder with the embedded databases
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
}

impl Folders {
    fn place(&self) -> Place {
        Place {
            config: self.config.clone(),
            state_directory: self.state_directory.clone(),
            json: false,
            yes: true,
            quiet: true,
            any_form: true,
        }
    }
}

/// Greylisting settings and whitelists, called as iRedAPD's greylisting_admin (see outrider greylist)
#[derive(Debug, Parser)]
#[command(
    version,
    group(ArgGroup::new("action").required(true).args([
        "list", "list_whitelists", "list_whitelist_domains", "whitelist_domain", "remove_whitelist_domain", "enable",
        "disable", "delete", "add_whitelist",
    ]))
)]
struct GreylistingAdmin {
    /// List the settings
    #[arg(long)]
    list: bool,
    /// List the whitelisted senders
    #[arg(long)]
    list_whitelists: bool,
    /// List the whitelisted domains
    #[arg(long)]
    list_whitelist_domains: bool,
    /// Whitelist the domain given here or with --from
    #[arg(long, value_name = "DOMAIN", num_args = 0..=1)]
    whitelist_domain: Option<Option<String>>,
    /// Remove the whitelisted domain given here or with --from, and its addresses
    #[arg(long, value_name = "DOMAIN", num_args = 0..=1)]
    remove_whitelist_domain: Option<Option<String>>,
    /// Enable greylisting
    #[arg(long)]
    enable: bool,
    /// Disable greylisting
    #[arg(long)]
    disable: bool,
    /// Delete a setting
    #[arg(long)]
    delete: bool,
    /// Whitelist the sender given with --from
    #[arg(long)]
    add_whitelist: bool,
    #[command(flatten)]
    pair: Pair,
    #[command(flatten)]
    folders: Folders,
}

impl GreylistingAdmin {
    fn run(self) -> ExitCode {
        desk::run(&self.folders.place(), async |desk| {
            let domain = |given: Option<String>| match given.unwrap_or_else(|| self.pair.from.clone()) {
                all if all == "@." => Err(Failure::usage("say which domain: --from @example.com")),
                domain => Ok([domain]),
            };
            if self.list {
                greylist::list(desk).await
            } else if self.list_whitelists {
                whitelist::list_senders(desk).await
            } else if self.list_whitelist_domains {
                whitelist::list_domains(desk, false).await
            } else if let Some(given) = self.whitelist_domain.clone() {
                whitelist::edit_domains(desk, &domain(given)?, true).await
            } else if let Some(given) = self.remove_whitelist_domain.clone() {
                whitelist::edit_domains(desk, &domain(given)?, false).await.map(gone)
            } else if self.enable || self.disable {
                greylist::set(desk, &self.pair, self.enable).await
            } else if self.delete {
                greylist::delete(desk, &self.pair).await.map(gone)
            } else {
                whitelist::edit_senders(desk, &self.pair.to, std::slice::from_ref(&self.pair.from), true)
                    .await
            }
        })
    }
}

/// The tools took no notice of how many rows there were to remove.
fn gone(code: u8) -> u8 {
    if code == exit::NEGATIVE { 0 } else { code }
}

/// White- and blacklists, called as iRedAPD's wblist_admin (see outrider wblist)
#[derive(Debug, Parser)]
#[command(
    version,
    group(ArgGroup::new("action").required(true).args(["add", "delete", "delete_all", "list"]))
)]
struct WblistAdmin {
    /// Lists about mail that is sent
    #[arg(long)]
    outbound: bool,
    /// Whose list
    #[arg(long, default_value = "@.", value_name = "ACCOUNT")]
    account: String,
    /// The whitelist; it wins if both are given
    #[arg(long)]
    whitelist: bool,
    /// The blacklist
    #[arg(long)]
    blacklist: bool,
    /// Add addresses
    #[arg(long)]
    add: bool,
    /// Delete addresses
    #[arg(long)]
    delete: bool,
    /// Delete all addresses
    #[arg(long)]
    delete_all: bool,
    /// List the addresses
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    folders: Folders,
    /// What to add or to delete; what is no address is passed over
    addresses: Vec<String>,
}

impl WblistAdmin {
    fn run(self) -> ExitCode {
        desk::run(&self.folders.place(), async |desk| {
            let list = WhoseList { outbound: self.outbound, account: self.account };
            let colours = Colours { white: self.whitelist, black: self.blacklist && !self.whitelist };
            let colour = colours.one().map_err(|_| Failure::usage("say --whitelist or --blacklist"));
            if self.list {
                return wblist::show_plain(desk, &list, colours).await;
            } else if self.delete_all {
                return wblist::delete_all(desk, &list, colour?).await;
            } else if self.addresses.is_empty() {
                return Err(Failure::usage("say which addresses"));
            }
            let colour = colour?;
            let addresses = wblist::valid(&desk, &list, &self.addresses);
            if addresses.is_empty() {
                return Ok(0);
            }
            if self.add {
                wblist::add(desk, &list, colour, &addresses).await
            } else {
                wblist::delete(desk, &list, colours, &addresses).await.map(gone)
            }
        })
    }
}

/// Addresses of whitelisted domains, called as iRedAPD's spf_to_greylist_whitelists (see outrider greylist refresh-spf)
#[derive(Debug, Parser)]
#[command(version)]
struct SpfToGreylistWhitelists {
    /// Also list the addresses that came and went
    #[arg(long)]
    debug: bool,
    /// Add the domains to the whitelisted ones
    #[arg(long)]
    submit: bool,
    #[command(flatten)]
    folders: Folders,
    /// Domains to look up; all whitelisted ones if none is named
    domains: Vec<String>,
}

impl SpfToGreylistWhitelists {
    fn run(self) -> ExitCode {
        desk::run(&self.folders.place(), async |desk| {
            // Without domains there is nothing to add, and the tool looked up all as ever.
            let submit = self.submit && !self.domains.is_empty();
            whitelist::refresh(desk, &self.domains, submit, self.debug).await
        })
    }
}

/// Removal of old rows, called as iRedAPD's cleanup_db (see outrider cleanup)
#[derive(Debug, Parser)]
#[command(version)]
struct CleanupDb {
    #[command(flatten)]
    folders: Folders,
}

/// Priorities of limits, called as iRedAPD's fix_throttle_priority (see outrider throttle fix-priority)
#[derive(Debug, Parser)]
#[command(version)]
struct FixThrottlePriority {
    #[command(flatten)]
    folders: Folders,
}

/// Scores of clients, called as iRedAPD's senderscore_admin (see outrider senderscore)
#[derive(Debug, Parser)]
#[command(version)]
struct SenderscoreAdmin {
    /// Give these clients the best score for good
    #[arg(short = 'w', long = "whitelist", required = true, num_args = 1.., value_name = "IP")]
    whitelist: Vec<String>,
    #[command(flatten)]
    folders: Folders,
}

impl SenderscoreAdmin {
    fn run(self) -> ExitCode {
        desk::run(&self.folders.place(), async |desk| senderscore::whitelist(desk, &self.whitelist).await)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn names_of_the_tools() {
        for (path, expected) in [
            ("/usr/lib/outrider/iredapd-tools/greylisting_admin", Some(Tool::GreylistingAdmin)),
            ("/opt/iredapd/tools/wblist_admin.py", Some(Tool::WblistAdmin)),
            ("cleanup_db", Some(Tool::CleanupDb)),
            ("/usr/bin/outrider", None),
            ("greylisting_admin.sh", None),
        ] {
            assert_eq!(Tool::called_as(OsStr::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn the_command_lines_are_sound() {
        GreylistingAdmin::command().debug_assert();
        WblistAdmin::command().debug_assert();
        SpfToGreylistWhitelists::command().debug_assert();
        CleanupDb::command().debug_assert();
        SenderscoreAdmin::command().debug_assert();
        FixThrottlePriority::command().debug_assert();
    }
}
