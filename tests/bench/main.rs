//! Measures a daemon, the bare protocol as its limit, and the program it takes over from, in one run with one load program.
//!
//! `outrider-bench SERVICE [--seconds N] [--connections 1,8]`, called by `tests/bench/run`. `outrider-bench serve ROLE` is the bare peer, a process of its own so
//! that it has the same conditions as a daemon.

mod bare;
mod content_filter;
mod load;
mod policy;
mod quota;
mod srs;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use outrider_tests::process::{Process, Start};
use outrider_tests::wait::wait_for;

const USAGE: &str =
    "usage: outrider-bench policyd|srs|contentfilter|quota-status [--seconds N] [--connections 1,8]";

/// What the command line asks for.
#[derive(Debug)]
struct Plan {
    /// How long each point is measured.
    seconds: Duration,
    /// Numbers of connections.
    connections: Vec<usize>,
}

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
    let mut plan = Plan { seconds: Duration::from_secs(5), connections: vec![1, 8] };
    let mut rest = arguments[1..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().with_context(|| format!("{option} needs a value\n{USAGE}"))?;
        match option.as_str() {
            "--seconds" => plan.seconds = Duration::from_secs(value.parse().context("--seconds")?),
            "--connections" => {
                plan.connections =
                    value.split(',').map(str::parse).collect::<Result<_, _>>().context("--connections")?;
            }
            _ => bail!("{option} is not known\n{USAGE}"),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{service}: {cores} cores, {}, {} s a point", now(), plan.seconds.as_secs());
    match service {
        "policyd" => policy::run(&plan),
        "srs" => srs::run(&plan),
        "contentfilter" => content_filter::run(&plan),
        "quota-status" => quota::run(&plan),
        _ => bail!("{service} is not known\n{USAGE}"),
    }
}

fn now() -> String {
    outrider_tests::process::run("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
        .map_or_else(|_| "date unknown".to_owned(), |text| text.trim().to_owned())
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
