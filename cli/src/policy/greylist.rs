//! `outrider greylist`: who is greylisted, who never is, and what is known about a contact.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Subcommand;
use outrider_core::address;
use outrider_core::directory::write::AccountKey;
use outrider_core::lookup::Form;
use outrider_policyd::admin::tracking::Whose;
use serde::Serialize;

use super::desk::{self, Desk, Place};
use super::failure::{Failure, Outcome};
use super::output::{Table, moment, print, printable};
use super::{input, whitelist};
use crate::exit;

/// Greylisting: rules, whitelists, and what is known about a contact
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
    /// List the rules in the order in which they are looked at: the first that covers a mail decides
    List,
    /// Greylist mail of a sender to an account
    Enable(Pair),
    /// Do not greylist mail of a sender to an account
    Disable(Pair),
    /// Remove a rule, so that a less telling one decides
    Delete(Pair),
    /// Senders that are never greylisted
    #[command(subcommand)]
    Whitelist(WhitelistVerb),
    /// Domains whose mail servers, as their SPF or MX records name them, are never greylisted
    #[command(subcommand)]
    WhitelistDomain(DomainVerb),
    /// Look up the mail servers of whitelisted domains now; the daemon does it by itself once an hour
    RefreshSpf {
        /// Add the named domains to the whitelisted ones
        #[arg(long)]
        submit: bool,
        /// Also list the addresses that came and went
        #[arg(long)]
        addresses: bool,
        /// Domains to look up; all whitelisted ones if none is named
        domains: Vec<String>,
    },
    /// Whitelist domains of large mail providers, a list of our own choice
    Seed {
        /// Only print the list
        #[arg(long)]
        list: bool,
    },
    /// Show what is known about the contacts of a client, an address or a domain
    Tracking {
        /// Client's address, mail address, or @domain
        whose: String,
        /// How many contacts to show, the newest first
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Pair {
    /// Sender: user@domain, @domain, @.domain (with what is below), address, network, a.b.c.*, or @. (everybody)
    #[arg(long, default_value = "@.", value_name = "SENDER")]
    pub(crate) from: String,
    /// Account: user@domain, @domain, @.domain (with what is below), or @. (everybody)
    #[arg(long, default_value = "@.", value_name = "ACCOUNT")]
    pub(crate) to: String,
}

#[derive(Debug, Subcommand)]
enum WhitelistVerb {
    /// List the whitelisted senders of all accounts
    List,
    /// Never greylist these senders
    Add(Senders),
    /// Take senders off the whitelist
    Remove(Senders),
}

#[derive(Debug, clap::Args)]
struct Senders {
    /// For this account: user@domain, @domain, @.domain, or @. (everybody)
    #[arg(long, default_value = "@.", value_name = "ACCOUNT")]
    to: String,
    /// user@domain, @domain, @.domain, address, network, or a.b.c.*
    #[arg(required = true, value_name = "SENDER")]
    senders: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum DomainVerb {
    /// List the domains and how many addresses were found for each
    List {
        /// Show the addresses themselves
        #[arg(long)]
        addresses: bool,
    },
    /// Add domains; their addresses are looked up on schedule or by refresh-spf
    Add {
        #[arg(required = true, value_name = "DOMAIN")]
        domains: Vec<String>,
    },
    /// Remove domains and the addresses found for them
    Remove {
        #[arg(required = true, value_name = "DOMAIN")]
        domains: Vec<String>,
    },
}

/// Runs the verb.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { place, verb } = arguments;
    desk::run(&place, async |desk| match verb {
        Verb::List => list(desk).await,
        Verb::Enable(pair) => set(desk, &pair, true).await,
        Verb::Disable(pair) => set(desk, &pair, false).await,
        Verb::Delete(pair) => delete(desk, &pair).await,
        Verb::Whitelist(WhitelistVerb::List) => whitelist::list_senders(desk).await,
        Verb::Whitelist(WhitelistVerb::Add(Senders { to, senders })) => {
            whitelist::edit_senders(desk, &to, &senders, true).await
        }
        Verb::Whitelist(WhitelistVerb::Remove(Senders { to, senders })) => {
            whitelist::edit_senders(desk, &to, &senders, false).await
        }
        Verb::WhitelistDomain(DomainVerb::List { addresses }) => {
            whitelist::list_domains(desk, addresses).await
        }
        Verb::WhitelistDomain(DomainVerb::Add { domains }) => {
            whitelist::edit_domains(desk, &domains, true).await
        }
        Verb::WhitelistDomain(DomainVerb::Remove { domains }) => {
            whitelist::edit_domains(desk, &domains, false).await
        }
        Verb::RefreshSpf { submit, addresses, domains } => {
            whitelist::refresh(desk, &domains, submit, addresses).await
        }
        Verb::Seed { list } => whitelist::seed(desk, list).await,
        Verb::Tracking { whose, limit } => tracking(desk, &whose, limit).await,
    })
}

/// What greylisting looks for among senders.
pub(crate) fn sender_form(form: Form) -> bool {
    form.covers_addresses() || matches!(form, Form::Ip | Form::WildcardIp | Form::Network)
}

fn parsed(pair: &Pair) -> Result<(AccountKey, AccountKey), Failure> {
    let forms = "sender: write user@domain, @domain, @.domain, an address, a network, a.b.c.* or @.";
    Ok((input::account(&pair.to)?, input::key(&pair.from, sender_form, forms)?))
}

/// All rules.
pub(crate) async fn list(desk: Desk) -> Outcome {
    #[derive(Serialize)]
    struct Rule {
        id: i64,
        account: String,
        priority: i64,
        sender: String,
        sender_priority: i64,
        active: bool,
        comment: String,
    }
    desk.say_where(desk.admin.iredapd());
    let rows = desk.admin.rules().greylisting_rules().await?;
    let text = |row: &outrider_core::sql::Row, name| row.string(name).unwrap_or_default();
    let number = |row: &outrider_core::sql::Row, name| row.int(name).unwrap_or(0);
    let rule = |row| Rule {
        id: number(row, "id"),
        account: text(row, "account"),
        priority: number(row, "priority"),
        sender: text(row, "sender"),
        sender_priority: number(row, "sender_priority"),
        active: number(row, "active") == 1,
        comment: text(row, "comment"),
    };
    let rules: Vec<Rule> = rows.iter().map(rule).collect();
    print(desk.json, &rules, || {
        let mut table = Table::new(&["TO", "FROM", "GREYLISTING", "PRIORITY", "COMMENT"]);
        for rule in &rules {
            let state = if rule.active { "enabled" } else { "disabled" };
            let priority = format!("{}/{}", rule.priority, rule.sender_priority);
            table.row(&[&rule.account, &rule.sender, &state, &priority, &rule.comment]);
        }
        table.to_string()
    })?;
    Ok(0)
}

/// Makes a rule.
pub(crate) async fn set(desk: Desk, pair: &Pair, active: bool) -> Outcome {
    let (account, sender) = parsed(pair)?;
    desk.say_where(desk.admin.iredapd());
    desk.admin.rules().set_greylisting_rule(&account, &sender, Some(active)).await?;
    let told = serde_json::json!({
        "account": account.as_str(), "sender": sender.as_str(), "active": active
    });
    print(desk.json, &told, || {
        let state = if active { "enabled" } else { "disabled" };
        format!("greylisting of mail from {sender} to {account} is {state}")
    })?;
    Ok(0)
}

/// Removes a rule.
pub(crate) async fn delete(desk: Desk, pair: &Pair) -> Outcome {
    let (account, sender) = parsed(pair)?;
    input::confirm(desk.yes, &format!("Remove the rule about mail from {sender} to {account}?"))?;
    desk.say_where(desk.admin.iredapd());
    let was_there = desk.admin.rules().set_greylisting_rule(&account, &sender, None).await?;
    let told = serde_json::json!({
        "account": account.as_str(), "sender": sender.as_str(), "removed": was_there
    });
    print(desk.json, &told, || match was_there {
        true => format!("removed the rule about mail from {sender} to {account}"),
        false => format!("there is no rule about mail from {sender} to {account}"),
    })?;
    Ok(if was_there { 0 } else { exit::NEGATIVE })
}

fn whose(typed: &str, delimiters: &[String]) -> Result<Whose, Failure> {
    let text = typed.trim().to_lowercase();
    if let Ok(client) = text.parse::<IpAddr>() {
        return Ok(Whose::Client(client));
    }
    if text.starts_with('@')
        && let Some(domain) = input::domain(&text)
    {
        return Ok(Whose::Domain(domain));
    }
    // Any text with an @ may stand in the table, also what no list could hold.
    if text.contains('@') && !text.starts_with('@') {
        return Ok(Whose::Address(address::without_extension(&text, delimiters).into_owned()));
    }
    let text = format!("\"{}\" is neither a client's address nor user@domain nor @domain", printable(typed));
    Err(Failure::data(text))
}

async fn tracking(desk: Desk, typed: &str, limit: u32) -> Outcome {
    #[derive(Serialize)]
    struct Contact {
        sender: String,
        recipient: String,
        client_address: String,
        state: &'static str,
        init_time: i64,
        block_expired: i64,
        record_expired: i64,
        blocked_count: i64,
    }
    let whose = whose(typed, desk.admin.recipient_delimiters())?;
    desk.say_where(desk.admin.iredapd());
    let now = desk.admin.now();
    let contact = |one: outrider_policyd::admin::tracking::Tracked| Contact {
        state: match (one.passed, now > one.record_expired, now < one.block_expired) {
            (true, ..) => "passed",
            (false, true, _) => "over",
            (false, false, true) => "blocked",
            (false, false, false) => "may come",
        },
        sender: one.sender,
        recipient: one.recipient,
        client_address: one.client_address,
        init_time: one.init_time,
        block_expired: one.block_expired,
        record_expired: one.record_expired,
        blocked_count: one.blocked_count,
    };
    let contacts: Vec<Contact> = desk.admin.triplets(&whose, limit).await?.into_iter().map(contact).collect();
    print(desk.json, &contacts, || {
        let mut table = Table::new(&[
            "CLIENT",
            "FROM",
            "TO",
            "STATE",
            "FIRST SEEN (UTC)",
            "BLOCKED UNTIL",
            "KEPT UNTIL",
            "REFUSED",
        ]);
        for one in &contacts {
            let sender = if one.sender.is_empty() { "<>" } else { &one.sender };
            table.row(&[
                &one.client_address,
                &sender,
                &one.recipient,
                &one.state,
                &moment(one.init_time),
                &moment(one.block_expired),
                &moment(one.record_expired),
                &one.blocked_count,
            ]);
        }
        table.to_string()
    })?;
    Ok(if contacts.is_empty() { exit::NEGATIVE } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_contacts() {
        let plus = ["+".to_owned()];
        let address = |text: &str| Some(Whose::Address(text.to_owned()));
        for (typed, expected) in [
            ("192.0.2.7", Some(Whose::Client([192, 0, 2, 7].into()))),
            ("User+Box@Example.com", address("user@example.com")),
            ("o'brien@example.com", address("o'brien@example.com")),
            ("@Example.com", Some(Whose::Domain("example.com".into()))),
            ("example.com", None),
            ("@", None),
        ] {
            assert_eq!(whose(typed, &plus).ok(), expected, "{typed}");
        }
    }
}
