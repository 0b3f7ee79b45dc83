//! Clients that have passed and came again: remembered for longer, while their mail goes on.
//!
//! Nobody waits for it and nothing is lost with one that is not written: the client is known for weeks, and its next mail
//! but a few minutes later renews it again. Those of one moment go together.

use std::collections::HashMap;
use std::sync::Arc;

use outrider_core::gather::{Gather, Lanes};
use outrider_core::sql::{Db, DbError, Stmt, Value};
use tokio::sync::Semaphore;

use crate::store::write;

const RENEW: Stmt = Stmt::same(
    "UPDATE greylisting_tracking SET record_expired = ? WHERE client_address IN (?) AND passed = 1",
)
.repeatable();

/// Clients of one statement at most.
const MOST: usize = 64;
/// Clients that wait at most; of more the next mail reminds us.
const WAITING: usize = 1024;

/// A client and the time until which it is known.
type Renewal = (String, i64);

pub(super) struct Renewals {
    all: Arc<Gather<Renewal, Result<(), DbError>>>,
    free: Arc<Semaphore>,
}

impl Renewals {
    pub(super) fn new(db: Db) -> Renewals {
        let all = Gather::new(MOST, Lanes::ONE, move |renewals| {
            let db = db.clone();
            async move { renew(&db, renewals).await }
        });
        Renewals { all: Arc::new(all), free: Arc::new(Semaphore::new(WAITING)) }
    }

    /// Begins to write one down.
    pub(super) fn begin(&self, client: String, record_expired: i64) {
        let Ok(place) = self.free.clone().try_acquire_owned() else { return };
        let all = self.all.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Some(Err(error)) = all.ask((client, record_expired)).await {
                tracing::debug!(%error, "a known client could not be remembered for longer");
            }
        });
    }
}

async fn renew(db: &Db, renewals: Vec<Renewal>) -> Vec<Result<(), DbError>> {
    let mut times: HashMap<i64, Vec<&str>> = HashMap::new();
    for (client, time) in &renewals {
        times.entry(*time).or_default().push(client);
    }
    let mut outcomes = HashMap::new();
    for (time, clients) in times {
        outcomes.insert(time, write(db, &RENEW, &[time.into(), Value::list(clients)]).await.map(drop));
    }
    renewals.iter().map(|(_, time)| outcomes.get(time).cloned().unwrap_or(Ok(()))).collect()
}
