//! `sql_ml_access_policy`: who may write to a mailing list. Only policies about domains are judged here; members and
//! moderators are known to the list manager. Inactive lists are judged too.

use outrider_core::directory::ListKind;

use super::list_access::List;
use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let Some(list) = List::find(ListKind::Maillist, request, context).await? else {
        return Ok(Verdict::Pass);
    };
    let allowed = match list.policy.as_str() {
        "domain" => list.sender_is_of_domain(),
        "subdomain" => list.sender_is_of_subdomain(),
        _ => true,
    };
    if allowed || is_responsible(&list, context).await? {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Answer(Reply::NotAuthorized))
}

/// Moderators and owners may always write. As with mail aliases a moderator may be a whole domain.
async fn is_responsible(list: &List<'_>, context: &Context) -> Result<bool, RuleError> {
    let names = list.names_of_sender();
    let is_listed = |listed: &[String]| names.iter().any(|name| listed.contains(name));
    let whole_domain = list.whole_domain_of_sender();
    for address in list.addresses() {
        let moderators = context.directory.moderators(&address).await?;
        if is_listed(&moderators)
            || moderators.contains(&whole_domain)
            || is_listed(&context.directory.owners(&address).await?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
