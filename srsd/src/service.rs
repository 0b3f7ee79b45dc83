//! One set of settings at work: rules, domains, and the answers they give.

use crate::conversation::Lookup;
use crate::counters::Counters;
use crate::domains::{Domains, Knowledge};
use crate::rules::{Forward, Reverse, Rules};
use crate::secrets;
use crate::session::SessionLimits;
use crate::settings::{OnFailure, Settings, is_host_name};
use crate::source::SqlSource;
use outrider_core::clock::SharedClock;
use outrider_core::daemon::{DependencyHealth, Environment, StartError};
use outrider_core::directory::{self, Directory};
use outrider_core::host_name::full_host_name;
use outrider_core::log;
use outrider_core::schema::Database;
use outrider_core::settings::LogStyle;
use outrider_core::sql::Db;
use outrider_core::srs::{DomainList, ListStyle, ReverseError, Srs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What requests use that began while these settings were in force.
pub(crate) struct Service {
    rules: Rules,
    pub(crate) domains: Domains,
    accounts: Option<Arc<dyn Directory>>,
    iredapd: Option<Db>,
    on_failure: OnFailure,
    pub(crate) refresh: Duration,
    pub(crate) limits: SessionLimits,
}

impl Service {
    /// Reads secrets and list files and opens the databases, without waiting for a server.
    pub(crate) async fn new(settings: &Settings, env: &Environment) -> Result<Self, StartError> {
        let mut source = SqlSource { accounts: None, iredapd: None };
        if settings.directory_domains {
            let state = &env.state_directory;
            let opened = directory::open(settings.accounts, &settings.ldap, &settings.database, state).await;
            source.accounts = Some(opened.map_err(|error| StartError::Other(Box::new(error)))?);
        }
        if settings.exclude_table {
            let opened = settings.database.open(Database::Iredapd, &env.state_directory).await;
            source.iredapd = Some(opened.map_err(|error| StartError::Other(Box::new(error)))?);
        }
        let (accounts, iredapd) = (source.accounts.clone(), source.iredapd.clone());
        let domains = match accounts.is_none() && iredapd.is_none() {
            true => Domains::none(),
            false => Domains::new(Box::new(source)),
        };
        Ok(Service {
            rules: rules(settings, env)?,
            domains,
            accounts,
            iredapd,
            on_failure: settings.on_failure,
            refresh: settings.refresh.duration(),
            limits: SessionLimits {
                idle: settings.limits.idle_timeout.duration(),
                request: settings.limits.request_timeout.duration(),
            },
        })
    }

    /// Whether each database is there.
    pub(crate) fn health(&self) -> Vec<DependencyHealth> {
        let mut health = self.accounts.as_ref().map_or(Vec::new(), |accounts| accounts.health());
        health.extend(self.iredapd.as_ref().map(|db| db.health("iredapd")));
        health
    }

    fn log_forward(&self, sender: &str, outcome: &Forward) {
        match outcome {
            Forward::Rewritten(address) if log::style() == LogStyle::Iredapd => {
                tracing::info!(
                    event = "rewrote",
                    line = format!("[srs][sender]  rewrote: {sender} -> {address}")
                );
            }
            Forward::Rewritten(address) => {
                tracing::info!(event = "rewrote", sender = %sender, result = %address);
            }
            Forward::Left(left) => tracing::debug!(event = "left", sender = %sender, reason = ?left),
            Forward::Undecided => {
                tracing::warn!(event = "undecided", sender = %sender, reason = "local domains not known");
            }
        }
    }

    fn log_reverse(&self, recipient: &str, outcome: &Reverse) {
        match outcome {
            Reverse::Original(address) if log::style() == LogStyle::Iredapd => {
                tracing::info!(
                    event = "reversed",
                    line = format!("[srs][recipient]  reversed: {recipient} -> {address}")
                );
            }
            Reverse::Original(address) => {
                tracing::info!(event = "reversed", rcpt = %recipient, result = %address);
            }
            // Every recipient of every message is looked up; most are no business of ours.
            Reverse::Left(ReverseError::NotSrs) => {}
            Reverse::Left(error) => {
                tracing::info!(event = "not reversed", rcpt = %recipient, reason = %error)
            }
            Reverse::Undecided => tracing::error!(event = "not reversed", reason = "program fault"),
        }
    }
}

fn rules(settings: &Settings, env: &Environment) -> Result<Rules, StartError> {
    let host_name = settings.myhostname.clone().unwrap_or_else(full_host_name).to_lowercase();
    let domain = settings.srs_domain.clone().unwrap_or_else(|| host_name.clone());
    let domain = if is_host_name(&domain) {
        domain
    } else {
        tracing::warn!(
            event = "forwarding off",
            reason = "the host has no full name, and srs_domain is not set; senders stay as they are",
            host = %domain
        );
        String::new()
    };
    let mut local = DomainList::new(ListStyle::Postsrsd2, &settings.domains);
    if let Some(path) = &settings.domains_file {
        let text = std::fs::read_to_string(path).map_err(|error| StartError::File(path.clone(), error))?;
        local.extend(DomainList::from_text(ListStyle::Postsrsd2, &text));
    }
    Ok(Rules {
        srs: Srs::new(settings.srs_options(&domain), secrets::load(settings, env)?),
        address_check: settings.address_check.into(),
        host_name,
        local,
        excluded: DomainList::new(settings.list_style(), &settings.exclude),
        always_rewrite: settings.always_rewrite,
        keep_own_addresses: settings.keep_own_addresses,
    })
}

/// The look-ups of one batch of requests.
pub(crate) struct Batch {
    service: Arc<Service>,
    knowledge: Knowledge,
    clock: SharedClock,
    counters: Arc<Counters>,
}

impl Batch {
    /// Waits for the domains only when the first attempt to read them has not ended yet.
    pub(crate) async fn new(service: Arc<Service>, clock: SharedClock, counters: Arc<Counters>) -> Self {
        service.domains.first_attempt(service.limits.request).await;
        let knowledge = service.domains.now();
        Batch { service, knowledge, clock, counters }
    }
}

impl Lookup for Batch {
    fn forward(&self, key: &str) -> Forward {
        let begin = Instant::now();
        // The rules are pure, so nothing is left half done by a panic.
        let decide = || self.service.rules.forward(key, &self.knowledge, self.clock.unix_seconds());
        let outcome = catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
            self.counters.panic();
            Forward::Undecided
        });
        self.service.log_forward(key, &outcome);
        self.counters.forward(&outcome, begin.elapsed());
        outcome
    }

    fn reverse(&self, key: &str) -> Reverse {
        let begin = Instant::now();
        let decide = || self.service.rules.srs.reverse(key, self.clock.unix_seconds());
        let outcome = match catch_unwind(AssertUnwindSafe(decide)) {
            Ok(Ok(reversed)) => Reverse::Original(reversed.address),
            Ok(Err(error)) => Reverse::Left(error),
            Err(_) => {
                self.counters.panic();
                Reverse::Undecided
            }
        };
        self.service.log_reverse(key, &outcome);
        self.counters.reverse(&outcome, begin.elapsed());
        outcome
    }

    fn defers(&self) -> bool {
        self.service.on_failure == OnFailure::Defer
    }
}
