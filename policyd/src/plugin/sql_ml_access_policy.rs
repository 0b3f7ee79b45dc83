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

/// Moderators and owners may always write.
async fn is_responsible(list: &List<'_>, context: &Context) -> Result<bool, RuleError> {
    let names = list.names_of_sender();
    let is_listed = |listed: Vec<String>| names.iter().any(|name| listed.contains(name));
    Ok(is_listed(context.directory.moderators(&list.address).await?)
        || is_listed(context.directory.owners(&list.address).await?))
}
