//! `outrider wblist`: white- and blacklists of addresses, and of clients' reverse names.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Subcommand;
use outrider_core::directory::write::{AccountKey, Colour, Direction, ListedAddress};
use outrider_core::lookup::Form;
use serde::Serialize;
use serde_json::json;

use super::desk::{self, Desk, Place};
use super::{input, rdns};
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print, printable};

/// White- and blacklists: senders of incoming mail, recipients of outgoing mail, reverse names of clients
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
    /// List the entries of an account
    List {
        #[command(flatten)]
        list: WhoseList,
        #[command(flatten)]
        colours: Colours,
    },
    /// Put addresses on a list, and take them off the opposite one
    Add {
        #[command(flatten)]
        list: WhoseList,
        #[command(flatten)]
        colours: Colours,
        #[arg(required = true, value_name = "ADDRESS", help = ADDRESSES)]
        addresses: Vec<String>,
    },
    /// Take addresses off the lists, or off one of them
    Delete {
        #[command(flatten)]
        list: WhoseList,
        #[command(flatten)]
        colours: Colours,
        #[arg(required = true, value_name = "ADDRESS", help = ADDRESSES)]
        addresses: Vec<String>,
    },
    /// Take all addresses off a list
    DeleteAll {
        #[command(flatten)]
        list: WhoseList,
        #[command(flatten)]
        colours: Colours,
    },
    /// Reverse names of clients
    #[command(subcommand)]
    Rdns(rdns::Verb),
}

const ADDRESSES: &str =
    "user@domain, @domain, @.domain, @., and for incoming mail user@*, address, network, a.b.c.*";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WhoseList {
    /// The list about mail that the account sends, not about mail that it receives
    #[arg(long)]
    pub(crate) outbound: bool,
    /// Whose list: user@domain, @domain, @.domain, or @. (everybody)
    #[arg(long, default_value = "@.", value_name = "ACCOUNT")]
    pub(crate) account: String,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Colours {
    /// The whitelist
    #[arg(long, visible_alias = "whitelist")]
    pub(crate) white: bool,
    /// The blacklist
    #[arg(long, visible_alias = "blacklist", conflicts_with = "white")]
    pub(crate) black: bool,
}

impl Colours {
    /// The one that was named.
    pub(crate) fn one(self) -> Result<Colour, Failure> {
        match (self.white, self.black) {
            // Said of wblist_admin: if both are given, white wins.
            (true, _) => Ok(Colour::White),
            (false, true) => Ok(Colour::Black),
            (false, false) => Err(Failure::usage("say --white or --black")),
        }
    }

    /// The one that was named, or both.
    fn all(self) -> Vec<Colour> {
        self.one().map_or(vec![Colour::White, Colour::Black], |one| vec![one])
    }
}

/// Runs the verb.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { place, verb } = arguments;
    desk::run(&place, async |desk| match verb {
        Verb::List { list, colours } => show(desk, &list, colours).await,
        Verb::Add { list, colours, addresses } => add(desk, &list, colours.one()?, &addresses).await,
        Verb::Delete { list, colours, addresses } => delete(desk, &list, colours, &addresses).await,
        Verb::DeleteAll { list, colours } => delete_all(desk, &list, colours.one()?).await,
        Verb::Rdns(verb) => rdns::run(desk, verb).await,
    })
}

fn direction(list: &WhoseList) -> Direction {
    if list.outbound { Direction::Outbound } else { Direction::Inbound }
}

/// What the rule looks for on a list.
fn wanted(list: &WhoseList) -> fn(&AccountKey) -> bool {
    match list.outbound {
        true => |key| key.form().covers_addresses(),
        false => |key| key.form() != Form::AtIp,
    }
}

const FORMS: &str = "address that this list can hold";

fn word(colour: Colour) -> &'static str {
    match colour {
        Colour::White => "whitelist",
        Colour::Black => "blacklist",
    }
}

/// The entries of an account, sorted.
pub(crate) async fn show(desk: Desk, list: &WhoseList, colours: Colours) -> Outcome {
    #[derive(Serialize)]
    struct Entry {
        list: &'static str,
        address: String,
    }
    let account = input::account(&list.account, desk.settings.reading())?;
    desk.say_where(desk.admin.amavisd());
    let mut entries = Vec::new();
    for colour in colours.all() {
        let mut addresses = desk.admin.rules().listed(&account, direction(list), colour).await?;
        addresses.sort_unstable();
        entries.extend(addresses.into_iter().map(|address| Entry { list: word(colour), address }));
    }
    print(desk.json, &entries, || {
        let mut table = Table::new(&["LIST", "ADDRESS"]);
        entries.iter().for_each(|entry| table.row(&[&entry.list, &entry.address]));
        table.to_string()
    })?;
    Ok(0)
}

/// The same as plain lines, each address once.
pub(crate) async fn show_plain(desk: Desk, list: &WhoseList, colours: Colours) -> Outcome {
    let account = input::account(&list.account, desk.settings.reading())?;
    let mut addresses = BTreeSet::new();
    for colour in colours.all() {
        addresses.extend(desk.admin.rules().listed(&account, direction(list), colour).await?);
    }
    let lines: String = addresses.iter().map(|address| printable(address) + "\n").collect();
    print(desk.json, &addresses, || lines)?;
    Ok(0)
}

/// Those of the addresses that the list can hold, as they were typed.
pub(crate) fn valid(desk: &Desk, list: &WhoseList, typed: &[String]) -> Vec<String> {
    let (_, invalid) = input::keys(typed, desk.settings.reading(), wanted(list));
    typed.iter().filter(|text| !invalid.contains(text)).cloned().collect()
}

/// Puts addresses on a list.
pub(crate) async fn add(desk: Desk, list: &WhoseList, colour: Colour, addresses: &[String]) -> Outcome {
    let account = input::account(&list.account, desk.settings.reading())?;
    let (keys, invalid) = input::keys(addresses, desk.settings.reading(), wanted(list));
    let code = input::report_invalid(&invalid, FORMS);
    desk.say_where(desk.admin.amavisd());
    let listed: Vec<ListedAddress> = keys.iter().map(ListedAddress::from).collect();
    let added = match listed.as_slice() {
        [] => Vec::new(),
        listed => desk.admin.rules().list(&account, direction(list), colour, listed).await?,
    };
    let (new, present): (Vec<&str>, Vec<&str>) =
        keys.iter().map(AccountKey::as_str).partition(|key| added.iter().any(|added| added == key));
    let list = word(colour);
    let told = json!({
        "account": account.as_str(), "list": list, "added": new, "present": present, "invalid": invalid
    });
    print(desk.json, &told, || {
        let added = new.iter().map(|address| format!("{list} of {account}: added {address}\n"));
        let there = present.iter().map(|address| format!("{list} of {account}: {address} was there\n"));
        added.chain(there).collect()
    })?;
    Ok(code)
}

/// Takes addresses off a list, or off both.
pub(crate) async fn delete(desk: Desk, list: &WhoseList, colours: Colours, typed: &[String]) -> Outcome {
    let account = input::account(&list.account, desk.settings.reading())?;
    let question = format!("Take {} off the lists of {account}?", printable(&typed.join(", ")));
    input::confirm(desk.yes, &question)?;
    let addresses = input::texts(typed);
    desk.say_where(desk.admin.amavisd());
    let mut removed = Vec::new();
    for colour in colours.all() {
        removed.extend(desk.admin.rules().unlist(&account, direction(list), colour, &addresses).await?);
    }
    desk.say_missing(typed, &removed);
    print(desk.json, &json!({ "account": account.as_str(), "removed": removed }), || {
        removed
            .iter()
            .map(|address| format!("lists of {account}: removed {}\n", printable(address)))
            .collect()
    })?;
    Ok(if removed.is_empty() { exit::NEGATIVE } else { 0 })
}

/// Takes all addresses off a list.
pub(crate) async fn delete_all(desk: Desk, list: &WhoseList, colour: Colour) -> Outcome {
    let account = input::account(&list.account, desk.settings.reading())?;
    input::confirm(desk.yes, &format!("Empty the {} of {account}?", word(colour)))?;
    desk.say_where(desk.admin.amavisd());
    let removed = desk.admin.rules().empty_list(&account, direction(list), colour).await?;
    let told = json!({ "account": account.as_str(), "list": word(colour), "removed": removed });
    print(desk.json, &told, || format!("removed {removed} entries of {account}"))?;
    Ok(0)
}
