//! What one commit costs on a database, through the client library of the daemons: no answer that waits for one can be faster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use outrider_core::sql::{Db, Stmt, Value};

use super::engine::Engine;
use crate::load::{Figure, Latencies, Phase, WARM_UP};

const CREATE: &str = "CREATE TABLE bench_commit (id INTEGER PRIMARY KEY, n BIGINT NOT NULL)";

const UPSERT: Stmt = Stmt::per_engine(
    "INSERT INTO bench_commit (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1",
    "INSERT INTO bench_commit (id, n) VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET n = bench_commit.n + 1",
    "INSERT INTO bench_commit (id, n) VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1",
);

/// Makes the table that is written to.
pub(crate) fn prepare(engine: &Engine) -> Result<()> {
    engine.execute("iredapd", CREATE)
}

/// So many connections, each changing a row of its own, one commit after the other.
pub(crate) fn measure(engine: &Engine, connections: usize, time: Duration) -> Result<Figure> {
    let db = engine.db(connections)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let phase = Arc::new(Phase::default());
        let tasks: Vec<_> =
            (0..connections).map(|row| tokio::spawn(commit(db.clone(), row, Arc::clone(&phase)))).collect();
        tokio::time::sleep(WARM_UP).await;
        phase.begin();
        let began = Instant::now();
        tokio::time::sleep(time).await;
        phase.end();
        let elapsed = began.elapsed();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.map_err(|error| anyhow!("a task panicked: {error}"))??);
        }
        Figure::new(all, elapsed, 0.0)
    })
}

async fn commit(db: Db, row: usize, phase: Arc<Phase>) -> Result<Vec<u32>> {
    let mut latencies = Latencies::new();
    let row = [Value::Int(i64::try_from(row)?)];
    while !phase.is_over() {
        db.execute(&UPSERT, &row).await?;
        latencies.answered(&phase);
    }
    Ok(latencies.into_micros())
}
