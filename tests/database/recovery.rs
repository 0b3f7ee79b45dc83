//! A server that is slow, breaks connections, stops and comes back.

use std::time::{Duration, Instant};

use outrider_core::sql::{Db, DbError, DbUrl, Engine, Stmt};

use crate::ground::{Ground, options};

const PROBE: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM domain");

/// The wait ends with the limit, and the next statement does not get the late answer.
pub(crate) async fn a_slow_statement_is_given_up(ground: &Ground) {
    const SLEEP: Stmt =
        Stmt::per_engine("SELECT SLEEP(20) AS n", "SELECT pg_sleep(20) AS n", "SELECT 1 AS n");
    let began = Instant::now();
    let error = ground.vmail.fetch_all(&SLEEP, &[]).await.expect_err("too slow");
    assert!(matches!(error, DbError::Timeout { .. }) && error.is_temporary(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let row = ground.vmail.fetch_optional(&PROBE, &[]).await.expect("answered").expect("a row");
    assert!(row.int("n").is_some());
}

/// Connections ended by the server while they rest: reads do not notice.
pub(crate) async fn a_broken_connection_costs_a_read_nothing(ground: &Ground) {
    // Several connections at rest in the pool.
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let db = ground.vmail.clone();
            tokio::spawn(async move { db.fetch_all(&PROBE, &[]).await })
        })
        .collect();
    for read in reads {
        read.await.expect("no panic").expect("answered");
    }
    let access = ground.store.as_ref().expect("a server").access();
    let url: DbUrl = access.url("vmail").parse().expect("a URL");
    let other = Db::open(&url, &options()).expect("opened");
    match ground.engine() {
        Engine::MySql => {
            const LIST: Stmt = Stmt::same(
                "SELECT id FROM information_schema.processlist WHERE user = 'outrider' AND id <> CONNECTION_ID()",
            );
            for row in other.fetch_all(&LIST, &[]).await.expect("listed") {
                let id = row.int("id").expect("a number");
                other.execute_script(format!("KILL {id}")).await.expect("killed");
            }
        }
        _ => {
            const KILL: Stmt = Stmt::same(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = 'vmail' AND pid <> pg_backend_pid()",
            );
            other.fetch_all(&KILL, &[]).await.expect("killed");
        }
    }
    for _ in 0..8 {
        ground.vmail.fetch_all(&PROBE, &[]).await.expect("answered on a fresh connection");
    }
}

/// Down: temporary errors without waiting. Up again: the same handle works.
pub(crate) async fn a_stopped_server_is_told_at_once_and_found_again(ground: &mut Ground) {
    let db = ground.vmail.clone();
    let store = ground.store.as_mut().expect("a server");
    store.stop().expect("stopped");
    let began = Instant::now();
    for _ in 0..20 {
        let error = db.fetch_all(&PROBE, &[]).await.expect_err("nobody there");
        assert!(error.is_temporary(), "{error}");
    }
    assert!(!db.is_up());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    store.resume().expect("started again");
    let began = Instant::now();
    while db.fetch_all(&PROBE, &[]).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(3), "not found again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(db.is_up());
}
