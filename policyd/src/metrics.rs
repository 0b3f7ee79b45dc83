//! Counters of the policy service, beside those that every daemon has.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_core::metrics::{Counter, Family, Gauge, Metrics};
use prometheus_client::encoding::EncodeLabelSet;

use crate::cache::CacheMeter;
use crate::limit::Limit;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    check: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForwardLabels {
    check: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    kind: &'static str,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    cache: &'static str,
}

/// A label made of a name in the settings. It lives as long as the series that bears it, which is until the process ends; a
/// name that a reload brings again is the same label.
pub(crate) fn label(name: &str) -> &'static str {
    static LABELS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    labels.get(name).copied().unwrap_or_else(|| {
        let name: &'static str = Box::leak(name.into());
        labels.insert(name);
        name
    })
}

/// Counters of the daemon. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct PolicyMetrics {
    pub(crate) frame: Arc<Metrics>,
    decisions: Family<DecisionLabels, Counter>,
    greylist: Family<ResultLabel, Counter>,
    forwarded: Family<ForwardLabels, Counter>,
    throttled: Family<LimitLabels, Counter>,
    cache_hits: Family<CacheLabel, Counter>,
    cache_misses: Family<CacheLabel, Counter>,
    cache_size: Family<CacheLabel, Gauge>,
    pub(crate) session_rows_dropped: Counter,
    /// Postfix never repeats an attribute; somebody else is asking, or trying something.
    pub(crate) repeated: Counter,
}

impl PolicyMetrics {
    /// Registers them; once a daemon.
    pub fn new(frame: Arc<Metrics>) -> PolicyMetrics {
        PolicyMetrics {
            decisions: frame.family("decisions_total", "Answers by the rule that gave them and by kind"),
            greylist: frame.family("greylist_total", "How greylisting saw a recipient"),
            forwarded: frame
                .family("forwarded_total", "What other policy servers said, by the step that asked"),
            throttled: frame.family("throttle_rejected_total", "Messages refused by the limit they exceeded"),
            cache_hits: frame.family("cache_hits_total", "Questions answered from memory"),
            cache_misses: frame.family("cache_misses_total", "Questions that memory could not answer"),
            cache_size: frame.family("cache_size", "Values in memory"),
            session_rows_dropped: frame
                .counter("session_rows_dropped_total", "Rows of smtp_sessions that were not written"),
            repeated: frame
                .counter("repeated_attributes_total", "Attributes that occurred more than once in a request"),
            frame,
        }
    }

    pub(crate) fn decided(&self, check: &'static str, action: &'static str, elapsed: Duration) {
        self.decisions.get_or_create(&DecisionLabels { check, action }).inc();
        self.frame.request("policy", action, elapsed);
    }

    /// Counts how greylisting ended: `whitelisted`, `off`, `spf`, `known`, `passed`, `greylisted`, `flood`.
    pub(crate) fn greylisted(&self, result: &'static str) {
        self.greylist.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts what a step's policy server said: `dunno`, `answer` or, if nothing, `failed`.
    pub(crate) fn forwarded(&self, check: &'static str, result: &'static str) {
        self.forwarded.get_or_create(&ForwardLabels { check, result }).inc();
    }

    /// Counts a refusal by a limit (`msg_size`, `max_rcpts`, `max_msgs`, `max_quota`) on `outbound`, `inbound` or `external`
    /// mail.
    pub(crate) fn throttled(&self, limit: Limit, direction: &'static str) {
        self.throttled.get_or_create(&LimitLabels { kind: limit.name(), direction }).inc();
    }

    /// The meter of a cache.
    pub(crate) fn cache(&self, cache: &'static str) -> CacheMeter {
        let label = CacheLabel { cache };
        CacheMeter {
            hits: self.cache_hits.get_or_create_owned(&label),
            misses: self.cache_misses.get_or_create_owned(&label),
            size: self.cache_size.get_or_create_owned(&label),
        }
    }
}
