//! Clients that have passed and came again: remembered for longer, while their mail goes on.
//!
//! Nobody waits for it and nothing is lost with one that is not written: the client is known for weeks, and its next mail
//! but a few minutes later renews it again. Those of one moment go together.

use std::collections::HashMap;

use outrider_core::sql::{Db, Stmt, Value};

use crate::store::later::Later;
use crate::store::write;

const RENEW: Stmt = Stmt::same(
    "UPDATE greylisting_tracking SET record_expired = ? WHERE client_address IN (?) AND passed = 1",
)
.repeatable();

/// Clients of one statement at most.
const MOST: usize = 64;
/// A client and the time until which it is known.
type Renewal = (String, i64);

pub(super) struct Renewals(Later<Renewal>);

impl Renewals {
    pub(super) fn new(db: Db) -> Renewals {
        Renewals(Later::new(MOST, move |renewals| {
            let db = db.clone();
            async move { renew(&db, renewals).await }
        }))
    }

    /// Begins to write one down.
    pub(super) fn begin(&self, client: String, record_expired: i64) {
        self.0.begin((client, record_expired));
    }
}

async fn renew(db: &Db, renewals: Vec<Renewal>) {
    let mut times: HashMap<i64, Vec<String>> = HashMap::new();
    for (client, time) in renewals {
        times.entry(time).or_default().push(client);
    }
    for (time, clients) in times {
        if let Err(error) = write(db, &RENEW, &[time.into(), Value::list(clients)]).await {
            tracing::debug!(%error, "known clients could not be remembered for longer");
        }
    }
}
