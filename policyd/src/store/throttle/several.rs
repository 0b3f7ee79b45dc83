//! Messages that move several counters: all of them or none, in one transaction, always in the same order.

use outrider_core::sql::{Db, DbError};

use super::counter::{Run, Standing, Step};
use super::{ATTEMPTS, Amount, Counted, Tracked, contended, pause};

/// A message that waits for its turn.
pub(super) struct Several {
    /// Sorted.
    pub(super) counters: Vec<Tracked>,
    pub(super) amount: Amount,
    pub(super) now: i64,
}

/// Counts one after the other.
pub(super) async fn count_each(db: &Db, messages: &[Several]) -> Vec<Result<Counted, DbError>> {
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        outcomes.push(count(db, message).await);
    }
    outcomes
}

async fn count(db: &Db, Several { counters, amount, now }: &Several) -> Result<Counted, DbError> {
    'again: for attempt in 0..ATTEMPTS {
        pause(attempt).await;
        let mut transaction = db.begin().await?;
        for (at, counter) in counters.iter().enumerate() {
            let mut run = Run::Within(&mut transaction);
            match run.count(counter, *amount, *now).await {
                Ok(Step::Moved) => {}
                // However the roll-back ends, nothing of this lasts.
                Ok(Step::Lost) => {
                    let _ = transaction.rollback().await;
                    continue 'again;
                }
                Ok(Step::Exceeded { has_row, by_messages }) => {
                    let exceeded = Counted::Exceeded { at: counter.clone(), has_row, by_messages };
                    let other = match by_messages {
                        true => None,
                        false => too_many_messages(&mut run, &counters[at + 1..], *amount, *now).await?,
                    };
                    let _ = transaction.rollback().await;
                    return Ok(other.unwrap_or(exceeded));
                }
                // A deadlock of this transaction with another: the server has undone it already.
                Err(DbError::TryAgain(_)) => continue 'again,
                Err(error) => return Err(error),
            }
        }
        match transaction.commit().await {
            Err(DbError::TryAgain(_)) => {}
            other => return other.map(|()| Counted::Accepted),
        }
    }
    Err(contended())
}

/// The first counter of which the number of messages is exceeded: where that and the number of bytes are, in different
/// counters, that is what the administrator is told.
async fn too_many_messages(
    run: &mut Run<'_>,
    counters: &[Tracked],
    amount: Amount,
    now: i64,
) -> Result<Option<Counted>, DbError> {
    for counter in counters {
        let standing = run.standing(counter, amount, now).await?;
        if let Standing::Exceeded { has_row, by_messages: true } = standing {
            return Ok(Some(Counted::Exceeded { at: counter.clone(), has_row, by_messages: true }));
        }
    }
    Ok(None)
}
