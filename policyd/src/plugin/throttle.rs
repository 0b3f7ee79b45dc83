//! `throttle`: limits on message size, recipients, messages and bytes of a period.
//!
//! Asked when the whole message has arrived, so that a message given up before counts for nothing. There are two rounds:
//! the sender's (`outbound` for our users and this machine, `external` for others) and the recipient's
//! (`inbound`). For each of the four limits the most telling row with a value supplies it: -1 inherits, 0 is
//! unlimited. Limits of a domain or of everybody hold for each user alone.
//!
//! Messages count once a recipient. Bytes are compared before the message is added: the one that crosses the limit
//! still passes. Check and count are one step in the database, see [`crate::store::throttle`]. A refused message counts
//! nothing, but what the sender's round has counted stays if the recipient's round refuses.

use outrider_core::lookup::{self, EVERY_CLIENT, Form};

use crate::context::{Context, RuleError, iredapd};
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
    let from_here = matches!(request.client_address.as_str(), "127.0.0.1" | "::1");
    let kind = if authenticated || from_here { "outbound" } else { "external" };
    if let Some(reply) = round(kind, who, message, request, context).await? {
        return Ok(Verdict::Answer(reply));
    }
    if authenticated && settings.bypass_local_recipient {
        return Ok(Verdict::Pass);
    }
    let reply = round("inbound", &request.recipient_without_ext, message, request, context).await?;
    Ok(reply.map_or(Verdict::Pass, Verdict::Answer))
}

fn number(text: Option<&str>) -> Option<i64> {
    text?.trim().parse::<i64>().ok().filter(|number| *number >= 0)
}

async fn round(
    kind: &'static str,
    user: &str,
    message: Amount,
    request: &PolicyRequest,
    context: &Context,
) -> Result<Option<Reply>, RuleError> {
    let accounts = account_keys(user, request, context).await?;
    let store = &context.stores.throttle;
    let rows = store.limits(kind, &accounts).await.map_err(iredapd("throttle"))?;
    let effective = Effective::of(&rows);
    if let Some(reply) = effective.refuses_at_once(message) {
        let limit = if reply == Reply::TooLarge { "msg_size" } else { "max_rcpts" };
        context.metrics.throttled(limit, kind);
        return Ok(Some(reply));
    }
    let tracked = effective.tracked(user, &request.client_address);
    let now = context.now();
    let counters = context.stores.counters();
    let table = context.counters("throttle_tracking");
    let counted = counters.count(tracked, message, now).await.map_err(table)?;
    let Counted::Exceeded { at, has_row, by_messages } = counted else { return Ok(None) };
    context.metrics.throttled(if by_messages { "max_msgs" } else { "max_quota" }, kind);
    // The refusal stands whether or not somebody can be told about it.
    match !has_row || counters.claim_notification(&at, now).await.unwrap_or(false) {
        true => context.notifier.send(notice(kind, user, request, &at, &rows, by_messages)),
        false => tracing::debug!(tid = at.tid, "limit exceeded again in the same period"),
    }
    Ok(Some(Reply::QuotaExceeded))
}

async fn account_keys(
    user: &str,
    request: &PolicyRequest,
    context: &Context,
) -> Result<Vec<String>, RuleError> {
    let client = &request.client_address;
    let mut keys = vec![client.clone(), EVERY_CLIENT.to_owned()];
    keys.extend(lookup::wildcard_ipv4(client, context.settings.all_wildcard_addresses));
    // Without a user there is no key for everybody either.
    if !user.is_empty() {
        keys.extend(lookup::policy_keys(user));
        if let Some(real) = context.under_alias_target(user).await? {
            let real_keys = lookup::policy_keys(&real);
            keys.extend(real_keys.into_iter().filter(|key| key != lookup::EVERYBODY));
        }
    }
    keys.retain(|key| !key.is_empty());
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The rows that supply the four limits.
#[derive(Debug, Default)]
struct Effective<'a> {
    msg_size: Option<&'a Limits>,
    max_rcpts: Option<&'a Limits>,
    max_msgs: Option<&'a Limits>,
    max_quota: Option<&'a Limits>,
}

impl<'a> Effective<'a> {
    /// `rows` with the most telling first.
    fn of(rows: &'a [Limits]) -> Effective<'a> {
        let first = |value: fn(&Limits) -> i64| rows.iter().find(|row| row.period > 0 && value(row) >= 0);
        Effective {
            msg_size: first(|row| row.msg_size),
            max_rcpts: first(|row| row.max_rcpts),
            max_msgs: first(|row| row.max_msgs),
            max_quota: first(|row| row.max_quota),
        }
    }

    fn refuses_at_once(&self, message: Amount) -> Option<Reply> {
        let exceeded = |limit: Option<i64>, value| limit.is_some_and(|limit| limit > 0 && value > limit);
        if exceeded(self.msg_size.map(|row| row.msg_size), message.bytes) {
            return Some(Reply::TooLarge);
        }
        exceeded(self.max_rcpts.map(|row| row.max_rcpts), message.messages)
            .then_some(Reply::TooManyRecipients)
    }

    /// One counter for each row that supplies one of the counted limits, limit 0 included.
    fn tracked(&self, user: &str, client: &str) -> Vec<Tracked> {
        let mut tracked: Vec<Tracked> = Vec::new();
        let counter = |row: &Limits| Tracked {
            tid: row.id,
            key: tracking_key(&row.account, user, client),
            period: row.period,
            max_msgs: 0,
            max_quota: 0,
        };
        if let Some(row) = self.max_msgs {
            tracked.push(Tracked { max_msgs: row.max_msgs, ..counter(row) });
        }
        if let Some(row) = self.max_quota {
            match tracked.iter_mut().find(|other| other.tid == row.id) {
                Some(same) => same.max_quota = row.max_quota,
                None => tracked.push(Tracked { max_quota: row.max_quota, ..counter(row) }),
            }
        }
        tracked
    }
}

/// Whose counter a row moves: rows for clients that of the client, all other rows that of the user.
fn tracking_key(account: &str, user: &str, client: &str) -> String {
    match Form::of(account) {
        Some(Form::Ip | Form::AtIp) => client.to_owned(),
        Some(Form::WildcardIp) => account.to_owned(),
        _ => user.to_owned(),
    }
}

fn notice(
    kind: &'static str,
    user: &str,
    request: &PolicyRequest,
    at: &Tracked,
    rows: &[Limits],
    by_messages: bool,
) -> Notice {
    let (limit_name, limit) =
        if by_messages { ("max_msgs", at.max_msgs) } else { ("max_quota", at.max_quota) };
    let account = rows.iter().find(|row| row.id == at.tid).map_or("", |row| row.account.as_str());
    Notice {
        user: if user.is_empty() { request.client_address.clone() } else { user.to_owned() },
        client_address: request.client_address.clone(),
        kind,
        limit_name,
        limit,
        setting: format!("id={}/{limit_name}={limit}/account={account}", at.tid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        id: i64,
        account: &str,
        priority: i64,
        [msg_size, max_rcpts, max_msgs, max_quota]: [i64; 4],
    ) -> Limits {
        let account = account.to_owned();
        Limits { id, account, priority, period: 3600, msg_size, max_msgs, max_quota, max_rcpts }
    }

    #[test]
    fn each_limit_comes_from_the_first_row_that_has_it() {
        let rows = [
            Limits { period: 0, ..row(9, "x@example.com", 100, [1, 1, 1, 1]) },
            row(1, "a@example.com", 100, [-1, 0, 5, -1]),
            row(2, "@example.com", 60, [100, 3, 7, -1]),
            row(3, "@.", 0, [200, 4, 8, 1000]),
        ];
        let effective = Effective::of(&rows);
        let refused = |messages, bytes| effective.refuses_at_once(Amount { messages, bytes });
        assert_eq!(refused(1, 100), None);
        assert_eq!(refused(1, 101), Some(Reply::TooLarge));
        assert_eq!(refused(50, 100), None, "0 is unlimited and stops the search");
        let tracked = effective.tracked("a@example.com", "192.0.2.7");
        let brief: Vec<_> = tracked.iter().map(|t| (t.tid, t.max_msgs, t.max_quota)).collect();
        assert_eq!(brief, [(1, 5, 0), (3, 0, 1000)]);
        assert!(Effective::of(&[]).tracked("a", "b").is_empty());
    }

    #[test]
    fn one_row_with_both_limits_is_one_counter() {
        let rows = [row(1, "@.", 0, [-1, 3, 0, 10])];
        let effective = Effective::of(&rows);
        assert_eq!(
            effective.refuses_at_once(Amount { messages: 4, bytes: 0 }),
            Some(Reply::TooManyRecipients)
        );
        let tracked = effective.tracked("a", "b");
        assert_eq!(tracked.iter().map(|t| (t.max_msgs, t.max_quota)).collect::<Vec<_>>(), [(0, 10)]);
    }

    #[test]
    fn whose_counter_moves() {
        for (account, key) in [
            ("a@example.com", "user"),
            ("@example.com", "user"),
            ("@.", "user"),
            ("192.0.2.7", "client"),
            ("@ip", "client"),
            ("192.0.2.*", "192.0.2.*"),
        ] {
            assert_eq!(tracking_key(account, "user", "client"), key, "{account}");
        }
    }

    #[test]
    fn numbers_of_the_wire() {
        for (text, expected) in
            [(Some("12"), Some(12)), (Some(""), None), (Some("-1"), None), (Some("x"), None), (None, None)]
        {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
