//! The SQL server goes away in the middle of the mail and comes back.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::site::{ANNA, BOB, CARLA, FULL, Plan, Site};
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

use crate::bulk::send_all;

crate::on_both_servers!(stopped_database_loses_nothing);

/// Somebody outside writes as a user of the site: refused. Whether its domain is hosted here is a question to the database,
/// unless the recipient is in the same domain.
const FORGED: &str = "u1@local.example";
/// The same under a domain that nobody has asked about while the database was there.
const UNASKED: &str = "u1@alias.example";
const REFUSED: &str = "SMTP AUTH is required";

fn stopped_database_loses_nothing(server: Server) -> Result<()> {
    let mut site = Site::start(&Plan::full(server))?;
    let rcpt = |sender: &'static str, recipient: &'static str| {
        [
            ("protocol_state", "RCPT"),
            ("protocol_name", "ESMTP"),
            ("client_address", "198.51.100.7"),
            ("client_name", "mx.world.example"),
            ("helo_name", "mx.world.example"),
            ("sender", sender),
            ("recipient", recipient),
            ("size", "1000"),
        ]
    };
    let policyd = site.daemon("policyd")?.address("policy")?;
    let quota = site.daemon("quota-status")?.address("quota")?;
    let forward = site.daemon("srsd")?.address("forward")?;
    let answer = PolicyClient::connect(policyd)?.ask(&rcpt(FORGED, CARLA))?;
    ensure!(answer.contains(REFUSED), "policyd with database: {answer}");
    rewrites_foreign_senders_only(forward).context("srsd with database")?;
    let surplus = send_all(&mut site, |site, ledger| {
        ledger.wait_for_accepted(60);
        site.store.stop()?;
        // The documented answers: policy lets mail pass, quota asks to come again (the `on_failure` defaults), and each connection stays usable.
        let mut policy = PolicyClient::connect(policyd)?;
        let mut quota = PolicyClient::connect(quota)?;
        for _ in 0..3 {
            let answer = policy.ask(&rcpt(UNASKED, CARLA))?;
            ensure!(answer == "DUNNO", "policyd without database: {answer}");
            // What it knew before, it still knows.
            let answer = policy.ask(&rcpt(FORGED, CARLA))?;
            ensure!(answer.contains(REFUSED), "policyd from memory: {answer}");
            let answer = policy.ask(&rcpt(FORGED, ANNA))?;
            ensure!(answer.contains(REFUSED), "policyd, where no database is needed: {answer}");
            let answer = quota.ask(&rcpt(BOB, FULL))?;
            ensure!(answer.starts_with("DEFER_IF_PERMIT "), "quota-status without database: {answer}");
        }
        // The local domains are kept in memory.
        rewrites_foreign_senders_only(forward).context("srsd without database")?;
        for name in ["policyd", "srsd", "quota-status", "contentfilter"] {
            ensure!(site.daemon(name)?.is_running(), "{name} ended because the database did");
        }
        site.store.resume().context("starting the database again")?;
        // Recovery without a restart of anything.
        wait_for("quota-status to see the database again", || {
            quota.ask(&rcpt(BOB, FULL)).ok().filter(|answer| answer.starts_with("552 5.2.2"))
        });
        wait_for("policyd to see the database again", || {
            policy.ask(&rcpt(UNASKED, CARLA)).ok().filter(|answer| answer.contains(REFUSED))
        });
        Ok(())
    })?;
    ensure!(surplus == 0, "{surplus} messages arrived twice though no daemon was interrupted");
    Ok(())
}

/// Asks srsd, as Postfix does, about a sender of another site and about a user of this one.
fn rewrites_foreign_senders_only(forward: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(forward)?;
    // Only against hanging.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for (sender, expected) in [(BOB, "200 SRS0="), (ANNA, "500 ")] {
        stream.write_all(format!("get {sender}\n").as_bytes())?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        ensure!(answer.starts_with(expected), "{sender}: {answer:?} instead of {expected:?}");
    }
    Ok(())
}
