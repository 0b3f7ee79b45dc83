//! `greylisting`: an unknown client that writes from an unknown sender to a recipient is asked to come again; real
//! mail servers do.
//!
//! Exempt are logins, trusted clients, whitelisted senders and clients, accounts for which it is switched off, and
//! clients that the sender domain's SPF record lists. A client that came again once is known and never greylisted again as
//! long as it is remembered.

mod client_key;

use std::net::IpAddr;

use outrider_core::address;
use outrider_core::network::{self, InvalidAddress};

use crate::context::{Context, RuleError, iredapd};
use crate::request::PolicyRequest;
use crate::settings::{GreylistingKey, GreylistingSettings};
use crate::store::greylisting::Setting;
use crate::store::triplet::{Meeting, Seen, Times, Triplet};
use crate::verdict::{Reply, Verdict};
use crate::waits;

/// A known client is written down again only when that moves an end by more than this many seconds: known clients cost no
/// write each time.
const RENEWAL: i64 = 600;

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    if request.is_authenticated() || context.is_trusted(request)? {
        return Ok(Verdict::Pass);
    }
    let client = request.client_ip.ok_or_else(|| InvalidAddress(request.client_address.clone()))?;
    let senders = sender_keys(request, client, context);
    let mut recipients = context.policy_keys(&request.recipient_without_ext);
    if let Some(real) = context.under_alias_target(&request.recipient_without_ext).await? {
        recipients.extend(context.policy_keys(&real));
        recipients.sort_unstable();
        recipients.dedup();
    }
    let store = &context.stores.greylisting;
    let whitelists = store.whitelists(&recipients).await.map_err(iredapd("greylisting_whitelists"))?;
    let pass = |result| {
        context.metrics.greylisted(result);
        Ok(Verdict::Pass)
    };
    if whitelists.iter().any(|list| list.covers(&senders, client)) {
        return pass("whitelisted");
    }
    let rules = store.settings(&recipients).await.map_err(iredapd("greylisting"))?;
    if !is_active(&rules, &senders, client) {
        return pass("off");
    }
    let settings = &context.settings;
    let by_organization = settings.greylisting.key == GreylistingKey::Organization;
    let mut spf_domain = None;
    if (settings.greylisting.bypass_spf || by_organization)
        && !request.sender_domain.eq_ignore_ascii_case(&settings.srs_domain)
        && waits::for_name_servers(context.spf.lists(
            &request.sender_domain,
            client,
            context.dns_patience(request),
        ))
        .await
            == Some(true)
    {
        if settings.greylisting.bypass_spf {
            return pass("spf");
        }
        spf_domain = Some(request.sender_domain.as_str());
    }
    let contact = Contact {
        triplet: Triplet {
            sender: sender_key(&request.sender_without_ext, settings.greylisting.fold_sender_digits),
            sender_domain: request.sender_domain.clone(),
            recipient: request.recipient_without_ext.clone(),
            recipient_domain: request.recipient_domain.clone(),
            client: match by_organization {
                true => client_key::organization(client, &request.client_name, spf_domain),
                false => request.client_address.clone(),
            },
        },
        client,
        address: by_organization.then(|| request.client_address.clone()),
    };
    let passes = record(&contact, context).await?;
    Ok(if passes || settings.greylisting.training {
        Verdict::Pass
    } else {
        Verdict::Answer(Reply::Greylisted)
    })
}

/// Who came, and from where.
struct Contact {
    triplet: Triplet,
    client: IpAddr,
    /// The client's address, where the triplet has another key.
    address: Option<String>,
}

/// With `fold` every number in the local part becomes `#`: mailing lists and bulk senders write one that changes with each
/// message or each try (VERP, BATV), and would be strangers for ever.
pub(crate) fn sender_key(sender: &str, fold: bool) -> String {
    let Some((local, domain)) = address::split_first(sender).filter(|_| fold) else {
        return sender.to_owned();
    };
    let mut key = String::with_capacity(sender.len());
    for character in local.chars() {
        if !character.is_ascii_digit() {
            key.push(character);
        } else if !key.ends_with('#') {
            key.push('#');
        }
    }
    format!("{key}@{domain}")
}

fn sender_keys(request: &PolicyRequest, client: IpAddr, context: &Context) -> Vec<String> {
    let mut keys = context.policy_keys(&request.sender_without_ext);
    keys.push(request.client_address.clone());
    if let IpAddr::V4(ip) = client {
        let [a, b, c, _] = ip.octets();
        keys.push(format!("{a}.{b}.{c}.*"));
    }
    keys
}

/// The first setting that names the sender or its client decides; without one nobody is greylisted.
fn is_active(settings: &[Setting], senders: &[String], client: IpAddr) -> bool {
    let names = |setting: &&Setting| {
        senders.contains(&setting.sender) || network::cidr_contains(&setting.sender, client)
    };
    settings.iter().find(names).is_some_and(|setting| setting.active)
}

/// What to write down about a contact.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    KnownClient { renew: bool },
    Insert,
    Restart,
    Count,
    Pass,
}

fn next_step(seen: Seen, now: i64, known_until: i64) -> Step {
    if let Some(known) = seen.client_passed {
        // Later than now is possible too, after the settings have been changed.
        let moves = known.first < known_until - RENEWAL || known.last > known_until + RENEWAL;
        return Step::KnownClient { renew: moves };
    }
    match seen.triplet {
        None => Step::Insert,
        Some((_, record_expired)) if now > record_expired => Step::Restart,
        Some((block_expired, _)) if now < block_expired => Step::Count,
        Some(_) => Step::Pass,
    }
}

fn times(settings: &GreylistingSettings, now: i64) -> Times {
    let after = |seconds: u64| now.saturating_add_unsigned(seconds);
    Times {
        init: now,
        block_expired: after(settings.block.duration().as_secs()),
        record_expired: after(settings.unpassed_lifetime.duration().as_secs()),
    }
}

/// Writes the contact down; true if it may pass.
async fn record(contact: &Contact, context: &Context) -> Result<bool, RuleError> {
    let store = context.stores.triplets();
    let settings = &context.settings.greylisting;
    let mut triplet = contact.triplet.clone();
    let now = context.now();
    let known_until = now.saturating_add_unsigned(settings.passed_lifetime.duration().as_secs());
    let table = || context.counters("greylisting_tracking");
    let mut known_alone = None;
    if let Some(address) = &contact.address {
        // Who was known before organisations counted is still known.
        let alone = Triplet { client: address.clone(), ..triplet.clone() };
        let seen = store.seen(&alone).await.map_err(table())?;
        if seen.client_passed.is_some() {
            triplet = alone;
            known_alone = Some(Meeting::of(seen));
        }
    }
    let Meeting { seen, remembered, counted } = match known_alone {
        Some(meeting) => meeting,
        None => {
            let share = &context.new_contacts;
            store.meet(&triplet, times(settings, now), contact.client, share).await.map_err(table())?
        }
    };
    if !remembered {
        // Beyond its share a network is put off without being remembered: it cannot fill the table.
        context.metrics.greylisted("flood");
        return Ok(false);
    }
    let step = next_step(seen, now, known_until);
    match step {
        Step::KnownClient { renew: false } => {}
        Step::KnownClient { renew: true } => {
            store.renew_client(&triplet.client, known_until).await.map_err(table())?;
        }
        // Written down already.
        Step::Insert => {}
        Step::Count if counted => {}
        Step::Restart => store.restart(&triplet, times(settings, now)).await.map_err(table())?,
        Step::Count => store.count(&triplet).await.map_err(table())?,
        Step::Pass => store.pass(&triplet, known_until).await.map_err(table())?,
    }
    let (passes, result) = match step {
        Step::KnownClient { .. } => (true, "known"),
        Step::Pass => (true, "passed"),
        Step::Insert | Step::Restart | Step::Count => (false, "greylisted"),
    };
    context.metrics.greylisted(result);
    Ok(passes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::triplet::Known;

    fn setting(id: i64, priority: i64, sender: &str, active: bool) -> Setting {
        Setting { id, priority, sender: sender.into(), sender_priority: 0, active }
    }

    #[test]
    fn the_life_of_a_triplet() {
        let seen = |ends: Option<(i64, i64)>, triplet| {
            let client_passed = ends.map(|(first, last)| Known { first, last });
            Seen { client_passed, triplet }
        };
        for (seen, step) in [
            (seen(None, None), Step::Insert),
            (seen(None, Some((1000, 5000))), Step::Count),
            (seen(None, Some((999, 5000))), Step::Pass),
            (seen(None, Some((500, 998))), Step::Restart),
            (seen(None, Some((500, 999))), Step::Pass),
            (seen(Some((10_000, 10_000)), None), Step::KnownClient { renew: false }),
            (seen(Some((9400, 10_600)), Some((1000, 5000))), Step::KnownClient { renew: false }),
            (seen(Some((9399, 10_000)), None), Step::KnownClient { renew: true }),
            (seen(Some((10_000, 10_601)), None), Step::KnownClient { renew: true }),
            (seen(Some((10, 10)), None), Step::KnownClient { renew: true }),
        ] {
            assert_eq!(next_step(seen, 999, 10_000), step, "{seen:?}");
        }
    }

    #[test]
    fn numbers_in_senders_are_folded_where_wanted() {
        for (sender, folded) in [
            ("bounce-1234-77=anna@list.example1.org", "bounce-#-#=anna@list.example1.org"),
            ("anna@sender.test", "anna@sender.test"),
            ("", ""),
            ("42", "42"),
        ] {
            assert_eq!(sender_key(sender, true), folded);
            assert_eq!(sender_key(sender, false), sender);
        }
    }

    #[test]
    fn the_first_setting_that_names_the_sender_decides() {
        let client: IpAddr = "203.0.113.10".parse().unwrap();
        let senders: Vec<String> = ["friend@sender.test", "@."].map(String::from).to_vec();
        let everybody = setting(1, 0, "@.", true);
        for (rows, expected) in [
            (vec![], false),
            (vec![everybody.clone()], true),
            (vec![setting(2, 60, "@nobody.test", true)], false),
            (vec![setting(2, 60, "203.0.113.0/24", false), everybody.clone()], false),
            (vec![setting(2, 60, "203.0.113.1/24", false), everybody.clone()], true),
            (vec![setting(2, 60, "friend@sender.test", false), everybody], false),
        ] {
            assert_eq!(is_active(&rows, &senders, client), expected, "{rows:?}");
        }
    }
}
