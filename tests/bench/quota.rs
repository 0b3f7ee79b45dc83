//! quota-status, a bare policy server, and Dovecot's quota-status, on the same MariaDB.

use anyhow::Result;
use outrider_tests::account::Accounts;
use outrider_tests::daemon::Daemon;
use outrider_tests::dovecot::Dovecot;
use outrider_tests::folder::Folder;
use outrider_tests::port::Port;
use outrider_tests::settings::{self, Caching};
use outrider_tests::store::{self, Server};

use crate::load::Table;
use crate::{Plan, bare_peer, wait_until_open, wire};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = Folder::new("bench")?;
    let store = store::start(Server::MariaDb)?;
    let mut dovecot = Dovecot::reserve()?;
    let accounts = Accounts::new(&*store, &dovecot.storage());
    accounts.domain("local.example")?;
    accounts.user("anna@local.example", 100)?;
    accounts.used_quota("anna@local.example", 1_000_000)?;
    let port = Port::reserve()?;
    let sql = store.access();
    let ours = Daemon::start(
        "quota-status",
        folder.path(),
        &settings::quota_status(port.address(), &sql, Caching::Default),
    )?;
    let uncached_port = Port::reserve()?;
    let uncached_folder = folder.sub("uncached")?;
    let uncached = Daemon::start(
        "quota-status",
        &uncached_folder,
        &settings::quota_status(uncached_port.address(), &sql, Caching::Off),
    )?;
    let bare_port = Port::reserve()?;
    let bare = bare_peer(folder.path(), "policy", bare_port.address(), &[])?;
    let their_port = Port::reserve()?;
    dovecot.offer_quota_status(their_port.number());
    dovecot.start(&sql, folder.path())?;
    wait_until_open("Dovecot's quota-status", their_port.address());
    let programs = [
        ("quota-status", ours.id(), port.address()),
        ("quota-status, nothing cached", uncached.id(), uncached_port.address()),
        ("bare policy answer", bare.id(), bare_port.address()),
        ("Dovecot quota-status", dovecot.id(), their_port.address()),
    ];
    for (title, recipient) in [
        ("known user: below the limit", "anna@local.example"),
        ("unknown user: no such mailbox", "nobody@local.example"),
    ] {
        let mut table = Table::new(plan, title);
        for (program, id, address) in programs {
            table.measure(program, id, &|_| {
                wire::exchange(address, b"\n\n", &["action=DUNNO"], move |_| {
                    wire::policy_request("RCPT", "bob@world.example", recipient, "198.51.100.7", "", 4096)
                })
            })?;
        }
        table.ratios();
    }
    println!("  resident: quota-status {} KiB", ours.resident_kib().unwrap_or(0));
    Ok(())
}
