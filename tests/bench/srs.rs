//! srsd, a bare tcp_table server, and PostSRSd.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use outrider_tests::daemon::Daemon;
use outrider_tests::folder::Folder;
use outrider_tests::port::Port;
use outrider_tests::process::Start;

use crate::load::resident_kib;
use crate::options::Plan;
use crate::report::{Outcome, Report, Target, conditions, grouped, package};
use crate::table::Table;
use crate::wire::{Dialogue, Peer};
use crate::{bare_peer, wait_until_open};

const SECRET: &str = "a secret for the measurement";
const OURS: &str = "srsd";
const BARE: &str = "bare tcp_table answer";
const POSTSRSD: &str = "PostSRSd";
/// Look-ups at 8 connections against PostSRSd's.
const TIMES_POSTSRSD: f64 = 1.3;
/// And against the bare answer's.
const SHARE_OF_ECHO: f64 = 0.7;
/// Resident memory, however many connections there are.
const MEMORY_KIB: u64 = 12 * 1024;
/// Connections kept open for the comparison of memory.
const MANY: usize = 200;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = Folder::new("bench")?;
    let (forward, reverse) = (Port::reserve()?, Port::reserve()?);
    let ours = Daemon::start(
        "srsd",
        folder.path(),
        &format!(
            "listen_forward = [\"{}\"]\nlisten_reverse = [\"{}\"]\nsrs_domain = \"srs.example.net\"\nsecrets = [\"{SECRET}\"]\n",
            forward.address(),
            reverse.address()
        ),
    )?;
    let bare_port = Port::reserve()?;
    let bare = bare_peer(folder.path(), "tcp-table", bare_port.address(), &[])?;
    let (their_forward, their_reverse) = (Port::reserve()?, Port::reserve()?);
    let secret_file = folder.path().join("secret");
    fs::write(&secret_file, format!("{SECRET}\n"))?;
    let theirs = Start::new("PostSRSd", "/usr/sbin/postsrsd", folder.path().join("postsrsd.log"))
        .args([&format!("-s{}", secret_file.display()), "-dsrs.example.net", "-4", "-l127.0.0.1"])
        .args([format!("-f{}", their_forward.number()), format!("-r{}", their_reverse.number())])
        .spawn()?;
    wait_until_open("PostSRSd", their_forward.address());
    let mut report = Report {
        title: "srs".to_owned(),
        conditions: conditions(plan.seconds.as_secs()),
        ..Report::default()
    };
    report.conditions.push(package("postsrsd"));
    for (program, id, address) in
        [(OURS, ours.id(), forward.address()), (POSTSRSD, theirs.id(), their_forward.address())]
    {
        memory(program, id, address, &mut report)?;
    }

    let mut table = Table::new(plan, "forward: a sender of another domain is rewritten");
    for (program, id, address) in [
        (OURS, ours.id(), forward.address()),
        (BARE, bare.id(), bare_port.address()),
        (POSTSRSD, theirs.id(), their_forward.address()),
    ] {
        table.dialogues(program, id, &|connection| {
            Dialogue::new(Peer::tcp_table(address), move |count, out| {
                // Writing to a vector cannot fail.
                let _ = writeln!(out, "get user{connection}.{count}@sender.example");
            })
        })?;
    }
    judge(table, &mut report);

    let mut table = Table::new(plan, "reverse: a rewritten address is turned back");
    for (program, id, forward, reverse) in [
        (OURS, ours.id(), forward.address(), reverse.address()),
        (BARE, bare.id(), bare_port.address(), bare_port.address()),
        (POSTSRSD, theirs.id(), their_forward.address(), their_reverse.address()),
    ] {
        let question = format!("get {}\n", rewrite(forward)?);
        table.dialogues(program, id, &|_| Dialogue::constant(Peer::tcp_table(reverse), question.as_str()))?;
    }
    judge(table, &mut report);
    report.remarks.push(format!("srsd resident {} KiB after the load", ours.resident_kib().unwrap_or(0)));
    report.finish(plan.markdown.as_deref())
}

/// Resident memory with one and with many connections that have asked something.
fn memory<'a>(
    program: &str,
    process: Option<u32>,
    address: SocketAddr,
    report: &mut Report<'a>,
) -> Result<()> {
    let mut connections = Vec::new();
    let mut figures = Vec::new();
    for number in [1, MANY] {
        while connections.len() < number {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"get user@sender.example\n")?;
            let mut answer = String::new();
            let mut reader = BufReader::new(stream);
            reader.read_line(&mut answer)?;
            connections.push(reader);
        }
        figures.push(process.map_or(0, resident_kib));
    }
    report.remarks.push(format!(
        "{program} resident {} KiB with 1 connection, {} KiB with {MANY}, all its processes",
        figures[0], figures[1]
    ));
    if program == OURS {
        report.targets.push(Target {
            what: format!("srsd resident with {MANY} connections"),
            goal: format!("below {MEMORY_KIB} KiB"),
            measured: format!("{} KiB ({} KiB with 1)", figures[1], figures[0]),
            outcome: Outcome::of(figures[1] < MEMORY_KIB),
        });
    }
    Ok(())
}

/// Holds the figures at 8 connections against the targets.
fn judge<'a>(table: Table<'a>, report: &mut Report<'a>) {
    table.ratios();
    for (peer, factor) in [(POSTSRSD, TIMES_POSTSRSD), (BARE, SHARE_OF_ECHO)] {
        if let (Some(ours), Some(theirs)) = (table.figure(OURS, 8), table.figure(peer, 8)) {
            let ratio = ours.per_second / theirs.per_second;
            report.targets.push(Target {
                what: format!("{}, 8 connections, against {peer}", table.title),
                goal: format!("at least {factor} times {}/s", grouped(theirs.per_second)),
                measured: format!("{ratio:.2} times"),
                outcome: Outcome::of(ratio >= factor),
            });
        }
    }
    report.tables.push(table);
}

/// Asks a server for the SRS form of an address.
fn rewrite(forward: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(forward)?;
    stream.write_all(b"get user@sender.example\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("asking for an SRS address")?;
    let rewritten = answer.trim().strip_prefix("200 ");
    Ok(rewritten.with_context(|| format!("{forward} answered {answer:?}"))?.to_owned())
}
