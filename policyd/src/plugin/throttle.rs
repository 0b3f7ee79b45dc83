//! `throttle`: limits on message size, recipients, messages and bytes of a period.
//!
//! Asked when the whole message has arrived, so that a message given up before counts for nothing. There are two rounds:
//! the sender's (`outbound` for our users and this machine, `external` for others) and the recipient's
//! (`inbound`). Which rows supply the limits is [`crate::limit`]'s business.
//!
//! Messages count once a recipient. Bytes are compared before the message is added: the one that crosses the limit
//! still passes. Check and count are one step in the database, see [`crate::store::throttle`]. A refused message counts
//! nothing, but what the sender's round has counted stays if the recipient's round refuses.

use std::num::IntErrorKind;

use crate::context::{Context, RuleError, iredapd};
use crate::limit::{Effective, Limit, account_keys};
use crate::notify::Notice;
use crate::request::PolicyRequest;
use crate::store::throttle::{Amount, Counted, Limits, Tracked};
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let settings = &context.settings.throttle;
    let authenticated = request.is_authenticated();
    let who = if authenticated { &request.sasl_username } else { &request.sender_without_ext };
    let domain = if authenticated { &request.sasl_domain } else { &request.sender_domain };
    let message = Amount {
        messages: number(request.recipient_count.as_deref())
            .ok_or(RuleError::Attribute("recipient_count"))?,
        bytes: match request.size.as_deref() {
            Some("") => 0,
            size => number(size).ok_or(RuleError::Attribute("size"))?,
        },
    };
    // Both are empty for the null sender of a message with several recipients: that passes too.
    if settings.bypass_same_domain && *domain == request.recipient_domain {
        return Ok(Verdict::Pass);
    }
    if settings.bypass_mynetworks && context.is_trusted(request)? {
        return Ok(Verdict::Pass);
    }
    let kind = if authenticated || request.is_from_here() { "outbound" } else { "external" };
    if let Some(reply) = round(kind, who, message, request, context).await? {
        return Ok(Verdict::Answer(reply));
    }
    if authenticated && settings.bypass_local_recipient {
        return Ok(Verdict::Pass);
    }
    let reply = round("inbound", &request.recipient_without_ext, message, request, context).await?;
    Ok(reply.map_or(Verdict::Pass, Verdict::Answer))
}

/// Above any limit; the counters of the databases hold thousands of them.
const LARGEST: i64 = 1 << 50;

/// A number of the request.
fn number(text: Option<&str>) -> Option<i64> {
    match text?.trim().parse::<i64>() {
        Ok(number) => (number >= 0).then_some(number.min(LARGEST)),
        Err(error) => (*error.kind() == IntErrorKind::PosOverflow).then_some(LARGEST),
    }
}

async fn round(
    kind: &'static str,
    user: &str,
    message: Amount,
    request: &PolicyRequest,
    context: &Context,
) -> Result<Option<Reply>, RuleError> {
    let real = if user.is_empty() { None } else { context.under_alias_target(user).await? };
    let accounts = account_keys(user, real.as_deref(), &request.client_address, &context.settings);
    let store = &context.stores.throttle;
    let rows = store.limits(kind, &accounts).await.map_err(iredapd("throttle"))?;
    let effective = Effective::of(&rows);
    if let Some(reply) = effective.refuses_at_once(message) {
        let limit = if reply == Reply::TooLarge { Limit::MsgSize } else { Limit::MaxRcpts };
        context.metrics.throttled(limit, kind);
        return Ok(Some(reply));
    }
    let tracked = effective.tracked(user, &request.client_address);
    let now = context.now();
    let counters = context.stores.counters();
    let table = context.counters("throttle_tracking");
    let counted = counters.count(tracked, message, now).await.map_err(table)?;
    let Counted::Exceeded { at, has_row, by_messages } = counted else { return Ok(None) };
    let limit = if by_messages { Limit::MaxMsgs } else { Limit::MaxQuota };
    context.metrics.throttled(limit, kind);
    // The refusal stands whether or not somebody can be told about it.
    match !has_row || counters.claim_notification(&at, now).await.unwrap_or(false) {
        true => context.notifier.send(notice(kind, user, request, &at, &rows, limit)),
        false => tracing::debug!(tid = at.tid, "limit exceeded again in the same period"),
    }
    Ok(Some(Reply::QuotaExceeded))
}

fn notice(
    kind: &'static str,
    user: &str,
    request: &PolicyRequest,
    at: &Tracked,
    rows: &[Limits],
    limit: Limit,
) -> Notice {
    // The row that decided, then those that would have, had it not been there.
    let (first, others): (Vec<&Limits>, Vec<&Limits>) = rows.iter().partition(|row| row.id == at.tid);
    let setting =
        |row: &&Limits| format!("id={}/{}={}/account={}", row.id, limit.name(), limit.of(row), row.account);
    let settings: Vec<String> =
        first.iter().chain(others.iter().filter(|row| limit.of(row) >= 0)).map(setting).collect();
    Notice {
        user: if user.is_empty() { request.client_address.clone() } else { user.to_owned() },
        client_address: request.client_address.clone(),
        kind,
        limit,
        value: if limit == Limit::MaxMsgs { at.max_msgs } else { at.max_quota },
        setting: settings.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn a_notice_names_the_rows() {
        let row = |id, account: &str, max_msgs| Limits {
            id,
            account: account.into(),
            max_msgs,
            ..Limits::default()
        };
        let rows = [row(3, "a@example.com", -1), row(1, "@example.com", 5), row(7, "@.", 9)];
        let at = Tracked { tid: 1, key: "@example.com".into(), period: 60, max_msgs: 5, max_quota: 0 };
        let request = request(
            "protocol_state=END-OF-MESSAGE\nsender=\nrecipient=a@example.com\nclient_address=192.0.2.7",
        );
        let notice = notice("outbound", "", &request, &at, &rows, Limit::MaxMsgs);
        assert_eq!(notice.user, "192.0.2.7");
        assert_eq!(notice.setting, "id=1/max_msgs=5/account=@example.com; id=7/max_msgs=9/account=@.");
    }

    #[test]
    fn numbers_of_the_wire() {
        for (text, expected) in [
            (Some("12"), Some(12)),
            (Some("1125899906842623"), Some(1_125_899_906_842_623)),
            (Some("9223372036854775807"), Some(LARGEST)),
            (Some("99999999999999999999"), Some(LARGEST)),
            (Some("-99999999999999999999"), None),
            (Some(""), None),
            (Some("-1"), None),
            (Some("x"), None),
            (None, None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
