//! The `outrider` command: runs the daemons in one process, checks their settings, administers the tables of the policy
//! service, plays a demonstration. Called by the name of one of iRedAPD's tools it is that tool.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use policy::wrapper::Tool;

mod check;
mod config;
mod daemons;
mod demo;
mod exit;
mod failure;
mod import;
mod man;
mod output;
mod policy;
mod quota;
mod serve;
mod srs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Companion daemons for Postfix and Dovecot
#[derive(Debug, Parser)]
#[command(name = "outrider", version, disable_help_subcommand = true)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run all daemons, or chosen ones, in one process
    Serve(serve::Arguments),
    /// Check the settings of all daemons, or of chosen ones; no network, no database
    Check(check::Arguments),
    /// Greylisting: rules, whitelists, and what is known about a contact
    Greylist(policy::greylist::Arguments),
    /// White- and blacklists: senders of incoming mail, recipients of outgoing mail, reverse names of clients
    Wblist(policy::wblist::Arguments),
    /// Limits on message size, recipients, messages and bytes of a period
    Throttle(policy::throttle::Arguments),
    /// Reputation scores of clients
    Senderscore(policy::senderscore::Arguments),
    /// Remove rows that have had their time, as the daemon does on its schedule
    Cleanup(policy::cleanup::Arguments),
    /// Write settings from the configuration of the program that is to be replaced
    #[command(subcommand)]
    Import(import::Import),
    /// Ask about the quota service
    #[command(subcommand)]
    Quota(quota::Quota),
    /// Ask the SRS engine about an address, change its secrets
    Srs(srs::Arguments),
    /// Play a short story over the real protocols, on free ports and a temporary folder
    Demo,
    /// Print the manual page
    #[command(hide = true)]
    ManPage,
}

fn main() -> ExitCode {
    // Before any TLS object exists; an error only means that somebody was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(tool) = arguments.first().and_then(|program| Tool::called_as(program)) {
        return tool.run(arguments);
    }
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help and version are "errors" for standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match command.verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Greylist(arguments) => policy::greylist::run(arguments),
        Verb::Wblist(arguments) => policy::wblist::run(arguments),
        Verb::Throttle(arguments) => policy::throttle::run(arguments),
        Verb::Senderscore(arguments) => policy::senderscore::run(arguments),
        Verb::Cleanup(arguments) => policy::cleanup::run(&arguments),
        Verb::Import(import) => import::run(import),
        Verb::Quota(quota) => quota::run(quota),
        Verb::Srs(arguments) => srs::run(&arguments),
        Verb::Demo => demo::run(),
        Verb::ManPage => {
            // Nobody may be reading to the end.
            let _ = std::io::stdout().lock().write_all(man::page(Command::command()).as_bytes());
            ExitCode::SUCCESS
        }
    }
}
