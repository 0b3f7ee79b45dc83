//! What a run came to: its tables, its targets, and both as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::table::Table;

/// How a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Met,
    NotMet,
    /// Compared with figures of another machine and day.
    Indicative,
}

impl Outcome {
    /// Met or not.
    pub(crate) fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "NOT MET",
            Self::Indicative => "indicative",
        }
    }
}

/// One target against what was measured.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) goal: String,
    pub(crate) measured: String,
    pub(crate) outcome: Outcome,
}

/// Everything a run came to.
#[derive(Debug, Default)]
pub(crate) struct Report<'a> {
    /// The service, and how it was measured.
    pub(crate) title: String,
    /// Date, cores, versions.
    pub(crate) conditions: Vec<String>,
    pub(crate) tables: Vec<Table<'a>>,
    /// Memory and whatever else is no table.
    pub(crate) remarks: Vec<String>,
    pub(crate) targets: Vec<Target>,
}

impl Report<'_> {
    /// Prints conditions, remarks and targets, and writes the Markdown file if one is wanted.
    pub(crate) fn finish(&self, markdown: Option<&Path>) -> Result<()> {
        for line in self.conditions.iter().chain(&self.remarks) {
            println!("  {line}");
        }
        if !self.targets.is_empty() {
            println!("\ntargets");
        }
        for target in &self.targets {
            println!(
                "  {:<10} {}: {} (wanted: {})",
                target.outcome.word(),
                target.what,
                target.measured,
                target.goal
            );
        }
        let count = |outcome| self.targets.iter().filter(|target| target.outcome == outcome).count();
        if !self.targets.is_empty() {
            println!(
                "  {} met, {} not met, {} indicative",
                count(Outcome::Met),
                count(Outcome::NotMet),
                count(Outcome::Indicative)
            );
        }
        match markdown {
            Some(path) => {
                std::fs::write(path, self.markdown()).with_context(|| format!("writing {}", path.display()))
            }
            None => Ok(()),
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        for line in &self.conditions {
            let _ = writeln!(text, "- {line}");
        }
        for table in &self.tables {
            let _ = write!(text, "\n### {}\n\n| program |", table.title);
            let mut connections: Vec<usize> =
                table.rows.iter().flat_map(|row| row.figures.iter().map(|(number, _)| *number)).collect();
            connections.sort_unstable();
            connections.dedup();
            for number in &connections {
                let plural = if *number == 1 { "" } else { "s" };
                let _ = write!(text, " {number} connection{plural}: /s | p50 / p99 ms | CPU ms |");
            }
            let _ = writeln!(text, "\n|---|{}", "---:|".repeat(3 * connections.len()));
            for row in &table.rows {
                let _ = write!(text, "| {} |", row.program);
                for number in &connections {
                    let cells = match row.at(*number) {
                        Some(figure) => format!(
                            " {} | {:.3} / {:.3} | {:.3} |",
                            grouped(figure.per_second),
                            figure.p50.as_secs_f64() * 1e3,
                            figure.p99.as_secs_f64() * 1e3,
                            figure.cpu
                        ),
                        None => " | | |".to_owned(),
                    };
                    text.push_str(&cells);
                }
                text.push('\n');
            }
        }
        if !self.remarks.is_empty() {
            text.push('\n');
        }
        for line in &self.remarks {
            let _ = writeln!(text, "- {line}");
        }
        if !self.targets.is_empty() {
            text.push_str("\n### Targets\n\n| target | wanted | measured | |\n|---|---|---|---|\n");
        }
        for Target { what, goal, measured, outcome } in &self.targets {
            let _ = writeln!(text, "| {what} | {goal} | {measured} | {} |", outcome.word());
        }
        text
    }
}

/// A number with a space between groups of three digits, as the other documents write it.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The machine and the moment: cores, date, what a point is.
pub(crate) fn conditions(seconds: u64) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let date = outrider_tests::process::run("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
        .map_or_else(|_| "date unknown".to_owned(), |text| text.trim().to_owned());
    vec![
        format!(
            "{date}, {cores} cores ({}), client, server and database on them",
            model.as_deref().unwrap_or("model unknown")
        ),
        format!(
            "{seconds} s a point after a warm-up, every connection asks the next question when it has the answer; the machine comes to rest before the next point"
        ),
    ]
}

/// `name version` of an installed Debian package.
pub(crate) fn package(name: &str) -> String {
    let version = outrider_tests::process::run("dpkg-query", &["-W", "-f", "${Version}", name]);
    format!("{name} {}", version.unwrap_or_else(|_| "of unknown version".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Figure;
    use crate::options::Plan;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0.4, "0"), (999.0, "999"), (1_000.0, "1 000"), (1_234_567.8, "1 234 568")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn markdown_has_a_cell_for_every_number_of_connections() {
        let plan = Plan::parse("srs", &[]).unwrap();
        let mut table = Table::new(&plan, "a table");
        let figure = |count| Figure::new(vec![250; count], Duration::from_secs(1), 0.5).unwrap();
        table.add("ours", 1, figure(1_500));
        table.add("ours", 8, figure(2_000));
        table.add("theirs", 8, figure(1_000));
        let report = Report { title: "srs".to_owned(), tables: vec![table], ..Report::default() };
        let text = report.markdown();
        assert!(
            text.contains("| ours | 1 500 | 0.250 / 0.250 | 0.333 | 2 000 | 0.250 / 0.250 | 0.250 |\n"),
            "{text}"
        );
        assert!(text.contains("| theirs | | | | 1 000 |"), "{text}");
        let columns: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [8; 4], "{text}");
    }
}
