//! What all connections of the filter share.

use crate::bank::{self, Bank};
use crate::identity::Connections;
use crate::process::{Done, Incoming};
use crate::relay::{Connect, Watched};
use crate::settings::Settings;
use outrider_core::clock::SharedClock;
use outrider_core::codec::smtp::path::Path;
use outrider_core::daemon::{DependencyHealth, Environment, StartError};
use outrider_core::dns::{HickoryResolver, Resolver};
use outrider_core::forwarding::Forwarding;
use outrider_core::host_name::full_host_name;
use outrider_core::mailauth::sign::Signer;
use outrider_core::metrics::Metrics;
use outrider_core::random::SharedRandom;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Settings in force and what follows from them. A message keeps the one with which it began.
#[derive(Debug)]
pub struct Snapshot {
    /// The settings.
    pub settings: Arc<Settings>,
    /// DKIM keys and rules.
    pub signer: Signer,
    /// Full name of this host.
    pub hostname: String,
    /// Name towards the next hop.
    pub localhost_name: String,
    /// Name in Authentication-Results.
    pub authserv_id: String,
    /// Time zone of this machine.
    pub zone: jiff::tz::TimeZone,
    banks: [Bank; 3],
}

impl Snapshot {
    /// Loads keys and names.
    ///
    /// # Errors
    /// A key cannot be used.
    pub fn new(settings: Arc<Settings>) -> Result<Snapshot, StartError> {
        let signer = settings.dkim.signer().map_err(StartError::Settings)?;
        let hostname = settings.myhostname.clone().unwrap_or_else(full_host_name);
        Ok(Snapshot {
            signer,
            localhost_name: settings.localhost_name.clone().unwrap_or_else(|| hostname.clone()),
            authserv_id: settings.myauthservid.clone().unwrap_or_else(|| hostname.clone()),
            hostname,
            zone: jiff::tz::TimeZone::system(),
            banks: [bank::INBOUND, bank::ORIGINATING, bank::LISTS]
                .map(|role| Bank::of_listener(&settings, role)),
            settings,
        })
    }

    /// The bank of a listener.
    pub fn bank(&self, role: &str) -> &Bank {
        match role {
            bank::ORIGINATING => &self.banks[1],
            bank::LISTS => &self.banks[2],
            _ => &self.banks[0],
        }
    }

    /// Whether a recipient is local: an address without domain is.
    pub fn is_local(&self, path: &Path) -> bool {
        let domain = path.domain_lower();
        domain.is_empty() || self.settings.local_domains.iter().any(|entry| domain_matches(entry, &domain))
    }
}

/// `example.com` is that domain, `.example.com` it and all below, `.` everything.
fn domain_matches(entry: &str, domain: &str) -> bool {
    let entry = entry.to_lowercase();
    match entry.strip_prefix('.') {
        None => entry == domain,
        Some("") => true,
        Some(parent) => domain == parent || domain.ends_with(&entry),
    }
}

/// The content filter.
pub struct Filter {
    snapshot: RwLock<Arc<Snapshot>>,
    resolver: RwLock<Arc<dyn Resolver>>,
    forwarding: RwLock<Option<Arc<Forwarding>>>,
    /// Reaches next hops.
    pub(crate) connect: Arc<Watched>,
    /// Time of day.
    pub(crate) clock: SharedClock,
    /// Randomness.
    pub(crate) random: SharedRandom,
    /// Log ids.
    pub(crate) connections: Connections,
    /// Numbers for the metrics listener.
    pub(crate) counters: Counters,
    /// Where scratch files are made.
    pub(crate) folder: PathBuf,
}

impl Filter {
    /// A filter with the given way to reach next hops and name servers: what simulations replace.
    ///
    /// # Errors
    /// A DKIM key cannot be used.
    pub fn new(
        settings: Arc<Settings>,
        env: &Environment,
        connect: Arc<dyn Connect>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Filter, StartError> {
        Ok(Filter {
            snapshot: RwLock::new(Arc::new(Snapshot::new(settings)?)),
            resolver: RwLock::new(resolver),
            forwarding: RwLock::new(None),
            connect: Arc::new(Watched::new(connect)),
            clock: env.clock.clone(),
            random: env.random.clone(),
            connections: Connections::new(std::process::id()),
            counters: Counters::new(env.metrics.clone()),
            folder: env.state_directory.clone(),
        })
    }

    /// A resolver for the settings.
    ///
    /// # Errors
    /// The system's own settings cannot be read.
    pub fn resolver_for(settings: &Settings) -> Result<Arc<dyn Resolver>, StartError> {
        let resolver = HickoryResolver::from_settings(&settings.dns);
        let resolver = resolver.map_err(|error| StartError::Settings(format!("dns: {error}")))?;
        Ok(Arc::new(resolver))
    }

    /// Takes new settings; messages that began keep the old ones.
    ///
    /// # Errors
    /// A DKIM key or the name servers cannot be used; the old settings stay.
    pub fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let resolver = Filter::resolver_for(&settings)?;
        let snapshot = Arc::new(Snapshot::new(settings)?);
        *self.resolver.write().unwrap_or_else(PoisonError::into_inner) = resolver;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        Ok(())
    }

    /// The settings in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the next hop could be reached the last time, and the databases of local domains.
    pub fn health(&self) -> Vec<DependencyHealth> {
        let failure = self.connect.failure();
        let next_hop = DependencyHealth {
            name: "next_hop",
            up: failure.is_none(),
            detail: failure.unwrap_or_default(),
            pool: None,
        };
        let databases = self.forwarding().map(|forwarding| forwarding.health()).unwrap_or_default();
        [vec![next_hop], databases].concat()
    }

    /// Who rewrites envelope senders; `None` when nobody does.
    pub fn forwarding(&self) -> Option<Arc<Forwarding>> {
        self.forwarding.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what the settings say about rewriting.
    pub fn set_forwarding(&self, forwarding: Option<Arc<Forwarding>>) {
        *self.forwarding.write().unwrap_or_else(PoisonError::into_inner) = forwarding;
    }

    /// The resolver in force.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        self.resolver.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Numbers of the filter.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) metrics: Arc<Metrics>,
}

impl Counters {
    fn new(metrics: Arc<Metrics>) -> Counters {
        Counters { metrics }
    }

    /// Counts a finished message by what the client heard.
    pub(crate) fn message(&self, incoming: &Incoming, done: &Done) {
        let kind = match incoming.bank.path.split('/').next() {
            Some("ORIGINATING") => "originating",
            Some("MLMMJ") => "lists",
            _ => "inbound",
        };
        let result = if done.outcomes.iter().any(|outcome| outcome.deferred()) {
            "deferred"
        } else if done.outcomes.iter().all(|outcome| outcome.delivered()) {
            "passed"
        } else {
            "rejected"
        };
        self.metrics.request(kind, result, Duration::from_millis(done.elapsed_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_domains() {
        let table = [
            (".", "anything.test", true),
            ("example.com", "example.com", true),
            ("Example.COM", "example.com", true),
            ("example.com", "sub.example.com", false),
            (".example.com", "example.com", true),
            (".example.com", "sub.example.com", true),
            (".example.com", "badexample.com", false),
        ];
        for (entry, domain, expected) in table {
            assert_eq!(domain_matches(entry, domain), expected, "{entry} {domain}");
        }
    }
}
