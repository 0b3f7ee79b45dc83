//! Greylisting triplets.
//!
//! Of a client that has passed only that is kept; its triplets are not needed any more. Others are kept below their
//! client, at most [`ValkeyTriplets::MOST`] of one.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use outrider_core::clock::SharedClock;
use outrider_core::sql::DbError;
use redis::Script;

use super::connection::Valkey;
use super::{script, time_to_live};
use crate::cache::{Cache, CacheMeter};
use crate::network_rate::NetworkRate;
use crate::settings::CacheSettings;
use crate::store::fit;
use crate::store::triplet::{Known, Meeting, Seen, Times, Triplet};

static SEEN: LazyLock<Script> = LazyLock::new(|| script(include_str!("seen.lua")));
static CONTACT: LazyLock<Script> = LazyLock::new(|| script(include_str!("contact.lua")));
static COUNT: LazyLock<Script> = LazyLock::new(|| script(include_str!("count.lua")));
static PASS: LazyLock<Script> = LazyLock::new(|| script(include_str!("pass.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| script(include_str!("renew.lua")));

/// The triplets of [`crate::store::triplet`].
pub struct ValkeyTriplets {
    server: Arc<Valkey>,
    clock: SharedClock,
    /// Clients known to have passed, and until when they are remembered.
    known: Cache<String, i64>,
}

impl ValkeyTriplets {
    /// Triplets kept of one client that has not passed yet. Mail servers that come again pass with their first one.
    pub const MOST: usize = 10_000;

    /// The triplets on this server.
    pub fn new(server: Arc<Valkey>, cache: &CacheSettings, clock: SharedClock) -> ValkeyTriplets {
        let lifetime = cache.lifetime.duration();
        ValkeyTriplets { server, clock, known: Cache::new(cache.entries, lifetime, lifetime) }
    }

    /// Counts how useful the memory is from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.known.measure(meter);
    }

    pub(super) fn server(&self) -> &Valkey {
        &self.server
    }

    pub(super) fn key(&self, client: &str, what: &str) -> String {
        self.server.key(&format!("greylisting:{{{}}}:{what}", fit(client, 40)))
    }

    /// What is known about a triplet. Of a client that has passed, the triplet itself is left out.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn seen(&self, triplet: &Triplet) -> Result<Seen, DbError> {
        let client = fit(&triplet.client, 40);
        if let Some(until) = self.known.fresh(client) {
            return Ok(Seen { client_passed: Some(Known::until(until.value)), triplet: None });
        }
        let (passed_until, triplet) = self.look(client, &field(triplet)).await?;
        if let Some(until) = passed_until {
            self.known.put(client.to_owned(), until);
        }
        Ok(Seen { client_passed: passed_until.map(Known::until), triplet })
    }

    /// Until when a client is known, and the triplet of this name.
    async fn look(&self, client: &str, name: &str) -> Result<(Option<i64>, Option<(i64, i64)>), DbError> {
        let mut script = SEEN.key(self.key(client, "passed"));
        script.key(self.key(client, "triplets")).arg(name);
        let answer: Vec<i64> = self.server.run(&script).await?;
        let &[passed, block_expired, record_expired] = answer.as_slice() else {
            return Err(DbError::Refused("the answer of the greylisting script makes no sense".to_owned()));
        };
        // A key may be there for a moment longer than what it says.
        let client_passed = (passed >= self.clock.unix_seconds()).then_some(passed);
        Ok((client_passed, (block_expired >= 0).then_some((block_expired, record_expired))))
    }

    /// Until when a client is known on the server now, if it is.
    pub async fn known_until(&self, client: &str) -> Result<Option<i64>, DbError> {
        Ok(self.look(fit(client, 40), "").await?.0)
    }

    /// What is known about a triplet; a first contact is written down, if `share` allows the client's network one more. If
    /// somebody else did at the same moment, that one stays.
    pub async fn meet(
        &self,
        triplet: &Triplet,
        times: Times,
        client: IpAddr,
        share: &NetworkRate,
    ) -> Result<Meeting, DbError> {
        let seen = self.seen(triplet).await?;
        if seen != Seen::default() || !share.take(client) {
            let remembered = seen != Seen::default();
            return Ok(Meeting { remembered, ..Meeting::of(seen) });
        }
        let written = self.contact(triplet, times, false).await;
        if !matches!(written, Ok(true)) {
            share.give_back(client);
        }
        written.map(|_| Meeting::FIRST)
    }

    /// Makes a forgotten triplet a first contact again.
    pub async fn restart(&self, triplet: &Triplet, times: Times) -> Result<(), DbError> {
        self.contact(triplet, times, true).await.map(drop)
    }

    /// Writes a triplet down, over the one that is there only if it comes `again`; whether it did.
    async fn contact(&self, triplet: &Triplet, times: Times, again: bool) -> Result<bool, DbError> {
        let mut script = CONTACT.key(self.key(&triplet.client, "triplets"));
        script
            .key(self.key(&triplet.client, "order"))
            .arg(field(triplet))
            .arg(times.init)
            .arg(times.block_expired)
            .arg(times.record_expired)
            .arg(time_to_live(times.record_expired, times.init))
            .arg(Self::MOST)
            .arg(i64::from(again));
        self.server.run::<i64>(&script).await.map(|written| written == 1)
    }

    /// Counts one more refusal.
    pub async fn count(&self, triplet: &Triplet) -> Result<(), DbError> {
        let mut script = COUNT.key(self.key(&triplet.client, "triplets"));
        self.server.run::<i64>(script.arg(field(triplet))).await.map(drop)
    }

    /// Marks a client as one that has come again, until `record_expired`, and forgets its triplets.
    pub async fn pass(&self, triplet: &Triplet, record_expired: i64) -> Result<(), DbError> {
        let client = &triplet.client;
        let mut script = PASS.key(self.key(client, "passed"));
        script
            .key(self.key(client, "triplets"))
            .key(self.key(client, "order"))
            .arg(record_expired)
            .arg(time_to_live(record_expired, self.clock.unix_seconds()));
        self.server.run::<i64>(&script).await.map(drop)
    }

    /// Remembers a client that has passed until `record_expired`.
    pub async fn renew_client(&self, client: &str, record_expired: i64) -> Result<(), DbError> {
        let client = fit(client, 40);
        let mut script = RENEW.key(self.key(client, "passed"));
        script.arg(record_expired).arg(time_to_live(record_expired, self.clock.unix_seconds()));
        self.server.run::<i64>(&script).await?;
        self.known.put(client.to_owned(), record_expired);
        Ok(())
    }
}

/// The name of a triplet below its client: no two have the same.
fn field(triplet: &Triplet) -> String {
    let (sender, recipient) = (fit(&triplet.sender, 255), fit(&triplet.recipient, 255));
    format!("{}:{sender}{recipient}", sender.len())
}
