//! Throttling is exact: against a simple model, and with many at once.

use outrider_core::clock::Clock as _;
use outrider_core::sql::Engine;
use outrider_policyd::store::throttle::{Amount, Counted, Tracked};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::world::{Client, NOW, Service, World, ask, submission};

const PASSED: &str = "DUNNO";
const REFUSED: &str = "REJECT Throttling quota exceeded";

/// One message: seconds since the last one, recipients, bytes.
type Message = (i64, i64, i64);

/// What one server that does one thing after the other would do.
#[derive(Default)]
struct Model {
    window: Option<(i64, i64, i64)>,
}

impl Model {
    fn message(&mut self, now: i64, [max_msgs, max_quota]: [i64; 2], recipients: i64, bytes: i64) -> bool {
        let (mut start, mut messages, mut total) = self.window.unwrap_or((now, 0, 0));
        if start + 3600 < now {
            (start, messages, total) = (now, 0, 0);
        }
        if (max_msgs > 0 && messages + recipients > max_msgs) || (max_quota > 0 && total > max_quota) {
            return false;
        }
        self.window = Some((start, messages + recipients, total + bytes));
        true
    }
}

pub(crate) async fn follows_a_sequential_model(world: &World) {
    let mut runner = TestRunner::deterministic();
    let messages = proptest::collection::vec((0..1500_i64, 1..4_i64, 0..600_i64), 1..25);
    let case = (-1..6_i64, -1..900_i64, messages);
    let daemon = world.daemon(&["throttle"]).await;
    let mut client = Client::connect(&daemon);
    for _ in 0..12 {
        let (max_msgs, max_quota, messages): (i64, i64, Vec<Message>) =
            case.new_tree(&mut runner).expect("a case").current();
        world.empty().await;
        world.limit(1, "@example.com", "outbound", [max_msgs, max_quota]).await;
        let mut model = Model::default();
        for &(pause, recipients, bytes) in &messages {
            world.clock.set(world.clock.unix_seconds() + pause);
            let tracked = max_msgs >= 0 || max_quota >= 0;
            let now = world.clock.unix_seconds();
            let expected = !tracked || model.message(now, [max_msgs, max_quota], recipients, bytes);
            let (recipients, size) = (recipients.to_string(), bytes.to_string());
            let answer = client.ask(&submission("a@example.com", &recipients, &size)).await;
            let case = format!("limits {max_msgs} {max_quota}, messages {messages:?}");
            assert_eq!(answer, if expected { PASSED } else { REFUSED }, "{case}");
        }
        if let Some((_, count, total)) = model.window {
            assert_eq!(world.counters().await, [[1, count, total]]);
        }
    }
}

/// Sends `each` messages over each of `connections` connections at once; the number that passed.
async fn flood(daemons: &[Service], connections: usize, each: usize) -> i64 {
    let tasks: Vec<_> = (0..connections)
        .map(|at| {
            let mut client = Client::connect(&daemons[at % daemons.len()]);
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..each {
                    let answer = client.ask(&submission("a@example.com", "1", "100")).await;
                    assert!(answer == PASSED || answer == REFUSED, "{answer}");
                    passed += i64::from(answer == PASSED);
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.expect("done");
    }
    passed
}

pub(crate) async fn many_at_once_never_exceed_a_limit(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [50, -1]).await;
    let daemon = world.daemon(&["throttle"]).await;
    assert_eq!(flood(&[daemon], 20, 5).await, 50);
    assert_eq!(world.counters().await, [[1, 50, 5000]]);
}

pub(crate) async fn two_counters_move_together_or_not_at_all(world: &World) {
    world.empty().await;
    world.limit(1, "a@example.com", "outbound", [20, -1]).await;
    world.execute(&world.iredapd, "UPDATE throttle SET priority = 100", &[]).await;
    world.limit(2, "@.", "outbound", [-1, 1150]).await;
    let daemon = world.daemon(&["throttle"]).await;
    // After the twelfth message 1200 bytes are counted, which is more than 1150.
    assert_eq!(flood(&[daemon], 10, 3).await, 12);
    assert_eq!(world.counters().await, [[1, 12, 1200], [2, 12, 1200]]);
}

pub(crate) async fn first_messages_make_one_row(world: &World) {
    let daemon = [world.daemon(&["throttle"]).await];
    for round in 0..5 {
        world.empty().await;
        world.limit(1, "@.", "outbound", [1000, -1]).await;
        assert_eq!(flood(&daemon, 16, 1).await, 16, "round {round}");
        assert_eq!(world.counters().await, [[1, 16, 1600]], "round {round}");
    }
}

pub(crate) async fn three_daemons_share_a_limit(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [40, -1]).await;
    let daemons = [
        world.daemon(&["throttle"]).await,
        world.daemon(&["throttle"]).await,
        world.daemon(&["throttle"]).await,
    ];
    assert_eq!(flood(&daemons, 18, 4).await, 40);
    assert_eq!(world.counters().await, [[1, 40, 4000]]);
}

/// So many that some come at the same moment.
const USERS: usize = 32;

/// Messages of one moment that move different counters go to the database together.
pub(crate) async fn every_user_has_its_own_limit(world: &World) {
    world.empty().await;
    world.limit(1, "@example.com", "outbound", [7, -1]).await;
    world.limit(2, "u3@example.com", "outbound", [-1, 250]).await;
    world.execute(&world.iredapd, "UPDATE throttle SET priority = id", &[]).await;
    let daemons = [world.daemon(&["throttle"]).await, world.daemon(&["throttle"]).await];
    // Some have a counter from before: one that is full, one whose period is over, one that may go on.
    for (user, messages, start) in [("u0", 7_i64, NOW), ("u1", 7, NOW - 4000), ("u2", 4, NOW)] {
        let key = format!("{user}@example.com");
        let make = "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
                    VALUES (1, ?, 3600, ?, 0, ?, ?)";
        let args = [key.into(), messages.into(), start.into(), start.into()];
        world.execute(&world.iredapd, make, &args).await;
    }
    let tasks: Vec<_> = (0..USERS)
        .map(|at| {
            let mut client = Client::connect(&daemons[at % 2]);
            tokio::spawn(async move {
                let mut passed = [0; USERS];
                for round in 0..9 {
                    let user = (at + round) % USERS;
                    let sender = format!("u{user}@example.com");
                    passed[user] += i64::from(client.ask(&submission(&sender, "1", "100")).await == PASSED);
                }
                passed
            })
        })
        .collect();
    let mut passed = [0; USERS];
    for task in tasks {
        let more = task.await.expect("done");
        passed.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    // The third message of u3 finds 200 bytes, the fourth 300.
    assert_eq!(passed[..5], [0, 7, 3, 3, 7]);
    assert_eq!(passed[5..], [7; USERS - 5]);
    let rows = world.numbers(&world.iredapd, "SELECT tid, cur_msgs, cur_quota FROM throttle_tracking").await;
    let sum = |tid| rows.iter().filter(|row| row[0] == tid).map(|row| row[1]).sum::<i64>();
    assert_eq!(
        (sum(1), sum(2)),
        (7 * (USERS as i64 - 1) + 3, 3),
        "u3 has a counter of messages and one of bytes"
    );
}

/// Two daemons with connections of their own to one SQLite file.
pub(crate) async fn two_processes_share_a_file(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [30, -1]).await;
    let daemons = [world.daemon(&["throttle"]).await, world.daemon(&["throttle"]).await];
    assert_eq!(flood(&daemons, 8, 5).await, 30);
}

pub(crate) async fn notifies_once_a_period(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [1, -1]).await;
    let stores = world.stores();
    let store = stores.counters();
    let counter = Tracked { tid: 1, key: "a@example.com".into(), period: 3600, max_msgs: 1, max_quota: 0 };
    let amount = Amount { messages: 1, bytes: 1 };
    let too_many = Amount { messages: 2, bytes: 1 };
    let count = async |amount, now| store.count(vec![counter.clone()], amount, now).await.expect("counted");
    let exceeded = |has_row| Counted::Exceeded { at: counter.clone(), has_row, by_messages: true };
    assert_eq!(count(too_many, NOW).await, exceeded(false), "a first message that is too much makes no row");
    assert_eq!(count(amount, NOW).await, Counted::Accepted);
    assert_eq!(count(amount, NOW + 1).await, exceeded(true));
    let claims: Vec<bool> =
        futures_util::future::join_all((0..8).map(|_| store.claim_notification(&counter, NOW + 1)))
            .await
            .into_iter()
            .map(|claim| claim.expect("claimed"))
            .collect();
    assert_eq!(claims.iter().filter(|&&claimed| claimed).count(), 1, "{claims:?}");
    assert_eq!(count(amount, NOW + 3601).await, Counted::Accepted);
    assert!(store.claim_notification(&counter, NOW + 3602).await.expect("claimed"), "a new period");
}

/// Where one counter has too many messages and another too many bytes, the administrator is told of the messages.
pub(crate) async fn too_many_messages_count_before_too_many_bytes(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [-1, 100]).await;
    world.limit(2, "a@example.com", "outbound", [2, -1]).await;
    let stores = world.stores();
    let store = stores.counters();
    let counter = |tid, max_msgs, max_quota| Tracked {
        tid,
        key: "a@example.com".into(),
        period: 3600,
        max_msgs,
        max_quota,
    };
    let both = || vec![counter(1, 0, 100), counter(2, 2, 0)];
    let count =
        async |messages, bytes| store.count(both(), Amount { messages, bytes }, NOW).await.expect("counted");
    let exceeded = |at, by_messages| Counted::Exceeded { at, has_row: true, by_messages };
    assert_eq!(count(1, 500).await, Counted::Accepted);
    assert_eq!(count(1, 1).await, exceeded(counter(1, 0, 100), false), "bytes alone");
    assert_eq!(count(2, 1).await, exceeded(counter(2, 2, 0), true), "both");
    assert_eq!(world.counters().await, [[1, 1, 500], [2, 1, 500]], "nothing moved");
}

/// iRedMail's MySQL columns hold 24 and 32 bits; a sum beyond that must neither fail nor start over.
pub(crate) async fn narrow_columns_saturate(world: &World) {
    world.empty().await;
    world.limit(1, "a@example.com", "outbound", [20_000_000, 5_000_000_000]).await;
    world
        .execute(
            &world.iredapd,
            "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
             VALUES (1, 'a@example.com', 3600, 16777210, 4294967290, ?, ?)",
            &[NOW.into(), NOW.into()],
        )
        .await;
    let daemon = world.daemon(&["throttle"]).await;
    for _ in 0..2 {
        assert_eq!(ask(&daemon, &submission("a@example.com", "10", "1000")).await, PASSED);
    }
    let expected = match world.engine() {
        Engine::MySql => [1, 16_777_215, 4_294_967_295],
        _ => [1, 16_777_230, 4_294_969_290],
    };
    assert_eq!(world.counters().await, [expected]);
}

/// PostgreSQL's table has no unique key: iRedAPD may have left several rows of one counter.
pub(crate) async fn doubles_of_other_programs_do_no_harm(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [5, -1]).await;
    for messages in [1_i64, 3] {
        world
            .execute(
                &world.iredapd,
                "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
                 VALUES (1, 'a@example.com', 3600, ?, 0, ?, ?)",
                &[messages.into(), NOW.into(), NOW.into()],
            )
            .await;
    }
    let daemon = world.daemon(&["throttle"]).await;
    assert_eq!(flood(&[daemon], 4, 2).await, 2);
    let rows = world.numbers(&world.iredapd, "SELECT cur_msgs FROM throttle_tracking ORDER BY id").await;
    assert_eq!(rows, [[1], [5]]);
}
