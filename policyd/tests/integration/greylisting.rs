//! Greylisting with many at once.

use std::sync::Arc;

use outrider_policyd::Policyd;

use crate::world::{NOW, Service, World, arrival, ask};

const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";
const TRIPLETS: &str = "SELECT blocked_count, passed, init_time FROM greylisting_tracking ORDER BY id";

async fn world_with_greylisting(world: &World) -> Service {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world.daemon(&["greylisting"]).await
}

async fn all_at_once(daemon: &Arc<Policyd>, number: usize) -> Vec<String> {
    let tasks: Vec<_> = (0..number)
        .map(|_| {
            let daemon = daemon.clone();
            tokio::spawn(async move {
                ask(&daemon, &arrival("friend@sender.test", "alice@example.com", "203.0.113.10")).await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("done"));
    }
    answers
}

pub(crate) async fn first_contacts_make_one_row(world: &World) {
    let daemon = world_with_greylisting(world).await;
    let answers = all_at_once(&daemon, 20).await;
    assert!(answers.iter().all(|answer| answer == LATER), "{answers:?}");
    let rows = world.numbers(&world.iredapd, TRIPLETS).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][1..], [0, NOW]);
    assert!((1..=20).contains(&rows[0][0]), "{rows:?}");
}

pub(crate) async fn retries_at_once_all_pass(world: &World) {
    let daemon = world_with_greylisting(world).await;
    all_at_once(&daemon, 1).await;
    world.clock.set(NOW + 899);
    assert_eq!(all_at_once(&daemon, 1).await, [LATER]);
    world.clock.set(NOW + 900);
    let answers = all_at_once(&daemon, 20).await;
    assert!(answers.iter().all(|answer| answer == "DUNNO"), "{answers:?}");
    assert_eq!(world.numbers(&world.iredapd, TRIPLETS).await, [[2, 1, NOW]]);
    let until = world.numbers(&world.iredapd, "SELECT record_expired FROM greylisting_tracking").await;
    assert_eq!(until, [[NOW + 900 + 30 * 86_400]]);
    let other = ask(&daemon, &arrival("other@elsewhere.test", "bob@example.com", "203.0.113.10")).await;
    assert_eq!(other, "DUNNO", "a known client is known for all");
}
