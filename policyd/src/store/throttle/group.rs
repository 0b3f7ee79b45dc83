//! Messages of one moment that move the same counter.
//!
//! Each would lock the row until its commit is on the disk, one after the other. Together they are one change: it takes
//! place only if it would have been granted to each of them in their order, else each is asked alone. So what they let
//! through is what one after the other would have, and a busy counter costs one commit for all who wait for it.

use std::collections::HashMap;

use futures_util::future::join_all;
use outrider_core::sql::{Db, DbError};

use super::{Amount, Counted, Run, Tracked, count_one};

/// A message that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Count {
    pub(super) counter: Tracked,
    pub(super) amount: Amount,
    pub(super) now: i64,
}

/// What a message is told.
type Outcome = Result<Counted, DbError>;

/// Counts them, those on different counters at the same time.
pub(super) async fn count_all(db: &Db, counts: Vec<Count>) -> Vec<Outcome> {
    let mut groups: HashMap<Tracked, Vec<usize>> = HashMap::new();
    for (at, count) in counts.iter().enumerate() {
        groups.entry(count.counter.clone()).or_default().push(at);
    }
    let (counts, groups) = (&counts, groups.into_values());
    let work = groups.map(|members| async move { (count_group(db, counts, &members).await, members) });
    let mut outcomes: Vec<Option<Outcome>> = vec![None; counts.len()];
    for (answers, members) in join_all(work).await {
        for (at, answer) in members.into_iter().zip(answers) {
            outcomes[at] = Some(answer);
        }
    }
    // Every message is in one group.
    outcomes.into_iter().flatten().collect()
}

async fn count_group(db: &Db, counts: &[Count], members: &[usize]) -> Vec<Outcome> {
    let group: Vec<&Count> = members.iter().map(|&at| &counts[at]).collect();
    if let Some((counter, amount, now)) = as_one(&group) {
        match Run::Alone(db).moved(&counter, amount, now).await {
            Ok(true) => return vec![Ok(Counted::Accepted); group.len()],
            Ok(false) => {}
            Err(error) => return vec![Err(error); group.len()],
        }
    }
    let mut answers = Vec::with_capacity(group.len());
    for count in group {
        answers.push(count_one(db, &count.counter, count.amount, count.now).await);
    }
    answers
}

/// The change that all of them together are. Its limit of bytes is what the last of them has to find: the bytes of the
/// others are counted by then. `None` for one alone, and where even an empty counter would not take all.
fn as_one(group: &[&Count]) -> Option<(Tracked, Amount, i64)> {
    let [others @ .., last] = group else { return None };
    if others.is_empty() {
        return None;
    }
    let before = others.iter().map(|count| count.amount.bytes).fold(0, i64::saturating_add);
    let messages = group.iter().map(|count| count.amount.messages).fold(0, i64::saturating_add);
    let mut counter = last.counter.clone();
    if counter.max_quota > 0 {
        // A limit of 0 would be none.
        counter.max_quota = counter.max_quota.checked_sub(before).filter(|left| *left > 0)?;
    }
    let amount = Amount { messages, bytes: before.saturating_add(last.amount.bytes) };
    Some((counter, amount, last.now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(max_quota: i64, messages: i64, bytes: i64) -> Count {
        let counter = Tracked { tid: 1, key: "a@example.com".into(), period: 60, max_msgs: 9, max_quota };
        Count { counter, amount: Amount { messages, bytes }, now: 7 }
    }

    fn joined(max_quota: i64, amounts: &[(i64, i64)]) -> Option<(i64, Amount)> {
        let counts: Vec<Count> =
            amounts.iter().map(|&(messages, bytes)| count(max_quota, messages, bytes)).collect();
        let group: Vec<&Count> = counts.iter().collect();
        as_one(&group).map(|(counter, amount, _)| (counter.max_quota, amount))
    }

    #[test]
    fn what_messages_are_together() {
        let sum = |messages, bytes| Amount { messages, bytes };
        assert_eq!(joined(0, &[(1, 10), (2, 20), (1, 5)]), Some((0, sum(4, 35))));
        assert_eq!(joined(100, &[(1, 10), (2, 20), (1, 5)]), Some((70, sum(4, 35))), "the last finds 30");
        assert_eq!(joined(30, &[(1, 10), (2, 20), (1, 5)]), None, "nothing left for the last");
        assert_eq!(joined(100, &[(1, 10)]), None, "one alone");
        assert_eq!(joined(0, &[(i64::MAX, i64::MAX), (1, 1)]), Some((0, sum(i64::MAX, i64::MAX))));
    }
}
