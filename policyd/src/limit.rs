//! Which limits hold for a message, and whose counters it moves.
//!
//! Every row of `throttle` that covers the user or the client may supply any of the four limits. For each of them
//! the most telling row with a value does: -1 inherits, 0 is unlimited and ends the search. Limits of a domain
//! or of everybody hold for each user alone, because the counter is the user's.

use outrider_core::lookup::{self, EVERY_CLIENT, Form};

use crate::settings::Settings;
use crate::store::throttle::{Amount, Limits, Tracked};
use crate::verdict::Reply;

/// One of the four numbers of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Largest message in bytes.
    MsgSize,
    /// Recipients of one message.
    MaxRcpts,
    /// Messages a period, once for each recipient.
    MaxMsgs,
    /// Bytes a period.
    MaxQuota,
}

impl Limit {
    /// All of them, in the order in which a message meets them.
    pub const ALL: [Limit; 4] = [Limit::MsgSize, Limit::MaxRcpts, Limit::MaxMsgs, Limit::MaxQuota];

    /// The column.
    pub fn name(self) -> &'static str {
        match self {
            Limit::MsgSize => "msg_size",
            Limit::MaxRcpts => "max_rcpts",
            Limit::MaxMsgs => "max_msgs",
            Limit::MaxQuota => "max_quota",
        }
    }

    /// What a row says.
    pub fn of(self, row: &Limits) -> i64 {
        match self {
            Limit::MsgSize => row.msg_size,
            Limit::MaxRcpts => row.max_rcpts,
            Limit::MaxMsgs => row.max_msgs,
            Limit::MaxQuota => row.max_quota,
        }
    }

    /// Whether it is counted over a period; the others look at one message.
    pub fn is_counted(self) -> bool {
        matches!(self, Limit::MaxMsgs | Limit::MaxQuota)
    }
}

/// The keys under which limits for a user and a client may be set. `real` is the user under the domain that its own is
/// an alias of.
pub(crate) fn account_keys(user: &str, real: Option<&str>, client: &str, settings: &Settings) -> Vec<String> {
    let mut keys = vec![client.to_owned(), EVERY_CLIENT.to_owned()];
    keys.extend(lookup::wildcard_ipv4(client, settings.all_wildcard_addresses));
    // Without a user there is no key for everybody either.
    if !user.is_empty() {
        keys.extend(lookup::policy_keys(user, settings.reading()));
        if let Some(real) = real {
            let real_keys = lookup::policy_keys(real, settings.reading());
            keys.extend(real_keys.into_iter().filter(|key| key != lookup::EVERYBODY));
        }
    }
    keys.retain(|key| !key.is_empty());
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The rows that supply the four limits.
#[derive(Debug, Default)]
pub(crate) struct Effective<'a> {
    msg_size: Option<&'a Limits>,
    max_rcpts: Option<&'a Limits>,
    max_msgs: Option<&'a Limits>,
    max_quota: Option<&'a Limits>,
}

impl<'a> Effective<'a> {
    /// `rows` with the most telling first.
    pub(crate) fn of(rows: &'a [Limits]) -> Effective<'a> {
        let first = |limit: Limit| rows.iter().find(|row| row.period > 0 && limit.of(row) >= 0);
        Effective {
            msg_size: first(Limit::MsgSize),
            max_rcpts: first(Limit::MaxRcpts),
            max_msgs: first(Limit::MaxMsgs),
            max_quota: first(Limit::MaxQuota),
        }
    }

    /// The row that supplies a limit.
    pub(crate) fn supplier(&self, limit: Limit) -> Option<&'a Limits> {
        match limit {
            Limit::MsgSize => self.msg_size,
            Limit::MaxRcpts => self.max_rcpts,
            Limit::MaxMsgs => self.max_msgs,
            Limit::MaxQuota => self.max_quota,
        }
    }

    pub(crate) fn refuses_at_once(&self, message: Amount) -> Option<Reply> {
        let exceeded = |limit: Option<i64>, value| limit.is_some_and(|limit| limit > 0 && value > limit);
        if exceeded(self.msg_size.map(|row| row.msg_size), message.bytes) {
            return Some(Reply::TooLarge);
        }
        exceeded(self.max_rcpts.map(|row| row.max_rcpts), message.messages)
            .then_some(Reply::TooManyRecipients)
    }

    /// One counter for each row that supplies one of the counted limits, limit 0 included.
    pub(crate) fn tracked(&self, user: &str, client: &str) -> Vec<Tracked> {
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
}
