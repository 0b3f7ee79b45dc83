//! `rewrites_total{dir,result}`, each combination made once so that counting is one addition.

use outrider_core::forwarding::{Forward, Reverse};
use outrider_core::metrics::Metrics;
use outrider_core::srs::ReverseError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    dir: &'static str,
    result: &'static str,
}

/// Counts look-ups by what became of them.
pub(crate) struct Counters {
    metrics: Arc<Metrics>,
    rewritten: Counter,
    left: Counter,
    undecided: [Counter; 2],
    reversed: Counter,
    not_srs: Counter,
    refused: Counter,
}

impl Counters {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let family = metrics.family::<Labels, Counter>("rewrites_total", "Addresses looked up");
        let counter = |dir, result| family.get_or_create_owned(&Labels { dir, result });
        Counters {
            rewritten: counter("forward", "rewritten"),
            left: counter("forward", "left"),
            undecided: [counter("forward", "undecided"), counter("reverse", "undecided")],
            reversed: counter("reverse", "reversed"),
            not_srs: counter("reverse", "not_srs"),
            refused: counter("reverse", "refused"),
            metrics,
        }
    }

    pub(crate) fn forward(&self, outcome: &Forward, elapsed: Duration) {
        let (counter, result) = match outcome {
            Forward::Rewritten(_) => (&self.rewritten, "found"),
            Forward::Left(_) => (&self.left, "not_found"),
            Forward::Undecided | Forward::Unkept => (&self.undecided[0], "failed"),
        };
        counter.inc();
        self.metrics.request("forward", result, elapsed);
    }

    pub(crate) fn reverse(&self, outcome: &Reverse, elapsed: Duration) {
        let (counter, result) = match outcome {
            Reverse::Original(_) => (&self.reversed, "found"),
            Reverse::Left(ReverseError::NotSrs) => (&self.not_srs, "not_found"),
            Reverse::Left(_) | Reverse::UnknownToken => (&self.refused, "not_found"),
            Reverse::Undecided | Reverse::NoDatabase | Reverse::Unreadable => (&self.undecided[1], "failed"),
        };
        counter.inc();
        self.metrics.request("reverse", result, elapsed);
    }
}
