//! Who is never greylisted: single senders, and the mail servers of domains.

use std::collections::BTreeMap;

use outrider_core::directory::write::{AccountKey, Edit, Edited};
use outrider_policyd::whitelist_domains::{Domains, Outcome as Fate, Refreshed, WIDEST};
use serde::Serialize;
use serde_json::json;

use super::desk::Desk;
use super::greylist::{self, SENDER_FORMS};
use super::{input, provider};
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print, printable};

const DOMAIN_FORMS: &str = "domain";

/// The whitelisted senders of all accounts.
pub(crate) async fn list_senders(desk: Desk) -> Outcome {
    #[derive(Serialize)]
    struct Entry {
        account: String,
        sender: String,
        comment: String,
    }
    desk.say_where(desk.admin.iredapd());
    let rows = desk.admin.rules().all_greylisting_senders().await?;
    let text = |row: &outrider_core::sql::Row, name| row.string(name).unwrap_or_default();
    let entry = |row| Entry {
        account: text(row, "account"),
        sender: text(row, "sender"),
        comment: text(row, "comment"),
    };
    let entries: Vec<Entry> = rows.iter().map(entry).collect();
    print(desk.json, &entries, || {
        let mut table = Table::new(&["TO", "FROM", "COMMENT"]);
        entries.iter().for_each(|entry| table.row(&[&entry.account, &entry.sender, &entry.comment]));
        table.to_string()
    })?;
    Ok(0)
}

/// Adds senders to the whitelist of an account, or takes them off.
pub(crate) async fn edit_senders(desk: Desk, account: &str, senders: &[String], add: bool) -> Outcome {
    let (account, texts, code) = match add {
        true => {
            let account = greylist::account(&desk, account)?;
            let wanted = |key: &AccountKey| greylist::may_be_sender(&desk, key);
            let (keys, invalid) = input::keys(senders, desk.settings.reading(), wanted);
            let code = input::report_invalid(&invalid, SENDER_FORMS);
            (account, keys.iter().map(ToString::to_string).collect(), code)
        }
        false => {
            let account = input::written(account)?;
            let named = printable(&senders.join(", "));
            input::confirm(desk.yes, &format!("Remove {named} from the whitelist of {account}?"))?;
            (account, input::texts(senders), 0)
        }
    };
    desk.say_where(desk.admin.iredapd());
    let edit = edit_of(texts, add);
    let edited = desk.admin.rules().edit_greylisting_senders(&account, &edit).await?;
    if !add {
        desk.say_missing(senders, &edited.removed);
    }
    tell(&desk, &edited, code, &edit)
}

/// The whitelisted domains with the addresses found for them.
pub(crate) async fn list_domains(desk: Desk, with_addresses: bool) -> Outcome {
    #[derive(Serialize)]
    struct Entry {
        domain: String,
        /// Whether it is looked up again by itself.
        listed: bool,
        addresses: Vec<String>,
    }
    desk.say_where(desk.admin.iredapd());
    let rules = desk.admin.rules();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rules.greylisting_domain_addresses().await? {
        let comment = row.string("comment").unwrap_or_default();
        let domain = comment.strip_prefix("AUTO-UPDATE: ").unwrap_or(&comment).to_owned();
        found.entry(domain).or_default().extend(row.string("sender"));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for domain in rules.greylisting_domains().await? {
        let addresses = found.remove(&domain).unwrap_or_default();
        entries.push(Entry { domain, listed: true, addresses });
    }
    let others = found.into_iter().map(|(domain, addresses)| Entry { domain, listed: false, addresses });
    entries.extend(others);
    print(desk.json, &entries, || {
        let mut table = Table::new(&["DOMAIN", "LISTED", "ADDRESSES"]);
        for entry in &entries {
            let addresses = match with_addresses {
                true => entry.addresses.join(" "),
                false => entry.addresses.len().to_string(),
            };
            table.row(&[&entry.domain, &if entry.listed { "yes" } else { "no" }, &addresses]);
        }
        table.to_string()
    })?;
    Ok(0)
}

/// Adds domains, or removes them together with the addresses found for them.
pub(crate) async fn edit_domains(desk: Desk, typed: &[String], add: bool) -> Outcome {
    let (domains, invalid) = input::domains(typed);
    let code = input::report_invalid(&invalid, DOMAIN_FORMS);
    if !add && !domains.is_empty() {
        let question = format!("Remove {} and the addresses found for it?", domains.join(", "));
        input::confirm(desk.yes, &question)?;
    }
    desk.say_where(desk.admin.iredapd());
    let edit = edit_of(domains.clone(), add);
    let rules = desk.admin.rules();
    let mut edited = rules.edit_greylisting_domains(&edit).await?;
    if !add {
        // Also of domains that were looked up once without being listed.
        for domain in domains {
            if !edited.removed.contains(&domain) && rules.forget_greylisting_addresses(&domain).await? > 0 {
                edited.removed.push(domain);
            }
        }
    }
    let code = tell(&desk, &edited, code, &edit)?;
    if add && !edited.added.is_empty() && !desk.json {
        println!("their addresses are looked up within {}, or now by: outrider greylist refresh-spf", {
            desk.settings.whitelist_domains.refresh
        });
    }
    Ok(code)
}

/// Shows the offered domains, or adds them.
pub(crate) async fn seed(desk: Desk, list_only: bool) -> Outcome {
    let domains: Vec<String> = provider::DOMAINS.iter().map(|&domain| domain.to_owned()).collect();
    if list_only {
        print(desk.json, &domains, || domains.join("\n"))?;
        return Ok(0);
    }
    desk.say_where(desk.admin.iredapd());
    let edit = edit_of(domains, true);
    let edited = desk.admin.rules().edit_greylisting_domains(&edit).await?;
    tell(&desk, &edited, 0, &edit)
}

fn edit_of(values: Vec<String>, add: bool) -> Edit {
    match add {
        true => Edit::Adjust { add: values, remove: Vec::new() },
        false => Edit::Adjust { add: Vec::new(), remove: values },
    }
}

/// Says what changed. Nothing at all, because there was nothing to remove, is a negative answer.
fn tell(desk: &Desk, edited: &Edited, code: u8, edit: &Edit) -> Outcome {
    print(desk.json, &json!({ "added": edited.added, "removed": edited.removed }), || {
        let line = |word: &str, values: &[String]| {
            values.iter().map(|value| format!("{word} {}\n", printable(value))).collect::<String>()
        };
        match line("added", &edited.added) + &line("removed", &edited.removed) {
            nothing if nothing.is_empty() => "nothing to change\n".to_owned(),
            lines => lines,
        }
    })?;
    let asked_to_remove = matches!(edit, Edit::Adjust { remove, .. } if !remove.is_empty());
    let negative = asked_to_remove && edited.removed.is_empty() && code == 0;
    Ok(if negative { exit::NEGATIVE } else { code })
}

/// Looks up the mail servers of domains.
pub(crate) async fn refresh(desk: Desk, typed: &[String], submit: bool, chatty: bool) -> Outcome {
    #[derive(Serialize)]
    struct Report {
        domain: String,
        outcome: &'static str,
        addresses: usize,
        too_wide: usize,
        complete: bool,
        added: Vec<String>,
        removed: Vec<String>,
    }
    if submit && typed.is_empty() {
        return Err(Failure::usage("--submit needs the domains to add"));
    }
    let (domains, invalid) = input::domains(typed);
    let mut code = input::report_invalid(&invalid, DOMAIN_FORMS);
    desk.say_where(desk.admin.iredapd());
    let done: Vec<Refreshed> = if typed.is_empty() {
        desk.admin.refresh_whitelist_domains(Domains::Listed).await?
    } else {
        if submit {
            desk.admin.rules().edit_greylisting_domains(&edit_of(domains.clone(), true)).await?;
        }
        desk.admin.refresh_whitelist_domains(Domains::Named(domains)).await?
    };
    if done.iter().any(|one| one.outcome == Fate::NameServerFailed) {
        code = exit::TRY_AGAIN;
    }
    let report = |one: Refreshed| {
        let (outcome, edited) = match one.outcome {
            Fate::Replaced(edited) => ("replaced", edited),
            Fate::NameServerFailed => ("name server failed", Edited::default()),
            Fate::NoLongerListed => ("no longer listed", Edited::default()),
        };
        let Edited { added, removed } = edited;
        let Refreshed { domain, addresses, too_wide, cut, .. } = one;
        Report { domain, outcome, addresses, too_wide, complete: !cut, added, removed }
    };
    let reports: Vec<Report> = done.into_iter().map(report).collect();
    print(desk.json, &reports, || {
        let mut table = Table::new(&["DOMAIN", "OUTCOME", "ADDRESSES", "ADDED", "REMOVED"]);
        for one in &reports {
            let addresses = format!("{}{}", one.addresses, if one.complete { "" } else { " and more" });
            table.row(&[&one.domain, &one.outcome, &addresses, &one.added.len(), &one.removed.len()]);
        }
        let mut text = table.to_string();
        for Report { domain, too_wide, .. } in reports.iter().filter(|one| one.too_wide > 0) {
            let networks = if *too_wide == 1 { "1 network" } else { &format!("{too_wide} networks") };
            let were = if *too_wide == 1 { "was" } else { "were" };
            text += &format!("{domain}: {networks} wider than /{WIDEST} {were} left out\n");
        }
        for one in reports.iter().filter(|_| chatty) {
            one.added.iter().for_each(|address| text += &format!("+ {address}  {}\n", one.domain));
            one.removed.iter().for_each(|address| text += &format!("- {address}  {}\n", one.domain));
        }
        text
    })?;
    Ok(code)
}
