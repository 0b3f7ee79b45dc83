//! The look-ups of connections: what [`Forwarding`] decides, logged and counted.

use crate::conversation::Lookup;
use crate::counters::Counters;
use outrider_core::forwarding::{Forward, Forwarding, Reverse};
use outrider_core::log;
use outrider_core::settings::LogStyle;
use outrider_core::srs::ReverseError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What requests use that began while one set of settings was in force.
pub(crate) struct Service {
    pub(crate) forwarding: Forwarding,
    /// Time for one look-up.
    pub(crate) request: Duration,
    /// Time without a request after which a connection is closed.
    pub(crate) idle: Duration,
}

/// The look-ups of one batch of requests.
pub(crate) struct Batch {
    service: Arc<Service>,
    counters: Arc<Counters>,
}

impl Batch {
    /// Waits for the domains only when the first attempt to read them has not ended yet.
    pub(crate) async fn new(service: Arc<Service>, counters: Arc<Counters>) -> Self {
        service.forwarding.first_attempt(service.request).await;
        Batch { service, counters }
    }
}

impl Lookup for Batch {
    async fn forward(&self, key: &str) -> Forward {
        let begin = Instant::now();
        let outcome = self.service.forwarding.forward(key, self.service.request).await;
        log_forward(key, &outcome);
        self.counters.forward(&outcome, begin.elapsed());
        outcome
    }

    async fn reverse(&self, key: &str) -> Reverse {
        let begin = Instant::now();
        let outcome = self.service.forwarding.reverse(key, self.service.request).await;
        log_reverse(key, &outcome);
        self.counters.reverse(&outcome, begin.elapsed());
        outcome
    }

    fn defers(&self) -> bool {
        self.service.forwarding.defers()
    }
}

fn log_forward(sender: &str, outcome: &Forward) {
    match outcome {
        Forward::Rewritten(address) if log::style() == LogStyle::Iredapd => {
            tracing::info!(
                event = "rewrote",
                line = format!("[srs][sender]  rewrote: {sender} -> {address}")
            );
        }
        Forward::Rewritten(address) => {
            tracing::info!(event = "rewrote", sender, result = address);
        }
        Forward::Left(left) => tracing::debug!(event = "left", sender, reason = ?left),
        Forward::Undecided => {
            tracing::warn!(event = "undecided", sender, reason = "local domains not known");
        }
        // Why was said where it was found out.
        Forward::Unkept => tracing::info!(event = "deferred", sender, reason = "sender not kept"),
    }
}

fn log_reverse(recipient: &str, outcome: &Reverse) {
    let refused = |reason: &str| tracing::info!(event = "not reversed", rcpt = recipient, reason);
    match outcome {
        Reverse::Original(original) if log::style() == LogStyle::Iredapd => {
            let address = &original.address;
            tracing::info!(
                event = "reversed",
                line = format!("[srs][recipient]  reversed: {recipient} -> {address}")
            );
        }
        // An SRS1 address never expires, and a sender chose where it leads.
        Reverse::Original(original) if original.srs1 => {
            tracing::info!(event = "reversed", rcpt = recipient, result = original.address, srs1 = true);
        }
        Reverse::Original(original) => {
            tracing::info!(event = "reversed", rcpt = recipient, result = original.address);
        }
        // Every recipient of every message is looked up; most are no business of ours.
        Reverse::Left(ReverseError::NotSrs) => {}
        Reverse::Left(error) => refused(&error.to_string()),
        Reverse::UnknownToken => refused("token not in the database"),
        Reverse::NoDatabase => {
            tracing::warn!(event = "not reversed", reason = "envelope_database is not set")
        }
        Reverse::Unreadable => refused("database of tokens does not answer"),
        Reverse::Undecided => tracing::error!(event = "not reversed", reason = "program fault"),
    }
}
