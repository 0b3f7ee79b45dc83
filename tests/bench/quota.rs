//! quota-status, a bare policy server, and Dovecot's quota-status, on the same MariaDB.

use std::time::Duration;

use anyhow::Result;
use outrider_tests::account::Accounts;
use outrider_tests::daemon::Daemon;
use outrider_tests::dovecot::Dovecot;
use outrider_tests::folder::Folder;
use outrider_tests::port::Port;
use outrider_tests::settings::{self, Caching};
use outrider_tests::store::{self, Server};

use crate::load::resident_kib;
use crate::options::Plan;
use crate::policy_request::PolicyRequest;
use crate::report::{Outcome, Report, Target, conditions, grouped, package};
use crate::table::Table;
use crate::wire::{Dialogue, Peer};
use crate::{bare_peer, wait_until_open};

const OURS: &str = "quota-status";
const DOVECOT: &str = "Dovecot quota-status";
/// Answers at 8 connections against Dovecot's.
const TIMES_DOVECOT: f64 = 10.0;
/// Slowest hundredth at 8 connections.
const P99: Duration = Duration::from_millis(2);

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
        (OURS, ours.id(), port.address()),
        ("quota-status, nothing cached", uncached.id(), uncached_port.address()),
        ("bare policy answer", bare.id(), bare_port.address()),
        (DOVECOT, dovecot.id(), their_port.address()),
    ];
    let mut report = Report {
        title: "quota-status".to_owned(),
        conditions: conditions(plan.seconds.as_secs()),
        ..Report::default()
    };
    report.conditions.push(format!("{}, {}", package("dovecot-core"), package("mariadb-server")));
    for (title, recipient) in [
        ("known user: below the limit", "anna@local.example"),
        ("unknown user: no such mailbox", "nobody@local.example"),
    ] {
        let mut table = Table::new(plan, title);
        for (program, id, address) in programs {
            let request = PolicyRequest {
                state: "RCPT",
                sender: "bob@world.example",
                recipient,
                client: "198.51.100.7",
                user: "",
                size: 4096,
            };
            let peer = Peer::policy(address, &["action=DUNNO"]);
            table.dialogues(program, id, &|_| Dialogue::constant(peer, request.text()))?;
        }
        table.ratios();
        judge(&table, &mut report);
        report.tables.push(table);
    }
    let of = |id: Option<u32>| id.map_or(0, resident_kib);
    report.remarks.push(format!(
        "resident after the load: quota-status {} KiB, Dovecot {} KiB, all its processes",
        of(ours.id()),
        of(dovecot.id())
    ));
    report.finish(plan.markdown.as_deref())
}

/// Holds the figures at 8 connections against the targets.
fn judge(table: &Table<'_>, report: &mut Report<'_>) {
    let (Some(ours), Some(theirs)) = (table.figure(OURS, 8), table.figure(DOVECOT, 8)) else { return };
    let ratio = ours.per_second / theirs.per_second;
    let what = format!("{}, 8 connections", table.title);
    report.targets.push(Target {
        what: format!("{what}, against Dovecot"),
        goal: format!("at least {TIMES_DOVECOT} times {}/s", grouped(theirs.per_second)),
        measured: format!("{ratio:.1} times"),
        outcome: Outcome::of(ratio >= TIMES_DOVECOT),
    });
    report.targets.push(Target {
        what: format!("{what}, p99"),
        goal: format!("below {} ms", P99.as_secs_f64() * 1e3),
        measured: format!("{:.3} ms", ours.p99.as_secs_f64() * 1e3),
        outcome: Outcome::of(ours.p99 < P99),
    });
}
