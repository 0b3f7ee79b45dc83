//! `sql_alias_access_policy`: who may write to a mail alias. The envelope sender decides; the login does not.

use outrider_core::directory::ListKind;

use super::list_access::List;
use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let Some(list) = List::find(ListKind::Alias, request, context).await? else { return Ok(Verdict::Pass) };
    let (members_may, moderators_may) = match list.policy.as_str() {
        "domain" => return Ok(decide(list.sender_is_of_domain())),
        "subdomain" => return Ok(decide(list.sender_is_of_subdomain())),
        "membersonly" => (true, false),
        "moderatorsonly" | "allowedonly" => (false, true),
        "membersandmoderatorsonly" => (true, true),
        _ => return Ok(Verdict::Pass),
    };
    let names = list.names_of_sender();
    let is_listed = |listed: &[String]| names.iter().any(|name| listed.contains(name));
    if members_may && is_listed(&context.directory.alias_members(&list.address).await?) {
        return Ok(Verdict::Pass);
    }
    if moderators_may {
        let moderators = context.directory.moderators(&list.address).await?;
        return Ok(decide(is_listed(&moderators) || moderators.contains(&list.whole_domain_of_sender())));
    }
    Ok(decide(false))
}

fn decide(allowed: bool) -> Verdict {
    if allowed { Verdict::Pass } else { Verdict::Answer(Reply::NotAuthorized) }
}
