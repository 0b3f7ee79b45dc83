//! `reject_to_hostname`: nobody outside writes to `root@mx.example.com`. Mail to the server's own host name comes
//! from its programs; only addresses rewritten by SRS are answered to from outside.

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    if request.is_authenticated()
        || context.is_trusted(request)?
        || request.recipient_domain != context.hostname
    {
        return Ok(Verdict::Pass);
    }
    if request.recipient.starts_with("srs0=") || request.recipient.starts_with("srs1=") {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Answer(Reply::NotAuthorized))
}
