//! srsd, a bare tcp_table server, and PostSRSd.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use outrider_tests::daemon::Daemon;
use outrider_tests::folder::Folder;
use outrider_tests::port::Port;
use outrider_tests::process::Start;

use crate::load::Table;
use crate::{Plan, bare_peer, wait_until_open, wire};

const SECRET: &str = "a secret for the measurement";

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

    let mut table = Table::new(plan, "forward: a sender of another domain is rewritten");
    for (program, id, address) in [
        ("srsd", ours.id(), forward.address()),
        ("bare tcp_table answer", bare.id(), bare_port.address()),
        ("PostSRSd", theirs.id(), their_forward.address()),
    ] {
        table.measure(program, id, &|connection| {
            wire::exchange(address, b"\n", &["200 "], move |count| {
                format!("get user{connection}.{count}@sender.example\n")
            })
        })?;
    }
    table.ratios();

    let mut table = Table::new(plan, "reverse: a rewritten address is turned back");
    for (program, id, forward, reverse) in [
        ("srsd", ours.id(), forward.address(), reverse.address()),
        ("bare tcp_table answer", bare.id(), bare_port.address(), bare_port.address()),
        ("PostSRSd", theirs.id(), their_forward.address(), their_reverse.address()),
    ] {
        let rewritten = rewrite(forward)?;
        table.measure(program, id, &|_| {
            let question = format!("get {rewritten}\n");
            wire::exchange(reverse, b"\n", &["200 "], move |_| question.clone())
        })?;
    }
    table.ratios();
    println!("  resident: srsd {} KiB", ours.resident_kib().unwrap_or(0));
    Ok(())
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
