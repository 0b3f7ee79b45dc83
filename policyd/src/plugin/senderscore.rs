//! `senderscore`: clients with a bad reputation at senderscore.org are refused.
//!
//! Only IPv4 clients without login that are not trusted. A score in the table counts however old it is; the clean-up
//! removes old ones. No record means the best score. A server that fails means it too, but only this once.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::FutureExt;
use outrider_core::dns::{DnsError, Resolver};

use crate::context::{Context, RuleError, iredapd};
use crate::request::PolicyRequest;
use crate::store::senderscore::BEST;
use crate::verdict::{Reply, Verdict};
use crate::waits;

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let Some(IpAddr::V4(client)) = request.client_ip else { return Ok(Verdict::Pass) };
    if request.is_authenticated() || context.is_trusted(request)? {
        return Ok(Verdict::Pass);
    }
    let store = &context.stores.senderscore;
    let address = client.to_string();
    let score = match store.score(&address).await.map_err(iredapd("senderscore_cache"))? {
        Some(score) => score,
        None => {
            let start = || Some(find_out(client, context).boxed());
            let found =
                waits::for_name_servers(context.scores.get(&address, context.dns_patience(request), start))
                    .await;
            found.flatten().unwrap_or(BEST)
        }
    };
    // Anything else is no score.
    let is_bad = (0..=BEST).contains(&score) && score <= context.settings.senderscore.reject_score;
    Ok(if is_bad { Verdict::Answer(Reply::BadReputation) } else { Verdict::Pass })
}

/// Asks for the score and remembers it in the table, also when the request cannot wait for it; `None` if it cannot be
/// found out.
fn find_out(client: Ipv4Addr, context: &Context) -> impl Future<Output = Option<i64>> + Send + use<> {
    let (resolver, store) = (context.resolver.clone(), context.stores.senderscore.clone());
    let clock = context.clock.clone();
    async move {
        let score = ask(client, &*resolver).await?;
        if !(0..=BEST).contains(&score) {
            return Some(score);
        }
        if let Err(error) = store.remember(&client.to_string(), score, clock.unix_seconds()).await {
            tracing::debug!(%error, "a reputation score could not be written down");
        }
        Some(score)
    }
}

async fn ask(client: Ipv4Addr, resolver: &dyn Resolver) -> Option<i64> {
    let [a, b, c, d] = client.octets();
    match resolver.a(&format!("{d}.{c}.{b}.{a}.score.senderscore.com")).await {
        Ok(answers) => Some(answers.first().map_or(BEST, |answer| i64::from(answer.octets()[3]))),
        Err(DnsError::NoSuchName | DnsError::NoData) => Some(BEST),
        Err(_) => None,
    }
}
