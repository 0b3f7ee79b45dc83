//! What both kinds of tests put the filter together from.

use outrider_contentfilter::Settings;
use outrider_contentfilter::filter::Filter;
use outrider_contentfilter::hop::NextHop;
use outrider_contentfilter::relay::{Connect, Connecting, Link};
use outrider_core::clock::TestClock;
use outrider_core::daemon::Environment;
use outrider_core::dns::MemoryResolver;
use outrider_core::forwarding::Forwarding;
use outrider_core::metrics::Metrics;
use outrider_core::random::SeededRandom;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::DuplexStream;

/// Time of arrival of all mail in tests: 2024-07-02 07:12:35 UTC.
pub(crate) const NOW: i64 = 1_719_904_355;

/// Octets that fit into a stream that nobody reads.
pub(crate) const PIPE: usize = 16 * 1024;

/// Something that serves one connection as the next hop; `None` when nobody listens.
pub(crate) type Answer = Box<dyn FnMut(DuplexStream) -> bool + Send>;

/// Gives the other end of each new stream to a next hop of the test.
pub(crate) struct Switchboard(Mutex<Answer>);

impl Switchboard {
    /// `answer` gets each connection; it returns false to refuse it.
    pub(crate) fn new(answer: Answer) -> Arc<Switchboard> {
        Arc::new(Switchboard(Mutex::new(answer)))
    }
}

impl Connect for Switchboard {
    fn connect<'a>(&'a self, _: &'a NextHop) -> Connecting<'a> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let accepted = (self.0.lock().expect("not poisoned"))(theirs);
        Box::pin(async move {
            if accepted {
                Ok(Box::new(ours) as Box<dyn Link>)
            } else {
                Err(io::Error::from(io::ErrorKind::ConnectionRefused))
            }
        })
    }
}

/// A filter over a switchboard. Everything random in it follows from `seed`.
pub(crate) fn filter(
    settings: Settings,
    switchboard: Arc<Switchboard>,
    resolver: MemoryResolver,
    seed: u64,
    folder: &Path,
) -> Filter {
    Filter::new(Arc::new(settings), &environment(seed, folder), switchboard, Arc::new(resolver))
        .expect("sound settings")
}

fn environment(seed: u64, folder: &Path) -> Environment {
    Environment {
        clock: Arc::new(TestClock::new(NOW)),
        random: Arc::new(SeededRandom::new(seed)),
        metrics: Arc::new(Metrics::new("contentfilter")),
        state_directory: folder.to_path_buf(),
        name: "contentfilter",
    }
}

/// Who rewrites senders, as the daemon itself opens it.
pub(crate) async fn forwarding(settings: &Settings, folder: &Path) -> Option<Arc<Forwarding>> {
    if !settings.rewrite_forwarded {
        return None;
    }
    let opened = Forwarding::open(&settings.srs, &environment(1, folder)).await;
    Some(Arc::new(opened.expect("sound settings")))
}
