//! `senderscore`: clients with a bad reputation at senderscore.org are refused.
//!
//! Only IPv4 clients without login that are not trusted. A score in the table counts however old it is; the clean-up
//! removes old ones. No record means the best score. A server that fails means it too, but only this once.

use std::net::{IpAddr, Ipv4Addr};

use outrider_core::dns::DnsError;

use crate::context::{Context, RuleError, iredapd};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

const BEST: i64 = 100;

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let Some(IpAddr::V4(client)) = request.client_ip else { return Ok(Verdict::Pass) };
    if request.is_authenticated() || context.is_trusted(request)? {
        return Ok(Verdict::Pass);
    }
    let store = &context.stores.senderscore;
    let table = || iredapd("senderscore_cache");
    let address = client.to_string();
    let score = match store.score(&address).await.map_err(table())? {
        Some(score) => score,
        None => match ask(client, context).await {
            Some(score) if (0..=BEST).contains(&score) => {
                store.remember(&address, score, context.now()).await.map_err(table())?;
                score
            }
            _ => BEST,
        },
    };
    if score <= context.settings.senderscore.reject_score {
        return Ok(Verdict::Answer(Reply::BadReputation));
    }
    Ok(Verdict::Pass)
}

/// `None` if it cannot be found out.
async fn ask(client: Ipv4Addr, context: &Context) -> Option<i64> {
    let [a, b, c, d] = client.octets();
    match context.resolver.a(&format!("{d}.{c}.{b}.{a}.score.senderscore.com")).await {
        Ok(answers) => Some(answers.first().map_or(BEST, |answer| i64::from(answer.octets()[3]))),
        Err(DnsError::NoSuchName | DnsError::NoData) => Some(BEST),
        Err(_) => None,
    }
}
