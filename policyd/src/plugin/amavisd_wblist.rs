//! `amavisd_wblist`: the white- and blacklists that the administration panel keeps for accounts.
//!
//! Outbound lists say to whom a user may write, inbound lists from whom an account takes mail. Mail within the
//! server is subject to both. An inbound whitelist entry ends Postfix's own restrictions too. Trusted clients are
//! not exempt.

use outrider_core::directory::DomainScope;
use outrider_core::{address, lookup};

use crate::context::{Context, Database, RuleError};
use crate::request::PolicyRequest;
use crate::store::wblist::Flag;
use crate::verdict::{Reply, Verdict};

/// Alias domains are asked for apart.
const OWN: DomainScope = DomainScope { backup_mx: true, alias_domains: false };

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let recipient = request.recipient_without_ext.as_str();
    if request.sender_without_ext.is_empty() || request.sender_without_ext == recipient {
        return Ok(Verdict::Pass);
    }
    let sender =
        if request.is_authenticated() { &request.sasl_username } else { &request.sender_without_ext };
    let real_recipient = context.under_alias_target(recipient).await?;
    let senders = sender_keys(sender, request, context).await?;
    let mut recipients = context.policy_keys(recipient);
    recipients.extend(real_recipient.iter().flat_map(|real| context.policy_keys(real)));
    let black = if context.settings.wblist.discard { Reply::Discard } else { Reply::Blacklisted };

    let store = &context.stores.wblist;
    let failed = |cause| RuleError::Table { table: "wblist", cause, database: Database::Amavisd };
    if request.is_authenticated()
        && !context.settings.wblist.bypass_outgoing
        && store.outbound(&senders, &recipients).await.map_err(failed)? == Some(Flag::Black)
    {
        return Ok(Verdict::Answer(black));
    }
    if request.is_authenticated()
        && request.recipient_domain != request.sasl_domain
        && real_recipient.is_none()
        && !context.is_local_domain(&request.recipient_domain, OWN).await?
    {
        return Ok(Verdict::Pass);
    }
    let flag = store.inbound(&recipients, &senders, request.client_ip).await.map_err(failed)?;
    Ok(match flag {
        Some(Flag::White) => Verdict::Answer(Reply::Whitelisted),
        Some(Flag::Black) => Verdict::Answer(black),
        None => Verdict::Pass,
    })
}

async fn sender_keys(
    sender: &str,
    request: &PolicyRequest,
    context: &Context,
) -> Result<Vec<String>, RuleError> {
    let mut keys = context.policy_keys(sender);
    if !request.is_authenticated()
        && let Some((local, _)) = address::split_first(sender)
    {
        keys.push(format!("{local}@*"));
    }
    if !request.client_address.is_empty() {
        keys.push(request.client_address.clone());
    }
    keys.extend(lookup::wildcard_ipv4(&request.client_address, context.settings.all_wildcard_addresses));
    if let Some(real) = context.under_alias_target(sender).await? {
        keys.extend(context.policy_keys(&real));
    }
    Ok(keys)
}
