//! `answers_total{result}`, each result made once so that counting is one addition.

use outrider_core::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;

/// What an answer is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    NoUser,
    OverQuota,
    TooLarge,
    Failed,
    NoOpinion,
}

const RESULTS: [&str; 6] = ["success", "nouser", "overquota", "toolarge", "failed", "no_opinion"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// Counts answers.
pub(crate) struct Counters {
    metrics: Arc<Metrics>,
    answers: [Counter; 6],
    repeated: Counter,
}

impl Counters {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let family = metrics.family::<Labels, Counter>("answers_total", "Answers by kind");
        let answers = RESULTS.map(|result| family.get_or_create_owned(&Labels { result }));
        let repeated = metrics.counter("repeated_attributes_total", "Attributes sent twice in a request");
        Counters { metrics, answers, repeated }
    }

    pub(crate) fn answer(&self, outcome: Outcome, elapsed: Duration) {
        let index = outcome as usize;
        self.answers[index].inc();
        self.metrics.request("quota", RESULTS[index], elapsed);
    }

    /// Attributes that a request had more than once; Postfix sends none.
    pub(crate) fn repeated(&self, count: usize) {
        if count > 0 {
            self.repeated.inc_by(count as u64);
        }
    }

    pub(crate) fn timeout(&self, stage: &'static str) {
        self.metrics.timeout(stage);
    }

    pub(crate) fn panic(&self) {
        self.metrics.panic();
    }
}
