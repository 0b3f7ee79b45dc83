//! Counters and triplets on a Valkey or Redis server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_core::daemon::Daemon as _;
use outrider_core::settings::Interval;
use outrider_core::sql::Stmt;
use outrider_policyd::Settings;
use outrider_policyd::network_rate::NetworkRate;
use outrider_policyd::settings::OnFailure;
use outrider_policyd::store::triplet::{Times, Triplet};
use outrider_policyd::store::valkey::ValkeyTriplets;
use outrider_tests::prerequisite::has_openssl;
use outrider_tests::valkey::Valkey;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::world::{Client, NOW, Service, World, arrival, ask, submission};

const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";
const REFUSED: &str = "REJECT Throttling quota exceeded";
const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const COUNTER: &str = "outrider:throttle:1:a@example.com";
const PASSED: &str = "outrider:greylisting:{203.0.113.10}:passed";
const TRIPLETS: &str = "outrider:greylisting:{203.0.113.10}:triplets";
const ORDER: &str = "outrider:greylisting:{203.0.113.10}:order";
const DAY: i64 = 86_400;

/// What the server answers to a command.
fn server(world: &World, words: &[&str]) -> String {
    world.valkey.as_ref().expect("a server").command(words).expect("answered")
}

fn number(world: &World, words: &[&str]) -> i64 {
    let answer = server(world, words);
    answer.trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{words:?}: {answer}"))
}

pub(crate) async fn greylisting(world: &World) -> Service {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world.daemon(&["greylisting"]).await
}

/// A stranger's contact, from one client.
pub(crate) async fn contact(daemon: &Service, sender: &str) -> String {
    ask(daemon, &arrival(sender, "alice@example.com", "203.0.113.10")).await
}

pub(crate) async fn counters_go_by_themselves(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [1, -1]).await;
    let daemon = world.daemon(&["throttle"]).await;
    let mut client = Client::connect(&daemon);
    assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, "DUNNO");
    let left = number(world, &["TTL", COUNTER]);
    assert!((3500..=3660).contains(&left), "{left}");
    // Without a time to live a full counter would be full for ever.
    assert_eq!(number(world, &["PERSIST", COUNTER]), 1);
    assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, REFUSED);
    assert!(number(world, &["TTL", COUNTER]) > 0);
    assert_eq!(server(world, &["DEL", COUNTER]), ":1");
    assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, "DUNNO");
}

pub(crate) async fn the_life_of_a_client(world: &World) {
    let daemon = greylisting(world).await;
    let at = async |after: i64, sender: &str| {
        world.clock.set(NOW + after);
        contact(&daemon, sender).await
    };
    assert_eq!(at(0, "friend@sender.test").await, LATER);
    assert_eq!(at(899, "friend@sender.test").await, LATER);
    let triplet = server(world, &["HVALS", TRIPLETS]);
    assert!(triplet.ends_with(&format!("{} {} 2 {NOW}", NOW + 900, NOW + DAY)), "{triplet}");
    for key in [TRIPLETS, ORDER] {
        assert!((DAY - 100..=DAY + 60).contains(&number(world, &["TTL", key])), "{key}");
    }
    assert_eq!(at(899, "other@sender.test").await, LATER);
    assert_eq!(number(world, &["HLEN", TRIPLETS]), 2);
    // Back in time: of both it is the one and the same.
    assert_eq!(at(900, "friend@sender.test").await, "DUNNO");
    assert_eq!(number(world, &["EXISTS", TRIPLETS, ORDER]), 0, "forgotten");
    let until = |after: i64| format!("$10\r\n{}", NOW + after + 30 * DAY);
    assert_eq!(server(world, &["GET", PASSED]), until(900));
    let left = number(world, &["TTL", PASSED]);
    assert!((30 * DAY - 100..=30 * DAY + 60).contains(&left), "{left}");
    assert_eq!(at(1500, "other@elsewhere.test").await, "DUNNO", "a known client is known for all");
    assert_eq!(server(world, &["GET", PASSED]), until(900), "not written each time");
    assert_eq!(at(1501, "other@elsewhere.test").await, "DUNNO");
    assert_eq!(server(world, &["GET", PASSED]), until(1501));
    // Its time is over, by the clock of the daemon.
    assert_eq!(at(1501 + 30 * DAY, "new@elsewhere.test").await, "DUNNO");
    assert_eq!(at(1502 + 60 * DAY, "new@elsewhere.test").await, LATER);
    // It did not come again in time.
    assert_eq!(at(1503 + 61 * DAY, "new@elsewhere.test").await, LATER);
    assert_eq!(at(2402 + 61 * DAY, "new@elsewhere.test").await, LATER);
    assert_eq!(at(2403 + 61 * DAY, "new@elsewhere.test").await, "DUNNO");
}

pub(crate) async fn first_contacts_at_once_are_one(world: &World) {
    let daemon = greylisting(world).await;
    let all = async |expected: &str| {
        let answers =
            futures_util::future::join_all((0..20).map(|_| contact(&daemon, "x@sender.test"))).await;
        assert!(answers.iter().all(|answer| answer == expected), "{answers:?}");
    };
    all(LATER).await;
    assert_eq!(number(world, &["HLEN", TRIPLETS]), 1);
    assert_eq!(number(world, &["ZCARD", ORDER]), 1);
    world.clock.set(NOW + 900);
    all("DUNNO").await;
    assert_eq!(number(world, &["EXISTS", TRIPLETS, ORDER, PASSED]), 1);
}

/// A first contact of `number@sender.test` at `init`.
fn first_contact(number: usize, init: i64) -> (Triplet, Times) {
    let triplet = Triplet {
        sender: format!("{number}@sender.test"),
        sender_domain: "sender.test".into(),
        recipient: "alice@example.com".into(),
        recipient_domain: "example.com".into(),
        client: "203.0.113.10".into(),
    };
    (triplet, Times { init, block_expired: init + 900, record_expired: init + DAY })
}

pub(crate) async fn contacts_that_are_not_written_cost_a_network_nothing(world: &World) {
    world.empty().await;
    let stores = world.stores();
    let store = stores.triplets();
    let (client, share) = ("203.0.113.10".parse().expect("an address"), Arc::new(NetworkRate::new(1)));
    let (triplet, times) = first_contact(1, NOW);
    let server = |words: &[&str]| world.valkey.as_ref().expect("a server").command(words).expect("answered");
    assert_eq!(server(&["CONFIG", "SET", "maxmemory", "100kb"]), "+OK");
    store.meet(&triplet, times, client, &share).await.expect_err("no room");
    assert_eq!(server(&["CONFIG", "SET", "maxmemory", "0"]), "+OK");
    let meet = async |number| {
        let (triplet, times) = first_contact(number, NOW);
        store.meet(&triplet, times, client, &share).await.expect("answered").remembered
    };
    assert!(meet(1).await, "its share is still there");
    assert!(!meet(2).await, "its share is used up");
}

pub(crate) async fn triplets_of_one_client_are_bounded(world: &World) {
    world.empty().await;
    let stores = world.stores();
    let store = stores.triplets();
    let (client, share) = ("203.0.113.10".parse().expect("an address"), Arc::new(NetworkRate::new(0)));
    let write = async |number: usize, init: i64| {
        let (triplet, times) = first_contact(number, init);
        store.meet(&triplet, times, client, &share).await.expect("written");
    };
    let most = ValkeyTriplets::MOST;
    for start in (0..most + 500).step_by(500) {
        futures_util::future::join_all((start..start + 500).map(|number| write(number, NOW + number as i64)))
            .await;
    }
    let lengths = || [number(world, &["HLEN", TRIPLETS]), number(world, &["ZCARD", ORDER])];
    assert_eq!(lengths(), [most as i64; 2]);
    // The oldest gave way.
    let field = |number: usize| {
        format!("{}:{number}@sender.testalice@example.com", format!("{number}@sender.test").len())
    };
    assert_eq!(number(world, &["HEXISTS", TRIPLETS, &field(499)]), 0);
    assert_eq!(number(world, &["HEXISTS", TRIPLETS, &field(500)]), 1);
    // What is over goes with each new contact, some at a time.
    write(most + 500, NOW + 10 * DAY).await;
    assert_eq!(lengths(), [most as i64 - 99; 2]);
}

/// SQL remembers a client for longer soon after the answer, and here the next contact may be weeks later.
async fn until_known(sql: &World, client: &str, until: i64) {
    const KNOWN: Stmt = Stmt::same(
        "SELECT COUNT(*) FROM greylisting_tracking WHERE client_address = ? AND passed = 1 AND record_expired >= ?",
    );
    for _ in 0..1000 {
        let row = sql.iredapd.fetch_optional(&KNOWN, &[client.into(), until.into()]).await.expect("counted");
        if row.and_then(|row| row.int_at(0)) != Some(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{client} was not remembered for longer");
}

/// The same contacts at the same times, with the triplets here and in SQL.
pub(crate) async fn greylisting_answers_as_with_sql(world: &World) {
    let sql = World::sqlite().await;
    let daemons = [greylisting(world).await, greylisting(&sql).await];
    let mut clients = [Client::connect(&daemons[0]), Client::connect(&daemons[1])];
    let pause = proptest::prop_oneof![0..600_i64, 600..3600_i64, DAY / 2..2 * DAY, 20 * DAY..40 * DAY];
    let steps = proptest::collection::vec((pause, 0..3_u8, 0..3_u8), 400);
    let steps = steps.new_tree(&mut TestRunner::deterministic()).expect("steps").current();
    let (mut now, mut passed) = (NOW, 0);
    for (pause, client, sender) in steps {
        now += pause;
        for one in [world, &sql] {
            one.clock.set(now);
        }
        daemons[1].clean_up().await;
        let (client, sender) = (format!("203.0.113.{client}"), format!("{sender}@sender.test"));
        let request = arrival(&sender, "alice@example.com", &client);
        let answers = [clients[0].ask(&request).await, clients[1].ask(&request).await];
        assert_eq!(answers[0], answers[1], "{client} {sender} at {}", now - NOW);
        if answers[1] == "DUNNO" {
            passed += 1;
            until_known(&sql, &client, now + 30 * DAY - 600).await;
        }
    }
    assert!((50..350).contains(&passed), "both kinds of answers occur: {passed}");
}

pub(crate) async fn a_stopped_server_is_what_the_settings_say(world: &mut World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [3, -1]).await;
    let quick = |settings: &mut Settings| {
        settings.counters.response_timeout = Interval::seconds(1);
        settings.counters.connect_timeout = Interval::seconds(1);
    };
    let deferring = world.daemon_with(&["throttle"], quick).await;
    let passing = world
        .daemon_with(&["throttle"], |settings| {
            quick(settings);
            settings.on_failure.valkey = OnFailure::Pass;
        })
        .await;
    let message = submission("a@example.com", "1", "1");
    let up = |daemon: &Service| {
        let health = daemon.health();
        let one = health.iter().find(|one| one.name == "valkey").expect("listed");
        assert!(health.iter().all(|other| other.name == "valkey" || other.up), "{health:?}");
        one.up
    };
    assert_eq!(ask(&deferring, &message).await, "DUNNO");
    assert_eq!(ask(&passing, &message).await, "DUNNO");
    assert!(up(&deferring) && up(&passing));

    world.valkey.as_mut().expect("a server").stop().expect("stopped");
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&deferring, &message).await, DEFER);
        assert_eq!(ask(&passing, &message).await, "DUNNO", "passes uncounted");
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(!up(&deferring) && !up(&passing));

    world.valkey.as_mut().expect("a server").resume().expect("started again");
    back(&deferring, &message, "DUNNO").await;
    assert!(up(&deferring));
    assert_eq!(world.counters().await, [[1, 3, 3]], "the counter is what it was");
    back(&passing, &message, REFUSED).await;

    // A connection that broke is replaced, and nobody notices.
    for _ in 0..5 {
        server(world, &["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(ask(&deferring, &message).await, REFUSED);
    }

    world.valkey.as_ref().expect("a server").freeze().expect("frozen");
    let begin = Instant::now();
    let answers = futures_util::future::join_all((0..100).map(|_| ask(&deferring, &message))).await;
    // One after the other would be 100 s.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(answers.iter().all(|answer| answer == DEFER), "{answers:?}");
    world.valkey.as_ref().expect("a server").thaw().expect("thawed");
    back(&deferring, &message, REFUSED).await;
    assert_eq!(world.counters().await, [[1, 3, 3]]);
}

/// With encryption the server has to be who it says; without the authority that signed its certificate, or under another
/// name, it is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_connection() {
    if !Valkey::is_installed() || !has_openssl() {
        return;
    }
    let world = World::valkey(Valkey::start_encrypted().expect("started")).await;
    world.limit(1, "@.", "outbound", [1000, -1]).await;
    let server = world.valkey.as_ref().expect("a server");
    let authority = Some(server.authority());
    let socket = format!("unix://{}?db=3", server.socket().display());
    let by_name = format!("rediss://{}/1", server.tls_place("localhost"));
    let by_address = format!("rediss://{}/1", server.tls_place("127.0.0.1"));
    let plain = format!("redis://{}", server.tls_place("localhost"));
    for (url, ca_file, expected) in [
        (server.url(), None, "DUNNO"),
        (socket, None, "DUNNO"),
        (by_name.clone(), authority.clone(), "DUNNO"),
        (by_name, None, DEFER),
        (by_address, authority.clone(), DEFER),
        (plain, authority.clone(), DEFER),
        (server.url().replace("redis:", "rediss:"), authority, DEFER),
    ] {
        let daemon = world
            .daemon_with(&["throttle"], |settings| {
                settings.counters.url = url.parse().expect("an address");
                settings.counters.ca_file = ca_file;
                settings.counters.connect_timeout = Interval::seconds(5);
                settings.counters.response_timeout = Interval::seconds(5);
            })
            .await;
        assert_eq!(ask(&daemon, &submission("a@example.com", "1", "1")).await, expected, "{url}");
    }
    // Each of the three on the database of its own.
    for database in ["0", "1", "3"] {
        let keys = server.command(&[
            "EVAL",
            &format!("redis.call('SELECT', {database}) return redis.call('DBSIZE')"),
            "0",
        ]);
        assert_eq!(keys.expect("answered"), ":1", "database {database}");
    }
}

/// Asks until this is the answer.
pub(crate) async fn back(daemon: &Service, message: &[(&str, &str)], expected: &str) {
    let begin = Instant::now();
    loop {
        let answer = ask(daemon, message).await;
        if answer == expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the way back was not found: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
