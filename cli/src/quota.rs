//! `outrider quota`: questions about the quota service.

use std::path::PathBuf;
use std::process::ExitCode;

use outrider_core::settings::Size;
use outrider_quota_status::{Explained, Explanation, QuotaStatus, Room, explain};

use crate::config;
use crate::exit;
use crate::failure::{Failure, Outcome, runtime};
use crate::output::printable;

/// What to ask.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Quota {
    /// Show what Postfix is answered about a recipient, and why
    Explain(Arguments),
}

/// Reads the settings of quota-status and asks the accounts as it would; the daemon need not run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The recipient, as Postfix would name it
    address: String,
    /// Size of the message asked about, in bytes or such as "10M"
    #[arg(long, default_value = "0", value_name = "SIZE")]
    size: Size,
    /// Folder with the settings files
    #[arg(long, value_name = "DIR", default_value = config::FOLDER)]
    config: PathBuf,
    /// Folder with the embedded database, where the settings name no other
    #[arg(long, value_name = "DIR", default_value = "/var/lib/outrider/quota-status")]
    state_directory: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(crate) fn run(quota: Quota) -> ExitCode {
    let Quota::Explain(arguments) = quota;
    ExitCode::from(run_explain(&arguments).unwrap_or_else(Failure::tell))
}

fn run_explain(arguments: &Arguments) -> Outcome {
    let settings = config::load::<QuotaStatus>(&arguments.config)?;
    let embedded = arguments.state_directory.join("vmail.db");
    if settings.database.vmail.is_none() && settings.database.iredadmin.is_none() && !embedded.exists() {
        // Opening it would make it.
        let text = format!("database.vmail is not set, and there is no {}", embedded.display());
        return Err(Failure::new(exit::CONFIGURATION, text));
    }
    let runtime = runtime()?;
    let asked = explain(&settings, &arguments.state_directory, &arguments.address, arguments.size.0);
    let explanation = runtime.block_on(asked).map_err(Failure::from)?;
    match arguments.json {
        // It holds strings and numbers only; there is nothing that JSON could not express.
        true => println!("{}", serde_json::to_string_pretty(&explanation).unwrap_or_default()),
        false => print(&explanation),
    }
    Ok(0)
}

fn print(explanation: &Explanation) {
    println!("recipient  {}", printable(&explanation.recipient));
    if let Some(name) = &explanation.name {
        println!("looked up  {}", printable(name));
    }
    println!("size       {} bytes", explanation.size);
    println!("aliases    {}", if explanation.resolve_aliases { "followed" } else { "not followed" });
    println!();
    for address in &explanation.addresses {
        print_address(address);
    }
    println!("answer     action={}", printable(&explanation.action));
    println!("because    {}", printable(&explanation.because));
}

fn print_address(address: &Explained) {
    let indent = "  ".repeat(address.depth);
    println!("{indent}{}: {}", printable(&address.address), printable(&address.what));
    if let Some(room) = &address.mailbox {
        print_room(&indent, room);
    }
    for target in &address.targets {
        println!("{indent}  -> {}", printable(target));
    }
    println!();
}

fn print_room(indent: &str, room: &Room) {
    let limit = match room.limit_bytes {
        0 => "none".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    println!("{indent}  account  {}", printable(&room.username));
    println!("{indent}  limit    {limit} ({})", room.limit_source);
    match (&room.usage_failure, room.used_bytes) {
        (Some(why), _) => println!("{indent}  used     not known: {} ({})", printable(why), room.used_source),
        (None, Some(bytes)) => println!("{indent}  used     {bytes} bytes ({})", room.used_source),
        (None, None) => println!("{indent}  used     nothing stored ({})", room.used_source),
    }
    if room.limit_bytes > 0 {
        println!("{indent}  grace    {} bytes", room.grace_bytes);
    }
    if let (Some(limit), Some(used)) = (room.domain_limit_bytes, room.domain_used_bytes) {
        println!("{indent}  domain   {used} of {limit} bytes (domain.maxquota)");
    }
    println!("{indent}  message  {}", room.message);
}
