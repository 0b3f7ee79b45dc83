//! The addresses of the mail servers of domains that are never greylisted.
//!
//! Table `greylisting_whitelist_domains` names the domains; their SPF records, or without one their mail exchangers, name
//! the addresses, which `greylisting_whitelist_domain_spf` holds for the greylisting rule. Here they are looked up
//! again. A domain whose name servers do not answer keeps what was found before: a disturbance of the DNS greylists
//! nobody. Any number of hosts may do this at once, see [`outrider_core::directory::write`].

use std::collections::BTreeMap;

use ipnet::IpNet;
use outrider_core::directory::write::{AccountError, Edited, Rules};
use outrider_core::sql::Db;

use crate::admin::tracking;
use crate::context::Context;

/// A network wider than this names no provider's servers but half of the world.
pub const WIDEST: u8 = 8;

/// What became of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Which.
    pub domain: String,
    /// Addresses and networks its records name now.
    pub addresses: usize,
    /// Networks its records name that are left out because they are too wide.
    pub too_wide: usize,
    /// Whether a bound was reached, so that there are more.
    pub cut: bool,
    /// What was done about it.
    pub outcome: Outcome,
}

/// What was done about a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The table holds what the records name.
    Replaced(Edited),
    /// A name server failed or stayed silent: the table holds what it held.
    NameServerFailed,
    /// The domain was removed by somebody else in the meantime: nothing was written.
    NoLongerListed,
}

/// Which domains to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domains {
    /// All of the table.
    Listed,
    /// These, whether or not they are in the table.
    Named(Vec<String>),
}

/// Looks up domains and brings the table up to date.
///
/// # Errors
/// The database's; domains done before stay done.
pub(crate) async fn refresh(
    context: &Context,
    rules: &Rules,
    iredapd: &Db,
    domains: Domains,
) -> Result<Vec<Refreshed>, AccountError> {
    let listed_only = domains == Domains::Listed;
    let domains = match domains {
        Domains::Listed => rules.greylisting_domains().await?,
        Domains::Named(domains) => domains,
    };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut done: Vec<Refreshed> = Vec::new();
    for domain in domains {
        let servers = context.spf.mail_servers(&domain).await;
        let addresses: Vec<String> = servers.networks.iter().filter_map(spelled).collect();
        let mut refreshed = Refreshed {
            domain: domain.clone(),
            addresses: addresses.len(),
            too_wide: servers.networks.len() - addresses.len(),
            cut: servers.cut,
            outcome: Outcome::NameServerFailed,
        };
        if !servers.failed {
            refreshed.outcome =
                match rules.replace_greylisting_addresses(&domain, &addresses, listed_only).await? {
                    Some(edited) => Outcome::Replaced(edited),
                    None => Outcome::NoLongerListed,
                };
            found.insert(domain, addresses);
        }
        done.push(refreshed);
    }
    // What one domain no longer names may be what another does.
    let removed = |one: &Refreshed| matches!(&one.outcome, Outcome::Replaced(e) if !e.removed.is_empty());
    if done.iter().any(removed) {
        for (domain, addresses) in &found {
            let Some(heir) = rules.replace_greylisting_addresses(domain, addresses, listed_only).await?
            else {
                continue;
            };
            for one in done.iter_mut().filter(|one| one.domain == *domain) {
                if let Outcome::Replaced(edited) = &mut one.outcome {
                    edited.added.extend(heir.added.iter().cloned());
                }
            }
        }
    }
    let new = done.iter().filter_map(|one| match &one.outcome {
        Outcome::Replaced(edited) => Some(&edited.added),
        _ => None,
    });
    let hosts: Vec<&str> = new.flatten().map(String::as_str).filter(|one| !one.contains('/')).collect();
    tracking::forget_clients(context, iredapd, &hosts).await?;
    Ok(done)
}

/// The same for all domains of the table, for the log.
pub(crate) async fn once(context: &Context, rules: &Rules, iredapd: &Db) {
    match refresh(context, rules, iredapd, Domains::Listed).await {
        Ok(done) => done.iter().for_each(report),
        Err(error) => {
            tracing::warn!(event = "whitelist domains", %error, "addresses stay as they are until the next time");
        }
    }
}

fn report(refreshed: &Refreshed) {
    let domain = refreshed.domain.as_str();
    if refreshed.too_wide > 0 {
        let (networks, reason) = (refreshed.too_wide, "wider than /8, they are left out");
        tracing::warn!(event = "whitelist domains", domain, networks, reason);
    }
    match &refreshed.outcome {
        Outcome::Replaced(edited) if !edited.added.is_empty() || !edited.removed.is_empty() => {
            let (added, removed) = (edited.added.len(), edited.removed.len());
            tracing::info!(event = "whitelist domains", domain, added, removed);
        }
        Outcome::NameServerFailed => {
            let reason = "a name server did not answer, its addresses stay as they are";
            tracing::warn!(event = "whitelist domains", domain, reason);
        }
        Outcome::Replaced(_) | Outcome::NoLongerListed => {}
    }
}

/// One address without a length, a network with it: as the rule compares them. `None` for what is too wide.
fn spelled(network: &IpNet) -> Option<String> {
    if network.prefix_len() == network.max_prefix_len() {
        return Some(network.addr().to_string());
    }
    (network.prefix_len() >= WIDEST).then(|| network.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_rule_compares_them() {
        for (network, expected) in [
            ("192.0.2.1/32", Some("192.0.2.1")),
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("2001:db8::1/128", Some("2001:db8::1")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("0.0.0.0/0", None),
            ("128.0.0.0/1", None),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
        ] {
            assert_eq!(spelled(&network.parse().unwrap()).as_deref(), expected, "{network}");
        }
    }
}
