//! `outrider senderscore`: reputation scores of client addresses.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::Subcommand;
use outrider_policyd::store::senderscore::{BEST, FOR_EVER};
use serde_json::{Value, json};

use super::desk::{self, Desk, Place};
use super::input;
use crate::exit;
use crate::failure::Outcome;
use crate::output::{moment, print};

/// Reputation scores of clients, as the rule senderscore keeps them
///
/// Works on the database itself, with the settings of policyd; no daemon has to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the score of a client; exit status 1 if none is known
    Show {
        /// IPv4 address
        client: Ipv4Addr,
    },
    /// Give clients the best score for good
    Whitelist {
        /// IPv4 addresses
        #[arg(required = true, value_name = "CLIENT")]
        clients: Vec<String>,
    },
    /// Forget the score of a client, so that it is looked up again
    Forget {
        /// IPv4 address
        client: Ipv4Addr,
    },
}

/// Runs the verb.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { place, verb } = arguments;
    desk::run(&place, async |desk| match verb {
        Verb::Show { client } => show(desk, client).await,
        Verb::Whitelist { clients } => whitelist(desk, &clients).await,
        Verb::Forget { client } => forget(desk, client).await,
    })
}

async fn show(desk: Desk, client: Ipv4Addr) -> Outcome {
    desk.say_where(desk.admin.iredapd());
    let Some((score, time)) = desk.admin.senderscore().entry(&client.to_string()).await? else {
        print(desk.json, &Value::Null, || format!("no score of {client} is known"))?;
        return Ok(exit::NEGATIVE);
    };
    let refused = score <= desk.settings.senderscore.reject_score;
    let for_ever = time >= FOR_EVER;
    let told = json!({
        "client_address": client.to_string(), "score": score, "time": time, "permanent": for_ever,
        "refused": refused,
    });
    print(desk.json, &told, || {
        let since = if for_ever { "set for good".to_owned() } else { format!("of {} UTC", moment(time)) };
        let refused = if refused { ", such clients are refused" } else { "" };
        format!("{client} has score {score}, {since}{refused}")
    })?;
    Ok(0)
}

/// Gives clients the best score.
pub(crate) async fn whitelist(desk: Desk, typed: &[String]) -> Outcome {
    let (mut clients, mut invalid): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for text in typed {
        match text.trim().parse::<Ipv4Addr>() {
            Ok(client) => clients.push(client.to_string()),
            Err(_) => invalid.push(text.clone()),
        }
    }
    let code = input::report_invalid(&invalid, "IPv4 address; scores are known for those only");
    desk.say_where(desk.admin.iredapd());
    for client in &clients {
        desk.admin.senderscore().whitelist(client).await?;
    }
    let told = json!({ "whitelisted": clients, "score": BEST, "time": FOR_EVER, "invalid": invalid });
    print(desk.json, &told, || {
        clients.iter().map(|client| format!("{client} has score {BEST} for good\n")).collect()
    })?;
    Ok(code)
}

async fn forget(desk: Desk, client: Ipv4Addr) -> Outcome {
    input::confirm(desk.yes, &format!("Forget the score of {client}?"))?;
    desk.say_where(desk.admin.iredapd());
    let was_known = desk.admin.senderscore().forget(&client.to_string()).await?;
    print(desk.json, &json!({ "client_address": client.to_string(), "removed": was_known }), || {
        let what = if was_known { "forgot the score" } else { "no score was known" };
        format!("{what} of {client}")
    })?;
    Ok(if was_known { 0 } else { exit::NEGATIVE })
}
