//! The load: N connections, each asking the next question as soon as it has the answer.
//!
//! It shares the cores with what it measures, so it has to be cheap. Protocols of one question and one answer are asked by
//! one thread: a lone connection with blocking calls (a write and a read each), several in one event loop, where
//! no thread waits to be woken. Protocols of several steps have a thread a connection.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::wire::Dialogue;

/// One exchange on a connection; the number counts up within the connection.
pub(crate) type Exchange = Box<dyn FnMut(u64) -> Result<()> + Send>;

/// What is asked.
pub(crate) enum Load<'a> {
    /// Opens a connection (its number is given) on which every exchange has steps of its own.
    Sessions(&'a (dyn Fn(usize) -> Result<Exchange> + Sync)),
    /// The dialogue of a connection (its number is given).
    Dialogues(&'a (dyn Fn(usize) -> Dialogue + Sync)),
}

/// What one point came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Exchanges a second.
    pub(crate) per_second: f64,
    /// Half of the answers came within it.
    pub(crate) p50: Duration,
    /// 99 of 100 answers came within it.
    pub(crate) p99: Duration,
    /// The slowest answer.
    pub(crate) slowest: Duration,
    /// Processor time of the server for each exchange, in milliseconds.
    pub(crate) cpu: f64,
}

impl Figure {
    /// From the latencies in microseconds, how long they were taken, and the processor time spent, in seconds.
    pub(crate) fn new(mut latencies: Vec<u32>, elapsed: Duration, cpu: f64) -> Result<Self> {
        latencies.sort_unstable();
        let Some(&slowest) = latencies.last() else {
            bail!("not one exchange was finished in {} s", elapsed.as_secs())
        };
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        let time = |micros: u32| Duration::from_micros(micros.into());
        let count = latencies.len() as f64;
        Ok(Self {
            per_second: count / elapsed.as_secs_f64(),
            p50: time(at(0.5)),
            p99: time(at(0.99)),
            slowest: time(slowest),
            cpu: cpu * 1e3 / count,
        })
    }
}

/// Connections are made, to the database too, and what comes again is asked for the first time: one connection needs most of a second
/// for that.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// Where a point is: connecting and warming up, measuring, over.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    const MEASURING: u8 = 1;
    const OVER: u8 = 2;

    /// What is finished from now on counts.
    pub(crate) fn begin(&self) {
        self.0.store(Self::MEASURING, Ordering::Relaxed);
    }

    /// Tells those who ask that the point is over.
    pub(crate) fn end(&self) {
        self.0.store(Self::OVER, Ordering::Relaxed);
    }

    /// Whether the point is over.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OVER
    }

    /// Whether what is finished now counts.
    pub(crate) fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::MEASURING
    }
}

/// Latencies of one connection, in microseconds.
#[derive(Debug)]
pub(crate) struct Latencies {
    micros: Vec<u32>,
    since: Instant,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { micros: Vec::with_capacity(1 << 16), since: Instant::now() }
    }

    /// An answer has come; the next question follows at once, so its time begins here.
    pub(crate) fn answered(&mut self, phase: &Phase) {
        let now = Instant::now();
        if phase.counts() {
            let micros = now.duration_since(self.since).as_micros();
            self.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
        }
        self.since = now;
    }

    pub(crate) fn into_micros(self) -> Vec<u32> {
        self.micros
    }
}

/// Measures one point; `process` is the server's process.
pub(crate) fn measure(
    connections: usize,
    time: Duration,
    process: Option<u32>,
    load: &Load<'_>,
) -> Result<Figure> {
    let phase = Arc::new(Phase::default());
    std::thread::scope(|scope| {
        let phase = &phase;
        let mut threads = Vec::new();
        match load {
            Load::Dialogues(dialogue) => {
                threads.push(scope.spawn(move || crate::wire::talk(connections, *dialogue, phase)));
            }
            Load::Sessions(connect) => {
                threads.extend(
                    (0..connections).map(|number| scope.spawn(move || session(*connect, number, phase))),
                );
            }
        }
        std::thread::sleep(WARM_UP);
        let before = process.map_or(0.0, processor_seconds);
        phase.begin();
        let began = Instant::now();
        std::thread::sleep(time);
        phase.end();
        let elapsed = began.elapsed();
        let after = process.map_or(0.0, processor_seconds);
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        Figure::new(all, elapsed, after - before)
    })
    .inspect(|_| come_to_rest())
}

/// Waits, ten seconds at most, until the machine has nothing to do: what a program puts off until after its answers (rows of a
/// log, a checkpoint) does not count for the next point or for the next program.
fn come_to_rest() {
    const LOOK: Duration = Duration::from_millis(200);
    const MOST_BUSY: f64 = 0.1;
    let mut before = processor_ticks();
    for _ in 0..50 {
        std::thread::sleep(LOOK);
        let now = processor_ticks();
        if (now.0 - before.0) <= MOST_BUSY * (now.1 - before.1) {
            return;
        }
        before = now;
    }
}

/// Ticks that all processors together were busy, and all of their ticks, from `/proc/stat` (proc(5)).
fn processor_ticks() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    let ticks: Vec<f64> =
        first.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    let rest: f64 = ticks.iter().skip(3).take(2).sum();
    (all - rest, all)
}

fn session(
    connect: &(dyn Fn(usize) -> Result<Exchange> + Sync),
    number: usize,
    phase: &Phase,
) -> Result<Vec<u32>> {
    let mut exchange = connect(number)?;
    let mut latencies = Latencies::new();
    for count in 0.. {
        if phase.is_over() {
            break;
        }
        exchange(count)?;
        latencies.answered(phase);
    }
    Ok(latencies.into_micros())
}

/// A process and everything below it, from `/proc/PID/stat` (proc(5)): number and processor seconds of each.
fn family(root: u32) -> Vec<(u32, f64)> {
    const TICKS: f64 = 100.0;
    let mut table: Vec<(u32, u32, f64)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        // Fields 4 and 14 to 17, counted from the third, which follows the name.
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        table.push((id, number(1) as u32, (number(11) + number(12) + number(13) + number(14)) / TICKS));
    }
    let mut members = vec![root];
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        members.extend(table.iter().filter(|row| row.1 == parent).map(|row| row.0));
        next += 1;
    }
    table.iter().filter(|row| members.contains(&row.0)).map(|row| (row.0, row.2)).collect()
}

/// User and system time of a process and everything below it.
fn processor_seconds(root: u32) -> f64 {
    family(root).iter().map(|member| member.1).sum()
}

/// Resident memory in KiB of a process and everything below it; pages that several share count for each.
pub(crate) fn resident_kib(root: u32) -> u64 {
    let of = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    family(root).iter().filter_map(|member| of(member.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let figure = Figure::new((1..=1000).rev().collect(), Duration::from_secs(2), 0.5).unwrap();
        assert_eq!(figure.per_second, 500.0);
        assert_eq!([figure.p50, figure.p99, figure.slowest].map(|time| time.as_micros()), [500, 990, 1000]);
        assert_eq!(figure.cpu, 0.5);
        assert!(Figure::new(Vec::new(), Duration::from_secs(2), 0.5).is_err());
    }

    #[test]
    fn a_process_has_memory_and_a_stranger_none() {
        assert!(resident_kib(std::process::id()) > 1_000);
        assert_eq!(resident_kib(u32::MAX), 0);
    }
}
