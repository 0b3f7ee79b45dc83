//! `outrider srs`: questions about single addresses, and the change of secrets.

mod rotation;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use outrider_core::clock::{Clock, SystemClock};
use outrider_core::daemon::{Daemon, DaemonSettings, Environment};
use outrider_core::forwarding::{Forward, Forwarding, Reverse, create_statements};
use outrider_core::privilege::{Account, PrivilegeError};
use outrider_core::settings;
use outrider_core::sql::Engine;
use outrider_srsd::{Settings, Srsd};

use crate::check::file_of;
use crate::exit;

/// How long a database may take to answer a question of the command.
const PATIENCE: Duration = Duration::from_secs(10);
/// `EX_TEMPFAIL`: the same question may have an answer later.
const TEMPORARY: u8 = 75;

/// Asks the SRS engine with srsd's settings, and changes its secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with srsd.toml
    #[arg(long, value_name = "DIR", default_value = "/etc/outrider", global = true)]
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
    let file = file_of::<Srsd>(&arguments.config);
    let loaded = match settings::load::<Settings>(file.exists().then_some(&*file), Srsd::NAME) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let settings = loaded.settings;
    let now = SystemClock.unix_seconds();
    let outcome = match &arguments.question {
        Question::Secrets => rotation::report(&settings, &arguments.state_directory, now),
        Question::Rotate { expire } => rotation::rotate(&settings, &arguments.state_directory, now, *expire),
        question => ask(question, &settings, &arguments.state_directory, now),
    };
    outcome.unwrap_or_else(|(reason, code)| {
        eprintln!("outrider srs: {reason}");
        ExitCode::from(code)
    })
}

/// What went wrong, and the exit status for it.
type Failure = (String, u8);

fn ask(question: &Question, settings: &Settings, state: &Path, now: i64) -> Result<ExitCode, Failure> {
    // Files made on the way must belong to the daemon, which could not write them otherwise.
    let failed = |error: PrivilegeError| (error.to_string(), error.exit_code());
    let account = Account::from_settings(settings.frame().process).map_err(failed)?;
    let owner = || Account::owner_of(state).filter(|_| nix::unistd::geteuid().is_root());
    if let Some(account) = account.or_else(owner) {
        account.become_it().map_err(failed)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (error.to_string(), exit::SYSTEM))?;
    runtime.block_on(async {
        let env = Environment::system(Srsd::NAME, state.to_path_buf());
        let forwarding = Box::pin(Forwarding::open(&settings.srs(), &env)).await;
        let forwarding = forwarding.map_err(|error| (error.to_string(), error.exit_code()))?;
        forwarding.read_again().await;
        Ok(match question {
            Question::Forward { address } => forward(&forwarding, address).await,
            Question::Reverse { address } => reverse(&forwarding, address).await,
            Question::Explain { address } => explain(&forwarding, address, now).await,
            // Answered before.
            Question::Secrets | Question::Rotate { .. } | Question::Table { .. } => ExitCode::SUCCESS,
        })
    })
}

async fn forward(forwarding: &Forwarding, address: &str) -> ExitCode {
    match forwarding.forward(address, PATIENCE).await {
        Forward::Rewritten(rewritten) => {
            println!("{rewritten}");
            ExitCode::SUCCESS
        }
        Forward::Left(left) => {
            eprintln!("{address} stays: {left}");
            ExitCode::from(exit::NEGATIVE)
        }
        Forward::Undecided => {
            let reason = forwarding.failure().unwrap_or_default();
            eprintln!("{address}: local domains are not known: {reason}");
            ExitCode::from(TEMPORARY)
        }
        Forward::Unkept => {
            eprintln!("{address}: envelope_database did not keep it");
            ExitCode::from(TEMPORARY)
        }
    }
}

async fn reverse(forwarding: &Forwarding, address: &str) -> ExitCode {
    let (answer, code) = match forwarding.reverse(address, PATIENCE).await {
        Reverse::Original(original) => {
            println!("{}", original.address);
            return ExitCode::SUCCESS;
        }
        Reverse::Left(error) => (error.to_string(), exit::NEGATIVE),
        Reverse::UnknownToken => {
            ("its token is not in envelope_database, or no longer".into(), exit::NEGATIVE)
        }
        Reverse::NoDatabase => {
            ("it has a token, and envelope_database is not set".into(), exit::CONFIGURATION)
        }
        Reverse::Unreadable => ("envelope_database does not answer".into(), TEMPORARY),
        Reverse::Undecided => ("program fault".into(), exit::INTERNAL),
    };
    eprintln!("{address}: {answer}");
    ExitCode::from(code)
}

async fn explain(forwarding: &Forwarding, address: &str, now: i64) -> ExitCode {
    println!("address      {address}");
    if let Some(parts) = forwarding.srs().inspect(address, now) {
        println!(
            "form         {}",
            if parts.srs1 { "SRS1: of a second forwarder" } else { "SRS0: of a first forwarder" }
        );
        println!("host         {}", parts.host);
        println!("{}   {}", if parts.srs1 { "opaque    " } else { "local part" }, parts.rest);
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
        Forward::Rewritten(rewritten) => println!("as sender    becomes {rewritten}"),
        Forward::Left(left) => println!("as sender    stays: {left}"),
        Forward::Undecided | Forward::Unkept => {
            println!(
                "as sender    undecided: local domains are not known: {}",
                forwarding.failure().unwrap_or_default()
            );
        }
    }
    match forwarding.reverse(address, PATIENCE).await {
        Reverse::Original(original) => println!("as recipient becomes {}", original.address),
        Reverse::Left(error) => println!("as recipient stays: {error}"),
        Reverse::UnknownToken => println!("as recipient stays: its token is not in envelope_database"),
        Reverse::NoDatabase => println!("as recipient deferred: envelope_database is not set"),
        Reverse::Unreadable => println!("as recipient deferred: envelope_database does not answer"),
        Reverse::Undecided => println!("as recipient undecided: program fault"),
    }
    ExitCode::SUCCESS
}
