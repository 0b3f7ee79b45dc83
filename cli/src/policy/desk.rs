//! The tables, open; and where they are.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use outrider_core::clock::SystemClock;
use outrider_core::directory::AccountSource;
use outrider_core::schema::Database;
use outrider_core::settings::Interval;
use outrider_core::sql::{DatabaseSettings, Db};
use outrider_policyd::admin::Administration;
use outrider_policyd::settings::CounterStore;
use outrider_policyd::{Policyd, Settings};

use super::input;
use crate::config;
use crate::exit;
use crate::failure::{Failure, Outcome, runtime};
use crate::output::printable;

/// Where the embedded databases are: of the daemon alone, of `outrider serve`.
const STATE: [&str; 2] = ["/var/lib/outrider/policyd", "/var/lib/outrider"];
/// An administrator waits longer than a mail does: for a connection, and for a large table.
const CONNECTION: Interval = Interval::seconds(15);
const ANSWER: Interval = Interval::seconds(60);

/// Where the options of [`Place`] stand in the help of every verb: behind the verb's own.
const HEADING: &str = "Place and output";

/// Which tables, and how to speak about them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// Folder with the settings file policyd.toml
    #[arg(long, value_name = "DIR", default_value = config::FOLDER, global = true, help_heading = HEADING)]
    pub(crate) config: PathBuf,
    /// Folder with the embedded databases; found by itself if they are in the usual place
    #[arg(long, value_name = "DIR", global = true, help_heading = HEADING)]
    pub(crate) state_directory: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
    /// Do not ask before something is removed
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) yes: bool,
    /// Do not say on which database the command works
    #[arg(skip)]
    pub(crate) quiet: bool,
    /// Write down what nothing looks for as well
    #[arg(skip)]
    pub(crate) any_form: bool,
}

/// The tables, open.
pub(crate) struct Desk {
    pub(crate) admin: Administration,
    pub(crate) settings: Arc<Settings>,
    pub(crate) json: bool,
    pub(crate) yes: bool,
    /// Whether what nothing looks for is written down as well, as the replaced tools do.
    pub(crate) any_form: bool,
    quiet: bool,
}

impl Desk {
    /// Says on which database the command works.
    pub(crate) fn say_where(&self, db: &Db) {
        if !self.quiet && !self.json {
            eprintln!("outrider: directly on {}", db.place());
        }
    }

    /// Says what was to be removed and was not there.
    pub(crate) fn say_missing(&self, typed: &[String], removed: &[String]) {
        for text in input::missing(typed, removed).filter(|_| !self.quiet) {
            eprintln!("outrider: \"{}\" was not listed", printable(text));
        }
    }

    /// Says where counters and contacts are kept, in the database or beside it.
    pub(crate) fn say_where_counters(&self) {
        if !self.quiet && !self.json {
            eprintln!("outrider: directly on {}", self.admin.counters_place());
        }
    }

    /// Says on which database the command works, and where counters are kept if that is elsewhere.
    pub(crate) fn say_where_both(&self) {
        self.say_where(self.admin.iredapd());
        if self.settings.counters.store == CounterStore::Valkey {
            self.say_where_counters();
        }
    }
}

/// Opens the tables and does something with them.
pub(crate) fn run<F: Future<Output = Outcome>>(place: &Place, work: impl FnOnce(Desk) -> F) -> ExitCode {
    ExitCode::from(open_and(place, work).unwrap_or_else(Failure::tell))
}

fn open_and<F: Future<Output = Outcome>>(place: &Place, work: impl FnOnce(Desk) -> F) -> Outcome {
    let mut settings = config::load::<Policyd>(&place.config)?;
    settings.database.acquire_timeout = settings.database.acquire_timeout.max(CONNECTION);
    settings.database.statement_timeout = settings.database.statement_timeout.max(ANSWER);
    settings.counters.connect_timeout = settings.counters.connect_timeout.max(CONNECTION);
    settings.counters.response_timeout = settings.counters.response_timeout.max(ANSWER);
    // No mail is sent from here, whatever is found.
    settings.notification.recipients.clear();
    let state = state_directory(&settings, place.state_directory.as_deref(), &STATE.map(Path::new))?;
    let settings = Arc::new(settings);
    let runtime = runtime()?;
    runtime.block_on(async {
        let admin = Administration::open(settings.clone(), &state, Arc::new(SystemClock)).await?;
        let Place { json, yes, any_form, quiet, .. } = *place;
        work(Desk { admin, settings, json, yes, any_form, quiet }).await
    })
}

/// The folder with the embedded databases. They are never made here: the daemon could not write what root has made, and
/// an administrator would look at empty tables and wonder.
fn state_directory(settings: &Settings, given: Option<&Path>, usual: &[&Path]) -> Result<PathBuf, Failure> {
    let embedded = embedded(&settings.database, settings.accounts);
    let Some(first) = embedded.first() else { return Ok(given.unwrap_or(usual[0]).to_owned()) };
    let candidates = given.map_or(usual.to_vec(), |folder| vec![folder]);
    let complete =
        |folder: &&Path| embedded.iter().all(|database| folder.join(file_name(*database)).exists());
    let found: Vec<&Path> = candidates.iter().copied().filter(complete).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            let folders: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
            let text = format!(
                "there is no {} in {}: name the database in policyd.toml, let the daemon make it at its first start, \
                 or say --state-directory",
                file_name(*first),
                folders.join(" or ")
            );
            Err(Failure::new(exit::NO_INPUT, text))
        }
        [first, ..] => {
            let text = format!(
                "there are embedded databases in {} and elsewhere: say --state-directory",
                first.display()
            );
            Err(Failure::usage(text))
        }
    }
}

/// The databases that are embedded ones.
fn embedded(settings: &DatabaseSettings, accounts: AccountSource) -> Vec<Database> {
    [
        (Database::Iredapd, settings.iredapd.is_none()),
        (Database::Amavisd, settings.amavisd.is_none()),
        (Database::Vmail, settings.vmail.is_none() && accounts == AccountSource::Sql),
    ]
    .into_iter()
    .filter_map(|(database, embedded)| embedded.then_some(database))
    .collect()
}

fn file_name(database: Database) -> String {
    format!("{}.db", database.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_embedded_databases() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let usual = [folders[0].path(), folders[1].path()];
        let settings = Settings::default();
        let found = |given| state_directory(&settings, given, &usual).map_err(|failure| failure.code);
        let fill = |folder: &Path| {
            for name in ["iredapd.db", "amavisd.db", "vmail.db"] {
                std::fs::write(folder.join(name), "").unwrap();
            }
        };
        assert_eq!(found(None), Err(exit::NO_INPUT));
        assert_eq!(found(Some(usual[1])), Err(exit::NO_INPUT));
        fill(usual[1]);
        assert_eq!(found(None), Ok(usual[1].to_owned()));
        fill(usual[0]);
        assert_eq!(found(None), Err(exit::USAGE), "which of the two?");
        assert_eq!(found(Some(usual[0])), Ok(usual[0].to_owned()));

        let mut elsewhere = Settings::default();
        for url in
            [&mut elsewhere.database.iredapd, &mut elsewhere.database.amavisd, &mut elsewhere.database.vmail]
        {
            *url = Some("mysql://u@h/x".parse().unwrap());
        }
        assert!(state_directory(&elsewhere, None, &usual).is_ok(), "nothing is embedded");
    }
}
