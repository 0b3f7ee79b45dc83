//! The targets of the policy service, held against what was measured.

use std::time::Duration;

use super::case::Case;
use super::engine::Kind;
use super::{BARE, COMMIT, Measured, OURS, POSTFWD, POSTGREY, silent};
use crate::load::Figure;
use crate::report::{Outcome, Target, grouped};

/// A rate that waits for the disk need not be higher than this share of the bare commit rate.
const SHARE_OF_COMMITS: f64 = 0.7;
/// Answers without a change come at this share of a bare server's rate at least.
const SHARE_OF_ECHO: f64 = 0.7;
/// What counts as "no slower" between two points: single points move by a fifth.
const NO_SLOWER: f64 = 0.8;
/// Resident memory of an idle daemon.
const IDLE_KIB: u64 = 12 * 1024;

/// iRedAPD 6.1 with the eight plugins iRedMail enables on MariaDB with durable commits, two shared cores, Debian 12: answers a second with 1 and with
/// 8 connections. It is not packaged by Debian, so it cannot be measured in the same run.
const IREDAPD: [(Case, [f64; 2]); 5] = [
    (Case::Submission, [253.0, 244.0]),
    (Case::First, [135.0, 126.0]),
    (Case::Known, [117.0, 93.0]),
    (Case::ThrottleOne, [368.0, 286.0]),
    (Case::ThrottleMany, [368.0, 286.0]),
];

/// Every target to which there is a figure.
pub(super) fn all(measured: &[Measured<'_>], idle: &[(Kind, u64, u64)]) -> Vec<Target> {
    let mut targets = Vec::new();
    for one in measured {
        match one.case {
            Case::Commit => {}
            Case::SilentDns => silent_domain(one, &mut targets),
            _ => {
                for connections in [1, 8] {
                    rate(measured, one, connections, &mut targets);
                }
                peers(measured, one, &mut targets);
                growth(measured, one, &mut targets);
            }
        }
    }
    for (kind, rows, kib) in idle {
        targets.push(Target {
            what: format!("{}, {rows} rows: resident after the start", kind.title()),
            goal: format!("at most {IDLE_KIB} KiB"),
            measured: format!("{kib} KiB"),
            outcome: Outcome::of(*kib <= IDLE_KIB),
        });
    }
    for one in measured {
        iredapd(measured, one, &mut targets);
    }
    targets
}

/// Answers a second and the slowest hundredth, at 1 and at 8 connections.
fn rate(measured: &[Measured<'_>], one: &Measured<'_>, connections: usize, targets: &mut Vec<Target>) {
    let Some(figure) = one.table.figure(OURS, connections) else { return };
    let (goal, p99) = match (one.case.writes(), connections) {
        (false, 1) => (10_000.0, None),
        (true, 1) => (2_500.0, None),
        (false, _) => (25_000.0, Some(Duration::from_micros(1_500))),
        (true, _) => (8_000.0, Some(Duration::from_millis(4))),
    };
    let (wanted, goal) = allowed(measured, one, connections, goal);
    targets.push(Target {
        what: format!("{}, {}", one.name(), plural(connections)),
        goal: format!("at least {wanted}"),
        measured: format!("{}/s", grouped(figure.per_second)),
        outcome: Outcome::of(figure.per_second >= goal),
    });
    if let Some(limit) = p99 {
        targets.push(Target {
            what: format!("{}, {}, p99", one.name(), plural(connections)),
            goal: format!("below {} ms", limit.as_secs_f64() * 1e3),
            measured: format!("{:.3} ms", figure.p99.as_secs_f64() * 1e3),
            outcome: Outcome::of(figure.p99 < limit),
        });
    }
}

/// A wanted rate in words and as a number: with one connection, answers that wait for a commit come one commit after the other.
fn allowed(measured: &[Measured<'_>], one: &Measured<'_>, connections: usize, goal: f64) -> (String, f64) {
    let commits = (one.case.writes() && connections == 1)
        .then(|| commit_rate(measured, one.kind, connections))
        .flatten();
    match commits {
        Some(commits) if commits * SHARE_OF_COMMITS < goal => (
            format!(
                "70 % of the {} commits/s of this run, in place of {}/s",
                grouped(commits),
                grouped(goal)
            ),
            commits * SHARE_OF_COMMITS,
        ),
        _ => (format!("{}/s", grouped(goal)), goal),
    }
}

fn commit_rate(measured: &[Measured<'_>], kind: Kind, connections: usize) -> Option<f64> {
    let commit = measured.iter().find(|one| one.kind == kind && one.case == Case::Commit)?;
    Some(commit.table.figure(COMMIT, connections)?.per_second)
}

/// The programs measured beside ours, which wait for no disk: where one commit after the other allows no more, 70 % of the bare
/// commits are enough here, too. Their figures are those of the same database; with other numbers of rows in it they were not measured again.
fn peers(measured: &[Measured<'_>], one: &Measured<'_>, targets: &mut Vec<Target>) {
    let (peer, factor) = match one.case {
        Case::Submission => (BARE, SHARE_OF_ECHO),
        Case::First => (POSTGREY, 2.5),
        Case::Known => (POSTGREY, 3.0),
        _ => (POSTFWD, 3.0),
    };
    let mut compare = |peer: &str, factor: f64| {
        let theirs = measured
            .iter()
            .find(|other| other.kind == one.kind && other.case == one.case && other.table.has(peer))
            .map(|other| &other.table);
        let Some(row) = one.table.rows.iter().find(|row| row.program == OURS) else { return };
        for (connections, ours) in &row.figures {
            let Some(theirs) = theirs.and_then(|table| table.figure(peer, *connections)) else { continue };
            let ratio = ours.per_second / theirs.per_second;
            let (wanted, goal) = allowed(measured, one, *connections, factor * theirs.per_second);
            targets.push(Target {
                what: format!("{}, {}, against {peer}", one.name(), plural(*connections)),
                goal: format!("at least {factor} times {}/s: {wanted}", grouped(theirs.per_second)),
                measured: format!("{ratio:.2} times, {}/s", grouped(ours.per_second)),
                outcome: Outcome::of(ours.per_second >= goal),
            });
        }
    };
    compare(peer, factor);
    if one.case == Case::Known {
        compare(BARE, SHARE_OF_ECHO);
    }
}

/// Many rows against few.
fn growth(measured: &[Measured<'_>], one: &Measured<'_>, targets: &mut Vec<Target>) {
    let few = measured.iter().find(|other| other.kind == one.kind && other.case == one.case);
    let Some(few) = few.filter(|few| few.rows < one.rows) else { return };
    let Some(row) = one.table.rows.iter().find(|row| row.program == OURS) else { return };
    for (connections, figure) in &row.figures {
        let Some(before) = few.table.figure(OURS, *connections) else { continue };
        let ratio = figure.per_second / before.per_second;
        targets.push(Target {
            what: format!("{}, {}, against {} rows", one.name(), plural(*connections), few.rows),
            goal: format!("no slower (at least {NO_SLOWER} times)"),
            measured: format!("{ratio:.2} times"),
            outcome: Outcome::of(ratio >= NO_SLOWER),
        });
    }
}

/// Others' mail beside a silent name server.
fn silent_domain(one: &Measured<'_>, targets: &mut Vec<Target>) {
    let Some(row) = one.table.rows.iter().find(|row| row.program == silent::WITH) else { return };
    for (connections, with) in &row.figures {
        let Some(without) = one.table.figure(silent::WITHOUT, *connections) else { continue };
        let tail = |figure: &Figure| {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            format!(
                "p50 {:.3} ms, p99 {:.3} ms, slowest {:.0} ms",
                ms(figure.p50),
                ms(figure.p99),
                ms(figure.slowest)
            )
        };
        let ratio = with.per_second / without.per_second;
        targets.push(Target {
            what: format!("{}, {}", one.name(), plural(*connections)),
            goal: format!(
                "as without ({}/s, {}; at least {NO_SLOWER} times)",
                grouped(without.per_second),
                tail(&without)
            ),
            measured: format!("{ratio:.2} times, {}", tail(with)),
            outcome: Outcome::of(ratio >= NO_SLOWER),
        });
    }
}

/// The incumbent's own figures, of another day and machine. Where its database allowed no more, 70 % of the bare commits are enough here, too.
fn iredapd(measured: &[Measured<'_>], one: &Measured<'_>, targets: &mut Vec<Target>) {
    let Some((_, theirs)) = IREDAPD.iter().find(|(case, _)| *case == one.case) else { return };
    for (connections, theirs) in [1, 8].into_iter().zip(theirs) {
        let Some(figure) = one.table.figure(OURS, connections) else { continue };
        let ratio = figure.per_second / theirs;
        let (wanted, _) = allowed(measured, one, connections, 20.0 * theirs);
        targets.push(Target {
            what: format!("{}, {}, against iRedAPD 6.1 measured elsewhere", one.name(), plural(connections)),
            goal: format!("20 times {theirs}/s, 50 times at most points ({wanted})"),
            measured: format!("{ratio:.0} times"),
            outcome: Outcome::Indicative,
        });
    }
}

fn plural(connections: usize) -> String {
    format!("{connections} connection{}", if connections == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Plan;
    use crate::table::Table;

    fn figure(per_second: usize, micros: u32) -> Figure {
        Figure::new(vec![micros; per_second], Duration::from_secs(1), 0.0).unwrap()
    }

    fn measured<'a>(
        plan: &'a Plan,
        case: Case,
        rows: u64,
        figures: &[(&str, usize, usize, u32)],
    ) -> Measured<'a> {
        let mut table = Table::new(plan, case.title());
        for (program, connections, per_second, micros) in figures {
            table.add(program, *connections, figure(*per_second, *micros));
        }
        Measured { kind: Kind::MariaDb, rows, case, table }
    }

    #[test]
    fn one_connection_is_held_against_the_commit_rate() {
        let plan = Plan::parse("policyd", &[]).unwrap();
        let table = |commits, ours| {
            vec![
                measured(&plan, Case::Commit, 10, &[(COMMIT, 1, commits, 500)]),
                measured(&plan, Case::First, 10, &[(OURS, 1, ours, 500)]),
            ]
        };
        for (commits, ours, outcome) in [
            (2_000, 1_400, Outcome::Met),
            (2_000, 1_399, Outcome::NotMet),
            (9_000, 2_500, Outcome::Met),
            (9_000, 2_499, Outcome::NotMet),
        ] {
            assert_eq!(all(&table(commits, ours), &[])[0].outcome, outcome, "{commits} {ours}");
        }
    }

    #[test]
    fn rates_peers_and_growth_are_judged() {
        let plan = Plan::parse("policyd", &[]).unwrap();
        let known = [
            measured(
                &plan,
                Case::Known,
                10,
                &[(OURS, 8, 25_000, 1_499), (BARE, 8, 40_000, 100), (POSTGREY, 8, 3_000, 2_000)],
            ),
            measured(&plan, Case::Known, 20, &[(OURS, 8, 8_000, 1_500)]),
        ];
        let outcomes: Vec<_> = all(&known, &[(Kind::MariaDb, 10, IDLE_KIB + 1)])
            .iter()
            .filter(|target| target.outcome != Outcome::Indicative)
            .map(|target| target.outcome == Outcome::Met)
            .collect();
        // Few rows: rate, p99, postgrey, echo. Many: rate, p99, postgrey, echo, growth. Memory.
        assert_eq!(outcomes, [true, true, true, false, false, false, false, false, false, false]);
    }

    #[test]
    fn a_silent_domain_that_costs_others_is_seen() {
        let plan = Plan::parse("policyd", &[]).unwrap();
        for (with, outcome) in [(900, Outcome::Met), (700, Outcome::NotMet)] {
            let figures = [(silent::WITHOUT, 8, 1_000, 100), (silent::WITH, 8, with, 100)];
            assert_eq!(all(&[measured(&plan, Case::SilentDns, 10, &figures)], &[])[0].outcome, outcome);
        }
    }
}
