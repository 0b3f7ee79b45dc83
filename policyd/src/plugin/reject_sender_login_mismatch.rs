//! `reject_sender_login_mismatch`: who may use which sender address.
//!
//! Without login nobody uses a sender of a domain hosted here, except trusted clients, exempt senders and clients that the
//! domain's SPF record lists. With login the sender is the login itself, or what the settings allow beside it:
//! senders of the own domain or any sender for chosen logins, the user's alias addresses and alias domains, and
//! lists of which the user is a member. The sender's extension does not count, the login's does.

use outrider_core::address;
use outrider_core::directory::{AccountSource, DomainScope, SenderRights};

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};
use crate::waits;

/// Domains for which mail is only passed on have their senders elsewhere.
const HOSTED: DomainScope = DomainScope { backup_mx: false, alias_domains: true };

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let (allowed, reply) = if request.is_authenticated() {
        (may_use_sender(request, context).await?, Reply::LoginMismatch)
    } else {
        (may_send_without_login(request, context).await?, Reply::ForgedSender)
    };
    Ok(if allowed { Verdict::Pass } else { Verdict::Answer(reply) })
}

async fn may_send_without_login(request: &PolicyRequest, context: &Context) -> Result<bool, RuleError> {
    let settings = &context.settings.reject_sender_login_mismatch;
    if context.is_trusted(request)? || !settings.check_forged_sender || request.sender_domain.is_empty() {
        return Ok(true);
    }
    let (sender, domain) = (&request.sender_without_ext, &request.sender_domain);
    let local_part = address::split_first(sender).map_or("", |(local, _)| local);
    let exempt = &context.senders.forged;
    if exempt.contains(sender) || exempt.contains(domain) || exempt.contains(&format!("{local_part}@*")) {
        return Ok(true);
    }
    // A domain that is not hosted here is treated as if it were when it writes to itself.
    if *domain != request.recipient_domain && !context.is_local_domain(domain, HOSTED).await? {
        return Ok(true);
    }
    let Some(client) = request.client_ip.filter(|_| settings.check_spf) else { return Ok(false) };
    let listed =
        waits::for_name_servers(context.spf.lists(domain, client, context.dns_patience(request))).await;
    listed.ok_or_else(|| RuleError::Unfinished(format!("SPF record of {domain}")))
}

async fn may_use_sender(request: &PolicyRequest, context: &Context) -> Result<bool, RuleError> {
    let settings = &context.settings.reject_sender_login_mismatch;
    let (sender, login) = (request.sender_without_ext.as_str(), request.sasl_username.as_str());
    // The null sender is left to the rule that is named after it.
    if sender.is_empty() || sender == login {
        return Ok(true);
    }
    if may_use_senders_by_settings(request, context) {
        return Ok(true);
    }
    if context.directory.source() == AccountSource::Ldap {
        return has_sender_in_tree(context, sender, login).await;
    }
    let mut sender = sender.to_owned();
    if settings.allow_aliases {
        if context.directory.login_has_alias(login, &sender).await? {
            return Ok(true);
        }
        let domains_differ = request.sender_domain != request.sasl_domain;
        if domains_differ
            && context.directory.alias_domain_of(&request.sender_domain, &request.sasl_domain).await?
        {
            let local_part = address::split_first(&sender).map_or("", |(local, _)| local);
            sender = format!("{local_part}@{}", request.sasl_domain);
            if sender == login {
                return Ok(true);
            }
        }
    }
    if settings.allow_list_members {
        return is_member(context, &sender, login).await;
    }
    Ok(false)
}

fn may_use_senders_by_settings(request: &PolicyRequest, context: &Context) -> bool {
    let logins = &context.senders.logins;
    let domain = &request.sasl_domain;
    if logins.contains(&request.sasl_username) || logins.contains(domain) {
        return true;
    }
    request.sender_domain == *domain && (logins.contains("@.") || logins.contains(&format!("@{domain}")))
}

/// An LDAP tree lists the addresses of a user below alias domains too, so that one question is enough.
async fn has_sender_in_tree(context: &Context, sender: &str, login: &str) -> Result<bool, RuleError> {
    let settings = &context.settings.reject_sender_login_mismatch;
    let rights = SenderRights { aliases: settings.allow_aliases, lists: settings.allow_list_members };
    if context.directory.login_may_use(login, sender, rights).await? {
        return Ok(true);
    }
    Ok(settings.allow_list_members && is_subscriber(context, sender, login).await?)
}

async fn is_member(context: &Context, list: &str, login: &str) -> Result<bool, RuleError> {
    Ok(context.directory.alias_has_member(list, login).await? || is_subscriber(context, list, login).await?)
}

/// Whether the list manager of the mailing list `list` knows the user.
async fn is_subscriber(context: &Context, list: &str, login: &str) -> Result<bool, RuleError> {
    let Some(api) = &context.list_api else { return Ok(false) };
    Ok(context.directory.is_active_maillist(list).await?
        && waits::for_others(api.has_subscriber(list, login)).await)
}
