//! Measures a daemon, the bare protocol as its limit, and the program it takes over from, in one run with one load program.
//!
//! `outrider-bench SERVICE [OPTIONS]`, called by `tests/bench/run`. `outrider-bench serve ROLE` is the bare peer, a process of its own so
//! that it has the same conditions as a daemon.

mod bare;
mod content_filter;
mod load;
mod options;
mod policy;
mod policy_request;
mod quota;
mod report;
mod srs;
mod table;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use outrider_tests::process::{Process, Start};
use outrider_tests::wait::wait_for;

use crate::options::{Plan, USAGE};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrider-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Result<()> {
    let service = arguments.first().context(USAGE)?.as_str();
    if service == "serve" {
        return bare::serve(&arguments[1..]);
    }
    let plan = Plan::parse(service, &arguments[1..])?;
    for line in report::conditions(plan.seconds.as_secs()) {
        println!("{service}: {line}");
    }
    match service {
        "policyd" => policy::run(&plan),
        "srs" => srs::run(&plan),
        "contentfilter" => content_filter::run(&plan),
        "quota-status" => quota::run(&plan),
        _ => bail!("{service} is not known\n{USAGE}"),
    }
}

/// Starts this program again as a bare peer (`serve ROLE ADDRESS ...`).
fn bare_peer(folder: &Path, role: &str, address: SocketAddr, more: &[&str]) -> Result<Process> {
    let process = Start::new(role, std::env::current_exe()?, folder.join(format!("{role}.log")))
        .args(["serve", role, &address.to_string()])
        .args(more.iter().copied())
        .spawn()?;
    wait_until_open(role, address);
    Ok(process)
}

/// Waits until something accepts connections.
fn wait_until_open(what: &str, address: SocketAddr) {
    wait_for(format_args!("{what} to listen on {address}"), || std::net::TcpStream::connect(address).ok());
}
