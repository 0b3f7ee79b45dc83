//! T34: databases that hold locks, lack columns, take no writes or have texts in another character set.

use std::time::Duration;

use outrider_core::sql::{Engine, Stmt};
use outrider_policyd::settings::OnFailure;

use crate::world::{Client, World, arrival, ask, submission};

const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const BLACK: &str = "REJECT Blacklisted";
const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";

/// A request from a client whose name is on the list.
fn from_a_bad_host() -> Vec<(&'static str, &'static str)> {
    let mut request = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    request.retain(|(name, _)| *name != "reverse_client_name");
    request.push(("reverse_client_name", "mx.bad.test"));
    request
}

async fn with_a_bad_host(world: &World) {
    world.empty().await;
    world.script(&world.iredapd, "DELETE FROM wblist_rdns").await;
    world.script(&world.iredapd, "INSERT INTO wblist_rdns (rdns, wb) VALUES ('.bad.test', 'B')").await;
}

pub(crate) async fn threat_t34_a_missing_column_costs_one_rule(world: &World) {
    with_a_bad_host(world).await;
    world.limit(1, "a@example.com", "outbound", [1, -1]).await;
    world.script(&world.iredapd, "ALTER TABLE wblist_rdns RENAME COLUMN rdns TO name").await;
    let rules = ["wblist_rdns", "throttle"];
    let passing = world.daemon_with(&rules, |settings| settings.on_failure.iredapd = OnFailure::Pass).await;
    let deferring =
        world.daemon_with(&rules, |settings| settings.on_failure.iredapd = OnFailure::Defer).await;
    assert_eq!(ask(&passing, &from_a_bad_host()).await, "DUNNO");
    assert_eq!(ask(&deferring, &from_a_bad_host()).await, DEFER);
    assert_eq!(ask(&passing, &submission("a@example.com", "1", "1")).await, "DUNNO");
    let too_many = ask(&passing, &submission("a@example.com", "1", "1")).await;
    assert_eq!(too_many, "REJECT Throttling quota exceeded", "the other rule goes on");

    world.script(&world.iredapd, "ALTER TABLE wblist_rdns RENAME COLUMN name TO rdns").await;
    for daemon in [&passing, &deferring] {
        assert_eq!(ask(daemon, &from_a_bad_host()).await, BLACK, "no restart is needed");
    }
}

const LOCK_SECOND: Stmt = Stmt::same("UPDATE throttle_tracking SET period = period WHERE tid = 2");
const LOCK_ONE: Stmt =
    Stmt::same("UPDATE throttle_tracking SET period = period WHERE tid = 1 AND account = ?");
const LOCK_FIRST: Stmt = Stmt::same("UPDATE throttle_tracking SET period = period WHERE tid = 1");

/// Another program locks the counters in the other order. Not on SQLite, which has one writer.
pub(crate) async fn threat_t34_a_deadlock_loses_no_count(world: &World) {
    world.empty().await;
    world.limit(1, "a@example.com", "outbound", [20, -1]).await;
    world.execute(&world.iredapd, "UPDATE throttle SET priority = 100", &[]).await;
    world.limit(2, "@.", "outbound", [-1, 5000]).await;
    let daemon = world.daemon(&["throttle"]).await;
    assert_eq!(ask(&daemon, &submission("a@example.com", "1", "100")).await, "DUNNO");
    for round in 2..4 {
        let mut other = world.iredapd.begin().await.expect("begun");
        other.execute(&LOCK_SECOND, &[]).await.expect("locked");
        let message = tokio::spawn({
            let daemon = daemon.clone();
            async move { ask(&daemon, &submission("a@example.com", "1", "100")).await }
        });
        // It has the first counter by then and waits for the second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!message.is_finished());
        // The server undoes one of the two; which is its choice.
        match other.execute(&LOCK_FIRST, &[]).await {
            Ok(_) => other.commit().await.expect("committed"),
            Err(error) => {
                assert!(error.is_temporary(), "{error}");
                drop(other);
            }
        }
        assert_eq!(message.await.expect("answered"), "DUNNO");
        assert_eq!(world.counters().await, [[1, round, 100 * round], [2, round, 100 * round]]);
    }
}

/// Not on SQLite, which has one writer.
pub(crate) async fn threat_t34_who_waits_for_a_lock_waits_alone(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [20, -1]).await;
    let daemon = world.daemon(&["throttle"]).await;
    let users: Vec<String> = ('a'..='l').map(|name| format!("{name}@example.com")).collect();
    for user in &users {
        assert_eq!(ask(&daemon, &submission(user, "1", "100")).await, "DUNNO");
    }
    let mut other = world.iredapd.begin().await.expect("begun");
    for user in &users[..5] {
        other.execute(&LOCK_ONE, &[user.as_str().into()]).await.expect("locked");
    }
    let send = |user: &String| {
        let (mut client, user) = (Client::connect(&daemon), user.clone());
        tokio::spawn(async move { client.ask(&submission(&user, "1", "100")).await })
    };
    // More than there are connections, one after the other and together.
    let mut waiting = Vec::new();
    for pause in [10, 0] {
        let locked = [0; 9].into_iter().chain(0..5).chain([0]);
        for user in locked {
            waiting.push(send(&users[user]));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let answers: Vec<_> = users[5..].iter().map(send).collect();
        for answer in answers {
            assert_eq!(answer.await.expect("answered"), "DUNNO");
        }
    }
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    other.commit().await.expect("committed");
    let mut passed = 0;
    for answer in waiting {
        match answer.await.expect("answered").as_str() {
            "DUNNO" => passed += 1,
            refused => assert!(refused.starts_with("REJECT"), "{refused}"),
        }
    }
    assert_eq!(passed, 19 + 4 * 2);
    let expected: Vec<_> = users.iter().map(|user| if *user == users[0] { 20 } else { 3 }).collect();
    let counted: Vec<i64> = world.counters().await.iter().map(|counter| counter[1]).collect();
    assert_eq!(counted, expected);
}

/// A PostgreSQL server that takes no writes for a while, as a replica.
pub(crate) async fn threat_t34_a_server_that_takes_no_writes(world: &World) {
    with_a_bad_host(world).await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let new = arrival("new@sender.test", "alice@example.com", "203.0.113.10");
    let rules = ["wblist_rdns", "greylisting"];
    world.script(&world.iredapd, "ALTER DATABASE iredapd SET default_transaction_read_only = on").await;
    for (on_failure, expected) in [(OnFailure::Pass, "DUNNO"), (OnFailure::Defer, DEFER)] {
        let daemon = world.daemon_with(&rules, |settings| settings.on_failure.iredapd = on_failure).await;
        assert_eq!(ask(&daemon, &from_a_bad_host()).await, BLACK, "what is read is answered");
        assert_eq!(ask(&daemon, &new).await, expected);
    }
    world.script(&world.iredapd, "ALTER DATABASE iredapd RESET default_transaction_read_only").await;
    let daemon = world.daemon(&rules).await;
    assert_eq!(ask(&daemon, &new).await, LATER);
}

/// A MySQL table in an old character set, with bytes that are no UTF-8.
pub(crate) async fn threat_t34_texts_in_latin1(world: &World) {
    assert_eq!(world.engine(), Engine::MySql);
    with_a_bad_host(world).await;
    for sql in [
        "ALTER TABLE wblist_rdns CONVERT TO CHARACTER SET latin1",
        "INSERT INTO wblist_rdns (rdns, wb) VALUES (_latin1 x'2EE9E8FF2E74657374', 'B')",
    ] {
        world.script(&world.iredapd, sql).await;
    }
    let daemon = world.daemon(&["wblist_rdns"]).await;
    assert_eq!(ask(&daemon, &from_a_bad_host()).await, BLACK);
    let mut request = from_a_bad_host();
    request.pop();
    request.push(("reverse_client_name", "mx.\u{e9}\u{e8}\u{ff}.test"));
    assert_eq!(ask(&daemon, &request).await, BLACK, "the same letters in another character set");
    request.pop();
    // A letter that the table's character set does not have.
    request.push(("reverse_client_name", "mx.\u{4e2d}.test"));
    assert_eq!(ask(&daemon, &request).await, "DUNNO");
    world.script(&world.iredapd, "DELETE FROM wblist_rdns").await;
    world.script(&world.iredapd, "ALTER TABLE wblist_rdns CONVERT TO CHARACTER SET utf8mb4").await;
}
