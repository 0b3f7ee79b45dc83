//! policyd on SQLite, MariaDB and PostgreSQL, with few and with many rows in its tables; beside it a bare policy server, postgrey, postfwd2, and
//! the bare commit rate of each database.

pub(crate) mod case;
mod commit;
pub(crate) mod engine;
mod incumbent;
mod rows;
mod silent;
mod target;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use outrider_tests::daemon::Daemon;
use outrider_tests::dns_server::DnsServer;
use outrider_tests::port::Port;
use outrider_tests::process::Process;

use self::case::{Case, SENDER_DOMAINS};
use self::engine::{Engine, Kind, Over};
use self::incumbent::{Postfwd, Postgrey};
use crate::bare_peer;
use crate::load::resident_kib;
use crate::options::Plan;
use crate::report::{Report, conditions, grouped, package};
use crate::table::Table;
use crate::wire::Peer;

/// What policyd and the bare server say to mail that may pass.
const PASSED: &[&str] = &["action=DUNNO\n"];
/// What policyd says to a first contact.
const GREYLISTED: &[&str] = &["action=451 4.7.1 "];

/// The names under which programs stand in the tables.
const OURS: &str = "policyd";
const BARE: &str = "bare policy answer";
const POSTGREY: &str = "postgrey";
const POSTFWD: &str = "postfwd2";
const COMMIT: &str = "bare commit";

/// A table and what it is about.
struct Measured<'a> {
    kind: Kind,
    rows: u64,
    case: Case,
    table: Table<'a>,
}

impl Measured<'_> {
    fn name(&self) -> String {
        title(self.kind, self.rows, self.case)
    }
}

/// What is measured on which database with how many rows; a commit has nothing to do with rows.
fn title(kind: Kind, rows: u64, case: Case) -> String {
    match case {
        Case::Commit => format!("{} on {}, a row for each connection", case.title(), kind.title()),
        _ => format!("{}; {}, {} rows", case.title(), kind.title(), grouped(rows as f64)),
    }
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let mut measured = Vec::new();
    let mut versions = Vec::new();
    let mut remarks = Vec::new();
    let mut idle = Vec::new();
    for &kind in &plan.engines {
        println!("\n== {}", kind.title());
        let scene = Scene::start(kind, plan.over)?;
        versions.push(scene.engine.version()?);
        let mut have = 0;
        for (round, &rows) in plan.rows.iter().enumerate() {
            rows::fill(&scene.engine, have, rows)?;
            have = have.max(rows);
            let mut daemon = scene.daemon()?;
            // Its first connections and caches.
            std::thread::sleep(Duration::from_millis(500));
            let at_start = daemon.resident_kib().unwrap_or(0);
            scene.measure(plan, rows, round == 0, &daemon, &mut measured)?;
            let after = daemon.resident_kib().unwrap_or(0);
            remarks.push(format!(
                "{}, {rows} rows: policyd resident {at_start} KiB after the start, {after} KiB after the load",
                kind.title()
            ));
            idle.push((kind, rows, at_start));
            daemon.terminate()?;
        }
        remarks.extend(scene.resident());
    }
    let mut report = Report {
        title: "policyd".to_owned(),
        conditions: conditions(plan.seconds.as_secs()),
        targets: target::all(&measured, &idle),
        remarks,
        tables: measured.into_iter().map(|one| one.table).collect(),
    };
    report.conditions.push(format!("database servers reached over {}", plan.over.title()));
    report.conditions.extend(versions);
    report.conditions.push(format!("{}, {}", package("postgrey"), package("postfwd")));
    println!();
    report.finish(plan.markdown.as_deref())
}

/// One database with everything that is measured beside it.
struct Scene {
    engine: Engine,
    dns: DnsServer,
    port: Port,
    bare: (Process, Port),
    postgrey: Postgrey,
    postfwd: Postfwd,
}

impl Scene {
    fn start(kind: Kind, over: Over) -> Result<Self> {
        let engine = Engine::start(kind, over)?;
        rows::accounts(&engine)?;
        commit::prepare(&engine)?;
        let dns = DnsServer::start()?;
        for number in 0..SENDER_DOMAINS {
            dns.txt(&format!("d{number}.world.example"), "v=spf1 mx ip4:192.0.2.0/24 -all");
            dns.mx(&format!("d{number}.world.example"), &format!("mx.d{number}.world.example"));
            dns.a(&format!("mx.d{number}.world.example"), Ipv4Addr::new(192, 0, 2, 1));
        }
        let bare_port = Port::reserve()?;
        let bare = bare_peer(engine.folder.path(), "policy", bare_port.address(), &[])?;
        let postgrey = Postgrey::start(&engine.folder)?;
        let postfwd = Postfwd::start(&engine.folder)?;
        Ok(Self { engine, dns, port: Port::reserve()?, bare: (bare, bare_port), postgrey, postfwd })
    }

    fn daemon(&self) -> Result<Daemon> {
        let settings = self.engine.settings(self.port.address(), self.dns.address());
        Daemon::start("policyd", self.engine.folder.path(), &settings)
    }

    /// All cases with so many rows. What does not depend on them (`with_peers`) is measured once a database.
    fn measure<'a>(
        &self,
        plan: &'a Plan,
        rows: u64,
        with_peers: bool,
        daemon: &Daemon,
        measured: &mut Vec<Measured<'a>>,
    ) -> Result<()> {
        let kind = self.engine.kind;
        let mut bare_answer = None;
        for case in Case::ALL.into_iter().filter(|&case| plan.wants(case)) {
            if !Case::QUESTIONS.contains(&case) && !with_peers {
                continue;
            }
            let mut table = Table::new(plan, &title(kind, rows, case));
            match case {
                Case::Commit => {
                    for &connections in &plan.connections {
                        table.add(
                            COMMIT,
                            connections,
                            commit::measure(&self.engine, connections, plan.seconds)?,
                        );
                    }
                }
                Case::SilentDns => {
                    silent::measure_both(plan, &self.dns, self.port.address(), daemon.id(), &mut table)?
                }
                _ => {
                    let good = if case == Case::First { GREYLISTED } else { PASSED };
                    ask(&mut table, OURS, daemon.id(), case, Peer::policy(self.port.address(), good))?;
                    if with_peers {
                        self.measure_peers(case, &mut bare_answer, &mut table)?;
                    }
                    table.ratios();
                }
            }
            measured.push(Measured { kind, rows, case, table });
        }
        Ok(())
    }

    fn measure_peers(
        &self,
        case: Case,
        bare_answer: &mut Option<crate::table::Row>,
        table: &mut Table<'_>,
    ) -> Result<()> {
        match bare_answer {
            // One echo is like the other: the first serves all cases.
            Some(row) => table.rows.push(row.clone()),
            None => {
                let (process, port) = &self.bare;
                ask(table, BARE, process.id(), case, Peer::policy(port.address(), PASSED))?;
                *bare_answer = table.rows.last().cloned();
            }
        }
        match case {
            Case::First => {
                let peer = Peer::policy(self.postgrey.address(), incumbent::GREYLISTED);
                ask(table, POSTGREY, self.postgrey.id(), case, peer)
            }
            Case::Known => {
                self.postgrey.learn_known()?;
                let peer = Peer::policy(self.postgrey.address(), incumbent::KNOWN_ANSWERS);
                ask(table, POSTGREY, self.postgrey.id(), case, peer)
            }
            Case::ThrottleOne | Case::ThrottleMany => {
                let peer = Peer::policy(self.postfwd.address(), PASSED);
                ask(table, POSTFWD, self.postfwd.id(), case, peer)
            }
            Case::Submission | Case::Commit | Case::SilentDns => Ok(()),
        }
    }

    /// Memory of the incumbents after the load.
    fn resident(&self) -> impl Iterator<Item = String> {
        let of = |id: Option<u32>| id.map_or(0, resident_kib);
        let kind = self.engine.kind.title();
        [(POSTGREY, of(self.postgrey.id())), (POSTFWD, of(self.postfwd.id()))].into_iter().map(
            move |(program, kib)| {
                format!("beside {kind}: {program} resident {kib} KiB after the load, all its processes")
            },
        )
    }
}

fn ask(table: &mut Table<'_>, program: &str, process: Option<u32>, case: Case, peer: Peer) -> Result<()> {
    table.dialogues(program, process, &|connection| case.dialogue(peer, connection))
}
