//! `outrider greylist`: who is greylisted, who never is, and what is known about a contact.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Subcommand;
use outrider_core::directory::write::AccountKey;
use outrider_core::lookup::Form;
use outrider_core::network;
use outrider_policyd::Settings;
use outrider_policyd::admin::tracking::{Answer, Tracked, Whose};
use outrider_policyd::settings::GreylistingKey;
use serde::Serialize;

use super::desk::{self, Desk, Place};
use super::{input, whitelist};
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, moment, print, printable};

/// Greylisting: rules, whitelists, and what is known about a contact
///
/// Works on the database itself (and the Valkey server, where contacts are kept on one), with the settings of policyd; no
/// daemon has to run.
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
    ///
    /// With greylisting.key = "organization" many clients count as one and stand under a key instead of an address:
    /// name:example.com (their reverse names lie in this domain), spf:example.com (this domain of senders lists them in its
    /// SPF record), or their network, 198.51.100.0/24 or 2001:db8:1:2::/64. Asked for a client's address, its network is
    /// shown too; what stands under a domain has to be asked for by that key.
    Tracking {
        /// Client's address, network, name:DOMAIN or spf:DOMAIN; mail address, or @domain
        whose: String,
        /// How many contacts to show, the newest first
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Pair {
    /// Sender: user@domain without extension, @domain, @.domain (with what is below), address, network, a.b.c.*, or @.
    /// (everybody)
    #[arg(long, default_value = "@.", value_name = "SENDER")]
    pub(crate) from: String,
    /// Account: user@domain without extension, @domain, @.domain (with what is below), or @. (everybody)
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
    /// For this account: user@domain without extension, @domain, @.domain, or @. (everybody)
    #[arg(long, default_value = "@.", value_name = "ACCOUNT")]
    to: String,
    /// user@domain without extension, @domain, @.domain, address, network, or a.b.c.*
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

/// The forms of senders.
fn sender_form(form: Form) -> bool {
    form.covers_addresses() || matches!(form, Form::Ip | Form::WildcardIp | Form::Network)
}

/// What greylisting looks for among senders: addresses without extension, and of `*` in clients only the last octet.
fn is_sender(settings: &Settings, key: &AccountKey) -> bool {
    sender_form(key.form())
        && match key.form() {
            Form::Address => !input::has_extension(settings, key),
            Form::WildcardIp => key.as_str().find('*') == Some(key.as_str().len() - 1),
            _ => true,
        }
}

/// Whether a sender may be written down.
pub(crate) fn may_be_sender(desk: &Desk, key: &AccountKey) -> bool {
    if desk.any_form { sender_form(key.form()) } else { is_sender(&desk.settings, key) }
}

/// An account that may be written down.
pub(crate) fn account(desk: &Desk, typed: &str) -> Result<AccountKey, Failure> {
    let wanted = |key: &AccountKey| key.form().covers_addresses() && may_be_sender(desk, key);
    input::key(
        typed,
        desk.settings.reading(),
        wanted,
        "account: write user@domain without extension, @domain, @.domain or @. (everybody)",
    )
}

/// What senders greylisting looks for, for messages.
pub(crate) const SENDER_FORMS: &str =
    "sender: write user@domain without extension, @domain, @.domain, an address, a network, a.b.c.* or @.";

fn parsed(desk: &Desk, pair: &Pair) -> Result<(AccountKey, AccountKey), Failure> {
    let wanted = |key: &AccountKey| may_be_sender(desk, key);
    let sender = input::key(&pair.from, desk.settings.reading(), wanted, SENDER_FORMS)?;
    Ok((account(desk, &pair.to)?, sender))
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
    let (account, sender) = parsed(&desk, pair)?;
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
    let (account, sender) = (input::written(&pair.to)?, input::written(&pair.from)?);
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

fn whose(typed: &str, settings: &Settings) -> Result<Whose, Failure> {
    let text = typed.trim().to_lowercase();
    if let Ok(client) = text.parse::<IpAddr>() {
        return Ok(Whose::Client(client));
    }
    if let Some(network) = network::parse_strict(&text) {
        return Ok(Whose::Network(network));
    }
    for kind in ["name:", "spf:"] {
        if let Some(domain) = text.strip_prefix(kind).and_then(input::domain) {
            return Ok(Whose::Pool(format!("{kind}{domain}")));
        }
    }
    if text.starts_with('@')
        && let Some(domain) = input::domain(&text)
    {
        return Ok(Whose::Domain(domain));
    }
    // Any text with an @ may stand in the table, also what no list could hold.
    if text.contains('@') && !text.starts_with('@') {
        return Ok(Whose::Address(settings.without_extension(&text)));
    }
    let text = format!(
        "\"{}\" is neither a client (address, network, name:domain, spf:domain) nor user@domain nor @domain",
        printable(typed)
    );
    Err(Failure::data(text))
}

/// A contact as it is told; `null` for what is not kept of a client that has passed.
#[derive(Serialize)]
struct Told {
    sender: Option<String>,
    recipient: Option<String>,
    client_address: String,
    state: &'static str,
    init_time: Option<i64>,
    block_expired: Option<i64>,
    record_expired: i64,
    blocked_count: Option<i64>,
}

impl Told {
    fn new(one: Tracked, now: i64) -> Told {
        let block_expired = one.contact.as_ref().map(|contact| contact.block_expired);
        let state = match (one.passed, now > one.record_expired) {
            (true, _) => "passed",
            (false, true) => "over",
            (false, false) if block_expired.is_some_and(|end| now < end) => "blocked",
            (false, false) => "may come",
        };
        let (init_time, blocked_count) =
            one.contact.as_ref().map(|contact| (contact.init_time, contact.blocked_count)).unzip();
        let (sender, recipient) = one.contact.map(|contact| (contact.sender, contact.recipient)).unzip();
        Told {
            sender,
            recipient,
            client_address: one.client_address,
            state,
            init_time,
            block_expired,
            record_expired: one.record_expired,
            blocked_count,
        }
    }
}

async fn tracking(desk: Desk, typed: &str, limit: u32) -> Outcome {
    let whose = whose(typed, &desk.settings)?;
    desk.say_where_counters();
    let now = desk.admin.now();
    let answer = desk.admin.tracked(&whose, limit).await?;
    for note in notes(&answer, &whose, &desk) {
        eprintln!("outrider: {note}");
    }
    let contacts: Vec<Told> = answer.tracked.into_iter().map(|one| Told::new(one, now)).collect();
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
        let time = |time: Option<i64>| time.map_or("-".to_owned(), moment);
        for one in &contacts {
            let sender =
                one.sender.as_deref().map_or("-", |sender| if sender.is_empty() { "<>" } else { sender });
            table.row(&[
                &one.client_address,
                &sender,
                &one.recipient.as_deref().unwrap_or("-"),
                &one.state,
                &time(one.init_time),
                &time(one.block_expired),
                &moment(one.record_expired),
                &one.blocked_count.map_or("-".to_owned(), |count| count.to_string()),
            ]);
        }
        table.to_string()
    })?;
    Ok(if contacts.is_empty() { exit::NEGATIVE } else { 0 })
}

/// What the answer does not hold.
fn notes(answer: &Answer, whose: &Whose, desk: &Desk) -> Vec<&'static str> {
    let pools = desk.settings.greylisting.key == GreylistingKey::Organization;
    [
        (
            answer.without_passed,
            "of clients that have passed the Valkey server keeps no senders and recipients: ask for them by client",
        ),
        (answer.cut, "the search ended before all keys were looked at: there may be more"),
        (
            pools && matches!(whose, Whose::Client(_)),
            "clients may also stand under name:DOMAIN or spf:DOMAIN: ask for these, or for the sender",
        ),
    ]
    .into_iter()
    .filter_map(|(so, note)| so.then_some(note))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_greylisting_looks_for() {
        let settings = Settings::default();
        for (typed, expected) in [
            ("a@example.com", true),
            ("a+b@example.com", false),
            ("@example.com", true),
            ("@.", true),
            ("192.0.2.7", true),
            ("192.0.2.0/24", true),
            ("192.0.2.*", true),
            ("192.0.*.*", false),
            ("192.0.*.7", false),
            ("a@*", false),
            ("@ip", false),
        ] {
            assert_eq!(is_sender(&settings, &AccountKey::parse(typed).unwrap()), expected, "{typed}");
        }
    }

    #[test]
    fn whose_contacts() {
        let settings = Settings::default();
        let address = |text: &str| Some(Whose::Address(text.to_owned()));
        for (typed, expected) in [
            ("192.0.2.7", Some(Whose::Client([192, 0, 2, 7].into()))),
            ("User+Box@Example.com", address("user@example.com")),
            ("o'brien@example.com", address("o'brien@example.com")),
            ("@Example.com", Some(Whose::Domain("example.com".into()))),
            ("198.51.100.0/24", Some(Whose::Network("198.51.100.0/24".parse().unwrap()))),
            ("2001:DB8:1:2::/64", Some(Whose::Network("2001:db8:1:2::/64".parse().unwrap()))),
            ("name:Big.co.uk", Some(Whose::Pool("name:big.co.uk".into()))),
            ("spf:example.com", Some(Whose::Pool("spf:example.com".into()))),
            ("198.51.100.7/24", None),
            ("name:", None),
            ("example.com", None),
            ("@", None),
        ] {
            assert_eq!(whose(typed, &settings).ok(), expected, "{typed}");
        }
    }
}
