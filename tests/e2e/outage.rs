//! The SQL server goes away in the middle of the mail and comes back.

use anyhow::{Context, Result, ensure};
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::site::{ANNA, BOB, FULL, Plan, Site};
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

use crate::bulk::send_all;

crate::on_both_servers!(stopped_database_loses_nothing);

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
    let surplus = send_all(&mut site, |site, ledger| {
        ledger.wait_for_accepted(60);
        site.store.stop()?;
        // The documented answers: policy lets mail pass, quota asks to come again (the `on_failure` defaults), and each connection stays usable.
        let mut policy = PolicyClient::connect(policyd)?;
        let mut quota = PolicyClient::connect(quota)?;
        for _ in 0..3 {
            let answer = policy.ask(&rcpt(BOB, ANNA))?;
            ensure!(answer == "DUNNO", "policyd without database: {answer}");
            let answer = quota.ask(&rcpt(BOB, FULL))?;
            ensure!(answer.starts_with("DEFER_IF_PERMIT "), "quota-status without database: {answer}");
        }
        for name in ["policyd", "srsd", "quota-status", "contentfilter"] {
            ensure!(site.daemon(name)?.is_running(), "{name} ended because the database did");
        }
        site.store.resume().context("starting the database again")?;
        // Recovery without a restart of anything.
        wait_for("quota-status to see the database again", || {
            quota.ask(&rcpt(BOB, FULL)).ok().filter(|answer| answer.starts_with("552 5.2.2"))
        });
        wait_for("policyd to see the database again", || {
            policy
                .ask(&rcpt("u1@local.example", ANNA))
                .ok()
                .filter(|answer| answer.contains("SMTP AUTH is required"))
        });
        Ok(())
    })?;
    ensure!(surplus == 0, "{surplus} messages arrived twice though no daemon was interrupted");
    Ok(())
}
