//! `ldap_maillist_access_policy`: who may write to a mailing list of an LDAP tree.
//!
//! Moderators, owners and those the list names may always write; for the others its access policy decides. Members and
//! moderators of a list with a manager are that one's business. A disabled list takes no mail.

use outrider_core::address;
use outrider_core::directory::ListEntry;

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let recipient = &request.recipient_without_ext;
    if recipient.is_empty() || request.sasl_username == *recipient {
        return Ok(Verdict::Pass);
    }
    let Some(list) = context.directory.list_entry(recipient).await? else { return Ok(Verdict::Pass) };
    if !list.active {
        return Ok(Verdict::Answer(Reply::Rejected));
    }
    let allowed = match list.policy.as_str() {
        "" | "public" => true,
        "membersonly" | "moderatorsonly" | "allowedonly" if list.managed => true,
        _ if names_sender(&list, &request.sender_without_ext, &request.sender_domain) => true,
        "domain" => is_of_domain(request, context, false).await?,
        "subdomain" => is_of_domain(request, context, true).await?,
        "membersonly" | "membersandmoderatorsonly" => {
            context.directory.list_has_member(&list.address, &request.sender_without_ext).await?
        }
        "moderatorsonly" | "allowedonly" => is_other_name_of_allowed(&list, request, context).await?,
        _ => true,
    };
    Ok(if allowed { Verdict::Pass } else { Verdict::Answer(Reply::NotAuthorized) })
}

/// Whether the list names the sender itself, or its domain, or one above that.
fn names_sender(list: &ListEntry, sender: &str, domain: &str) -> bool {
    if sender.is_empty() {
        return false;
    }
    let allowed = |name: &str| list.allowed.iter().any(|entry| entry == name);
    let responsible = |names: &[String]| names.iter().any(|name| name == sender);
    responsible(&list.moderators)
        || responsible(&list.owners)
        || allowed(sender)
        || allowed(domain)
        || allowed(&format!("*@{domain}"))
        || above(domain).any(|above| allowed(&format!(".{above}")))
}

/// The domain and all above it: `a.b.c`, `b.c`, `c`.
fn above(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |domain| domain.split_once('.').map(|(_, above)| above))
}

/// Whether the sender is of the recipient's domain, under any of its names, or below it.
async fn is_of_domain(request: &PolicyRequest, context: &Context, below: bool) -> Result<bool, RuleError> {
    let sender = &request.sender_domain;
    let names = context.directory.domain_names(&request.recipient_domain).await?;
    Ok(names.iter().any(|name| sender == name || (below && sender.ends_with(&format!(".{name}")))))
}

/// Whether the sender is a further address of somebody the list allows, or of an alias domain of a domain it allows. Both
/// are believed only of a client that has logged in.
async fn is_other_name_of_allowed(
    list: &ListEntry,
    request: &PolicyRequest,
    context: &Context,
) -> Result<bool, RuleError> {
    if !request.is_authenticated() || request.sender_without_ext.is_empty() {
        return Ok(false);
    }
    let domain = address::split_first(&list.address).map_or("", |(_, domain)| domain);
    let users = context.directory.users_with_alias(domain, &request.sender_without_ext).await?;
    if users.iter().any(|user| list.allowed.contains(user)) {
        return Ok(true);
    }
    let Some(real) = context.directory.alias_target(&request.sender_domain).await? else { return Ok(false) };
    Ok(list.allowed.iter().any(|entry| entry.strip_prefix("*@").unwrap_or(entry) == real))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_above() {
        assert_eq!(above("a.b.c").collect::<Vec<_>>(), ["a.b.c", "b.c", "c"]);
        assert_eq!(above("").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn senders_that_a_list_names() {
        let list = ListEntry {
            address: "list@example.com".into(),
            active: true,
            policy: "membersonly".into(),
            managed: false,
            allowed: ["guest@partner.example", "friends.example", "*@star.example", ".tree.example"]
                .map(String::from)
                .to_vec(),
            moderators: vec!["mod@example.com".into()],
            owners: vec!["owner@example.com".into()],
        };
        for (sender, named) in [
            ("mod@example.com", true),
            ("owner@example.com", true),
            ("guest@partner.example", true),
            ("other@partner.example", false),
            ("any@friends.example", true),
            ("any@sub.friends.example", false),
            ("any@star.example", true),
            ("any@tree.example", true),
            ("any@a.b.tree.example", true),
            ("any@nottree.example", false),
            ("any@example", false),
            ("", false),
        ] {
            let domain = sender.split_once('@').map_or("", |(_, domain)| domain);
            assert_eq!(names_sender(&list, sender, domain), named, "{sender:?}");
        }
    }
}
