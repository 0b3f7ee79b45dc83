//! The whole interface against an SQLite file; the other servers run the same statements in the harness' tests.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

async fn open(folder: &tempfile::TempDir) -> Db {
    let db = Db::open_file(&folder.path().join("t.db"), &PoolOptions::default());
    db.execute_script(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, n INTEGER, b BLOB, r REAL)",
    )
    .await
    .expect("a table");
    db
}

const INSERT: Stmt = Stmt::same("INSERT INTO t (name, n, b, r) VALUES (?, ?, ?, ?)");
const BY_NAME: Stmt = Stmt::same("SELECT id, name, n, b, r FROM t WHERE name IN (?) ORDER BY id");
const COUNT: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM t");

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let folder = folder();
    let db = open(&folder).await;
    let odd = "o'dd \"q\" \\ % _ \0 \u{fffd} ? $1 :x";
    let args = [Value::from(odd), Value::from(i64::MIN), Value::Bytes(vec![0, 0xff]), Value::from(1.5)];
    let done = db.execute(&INSERT, &args).await.expect("inserted");
    assert_eq!(done, Done { rows_affected: 1, last_insert_id: 1 });
    let row = db.fetch_optional(&BY_NAME, &[Value::list([odd])]).await.expect("read").expect("a row");
    assert_eq!(row.text("name"), Some(odd));
    assert_eq!(row.int("n"), Some(i64::MIN));
    assert_eq!(row.bytes("b"), Some(&[0, 0xff][..]));
    assert_eq!(row.real("r"), Some(1.5));
    let error = db.execute(&INSERT, &args).await.expect_err("the key is taken");
    assert!(error.is_duplicate_key() && !error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_and_a_committed_one_all() {
    let folder = folder();
    let db = open(&folder).await;
    let row = |name: &str| [Value::from(name), Value::Null, Value::Null, Value::Null];
    let mut dropped = db.begin().await.expect("begun");
    dropped.execute(&INSERT, &row("a")).await.expect("inserted");
    drop(dropped);
    let mut undone = db.begin().await.expect("begun");
    undone.execute(&INSERT, &row("b")).await.expect("inserted");
    undone.rollback().await.expect("undone");
    let mut kept = db.begin().await.expect("begun");
    kept.execute(&INSERT, &row("c")).await.expect("inserted");
    let inside = kept.fetch_optional(&COUNT, &[]).await.expect("read").expect("a row");
    assert_eq!(inside.int("n"), Some(1));
    kept.commit().await.expect("committed");
    let rows = db.fetch_all(&BY_NAME, &[Value::list(["a", "b", "c"])]).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.text("name")).collect::<Vec<_>>(), [Some("c")]);
}

#[tokio::test]
async fn many_tasks_share_the_connections() {
    let folder = folder();
    let db = open(&folder).await;
    let passed = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let (db, passed) = (db.clone(), Arc::clone(&passed));
            tokio::spawn(async move {
                let name = format!("n{task}");
                let args = [Value::from(&name), Value::from(task), Value::Null, Value::Null];
                db.execute(&INSERT, &args).await.expect("inserted");
                let row = db.fetch_optional(&BY_NAME, &[Value::list([&name])]).await.expect("read");
                assert_eq!(row.and_then(|row| row.int("n")), Some(i64::from(task)));
                passed.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 40);
}

#[tokio::test]
async fn writes_of_one_moment_share_a_commit_and_fail_alone() {
    let folder = folder();
    let db = open(&folder).await;
    let insert = |name: String| {
        let db = db.clone();
        async move { db.execute(&INSERT, &[name.into(), Value::Null, Value::Null, Value::Null]).await }
    };
    // While a transaction holds the writer the writes gather; they are the next commit together.
    let mut first = db.begin().await.expect("begun");
    let writes: Vec<_> = (0..60).map(|at| tokio::spawn(insert(format!("n{}", at % 50)))).collect();
    tokio::task::yield_now().await;
    first.execute(&INSERT, &["own".into(), Value::Null, Value::Null, Value::Null]).await.expect("inserted");
    first.commit().await.expect("committed");
    let mut doubles = 0;
    for write in writes {
        match write.await.expect("no panic") {
            Ok(done) => assert_eq!(done.rows_affected, 1),
            Err(error) => {
                assert!(error.is_duplicate_key(), "{error}");
                doubles += 1;
            }
        }
    }
    assert_eq!(doubles, 10);
    let row = db.fetch_optional(&COUNT, &[]).await.expect("read").expect("a row");
    assert_eq!(row.int("n"), Some(51));
    // What another connection sees is what was committed.
    let other = Db::open_file(&folder.path().join("t.db"), &PoolOptions::default());
    let row = other.fetch_optional(&COUNT, &[]).await.expect("read").expect("a row");
    assert_eq!(row.int("n"), Some(51));
}

#[tokio::test]
async fn one_round_trip_for_many_keys() {
    let folder = folder();
    let db = open(&folder).await;
    const ROWS: Stmt = Stmt::same("INSERT INTO t (name, n) VALUES ?");
    const ONE: Stmt =
        Stmt::same("{SELECT * FROM (SELECT ? AS asked, n FROM t WHERE name = ? LIMIT 1) AS one}");
    let rows = (0..5).map(|n| vec![format!("n{n}").into(), n.into()]).collect();
    let done = db.execute(&ROWS, &[Value::Rows(rows)]).await.expect("inserted");
    assert_eq!(done.rows_affected, 5);
    let sets = [3, 9, 1].map(|n| vec![n.into(), format!("n{n}").into()]).to_vec();
    let rows = db.fetch_all(&ONE, &[Value::Rows(sets)]).await.expect("read");
    let found: Vec<_> = rows.iter().map(|row| (row.int("asked"), row.int("n"))).collect();
    assert_eq!(found, [(Some(3), Some(3)), (Some(1), Some(1))]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    // A port nobody listens on: bound, then given up.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .map(|address| address.port())
        .expect("a port");
    for scheme in ["mysql", "postgresql"] {
        let url: DbUrl = format!("{scheme}://u:geheim@127.0.0.1:{port}/vmail").parse().expect("a URL");
        // Whoever waits for the limit waits too long.
        let options = PoolOptions { acquire_timeout: Duration::from_secs(300), ..PoolOptions::default() };
        let db = Db::open(&url, &options).expect("opened");
        assert!(db.is_up());
        let answer = tokio::time::timeout(Duration::from_secs(60), db.ping()).await.expect("told at once");
        let error = answer.expect_err("nobody there");
        assert!(matches!(error, DbError::Unavailable { .. }) && error.is_temporary(), "{error}");
        assert!(!error.to_string().contains("geheim"));
        assert!(!db.is_up());
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_limit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let url: DbUrl = format!("mysql://u@127.0.0.1:{port}/vmail").parse().expect("a URL");
    let options = PoolOptions { acquire_timeout: Duration::from_secs(1), ..PoolOptions::default() };
    let db = Db::open(&url, &options).expect("opened");
    let pings = async {
        // Those after the first do not wait: it has just found out. Else this would be 100 s.
        for _ in 0..100 {
            assert!(matches!(db.ping().await, Err(DbError::Unavailable { .. })));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), pings).await.expect("not held up");
}

#[tokio::test]
async fn a_url_without_a_database_is_refused() {
    let url: DbUrl = "mysql://u@h/".parse().expect("a URL");
    assert!(matches!(Db::open(&url, &PoolOptions::default()), Err(DbError::Unusable(_))));
}
