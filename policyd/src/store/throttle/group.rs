//! Messages of one moment that move the same counter.
//!
//! Each would lock the row until its commit is on the disk, one after the other. Together they are one change: it takes
//! place only if it would have been granted to each of them in their order, else each is counted alone. So what they let
//! through is what one after the other would have, and a busy counter costs one commit for all who wait for it. The
//! changes of different counters go to the database together too, see `together.rs`.

use std::collections::HashMap;

use outrider_core::sql::{Db, DbError};

use super::counter::{Run, Step};
use super::together::{Together, Tried};
use super::{Amount, Tracked};

/// A message that waits for its turn, or several of one counter as one.
#[derive(Clone, Debug)]
pub(super) struct Count {
    pub(super) counter: Tracked,
    pub(super) amount: Amount,
    pub(super) now: i64,
}

/// Counts those that can be counted in one step; of each whether it was. The others are to be counted elsewhere: here they
/// would all wait for the slowest.
pub(super) async fn count_all(together: &Together, counts: &[Count]) -> Vec<Result<Tried, DbError>> {
    let mut groups: HashMap<&Tracked, Vec<usize>> = HashMap::new();
    for (at, count) in counts.iter().enumerate() {
        groups.entry(&count.counter).or_default().push(at);
    }
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let changes = groups.iter().map(|members| {
        let group: Vec<&Count> = members.iter().map(|&at| &counts[at]).collect();
        as_one(&group)
    });
    let moved = together.moved(&changes.collect::<Vec<_>>()).await;
    let mut outcomes = vec![Ok(Tried::NotMoved); counts.len()];
    for (members, moved) in groups.into_iter().zip(moved) {
        members.into_iter().for_each(|at| outcomes[at] = moved.clone());
    }
    outcomes
}

/// Counts messages that have waited for the same counter, and makes its row if there is none; of each whether it was
/// counted.
pub(super) async fn count_in_turn(db: &Db, counts: &[Count]) -> Vec<Result<bool, DbError>> {
    let group: Vec<&Count> = counts.iter().collect();
    // Limits may have been set anew while they waited.
    let alike = counts.iter().all(|count| Some(&count.counter) == counts.first().map(|first| &first.counter));
    if let Some(Count { counter, amount, now }) = as_one(&group).filter(|_| alike) {
        match Run::Alone(db).moved(&counter, amount, now).await {
            Ok(false) | Err(DbError::TryAgain(_)) => {}
            outcome => return vec![outcome; counts.len()],
        }
    }
    let mut outcomes = Vec::with_capacity(counts.len());
    for Count { counter, amount, now } in counts {
        let outcome = match outcomes.last() {
            // What failed for one will not be waited for again by each of the others.
            Some(Err(error)) if !matches!(error, DbError::TryAgain(_) | DbError::Refused(_)) => {
                Err(error.clone())
            }
            _ => Run::Alone(db).count(counter, *amount, *now).await.map(|step| matches!(step, Step::Moved)),
        };
        outcomes.push(outcome);
    }
    outcomes
}

/// The change that all of them together are. Its limit of bytes is what the last of them has to find: the bytes of the
/// others are counted by then. `None` where even an empty counter would not take all.
fn as_one(group: &[&Count]) -> Option<Count> {
    let [others @ .., last] = group else { return None };
    let before = others.iter().map(|count| count.amount.bytes).fold(0, i64::saturating_add);
    let messages = group.iter().map(|count| count.amount.messages).fold(0, i64::saturating_add);
    let mut counter = last.counter.clone();
    if counter.max_quota > 0 {
        // A limit of 0 would be none.
        counter.max_quota = counter.max_quota.checked_sub(before).filter(|left| *left > 0)?;
    }
    let amount = Amount { messages, bytes: before.saturating_add(last.amount.bytes) };
    // More than a whole period allows never counts, not even on a period that is over.
    let fits = counter.max_msgs <= 0 || messages <= counter.max_msgs;
    fits.then_some(Count { counter, amount, now: last.now })
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
        as_one(&group).map(|change| (change.counter.max_quota, change.amount))
    }

    #[test]
    fn what_messages_are_together() {
        let sum = |messages, bytes| Amount { messages, bytes };
        assert_eq!(joined(0, &[(1, 10), (2, 20), (1, 5)]), Some((0, sum(4, 35))));
        assert_eq!(joined(100, &[(1, 10), (2, 20), (1, 5)]), Some((70, sum(4, 35))), "the last finds 30");
        assert_eq!(joined(30, &[(1, 10), (2, 20), (1, 5)]), None, "nothing left for the last");
        assert_eq!(joined(100, &[(1, 10)]), Some((100, sum(1, 10))), "one alone");
        assert_eq!(joined(0, &[(5, 10), (5, 10)]), None, "more messages than a period may have");
        assert_eq!(joined(0, &[(1, i64::MAX), (1, 1)]), Some((0, sum(2, i64::MAX))));
    }
}
