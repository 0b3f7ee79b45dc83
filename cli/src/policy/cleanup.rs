//! `outrider cleanup`: removes rows that have had their time.

use std::process::ExitCode;

use serde::Serialize;

use super::desk::{self, Desk, Place};
use crate::failure::{Outcome, code_of};
use crate::output::{Table, print};

/// Remove triplets, counters, scores and session rows that have had their time, as the daemon does on its schedule
///
/// In steps of cleanup.batch rows, each one short statement; safe while daemons and other hosts work. Works on the database
/// itself, with the settings of policyd; no daemon has to run. Nothing is asked: what goes is of no use to anybody.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    desk::run(&arguments.place, clean_up)
}

/// Removes old rows and says how many went and stayed.
pub(crate) async fn clean_up(desk: Desk) -> Outcome {
    #[derive(Serialize)]
    struct Report {
        table: &'static str,
        removed: Option<u64>,
        left: Option<i64>,
        error: Option<String>,
    }
    desk.say_where(desk.admin.iredapd());
    let (mut reports, mut code) = (Vec::new(), 0);
    for swept in desk.admin.clean_up().await {
        let mut report = Report { table: swept.table, removed: None, left: None, error: None };
        let counted = match swept.removed {
            Ok(rows) => {
                report.removed = Some(rows);
                desk.admin.rows_of(swept.table).await
            }
            Err(error) => Err(error),
        };
        match counted {
            Ok(rows) => report.left = Some(rows),
            Err(error) => {
                code = code_of(&error);
                report.error = Some(error.to_string());
            }
        }
        reports.push(report);
    }
    print(desk.json, &reports, || {
        let mut table = Table::new(&["TABLE", "REMOVED", "LEFT"]);
        for report in &reports {
            let removed = report.removed.map_or("-".to_owned(), |rows| rows.to_string());
            let left = report.left.map_or("-".to_owned(), |rows| rows.to_string());
            table.row(&[&report.table, &removed, &left]);
        }
        table.to_string()
    })?;
    for report in &reports {
        if let Some(error) = &report.error {
            eprintln!("outrider: {}: {error}", report.table);
        }
    }
    Ok(code)
}
