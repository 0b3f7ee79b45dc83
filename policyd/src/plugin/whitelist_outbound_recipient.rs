//! `whitelist_outbound_recipient`: to whom our users write may answer without being greylisted. Never refuses.

use outrider_core::directory::DomainScope;

use crate::context::{Context, RuleError, iredapd};
use crate::request::PolicyRequest;
use crate::settings::{WhitelistAccount, WhitelistSender};
use crate::verdict::Verdict;

/// Marks rows of this rule for other programs.
const COMMENT: &str = "AUTO-WHITELISTED";

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let domain = request.recipient_domain.as_str();
    let reading = context.settings.reading();
    if !request.is_authenticated()
        || reading.split(&request.recipient).is_none_or(|(_, behind)| behind != domain)
        || domain == request.sasl_domain
        || context.is_local_domain(domain, DomainScope::ALL).await?
    {
        return Ok(Verdict::Pass);
    }
    let settings = &context.settings.whitelist_outbound_recipient;
    let store = &context.stores.greylisting;
    if settings.without_spf {
        let account = match settings.account {
            WhitelistAccount::User => request.sasl_username.clone(),
            WhitelistAccount::Domain => format!("@{}", request.sasl_domain),
            WhitelistAccount::Global => "@.".to_owned(),
        };
        let sender = match settings.sender {
            WhitelistSender::User => request.recipient.clone(),
            WhitelistSender::Domain => format!("@{domain}"),
        };
        store.add_whitelist(&account, &sender, "").await.map_err(iredapd("greylisting_whitelists"))?;
    }
    if settings.for_greylisting && settings.domain_for_everybody {
        store.add_whitelist_domain(domain).await.map_err(iredapd("greylisting_whitelist_domains"))?;
    } else if settings.for_greylisting {
        let (account, sender) = (&request.sasl_username, &request.recipient);
        store.add_whitelist(account, sender, COMMENT).await.map_err(iredapd("greylisting_whitelists"))?;
    }
    Ok(Verdict::Pass)
}
