//! Throttle counters and greylisting triplets in either of the places where they may be kept.

use std::net::IpAddr;
use std::sync::Arc;

use outrider_core::clock::SharedClock;
use outrider_core::sql::DbError;

use super::Stores;
use super::throttle::{Amount, Counted, ThrottleStore, Tracked};
use super::triplet::{Meeting, Seen, Times, Triplet, TripletStore};
use super::valkey::{Valkey, ValkeyCounters, ValkeyTriplets};
use crate::network_rate::NetworkRate;
use crate::settings::{CacheSettings, CounterSettings, CounterStore};

/// Counters and triplets on a Valkey server.
pub struct ValkeyStores {
    /// The server.
    pub server: Arc<Valkey>,
    pub(crate) counters: ValkeyCounters,
    pub(crate) triplets: ValkeyTriplets,
}

impl ValkeyStores {
    /// The server of the settings, if they name one. To be called inside the runtime.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for settings that cannot be used.
    pub fn from_settings(
        settings: &CounterSettings,
        cache: &CacheSettings,
        clock: SharedClock,
    ) -> Result<Option<ValkeyStores>, DbError> {
        if settings.store == CounterStore::Sql {
            return Ok(None);
        }
        let server = Valkey::new(settings)?;
        Ok(Some(ValkeyStores {
            counters: ValkeyCounters::new(server.clone()),
            triplets: ValkeyTriplets::new(server.clone(), cache, clock),
            server,
        }))
    }
}

impl Stores {
    /// The throttle counters.
    pub fn counters(&self) -> Counters<'_> {
        match &self.valkey {
            Some(valkey) => Counters::Valkey(&valkey.counters),
            None => Counters::Sql(&self.throttle),
        }
    }

    /// The greylisting triplets.
    pub fn triplets(&self) -> Triplets<'_> {
        match &self.valkey {
            Some(valkey) => Triplets::Valkey(&valkey.triplets),
            None => Triplets::Sql(&self.triplets),
        }
    }
}

/// Throttle counters, see [`ThrottleStore`].
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Counters<'a> {
    Sql(&'a ThrottleStore),
    Valkey(&'a ValkeyCounters),
}

impl Counters<'_> {
    /// Counts a message on all counters if all of them allow it, at `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn count(&self, tracked: Vec<Tracked>, amount: Amount, now: i64) -> Result<Counted, DbError> {
        match self {
            Counters::Sql(store) => store.count(tracked, amount, now).await,
            Counters::Valkey(store) => store.count(tracked, amount, now).await,
        }
    }

    /// Whether the caller should notify: true for one request a period.
    pub async fn claim_notification(&self, counter: &Tracked, now: i64) -> Result<bool, DbError> {
        match self {
            Counters::Sql(store) => store.claim_notification(counter, now).await,
            Counters::Valkey(store) => store.claim_notification(counter, now).await,
        }
    }
}

/// Greylisting triplets, see [`TripletStore`].
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Triplets<'a> {
    Sql(&'a TripletStore),
    Valkey(&'a ValkeyTriplets),
}

impl Triplets<'_> {
    /// What is known about a triplet.
    ///
    /// # Errors
    /// See [`DbError`]; so for all functions here.
    pub async fn seen(&self, triplet: &Triplet) -> Result<Seen, DbError> {
        match self {
            Triplets::Sql(store) => store.seen(triplet).await,
            Triplets::Valkey(store) => store.seen(triplet).await,
        }
    }

    /// What is known about a triplet; a first contact is written down, if `share` allows the client's network one more. If
    /// somebody else did at the same moment, that one stays.
    pub async fn meet(
        &self,
        triplet: &Triplet,
        times: Times,
        client: IpAddr,
        share: &Arc<NetworkRate>,
    ) -> Result<Meeting, DbError> {
        match self {
            Triplets::Sql(store) => store.meet(triplet, times, client, share).await,
            Triplets::Valkey(store) => store.meet(triplet, times, client, share).await,
        }
    }

    /// Makes a forgotten triplet a first contact again.
    pub async fn restart(&self, triplet: &Triplet, times: Times) -> Result<(), DbError> {
        match self {
            Triplets::Sql(store) => store.restart(triplet, times).await,
            Triplets::Valkey(store) => store.restart(triplet, times).await,
        }
    }

    /// Counts one more refusal.
    pub async fn count(&self, triplet: &Triplet) -> Result<(), DbError> {
        match self {
            Triplets::Sql(store) => store.count(triplet).await,
            Triplets::Valkey(store) => store.count(triplet).await,
        }
    }

    /// Marks a triplet as passed and forgets the client's others that have not.
    pub async fn pass(&self, triplet: &Triplet, record_expired: i64) -> Result<(), DbError> {
        match self {
            Triplets::Sql(store) => store.pass(triplet, record_expired).await,
            Triplets::Valkey(store) => store.pass(triplet, record_expired).await,
        }
    }

    /// Remembers a client that has passed until `record_expired`.
    ///
    /// # Errors
    /// Those of Valkey; a database is written in the background.
    pub async fn renew_client(&self, client: &str, record_expired: i64) -> Result<(), DbError> {
        match self {
            Triplets::Sql(store) => {
                store.renew_client(client, record_expired);
                Ok(())
            }
            Triplets::Valkey(store) => store.renew_client(client, record_expired).await,
        }
    }
}
