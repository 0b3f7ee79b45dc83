//! `outrider srs`: questions about single addresses, and the change of secrets.

mod rotation;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use outrider_core::clock::{Clock, SystemClock};
use outrider_core::daemon::{Daemon, DaemonSettings, Environment};
use outrider_core::forwarding::{Forward, Forwarding, Reverse, create_statements};
use outrider_core::privilege::Account;
use outrider_core::sql::Engine;
use outrider_srsd::{Settings, Srsd};

use crate::config;
use crate::exit;
use crate::failure::{Failure, Outcome, runtime};
use crate::output::printable;

/// How long a database may take to answer a question of the command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the SRS engine with srsd's settings, and changes its secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with srsd.toml
    #[arg(long, value_name = "DIR", default_value = config::FOLDER, global = true)]
    config: PathBuf,
    /// srsd's own folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/outrider/srsd", global = true)]
    state_directory: PathBuf,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, clap::Subcommand)]
enum Question {
    /// Print what a sender is rewritten to; exit status 1 if it stays as it is
    Forward {
        /// The envelope sender
        address: String,
    },
    /// Print the original of an SRS address; exit status 1 if it is not believed
    Reverse {
        /// The envelope recipient
        address: String,
    },
    /// Say what happens to an address, and why
    Explain {
        /// Any address
        address: String,
    },
    /// Show how many secrets there are and when each old one may go
    Secrets,
    /// Put a new secret in front of those in the secrets file; the old ones go on verifying
    Rotate {
        /// Only remove old secrets whose last address has expired
        #[arg(long)]
        expire: bool,
    },
    /// Print the statements that make the table of envelope_database
    Table {
        /// The kind of server
        #[arg(value_enum)]
        engine: Server,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Server {
    Mysql,
    Postgresql,
    Sqlite,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if let Question::Table { engine } = arguments.question {
        let engine = match engine {
            Server::Mysql => Engine::MySql,
            Server::Postgresql => Engine::Postgres,
            Server::Sqlite => Engine::Sqlite,
        };
        create_statements(engine).iter().for_each(|statement| println!("{statement};"));
        return ExitCode::SUCCESS;
    }
    ExitCode::from(answer(arguments).unwrap_or_else(Failure::tell))
}

fn answer(arguments: &Arguments) -> Outcome {
    let settings = config::load::<Srsd>(&arguments.config)?;
    let (state, now) = (&arguments.state_directory, SystemClock.unix_seconds());
    match &arguments.question {
        Question::Secrets => rotation::report(&settings, state, now),
        Question::Rotate { expire } => rotation::rotate(&settings, state, now, *expire),
        question => ask(question, &settings, state, now),
    }
}

fn ask(question: &Question, settings: &Settings, state: &Path, now: i64) -> Outcome {
    // Files made on the way must belong to the daemon, which could not write them otherwise.
    let account = Account::from_settings(settings.frame().process)?;
    let owner = || Account::owner_of(state).filter(|_| nix::unistd::geteuid().is_root());
    if let Some(account) = account.or_else(owner) {
        account.become_it()?;
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let env = Environment::system(Srsd::NAME, state.to_path_buf());
        let forwarding = Box::pin(Forwarding::open(&settings.srs(), &env)).await?;
        forwarding.read_again().await;
        Ok(match question {
            Question::Forward { address } => forward(&forwarding, address).await,
            Question::Reverse { address } => reverse(&forwarding, address).await,
            Question::Explain { address } => explain(&forwarding, address, now).await,
            // Answered before.
            Question::Secrets | Question::Rotate { .. } | Question::Table { .. } => 0,
        })
    })
}

async fn forward(forwarding: &Forwarding, address: &str) -> u8 {
    match forwarding.forward(address, PATIENCE).await {
        Forward::Rewritten(rewritten) => {
            println!("{}", printable(&rewritten));
            0
        }
        Forward::Left(left) => {
            eprintln!("{} stays: {left}", printable(address));
            exit::NEGATIVE
        }
        Forward::Undecided => {
            let reason = forwarding.failure().unwrap_or_default();
            eprintln!("{}: local domains are not known: {reason}", printable(address));
            exit::TRY_AGAIN
        }
        Forward::Unkept => {
            eprintln!("{}: envelope_database did not keep it", printable(address));
            exit::TRY_AGAIN
        }
    }
}

async fn reverse(forwarding: &Forwarding, address: &str) -> u8 {
    let (answer, code) = match forwarding.reverse(address, PATIENCE).await {
        Reverse::Original(original) => {
            println!("{}", printable(&original.address));
            return 0;
        }
        Reverse::Left(error) => (error.to_string(), exit::NEGATIVE),
        Reverse::UnknownToken => {
            ("its token is not in envelope_database, or no longer".into(), exit::NEGATIVE)
        }
        Reverse::NoDatabase => {
            ("it has a token, and envelope_database is not set".into(), exit::CONFIGURATION)
        }
        Reverse::Unreadable => ("envelope_database does not answer".into(), exit::TRY_AGAIN),
        Reverse::Undecided => ("program fault".into(), exit::INTERNAL),
    };
    eprintln!("{}: {answer}", printable(address));
    code
}

async fn explain(forwarding: &Forwarding, address: &str, now: i64) -> u8 {
    println!("address      {}", printable(address));
    if let Some(parts) = forwarding.srs().inspect(address, now) {
        println!(
            "form         {}",
            if parts.srs1 { "SRS1: of a second forwarder" } else { "SRS0: of a first forwarder" }
        );
        println!("host         {}", printable(&parts.host));
        println!("{}   {}", if parts.srs1 { "opaque    " } else { "local part" }, printable(&parts.rest));
        match parts.secret {
            Some(0) => println!("hash         good, made with the secret that signs"),
            Some(number) => println!("hash         good, made with secret {}", number + 1),
            None => println!("hash         made with none of our secrets, or too short"),
        }
        let validity = forwarding.srs().options().validity_days;
        match parts.age_days {
            Some(0) => println!("made         today; good for {validity} more days"),
            Some(age) if age <= validity => {
                println!("made         {age} days ago; good for {} more days", validity - age);
            }
            Some(age) => println!("made         {age} days ago or in the future; good for {validity} days"),
            None if parts.srs1 => {
                println!("made         unknown: SRS1 addresses live as long as their secret")
            }
            None => println!("made         time stamp unreadable"),
        }
    }
    match forwarding.preview(address) {
        Forward::Rewritten(rewritten) => println!("as sender    becomes {}", printable(&rewritten)),
        Forward::Left(left) => println!("as sender    stays: {left}"),
        Forward::Undecided | Forward::Unkept => {
            println!(
                "as sender    undecided: local domains are not known: {}",
                forwarding.failure().unwrap_or_default()
            );
        }
    }
    match forwarding.reverse(address, PATIENCE).await {
        Reverse::Original(original) => println!("as recipient becomes {}", printable(&original.address)),
        Reverse::Left(error) => println!("as recipient stays: {error}"),
        Reverse::UnknownToken => println!("as recipient stays: its token is not in envelope_database"),
        Reverse::NoDatabase => println!("as recipient deferred: envelope_database is not set"),
        Reverse::Unreadable => println!("as recipient deferred: envelope_database does not answer"),
        Reverse::Undecided => println!("as recipient undecided: program fault"),
    }
    0
}
