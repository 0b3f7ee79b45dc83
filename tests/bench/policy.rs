//! policyd on MariaDB, a bare policy server, and postgrey.

use anyhow::Result;
use outrider_tests::account::Accounts;
use outrider_tests::daemon::Daemon;
use outrider_tests::dns_server::DnsServer;
use outrider_tests::folder::Folder;
use outrider_tests::mariadb::MariaDb;
use outrider_tests::port::Port;
use outrider_tests::process::Start;
use outrider_tests::settings::{self, Caching};
use outrider_tests::store::Store;

use crate::load::Table;
use crate::{Plan, bare_peer, wait_until_open, wire};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = Folder::new("bench")?;
    let dns = DnsServer::start()?;
    // Commits reach the disk, as on a server that must not forget a greylisted sender.
    let store = MariaDb::start_with(&[])?;
    let accounts = Accounts::new(&store, "/var/vmail");
    accounts.domain("local.example")?;
    accounts.user("anna@local.example", 0)?;
    store.execute(
        "iredapd",
        "INSERT INTO greylisting (account, priority, sender, sender_priority, active) VALUES ('@.', 0, '@.', 0, 1); \
         INSERT INTO throttle (account, kind, priority, period, max_msgs) VALUES ('@.', 'outbound', 0, 3600, 2000000000)",
    )?;
    let port = Port::reserve()?;
    let ours = Daemon::start(
        "policyd",
        folder.path(),
        &settings::policyd(port.address(), &store.access(), dns.address(), Caching::Default),
    )?;
    let bare_port = Port::reserve()?;
    let bare = bare_peer(folder.path(), "policy", bare_port.address(), &[])?;
    let their_port = Port::reserve()?;
    let data = folder.sub("postgrey")?;
    let theirs = Start::new("postgrey", "/usr/sbin/postgrey", folder.path().join("postgrey.log"))
        .args([
            "--inet",
            &format!("127.0.0.1:{}", their_port.number()),
            "--dbdir",
            &data.display().to_string(),
        ])
        // delay=1: the known client of the second table has to be known within the measurement.
        .args(["--delay=1", "--auto-whitelist-clients=0", "--user=root", "--group=root", "--quiet"])
        .spawn()?;
    wait_until_open("postgrey", their_port.address());
    let programs = [
        ("policyd", ours.id(), port.address()),
        ("bare policy answer", bare.id(), bare_port.address()),
        ("postgrey", theirs.id(), their_port.address()),
    ];
    const PASSED: &[&str] = &["action=DUNNO\n"];
    // As policyd, the bare server and postgrey say it.
    const FIRST: [&[&str]; 3] = [&["action=451 4.7.1 "], PASSED, &["action=DEFER_IF_PERMIT "]];
    // postgrey tells the recipient how long a message was delayed.
    const KNOWN: [&[&str]; 3] = [PASSED, PASSED, &["action=DUNNO\n", "action=PREPEND "]];

    let mut table = Table::new(plan, "submission: RCPT of a logged-in user");
    for (program, id, address) in &programs[..2] {
        table.measure(program, *id, &|_| {
            wire::exchange(*address, b"\n\n", PASSED, |_| {
                wire::policy_request(
                    "RCPT",
                    "anna@local.example",
                    "bob@world.example",
                    "203.0.113.9",
                    "anna@local.example",
                    0,
                )
            })
        })?;
    }
    table.ratios();

    let mut table = Table::new(plan, "first contact: RCPT, every sender new, greylisted");
    for (round, (program, id, address)) in programs.iter().enumerate() {
        table.measure(program, *id, &|connection| {
            let tag = format!("{round}-{}-{connection}", unique());
            wire::exchange(*address, b"\n\n", FIRST[round], move |count| {
                let sender = format!("s{tag}-{count}@world.example");
                wire::policy_request("RCPT", &sender, "anna@local.example", "198.51.100.7", "", 0)
            })
        })?;
    }
    table.ratios();

    // Passes greylisting once, so that the measured requests are those of a known client.
    store.execute(
        "iredapd",
        "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, block_expired, \
         record_expired, blocked_count, passed) VALUES ('known@world.example', 'anna@local.example', '198.51.100.8', 'world.example', \
         'local.example', 1700000000, 1700000300, 4000000000, 1, 1)",
    )?;
    let known =
        || wire::policy_request("RCPT", "known@world.example", "anna@local.example", "198.51.100.8", "", 0);
    wire::exchange(their_port.address(), b"\n\n", FIRST[2], move |_| known())?(0)?;
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let mut table = Table::new(plan, "known client: RCPT, the triplet has passed before");
    for ((program, id, address), answers) in programs.iter().zip(KNOWN) {
        table.measure(program, *id, &|_| wire::exchange(*address, b"\n\n", answers, move |_| known()))?;
    }
    table.ratios();

    let mut table = Table::new(plan, "end of message: one throttle row counted");
    for (program, id, address) in &programs[..2] {
        table.measure(program, *id, &|_| {
            wire::exchange(*address, b"\n\n", PASSED, |_| {
                let user = "anna@local.example";
                wire::policy_request("END-OF-MESSAGE", user, "bob@world.example", "203.0.113.9", user, 4096)
            })
        })?;
    }
    table.ratios();
    println!("  resident: policyd {} KiB", ours.resident_kib().unwrap_or(0));
    Ok(())
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
