//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::policy::case::Case;
use crate::policy::engine::{Kind, Over};

pub(crate) const USAGE: &str = "usage: outrider-bench policyd|srs|contentfilter|quota-status [--seconds N] [--connections 1,8,64] [--markdown FILE]
       policyd also takes [--engines sqlite,mariadb,postgres] [--rows 5000,5000000] [--over tcp|socket]
       [--cases submission,first,known,throttle-one,throttle-many,commit,silent-dns]";

/// How long, how many, and of what.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How long each point is measured.
    pub(crate) seconds: Duration,
    /// Numbers of connections.
    pub(crate) connections: Vec<usize>,
    /// Where the tables are written to as Markdown.
    pub(crate) markdown: Option<PathBuf>,
    /// policyd: which databases.
    pub(crate) engines: Vec<Kind>,
    /// policyd: the way to a database server.
    pub(crate) over: Over,
    /// policyd: rows in the tracking tables, ascending.
    pub(crate) rows: Vec<u64>,
    /// policyd: which questions.
    pub(crate) cases: Vec<Case>,
}

impl Plan {
    /// The defaults of a service, changed by the options that follow its name.
    pub(crate) fn parse(service: &str, options: &[String]) -> Result<Self> {
        let mut plan = Self {
            seconds: Duration::from_secs(5),
            connections: if service == "policyd" { vec![1, 8, 64] } else { vec![1, 8] },
            markdown: None,
            engines: Kind::ALL.to_vec(),
            over: Over::Tcp,
            rows: vec![5_000, 5_000_000],
            cases: Case::ALL.to_vec(),
        };
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().with_context(|| format!("{option} needs a value\n{USAGE}"))?;
            match option.as_str() {
                "--seconds" => plan.seconds = Duration::from_secs(value.parse().context("--seconds")?),
                "--connections" => {
                    plan.connections = list(value, |word| word.parse().ok()).context("--connections")?;
                }
                "--markdown" => plan.markdown = Some(value.into()),
                "--engines" if service == "policyd" => {
                    plan.engines = list(value, Kind::by_name).context("--engines")?;
                }
                "--over" if service == "policyd" => {
                    plan.over =
                        Over::by_name(value).with_context(|| format!("--over: {value:?}\n{USAGE}"))?;
                }
                "--rows" if service == "policyd" => {
                    plan.rows = list(value, |word| word.parse().ok()).context("--rows")?;
                    // A table is only ever filled further.
                    plan.rows.sort_unstable();
                }
                "--cases" if service == "policyd" => {
                    plan.cases = list(value, Case::by_name).context("--cases")?;
                }
                _ => bail!("{option} is not known\n{USAGE}"),
            }
        }
        if plan.seconds.is_zero() || plan.connections.contains(&0) {
            bail!("a point needs at least one second and one connection\n{USAGE}");
        }
        Ok(plan)
    }

    /// Whether a case was asked for.
    pub(crate) fn wants(&self, case: Case) -> bool {
        self.cases.contains(&case)
    }
}

fn list<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    text.split(',')
        .map(|word| read(word).with_context(|| format!("{word:?} is not known\n{USAGE}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(service: &str, options: &[&str]) -> Result<Plan> {
        Plan::parse(service, &options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_what_is_to_be_measured() {
        let plan = plan(
            "policyd",
            &"--engines postgres,sqlite --rows 7000,10 --cases first --connections 2 --over socket"
                .split(' ')
                .collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(plan.engines, [Kind::Postgres, Kind::Sqlite]);
        assert_eq!((plan.rows, plan.connections), (vec![10, 7_000], vec![2]));
        assert_eq!((plan.cases, plan.over), (vec![Case::First], Over::Socket));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for (service, options) in [
            ("policyd", vec!["--engines", "oracle"]),
            ("policyd", vec!["--over", "pigeons"]),
            ("policyd", vec!["--seconds", "0"]),
            ("policyd", vec!["--connections", "1,0"]),
            ("policyd", vec!["--rows"]),
            ("srs", vec!["--rows", "5"]),
        ] {
            assert!(plan(service, &options).is_err(), "{service} {options:?}");
        }
    }
}
