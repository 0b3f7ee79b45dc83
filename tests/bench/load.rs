//! The load: N connections, each asking the next question as soon as it has the answer.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::Plan;

/// One exchange on a connection; the number counts up within the connection.
pub(crate) type Exchange = Box<dyn FnMut(u64) -> Result<()> + Send>;

/// What one point came to.
#[derive(Debug, Clone, Copy)]
struct Figure {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Processor time of the server for each exchange, in milliseconds.
    cpu: f64,
}

/// A table: one line a program, one block of columns a number of connections.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    plan: &'a Plan,
    title: String,
    rows: Vec<(String, Vec<Figure>)>,
}

impl<'a> Table<'a> {
    /// A table with nothing in it yet.
    pub(crate) fn new(plan: &'a Plan, title: &str) -> Self {
        println!("\n{title}");
        Self { plan, title: title.to_owned(), rows: Vec::new() }
    }

    /// Measures one program: `connect` opens a connection (its number is given), `process` is the server's process.
    pub(crate) fn measure(
        &mut self,
        program: &str,
        process: Option<u32>,
        connect: &(dyn Fn(usize) -> Result<Exchange> + Sync),
    ) -> Result<()> {
        let mut figures = Vec::new();
        for &connections in &self.plan.connections {
            let figure = point(connections, self.plan.seconds, process, connect)?;
            println!(
                "  {program:<34} {connections:>2} connections: {:>9.0}/s   p50 {:>8.3} ms   p99 {:>8.3} ms   cpu {:>7.3} ms",
                figure.per_second,
                figure.p50.as_secs_f64() * 1e3,
                figure.p99.as_secs_f64() * 1e3,
                figure.cpu
            );
            figures.push(figure);
        }
        self.rows.push((program.to_owned(), figures));
        Ok(())
    }

    /// Prints how the first row (ours) compares with the others.
    pub(crate) fn ratios(&self) {
        let Some(((ours, own), others)) = self.rows.split_first() else { return };
        for (other, figures) in others {
            for ((mine, theirs), connections) in own.iter().zip(figures).zip(&self.plan.connections) {
                println!(
                    "  ratio {}: {ours} / {other} at {connections} connections = {:.2}",
                    self.title.split(':').next().unwrap_or(""),
                    mine.per_second / theirs.per_second
                );
            }
        }
    }
}

fn point(
    connections: usize,
    time: Duration,
    process: Option<u32>,
    connect: &(dyn Fn(usize) -> Result<Exchange> + Sync),
) -> Result<Figure> {
    let stop = AtomicBool::new(false);
    let warm = AtomicBool::new(false);
    let ready = Barrier::new(connections + 1);
    let (latencies, elapsed, cpu) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|number| {
                let (stop, warm, ready) = (&stop, &warm, &ready);
                scope.spawn(move || -> Result<Vec<u32>> {
                    let exchange = connect(number);
                    ready.wait();
                    let mut exchange = exchange?;
                    let mut latencies = Vec::with_capacity(1 << 16);
                    for count in 0_u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let began = Instant::now();
                        exchange(count)?;
                        if warm.load(Ordering::Relaxed) {
                            latencies.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                        }
                    }
                    Ok(latencies)
                })
            })
            .collect();
        ready.wait();
        // The first moments fill caches and open database connections.
        std::thread::sleep((time / 5).min(Duration::from_secs(1)));
        let before = process.map_or(0.0, processor_seconds);
        warm.store(true, Ordering::Relaxed);
        let began = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let elapsed = began.elapsed();
        let after = process.map_or(0.0, processor_seconds);
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(part) => all.extend(part?),
                Err(_) => bail!("a load thread panicked"),
            }
        }
        Ok((all, elapsed, after - before))
    })?;
    let mut sorted = latencies;
    sorted.sort_unstable();
    if sorted.is_empty() {
        bail!("not one exchange was finished in {} s", time.as_secs());
    }
    let at =
        |share: f64| Duration::from_micros(u64::from(sorted[((sorted.len() - 1) as f64 * share) as usize]));
    let count = sorted.len() as f64;
    Ok(Figure {
        per_second: count / elapsed.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu * 1e3 / count,
    })
}

/// User and system time of a process and everything below it, from `/proc/PID/stat` (proc(5): fields 4, 14-17 after the name).
fn processor_seconds(root: u32) -> f64 {
    const TICKS: f64 = 100.0;
    let mut table: Vec<(u32, u32, f64)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        table.push((id, number(1) as u32, (number(11) + number(12) + number(13) + number(14)) / TICKS));
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(table.iter().filter(|row| row.1 == parent).map(|row| row.0));
        next += 1;
    }
    table.iter().filter(|row| family.contains(&row.0)).map(|row| row.2).sum()
}
