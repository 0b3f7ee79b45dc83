//! T37: a Valkey server that holds nonsense, lost its keys, wants a password, or is none at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrider_core::daemon::Daemon as _;
use outrider_core::directory::write::ThrottleKind;
use outrider_core::settings::{Interval, Secret};
use outrider_policyd::Settings;
use outrider_policyd::admin::Subject;
use outrider_policyd::admin::tracking::Whose;
use outrider_tests::valkey::Valkey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::administration;
use crate::valkey::{back, contact, greylisting};
use crate::world::{Client, NOW, Service, World, arrival, ask, submission};

const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";
const REFUSED: &str = "REJECT Throttling quota exceeded";
const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const NULL_SENDER: &str = "REJECT Policy rejection due to null sender";
const COUNTER: &str = "outrider:throttle:1:a@example.com";
const CLIENT: &str = "outrider:greylisting:{203.0.113.10}:";
const TRIPLET: &str = "13:x@sender.testalice@example.com";

async fn throttled(world: &World) -> Service {
    world.empty().await;
    world.limit(1, "@.", "outbound", [2, -1]).await;
    world.daemon(&["throttle"]).await
}

fn is_up(daemon: &Service) -> bool {
    daemon.health().iter().any(|one| one.name == "valkey" && one.up)
}

/// Commands that leave a key of another type, and values that are no numbers of ours.
fn nonsense() -> (Vec<Vec<&'static str>>, Vec<&'static str>) {
    let types = [
        vec!["SET", "KEY", "text"],
        vec!["LPUSH", "KEY", "a", "b"],
        vec!["SADD", "KEY", "a"],
        vec!["ZADD", "KEY", "1", "a"],
        vec!["XADD", "KEY", "*", "a", "b"],
        vec!["HSET", "KEY", "a", "b"],
    ];
    let values = vec![
        "",
        " 1",
        "-1",
        "1.5",
        "1e9",
        "0x10",
        "nan",
        "inf",
        "99999999999999999999",
        "return redis.call('FLUSHALL')",
        "\u{ff11}",
        "1\r\n+OK",
    ];
    (types.to_vec(), values)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t37_wrong_types_and_poisoned_counters_count_as_none() {
    if !Valkey::is_installed() {
        return;
    }
    let world = World::valkey(Valkey::start().expect("started")).await;
    let server = |words: &[&str]| {
        let answer = world.valkey.as_ref().expect("a server").command(words).expect("answered");
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        answer
    };
    let daemon = throttled(&world).await;
    let mut client = Client::connect(&daemon);
    let message = submission("a@example.com", "1", "10");
    let (types, values) = nonsense();
    server(&["SET", "canary", "sings"]);
    let mut cases: Vec<Vec<&str>> = types;
    for value in values {
        cases.push(vec!["HSET", "KEY", "init", value, "msgs", "2", "quota", "0"]);
        cases.push(vec!["HSET", "KEY", "init", "1742040000", "msgs", value, "quota", "0"]);
        cases.push(vec!["HSET", "KEY", "init", "1742040000", "msgs", "2", "quota", value]);
    }
    for mut case in cases {
        server(&["DEL", COUNTER]);
        case[1] = COUNTER;
        server(&case);
        assert_eq!(client.ask(&message).await, "DUNNO", "{case:?}");
        assert_eq!(world.counters().await, [[1, 1, 10]], "{case:?}");
        assert_eq!(client.ask(&message).await, "DUNNO", "{case:?}");
        assert_eq!(client.ask(&message).await, REFUSED, "{case:?}");
    }
    // Numbers, but no times and amounts that we wrote: an answer all the same, and not for ever.
    for case in [
        ["init", "9007199254740992", "msgs", "2", "quota", "0"],
        ["init", "0", "msgs", "9007199254740992", "quota", "9007199254740992"],
        ["init", "1742040000", "msgs", "9007199254740992", "quota", "9007199254740992"],
        ["init", "9999999999999999", "msgs", "0", "quota", "0"],
    ] {
        server(&["DEL", COUNTER]);
        server(&[&["HSET", COUNTER], &case[..]].concat());
        let answer = client.ask(&message).await;
        assert!(answer == "DUNNO" || answer == REFUSED, "{case:?}: {answer}");
        let left = server(&["TTL", COUNTER]);
        let left: i64 = left.trim_start_matches(':').parse().expect("a number");
        assert!((1..=2 * 3660).contains(&left), "{case:?}: {left}");
    }
    // A refusal is told once although the mark is nonsense.
    server(&["DEL", COUNTER]);
    assert_eq!(client.ask(&message).await, "DUNNO");
    server(&["HSET", COUNTER, "notified", "never"]);
    assert_eq!(client.ask(&submission("a@example.com", "2", "10")).await, REFUSED);
    assert_eq!(server(&["HGET", COUNTER, "notified"]), format!("$10\r\n{NOW}"));
    assert_eq!(server(&["GET", "canary"]), "$5\r\nsings");
    assert!(is_up(&daemon));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t37_wrong_types_and_poisoned_triplets_count_as_none() {
    if !Valkey::is_installed() {
        return;
    }
    let world = World::valkey(Valkey::start().expect("started")).await;
    let server = |words: &[&str]| {
        let answer = world.valkey.as_ref().expect("a server").command(words).expect("answered");
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
    };
    let daemon = greylisting(&world).await;
    let [passed, triplets, order] = ["passed", "triplets", "order"].map(|what| format!("{CLIENT}{what}"));
    let (types, values) = nonsense();
    let mut cases: Vec<Vec<String>> = Vec::new();
    let words = |case: &[&str]| case.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for key in [&passed, &triplets, &order] {
        for case in &types {
            let mut case = words(case);
            case[1].clone_from(key);
            cases.push(case);
        }
    }
    for value in values {
        cases.push(words(&["SET", &passed, value]));
        cases.push(words(&["HSET", &triplets, TRIPLET, value]));
        cases.push(words(&["HSET", &triplets, TRIPLET, &format!("{value} 1742126400 1 1742040000")]));
    }
    let long = "1".repeat(5000);
    cases.push(words(&["HSET", &triplets, TRIPLET, &long]));
    cases.push(words(&["HSET", &triplets, TRIPLET, &format!("{long} {long} {long} {long}")]));
    for case in cases {
        server(&["DEL", &passed, &triplets, &order]);
        world.clock.set(NOW);
        server(&case.iter().map(String::as_str).collect::<Vec<_>>());
        let shown = case.iter().map(|word| &word[..word.len().min(60)]).collect::<Vec<_>>();
        assert_eq!(contact(&daemon, "x@sender.test").await, LATER, "{shown:?}");
        world.clock.set(NOW + 899);
        assert_eq!(contact(&daemon, "x@sender.test").await, LATER, "{shown:?}");
        world.clock.set(NOW + 900);
        assert_eq!(contact(&daemon, "x@sender.test").await, "DUNNO", "{shown:?}");
        assert_eq!(contact(&daemon, "y@sender.test").await, "DUNNO", "{shown:?}");
    }
    // Nothing but nonsense between two contacts; a block beyond the end of its record is none.
    server(&["DEL", &passed, &triplets, &order]);
    world.clock.set(NOW);
    assert_eq!(contact(&daemon, "x@sender.test").await, LATER);
    server(&["SET", &order, "text"]);
    assert_eq!(contact(&daemon, "y@sender.test").await, LATER);
    server(&["HSET", &triplets, TRIPLET, "9999999999 1742126400 1 1742040000"]);
    assert_eq!(contact(&daemon, "x@sender.test").await, LATER);
    world.clock.set(NOW + 900);
    assert_eq!(contact(&daemon, "x@sender.test").await, "DUNNO");
    assert!(is_up(&daemon));
}

/// Our keys are the only ones with a time to live, so they are what goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t37_evicted_keys_are_missed_and_full_memory_is_a_failure() {
    if !Valkey::is_installed() {
        return;
    }
    let server = Valkey::start_with(&["--maxmemory-policy", "volatile-ttl"], None).expect("started");
    let world = World::valkey(server).await;
    let server = |words: &[&str]| world.valkey.as_ref().expect("a server").command(words).expect("answered");
    let daemon = throttled(&world).await;
    let message = submission("a@example.com", "1", "1");
    for expected in ["DUNNO", "DUNNO", REFUSED] {
        assert_eq!(ask(&daemon, &message).await, expected);
    }
    assert_eq!(server(&["CONFIG", "SET", "maxmemory", "100kb"]), "+OK");
    // All that can go is gone, and it is still too much.
    assert_eq!(ask(&daemon, &message).await, DEFER);
    assert_eq!(server(&["EXISTS", COUNTER]), ":0");
    assert!(!is_up(&daemon));
    let health = daemon.health();
    let figures = health.iter().find(|one| one.name == "valkey").and_then(|one| one.pool.as_ref());
    assert!(figures.is_some_and(|pool| pool.errors.contains(&("refused", 1))), "{figures:?}");
    assert_eq!(server(&["CONFIG", "SET", "maxmemory", "0"]), "+OK");
    for expected in ["DUNNO", "DUNNO", REFUSED] {
        assert_eq!(ask(&daemon, &message).await, expected);
    }
    // Scripts can be thrown away as well.
    assert_eq!(server(&["SCRIPT", "FLUSH"]), "+OK");
    assert_eq!(ask(&daemon, &message).await, REFUSED);
    assert!(is_up(&daemon));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t37_a_login_that_is_needed_wrong_or_refused_later() {
    if !Valkey::is_installed() {
        return;
    }
    let world = World::valkey(Valkey::start_with(&[], Some("Secret-1")).expect("started")).await;
    let server = |words: &[&str]| world.valkey.as_ref().expect("a server").command(words).expect("answered");
    world.empty().await;
    world.limit(1, "@.", "outbound", [1000, -1]).await;
    let message = submission("a@example.com", "1", "1");
    let with = async |user: &str, password: &str| {
        world
            .daemon_with(&["throttle", "greylisting"], |settings: &mut Settings| {
                settings.counters.user = user.to_owned();
                settings.counters.password = Secret::new(password);
            })
            .await
    };
    for (user, password) in [("", ""), ("", "Kanarienvogel"), ("nobody", "Secret-1")] {
        let daemon = with(user, password).await;
        assert_eq!(ask(&daemon, &message).await, DEFER, "{user} {password}");
        // The look-out for the server reports at moments of its own.
        for _ in 0..50 {
            if !is_up(&daemon) {
                break;
            }
            assert_eq!(ask(&daemon, &message).await, DEFER, "{user} {password}");
        }
        let health = format!("{:?}", daemon.health());
        assert!(!is_up(&daemon) && !health.contains("Kanarienvogel"), "{health}");
    }
    // An account that may do no more than the README says.
    let rights = include_str!("../../../README.md").split_whitespace().filter(|word| word.starts_with('+'));
    let account: Vec<&str> =
        ["ACL", "SETUSER", "policyd", "on", ">Policy-1", "~outrider:*"].into_iter().chain(rights).collect();
    assert!(account.len() > 20, "{account:?}");
    assert_eq!(server(&account), "+OK");
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let daemon = with("policyd", "Policy-1").await;
    assert_eq!(ask(&daemon, &message).await, "DUNNO");
    for (after, expected) in
        [(0, LATER), (1, LATER), (900, "DUNNO"), (90_000, "DUNNO"), (9_000_000, LATER), (9_100_000, LATER)]
    {
        world.clock.set(NOW + after);
        assert_eq!(contact(&daemon, "x@sender.test").await, expected, "{after}");
    }
    world.clock.set(NOW);
    // A refusal is to be told once, and a key of another type makes way.
    assert_eq!(ask(&daemon, &submission("a@example.com", "1000", "1")).await, REFUSED);
    assert_eq!(server(&["HEXISTS", COUNTER, "notified"]), ":1");
    server(&["DEL", COUNTER]);
    server(&["SET", COUNTER, "text"]);
    assert_eq!(ask(&daemon, &message).await, "DUNNO");
    assert!(is_up(&daemon));
    // An administrator needs no more either.
    let admin = administration::open(&world, |settings| {
        settings.counters.user = "policyd".to_owned();
        settings.counters.password = Secret::new("Policy-1");
    })
    .await;
    let subject = Subject { user: "a@example.com".to_owned(), client: String::new() };
    let explained = admin.explain_throttle(ThrottleKind::Outbound, &subject).await.expect("explained");
    assert_eq!(explained.counters[0].counted.map(|counted| counted.messages), Some(1));
    // The client, which is known for all the time passed above, and its new contact.
    for (whose, found) in
        [(Whose::Address("alice@example.com".into()), 1), (Whose::Client([203, 0, 113, 10].into()), 2)]
    {
        assert_eq!(
            admin.tracked(&whose, 10).await.map(|answer| answer.tracked.len()),
            Ok(found),
            "{whose:?}"
        );
    }
    assert_eq!(admin.reset_throttle("a@example.com", &ThrottleKind::ALL).await, Ok(1));
    // It loses a right, and the right to be there; then it gets both back.
    assert_eq!(server(&["ACL", "SETUSER", "policyd", "-hset"]), "+OK");
    assert_eq!(ask(&daemon, &message).await, DEFER);
    assert_eq!(server(&["ACL", "SETUSER", "policyd", "off"]), "+OK");
    server(&["CLIENT", "KILL", "USER", "policyd"]);
    assert_eq!(ask(&daemon, &message).await, DEFER);
    assert!(!is_up(&daemon));
    assert_eq!(server(&["ACL", "SETUSER", "policyd", "on", "+hset"]), "+OK");
    back(&daemon, &message, "DUNNO").await;
    assert!(is_up(&daemon));
}

/// A peer that sends the same bytes to every command.
struct Peer {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    async fn start() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let shared = answer.clone();
        let connections: Arc<AtomicUsize> = Arc::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = shared.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 65536];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        let mut bytes = answer.lock().expect("whole").clone();
                        // A last 0xff stands for the end of the connection.
                        let close = bytes.last() == Some(&0xff);
                        bytes.truncate(bytes.len() - usize::from(close));
                        if stream.write_all(&bytes).await.is_err() || close {
                            return;
                        }
                    }
                });
            }
        });
        Peer { address, answer, connections }
    }

    fn says(&self, bytes: &[u8]) {
        *self.answer.lock().expect("whole") = bytes.to_vec();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t37_answers_that_are_none() {
    let world = World::sqlite().await;
    world.limit(1, "@.", "outbound", [2, -1]).await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let peer = Peer::start().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let there = elsewhere.local_addr().expect("an address");
    let daemon = world
        .daemon_with(&["throttle", "greylisting", "reject_null_sender"], |settings| {
            settings.counters.store = outrider_policyd::settings::CounterStore::Valkey;
            settings.counters.url = format!("redis://{}", peer.address).parse().expect("an address");
            settings.counters.response_timeout = Interval(Duration::from_millis(300));
        })
        .await;
    let message = submission("a@example.com", "1", "1");
    let deep = "*1\r\n".repeat(200_000);
    let moved = format!("-MOVED 3999 {there}\r\n");
    let asked = format!("-ASK 3999 {there}\r\n");
    let answers: &[&[u8]] = &[
        b"-LOADING Redis is loading the dataset in memory\r\n",
        moved.as_bytes(),
        asked.as_bytes(),
        b"-NOAUTH Authentication required.\r\n",
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
        b"-\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"220 mx.example.com ESMTP Postfix\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"",
        b"*4\r\n:0\r\n",
        b"*4\r\n:0\r\n\xff",
        b"\xff",
        b"$1000000000\r\nabc",
        b"*1000000000\r\n:1\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"+OK\r\n",
        b"$3\r\nabc\r\n",
        b":99999999999999999999\r\n",
        b"*1\r\n:2\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*4\r\n:0\r\n:2\r\n:1\r\n:1\r\n",
        b"*4\r\n:0\r\n:0\r\n:1\r\n:1\r\n",
        b"*4\r\n:0\r\n:-1\r\n:1\r\n:1\r\n",
        b"*4\r\n:0\r\n:1\r\n:7\r\n:1\r\n",
        b"*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
        deep.as_bytes(),
    ];
    let begin = Instant::now();
    for &bytes in answers {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        peer.says(bytes);
        let before = peer.connections.load(Ordering::SeqCst);
        let both = tokio::join!(ask(&daemon, &message), contact(&daemon, "x@sender.test"));
        assert_eq!(both, (DEFER.to_owned(), DEFER.to_owned()), "{shown:?}");
        // What needs no counter is answered as ever.
        let mut of_a_login = arrival("", "pal@remote.test", "203.0.113.10");
        of_a_login.push(("sasl_username", "a@example.com"));
        assert_eq!(ask(&daemon, &of_a_login).await, NULL_SENDER, "{shown:?}");
        // Once the peer behaves, it is found again, whatever it said before.
        peer.says(b"*1\r\n:1\r\n");
        back(&daemon, &message, "DUNNO").await;
        assert!(is_up(&daemon), "{shown:?}");
        // Where a login or another server may help, it is tried.
        if ["-NOAUTH", "-WRONGPASS", "-READONLY"].iter().any(|error| shown.starts_with(error)) {
            assert!(peer.connections.load(Ordering::SeqCst) > before, "{shown:?}");
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(300), "{:?}", begin.elapsed());
    // Nobody was sent elsewhere.
    let called = tokio::time::timeout(Duration::from_millis(10), elsewhere.accept()).await;
    assert!(called.is_err(), "{called:?}");
}
