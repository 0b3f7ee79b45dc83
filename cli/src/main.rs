//! The `outrider` command: runs the daemons in one process, checks their settings, plays a demonstration.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod daemons;
mod demo;
mod exit;
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
    /// Ask the SRS engine about an address, change its secrets
    Srs(srs::Arguments),
    /// Play a short story over the real protocols, on free ports and a temporary folder
    Demo,
}

fn main() -> ExitCode {
    // Before any TLS object exists; an error only means that somebody was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = match Command::try_parse() {
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
        Verb::Srs(arguments) => srs::run(&arguments),
        Verb::Demo => demo::run(),
    }
}
