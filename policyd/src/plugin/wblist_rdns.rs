//! `wblist_rdns`: white- and blacklists of the names that clients have in reverse DNS.
//!
//! A name is covered by itself and by `.` with each of its suffixes, its own included. One whitelisted form beats
//! every blacklisted one, however much longer that is.

use outrider_core::lookup;

use crate::context::{Context, RuleError, iredapd};
use crate::request::PolicyRequest;
use crate::store::rdns::Listed;
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let name = request.reverse_client_name.as_str();
    if request.is_authenticated() || name.is_empty() || name == "unknown" || context.is_trusted(request)? {
        return Ok(Verdict::Pass);
    }
    let mut forms = vec![name.to_owned()];
    forms.extend(lookup::domain_suffixes(name));
    let listed = context.stores.rdns.listed(name, forms).await.map_err(iredapd("wblist_rdns"))?;
    Ok(match listed {
        Listed::Black if context.settings.wblist.discard => Verdict::Answer(Reply::Discard),
        Listed::Black => Verdict::Answer(Reply::Blacklisted),
        Listed::White | Listed::No => Verdict::Pass,
    })
}
