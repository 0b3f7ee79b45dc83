//! A server that is slow, breaks connections, stops and comes back.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use outrider_core::sql::{Db, DbError, DbUrl, Engine, Stmt, Value};
use outrider_tests::store::SqlAccess;

use crate::ground::{Ground, options};

const PROBE: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM domain");

/// The wait ends with the limit, and the next statement does not get the late answer.
pub(crate) async fn a_slow_statement_is_given_up(ground: &Ground) {
    const SLEEP: Stmt =
        Stmt::per_engine("SELECT SLEEP(300) AS n", "SELECT pg_sleep(300) AS n", "SELECT 1 AS n");
    let began = Instant::now();
    let error = ground.vmail.fetch_all(&SLEEP, &[]).await.expect_err("too slow");
    assert!(matches!(error, DbError::Timeout { .. }) && error.is_temporary(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let row = ground.vmail.fetch_optional(&PROBE, &[]).await.expect("answered").expect("a row");
    assert!(row.int("n").is_some());
    // The server, too, gives up what nobody waits for any more.
    const STILL_THERE: Stmt = Stmt::per_engine(
        "SELECT COUNT(*) AS n FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'",
        "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'",
        "SELECT 0 AS n",
    );
    while began.elapsed() < Duration::from_secs(120) {
        let row = ground.vmail.fetch_optional(&STILL_THERE, &[]).await.expect("answered").expect("a row");
        if row.int("n") == Some(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the statement still runs on the server");
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
    let store = ground.store.as_mut().expect("a server");
    let handles = [ground.vmail.clone(), over_its_socket(store.access_over_socket())];
    for db in &handles {
        db.fetch_all(&PROBE, &[]).await.expect("answered");
    }
    store.stop().expect("stopped");
    for db in &handles {
        let began = Instant::now();
        // Waiting for the limit each time would be 100 s.
        for _ in 0..50 {
            let error = db.fetch_all(&PROBE, &[]).await.expect_err("nobody there");
            assert!(error.is_temporary(), "{error}");
        }
        assert!(!db.is_up());
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }
    store.resume().expect("started again");
    for db in &handles {
        let began = Instant::now();
        while db.fetch_all(&PROBE, &[]).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "not found again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(db.is_up());
    }
}

/// With an address at which nobody listens, so that it is the socket that answers.
fn over_its_socket(access: SqlAccess) -> Db {
    // The port stays: PostgreSQL's socket is named for it.
    let nobody = (Ipv4Addr::new(127, 0, 0, 2), access.address.port()).into();
    let url: DbUrl = SqlAccess { address: nobody, ..access }.url("vmail").parse().expect("a URL");
    Db::open(&url, &options()).expect("opened")
}

/// Two transactions that wait for each other, and one that waits for a row: somebody is told to try again.
pub(crate) async fn locks_are_temporary(ground: &Ground) {
    const ADD: Stmt = Stmt::same("INSERT INTO sender_relayhost (account, relayhost) VALUES (?, 'a')");
    const CHANGE: Stmt = Stmt::same("UPDATE sender_relayhost SET relayhost = ? WHERE account = ?");
    let db = &ground.vmail;
    for account in ["@one.example", "@two.example"] {
        db.execute(&ADD, &[account.into()]).await.expect("added");
    }
    let mut first = db.begin().await.expect("begun");
    let mut second = db.begin().await.expect("begun");
    first.execute(&CHANGE, &["b".into(), "@one.example".into()]).await.expect("changed");
    second.execute(&CHANGE, &["c".into(), "@two.example".into()]).await.expect("changed");
    let (one, two) = ([Value::from("b"), "@two.example".into()], [Value::from("c"), "@one.example".into()]);
    let outcomes = tokio::join!(first.execute(&CHANGE, &one), second.execute(&CHANGE, &two));
    let errors: Vec<DbError> = [outcomes.0, outcomes.1].into_iter().filter_map(Result::err).collect();
    assert!(!errors.is_empty() && errors.iter().all(DbError::is_temporary), "{errors:?}");
    drop((first, second));
    // Nothing is left locked.
    db.execute(&CHANGE, &["d".into(), "@one.example".into()]).await.expect("changed");
}

/// A URL that asks for TLS gets it verified or gets nothing.
pub(crate) async fn tls_that_is_asked_for_is_not_left_out(ground: &Ground, certificate: Option<&Path>) {
    let url = ground.store.as_ref().expect("a server").access().url("vmail");
    let ca = certificate.map(|path| format!("&ssl-ca={}", path.display())).unwrap_or_default();
    let cases = [
        ("ssl-mode=disable".to_owned(), true),
        ("ssl-mode=prefer".to_owned(), true),
        // Signed by itself: nobody we trust.
        ("ssl-mode=require".to_owned(), false),
        ("ssl-mode=verify-ca".to_owned(), false),
        ("ssl-mode=unverified".to_owned(), certificate.is_some()),
        (format!("ssl-mode=verify-ca{ca}"), certificate.is_some()),
        (format!("ssl-mode=require{ca}"), certificate.is_some()),
    ];
    for (parameters, expected) in cases {
        let url: DbUrl = format!("{url}?{parameters}").parse().expect("a URL");
        let outcome = Db::open(&url, &options()).expect("opened").ping().await;
        assert_eq!(outcome.is_ok(), expected, "{parameters}: {outcome:?}");
    }
}
