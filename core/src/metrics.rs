//! Counters and histograms of a daemon in the text form of Prometheus.
//!
//! Names are `outrider_<service>_<thing>_<unit>`; the prefix is added here. Labels have a few fixed values and are
//! never taken from mail: an address as a label would let any sender fill the memory of the monitoring system.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::info::Info;
pub use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Metric, Registry};

use crate::daemon::{DependencyHealth, PoolFigures};

/// Upper ends of the duration buckets in seconds: 1 ms to 60 s.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The kind of a request and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    name: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    name: &'static str,
    class: &'static str,
}

/// All metrics of one daemon.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    inflight: Gauge,
    timeouts: Family<StageLabel, Counter>,
    panics: Counter,
    connections: Family<StateLabel, Gauge>,
    reload: Gauge,
    generation: Gauge,
    dependencies: Family<NameLabel, Gauge>,
    known: Mutex<BTreeSet<&'static str>>,
    degraded: Gauge,
    pools: Family<PoolLabels, Gauge>,
    errors: Family<ErrorLabels, Counter>,
    /// What the pools themselves said last.
    counted: Mutex<HashMap<(&'static str, &'static str), u64>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The metrics that every daemon has, for the daemon `service`.
    pub fn new(service: &str) -> Metrics {
        let mut registry = Registry::with_prefix(format!("outrider_{}", service.replace('-', "_")));
        let metrics = Metrics {
            requests: Family::default(),
            duration: Histogram::new(SECONDS),
            inflight: Gauge::default(),
            timeouts: Family::default(),
            panics: Counter::default(),
            connections: Family::default(),
            reload: Gauge::default(),
            generation: Gauge::default(),
            dependencies: Family::default(),
            known: Mutex::default(),
            degraded: Gauge::default(),
            pools: Family::default(),
            errors: Family::default(),
            counted: Mutex::default(),
            registry: Mutex::new(Registry::default()),
        };
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let start: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        start.set(now.map_or(0.0, |since| since.as_secs_f64()));
        registry.register("start_time_seconds", "When the daemon started, in seconds since 1970", start);
        registry.register("requests", "Finished requests", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from request to answer",
            metrics.duration.clone(),
        );
        registry.register("inflight", "Requests being worked on", metrics.inflight.clone());
        registry.register("timeouts", "Deadlines that passed", metrics.timeouts.clone());
        registry.register("panics", "Program faults that were caught", metrics.panics.clone());
        registry.register("connections", "Client connections", metrics.connections.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the settings in force are those on disk",
            metrics.reload.clone(),
        );
        registry.register(
            "config_generation",
            "Number of settings loaded so far",
            metrics.generation.clone(),
        );
        registry.register("up_dependency", "Whether a dependency answers", metrics.dependencies.clone());
        registry.register("degraded", "Whether a dependency is missing", metrics.degraded.clone());
        registry.register("db_pool", "Connections to databases", metrics.pools.clone());
        registry.register("db_errors", "Failures of databases by class", metrics.errors.clone());
        metrics.reload.set(1);
        metrics.generation.set(1);
        Metrics { registry: Mutex::new(registry), ..metrics }
    }

    /// A counter; the name may be written with or without its final `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// A value that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// A histogram of seconds with the buckets that all daemons use.
    pub fn histogram(&self, name: &str, help: &str) -> Histogram {
        let histogram = Histogram::new(SECONDS);
        self.register(name, help, histogram.clone());
        histogram
    }

    /// Metrics of one name told apart by labels, for counters and gauges.
    pub fn family<L, M>(&self, name: &str, help: &str) -> Family<L, M>
    where
        L: Clone + Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
        M: Default + EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static,
    {
        let family = Family::<L, M>::default();
        self.register(name, help, family.clone());
        family
    }

    fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric);
    }

    /// Notes a finished request. `kind` and `result` come from a fixed set of the daemon's words.
    pub fn request(&self, kind: &'static str, result: &'static str, elapsed: Duration) {
        self.requests.get_or_create(&RequestLabels { kind, result }).inc();
        self.duration.observe(elapsed.as_secs_f64());
    }

    /// Notes that a request is being worked on until the guard is dropped.
    pub fn inflight(&self) -> Inflight {
        self.inflight.inc();
        Inflight { gauge: self.inflight.clone(), start: Instant::now() }
    }

    /// Notes that a deadline passed: `"request"`, `"idle"`, `"database"` and so on.
    pub fn timeout(&self, stage: &'static str) {
        self.timeouts.get_or_create(&StageLabel { stage }).inc();
    }

    /// Notes a program fault that was caught.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// The number of program faults so far.
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Sets the number of connections in a state: `"open"`, `"refused"`.
    pub(crate) fn connections(&self, state: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&StateLabel { state })
    }

    /// Notes whether a reload worked.
    pub(crate) fn reloaded(&self, successful: bool) {
        self.reload.set(i64::from(successful));
        if successful {
            self.generation.inc();
        }
    }

    /// Notes the state of all dependencies. One that a reload took away must not stay down for ever.
    pub fn dependencies(&self, health: &[DependencyHealth]) {
        let names: BTreeSet<&str> = health.iter().map(|dependency| dependency.name).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for name in known.difference(&names) {
            self.dependencies.remove(&NameLabel { name });
        }
        *known = names;
        for dependency in health {
            let gauge = self.dependencies.get_or_create_owned(&NameLabel { name: dependency.name });
            gauge.set(i64::from(dependency.up));
            if let Some(pool) = &dependency.pool {
                self.pool(dependency.name, pool);
            }
        }
        self.degraded.set(i64::from(health.iter().any(|dependency| !dependency.up)));
    }

    fn pool(&self, name: &'static str, figures: &PoolFigures) {
        for (state, count) in [("used", figures.used), ("idle", figures.idle)] {
            let gauge = self.pools.get_or_create_owned(&PoolLabels { name, state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for &(class, count) in &figures.errors {
            let counter = self.errors.get_or_create_owned(&ErrorLabels { name, class });
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            let before = counted.insert((name, class), count).unwrap_or(0);
            // A reload makes a new pool that begins at zero; a counter never goes back.
            counter.inc_by(count.checked_sub(before).unwrap_or(count));
        }
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ =
            text::encode_registry(&mut out, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        // Figures of the process have the names that every program gives them.
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        let _ = text::encode_registry(&mut out, &process).and_then(|()| text::encode_eof(&mut out));
        out
    }
}

/// A request in progress, see [`Metrics::inflight`].
#[derive(Debug)]
pub struct Inflight {
    gauge: Gauge,
    start: Instant,
}

impl Inflight {
    /// Time since the request began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Figures of the process itself, read from /proc at the moment of asking.
mod process {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
    use prometheus_client::metrics::MetricType;
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::metrics::gauge::ConstGauge;

    #[derive(Debug)]
    pub(super) struct Process;

    impl Collector for Process {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let number = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key))?;
                line.split_ascii_whitespace().next()?.parse::<i64>().ok()
            };
            let open = std::fs::read_dir("/proc/self/fd").map(|folder| folder.count() as i64).ok();
            for (name, help, value) in [
                ("process_resident_memory_bytes", "Memory in use", number("VmRSS:").map(|kib| kib * 1024)),
                ("process_threads", "Threads", number("Threads:")),
                ("process_open_fds", "Open file descriptors", open),
            ] {
                if let Some(value) = value {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    ConstGauge::new(value).encode(metric)?;
                }
            }
            if let Some(seconds) = cpu_seconds() {
                let metric = encoder.encode_descriptor(
                    "process_cpu_seconds",
                    "Processor time used",
                    None,
                    MetricType::Counter,
                )?;
                ConstCounter::new(seconds).encode(metric)?;
            }
            Ok(())
        }
    }

    /// User and system time of the process, in seconds.
    fn cpu_seconds() -> Option<f64> {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Some(seconds(usage.user_time()) + seconds(usage.system_time()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_pool_that_a_reload_made_are_counted_too() {
        let metrics = Metrics::new("quota-status");
        let database = |count| {
            let figures = PoolFigures { errors: vec![("timeout", count)], ..PoolFigures::default() };
            DependencyHealth { name: "database", pool: Some(figures), ..DependencyHealth::default() }
        };
        for (count, total) in [(2, 2), (2, 2), (5, 5), (1, 6), (3, 8)] {
            metrics.dependencies(&[database(count)]);
            let line = format!("db_errors_total{{name=\"database\",class=\"timeout\"}} {total}\n");
            assert!(metrics.render().contains(&line), "{line}{}", metrics.render());
        }
    }

    #[test]
    fn required_names_are_there() {
        let metrics = Metrics::new("quota-status");
        metrics.request("quota", "over", Duration::from_millis(3));
        metrics.timeout("request");
        metrics.panic();
        metrics.connections("open").set(2);
        metrics.dependencies(&[
            DependencyHealth {
                name: "database",
                pool: Some(PoolFigures { used: 3, idle: 1, errors: vec![("timeout", 2)] }),
                ..DependencyHealth::default()
            },
            DependencyHealth { name: "dns", up: true, ..DependencyHealth::default() },
        ]);
        metrics.counter("answers_total", "Answers").inc_by(7);
        let guard = metrics.inflight();
        let text = metrics.render();
        for line in [
            "outrider_quota_status_build_info{version=",
            "outrider_quota_status_start_time_seconds 1",
            "outrider_quota_status_requests_total{kind=\"quota\",result=\"over\"} 1",
            "outrider_quota_status_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "outrider_quota_status_inflight 1",
            "outrider_quota_status_timeouts_total{stage=\"request\"} 1",
            "outrider_quota_status_panics_total 1",
            "outrider_quota_status_connections{state=\"open\"} 2",
            "outrider_quota_status_config_last_reload_successful 1",
            "outrider_quota_status_up_dependency{name=\"database\"} 0",
            "outrider_quota_status_up_dependency{name=\"dns\"} 1",
            "outrider_quota_status_degraded 1",
            "outrider_quota_status_db_pool{name=\"database\",state=\"used\"} 3",
            "outrider_quota_status_db_errors_total{name=\"database\",class=\"timeout\"} 2",
            "outrider_quota_status_answers_total 7",
            "process_resident_memory_bytes ",
        ] {
            assert!(
                text.contains(&format!("\n{line}")) || text.contains(line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
        drop(guard);
        assert!(metrics.render().contains("outrider_quota_status_inflight 0"));
    }

    #[test]
    fn what_is_no_dependency_any_more_is_not_down() {
        let metrics = Metrics::new("policyd");
        let down = |name| DependencyHealth { name, ..DependencyHealth::default() };
        metrics.dependencies(&[down("vmail"), down("valkey")]);
        assert!(metrics.render().contains("up_dependency{name=\"valkey\"} 0"));
        metrics.dependencies(&[down("vmail")]);
        let text = metrics.render();
        assert!(!text.contains("valkey") && text.contains("up_dependency{name=\"vmail\"} 0"), "{text}");
    }
}
