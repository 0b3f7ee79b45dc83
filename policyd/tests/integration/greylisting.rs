//! Greylisting with many at once, and for pools of clients.

use std::time::Duration;

use std::sync::Arc;

use outrider_core::settings::Interval;
use outrider_core::sql::{Engine, Stmt};
use outrider_policyd::settings::GreylistingKey;
use outrider_policyd::{Policyd, Settings};
use outrider_tests::dns_server::DnsServer;

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
    assert_eq!(rows[0], [20, 0, NOW], "each refusal is counted");
}

/// A triplet that was there before, in each of its ages, met alone and by several at once.
pub(crate) async fn old_triplets_go_on_where_they_were(world: &World) {
    let daemon = world_with_greylisting(world).await;
    // Sender, end of the block, end of the record, answer, refusals then, passed then.
    let table = [
        ("waiting@sender.test", NOW + 1, NOW + 1, LATER, 4, 0),
        ("due@sender.test", NOW, NOW, "DUNNO", 3, 1),
        ("forgotten@sender.test", NOW - 9, NOW - 1, LATER, 1, 0),
        ("strange@sender.test", NOW + 9, NOW - 1, LATER, 1, 0),
    ];
    for together in [false, true] {
        world.script(&world.iredapd, "DELETE FROM greylisting_tracking").await;
        for (client, (sender, block, record, ..)) in table.into_iter().enumerate() {
            let row = format!(
                "INSERT INTO greylisting_tracking (sender, recipient, client_address, init_time, block_expired, \
                 record_expired, blocked_count, passed) VALUES \
                 ('{sender}', 'alice@example.com', '203.0.113.{client}', 1, {block}, {record}, 3, 0)"
            );
            world.iredapd.execute_script(row).await.expect("a row");
        }
        let mut tasks = Vec::new();
        for (client, (sender, ..)) in table.into_iter().enumerate() {
            let daemon = daemon.clone();
            let client = format!("203.0.113.{client}");
            let task =
                tokio::spawn(
                    async move { ask(&daemon, &arrival(sender, "alice@example.com", &client)).await },
                );
            if !together {
                while !task.is_finished() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            tasks.push(task);
        }
        for (task, (sender, .., answer, _, _)) in tasks.into_iter().zip(table) {
            assert_eq!(task.await.expect("done"), answer, "{sender}, together: {together}");
        }
        let rows = "SELECT blocked_count, passed FROM greylisting_tracking ORDER BY client_address";
        let expected: Vec<_> = table.iter().map(|&(.., refusals, passed)| vec![refusals, passed]).collect();
        assert_eq!(world.numbers(&world.iredapd, rows).await, expected, "together: {together}");
    }
}

/// MySQL finds an account by a row with blanks at its end.
pub(crate) async fn accounts_are_what_the_database_finds(world: &World) {
    let daemon = world_with_greylisting(world).await;
    world
        .script(
            &world.iredapd,
            "INSERT INTO greylisting (account, sender, active, priority) VALUES ('bob@example.com ', '@.', 0, 100)",
        )
        .await;
    let expected = if world.iredapd.engine() == Engine::MySql { "DUNNO" } else { LATER };
    assert_eq!(ask(&daemon, &arrival("a@sender.test", "bob@example.com", "203.0.113.10")).await, expected);
}

/// Without a time to wait the first contact is put off and the next one passes, in the same second too.
pub(crate) async fn a_block_of_no_time_puts_off_once(world: &World) {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let no_time = |settings: &mut Settings| settings.greylisting.block = Interval::seconds(0);
    let daemon = world.daemon_with(&["greylisting"], no_time).await;
    assert_eq!(all_at_once(&daemon, 1).await, [LATER]);
    assert_eq!(all_at_once(&daemon, 1).await, ["DUNNO"]);
}

/// One statement writes what came together: it must not mix up whose row was made.
pub(crate) async fn contacts_of_one_moment_are_told_apart(world: &World) {
    let daemon = world_with_greylisting(world).await;
    world
        .script(
            &world.iredapd,
            "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
             block_expired, record_expired, blocked_count, passed) VALUES \
             ('x@passed.test', 'bob@example.com', '203.0.113.77', 'passed.test', 'example.com', 1, 2, 4000000000, 1, 1), \
             ('old@sender.test', 'alice@example.com', '203.0.113.11', 'sender.test', 'example.com', 1, 2, 4000000000, 1, 0)",
        )
        .await;
    // Sender, client, answer: new ones, twice the same, a client that has passed, a triplet whose time has come, and the
    // letters that collations take for one another.
    let table = [
        ("new1@sender.test", "203.0.113.10", LATER),
        ("new1@sender.test", "203.0.113.10", LATER),
        ("other@passed.test", "203.0.113.77", "DUNNO"),
        ("new2@sender.test", "203.0.113.10", LATER),
        ("old@sender.test", "203.0.113.11", "DUNNO"),
        ("n\u{e9}w2@sender.test", "203.0.113.10", LATER),
        ("new3@sender.test", "2001:db8::1", LATER),
        ("", "203.0.113.12", LATER),
    ];
    let tasks: Vec<_> = table
        .iter()
        .map(|&(sender, client, _)| {
            let daemon = daemon.clone();
            tokio::spawn(async move { ask(&daemon, &arrival(sender, "alice@example.com", client)).await })
        })
        .collect();
    for (task, (sender, client, expected)) in tasks.into_iter().zip(table) {
        assert_eq!(task.await.expect("done"), expected, "{sender} from {client}");
    }
    let new = "SELECT COUNT(*) FROM greylisting_tracking WHERE passed = 0 AND init_time > 1";
    let made = world.numbers(&world.iredapd, new).await;
    // One collation takes the two letters for the same.
    assert!(made == [[5]] || made == [[4]], "{made:?}");
}

/// Neither is it mixed up where some come at a time, again and again, and one of four has passed.
pub(crate) async fn contacts_that_go_on_and_on_are_told_apart(world: &World) {
    let daemon = world_with_greylisting(world).await;
    let row = "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
               block_expired, record_expired, blocked_count, passed) \
               VALUES ('x@passed.test', 'bob@example.com', ?, 'passed.test', 'example.com', 1, 2, 4000000000, 1, 1)";
    for number in 0..60 {
        world.execute(&world.iredapd, row, &[format!("203.0.113.{}", 100 + number).into()]).await;
    }
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let daemon = daemon.clone();
            tokio::spawn(async move {
                for number in (0..240).skip(task).step_by(6) {
                    let (client, expected) = match number % 4 {
                        3 => (format!("203.0.113.{}", 100 + number / 4), "DUNNO"),
                        2 => ("2001:db8:1234:5678:9abc:def0:1234:5678".to_owned(), LATER),
                        _ => ("203.0.113.9".to_owned(), LATER),
                    };
                    // Short and long ones beside each other: none is cut to the length of another.
                    let sender = format!("n{number}{}@sender.test", "x".repeat(number * 7 % 60));
                    let answer = ask(&daemon, &arrival(&sender, "alice@example.com", &client)).await;
                    assert_eq!(answer, expected, "{sender} from {client}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("answers as expected");
    }
    let new = "SELECT COUNT(*), MAX(blocked_count), COUNT(DISTINCT client_address) FROM greylisting_tracking \
               WHERE passed = 0 AND sender LIKE '%@sender.test' AND sender_domain = 'sender.test' \
               AND (client_address = '203.0.113.9' OR client_address = '2001:db8:1234:5678:9abc:def0:1234:5678')";
    assert_eq!(world.numbers(&world.iredapd, new).await, [[180, 1, 2]]);
}

/// Who holds the row of one contact (an administrator's open transaction) keeps no other contact waiting: it would have no
/// answer in time, and pass.
pub(crate) async fn a_row_that_is_held_stops_its_own_contact_only(world: &World) {
    if world.engine() == Engine::Sqlite {
        // It has one writer.
        return;
    }
    let daemon = world_with_greylisting(world).await;
    let contact = |sender: &'static str, client: &'static str| {
        let daemon = daemon.clone();
        async move { ask(&daemon, &arrival(sender, "alice@example.com", client)).await }
    };
    assert_eq!(contact("held@sender.test", "203.0.113.10").await, LATER);
    let mut holder = world.iredapd.begin().await.expect("begun");
    let hold = Stmt::same("UPDATE greylisting_tracking SET record_expired = record_expired + 1");
    holder.execute(&hold, &[]).await.expect("held");
    let waits = tokio::spawn(contact("held@sender.test", "203.0.113.10"));
    // So that the two are no batch; if they become one all the same, both wait.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(contact("free@sender.test", "203.0.113.11").await, LATER);
    holder.rollback().await.expect("undone");
    assert_eq!(waits.await.expect("answered"), LATER);
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

    // Its mail some minutes later lets it be known for longer, soon after the answer.
    world.clock.set(NOW + 900 + 601);
    let later = ask(&daemon, &arrival("other@elsewhere.test", "bob@example.com", "203.0.113.10")).await;
    assert_eq!(later, "DUNNO");
    let renewed = [[NOW + 900 + 601 + 30 * 86_400]];
    for _ in 0..1000 {
        if world.numbers(&world.iredapd, "SELECT record_expired FROM greylisting_tracking").await == renewed {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the client was not remembered for longer");
}

/// The rows of a client may end at different times, also later than the settings say now.
pub(crate) async fn all_rows_of_a_known_client_get_the_same_end(world: &World) {
    let daemon = world_with_greylisting(world).await;
    let end = NOW + 30 * 86_400;
    for (client, first, second) in [
        ("203.0.113.10", end, NOW + 9),
        ("203.0.113.11", NOW + 9, end),
        ("203.0.113.12", end + 601, end),
        ("203.0.113.13", end + 9_999_999, end + 9_999_999),
    ] {
        for (sender, until) in [("one@sender.test", first), ("two@sender.test", second)] {
            let row = "INSERT INTO greylisting_tracking (sender, recipient, client_address, record_expired, passed) \
                       VALUES (?, 'alice@example.com', ?, ?, 1)";
            world.execute(&world.iredapd, row, &[sender.into(), client.into(), until.into()]).await;
        }
        assert_eq!(ask(&daemon, &arrival("new@elsewhere.test", "bob@example.com", client)).await, "DUNNO");
    }
    let ends = "SELECT DISTINCT record_expired FROM greylisting_tracking";
    for _ in 0..1000 {
        if world.numbers(&world.iredapd, ends).await == [[end]] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("rows were left alone");
}

async fn by_organization(world: &World, change: impl FnOnce(&mut Settings)) -> Service {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world
        .daemon_with(&["greylisting"], |settings| {
            settings.greylisting.key = GreylistingKey::Organization;
            change(settings);
        })
        .await
}

/// A client with a verified name.
async fn from(daemon: &Arc<Policyd>, client: &str, name: &str) -> String {
    let mut request = arrival("friend@sender.test", "alice@example.com", client);
    request.push(("client_name", name));
    ask(daemon, &request).await
}

pub(crate) async fn a_retry_from_the_same_pool_counts(world: &World) {
    let daemon = by_organization(world, |_| {}).await;
    // One verified domain, one network, and a dial-in line whose name says nothing but its address.
    let pools = [
        ("203.0.113.10", "out-1.big.co.uk", "198.51.100.77", "out-9.eu.big.co.uk", "name:big.co.uk"),
        ("192.0.2.10", "unknown", "192.0.2.200", "unknown", "192.0.2.0/24"),
        ("2001:db8::1", "unknown", "2001:db8::ffff", "unknown", "2001:db8::/64"),
    ];
    for (first, name, second, other_name, key) in pools {
        world.clock.set(NOW);
        assert_eq!(from(&daemon, first, name).await, LATER, "{key}");
        assert_eq!(from(&daemon, second, other_name).await, LATER, "{key}: too early");
        let rows = "SELECT COUNT(*) FROM greylisting_tracking WHERE client_address = ?";
        let row = world.iredapd.fetch_optional(&Stmt::same(rows), &[key.into()]).await;
        assert_eq!(row.expect("read").and_then(|row| row.int_at(0)), Some(1), "{key}");
        world.clock.set(NOW + 900);
        assert_eq!(from(&daemon, second, other_name).await, "DUNNO", "{key}");
        assert_eq!(from(&daemon, first, name).await, "DUNNO", "{key}: the whole pool is known");
    }
    world.clock.set(NOW);
    assert_eq!(from(&daemon, "203.0.113.99", "mx.elsewhere.org").await, LATER);
    world.clock.set(NOW + 900);
    let line = from(&daemon, "203.0.114.7", "dsl-203-0-114-7.big.co.uk").await;
    assert_eq!(line, LATER, "a line of the provider is not its mail server");
    // As without the setting, each address stands for itself.
    let daemon = world_with_greylisting(world).await;
    assert_eq!(from(&daemon, "203.0.113.10", "out-1.big.co.uk").await, LATER);
    world.clock.set(NOW + 900);
    assert_eq!(from(&daemon, "203.0.113.11", "out-2.big.co.uk").await, LATER);
}

pub(crate) async fn known_addresses_stay_known_when_organizations_count(world: &World) {
    let daemon = world_with_greylisting(world).await;
    all_at_once(&daemon, 1).await;
    world.clock.set(NOW + 900);
    assert_eq!(all_at_once(&daemon, 1).await, ["DUNNO"]);
    let daemon = world
        .daemon_with(&["greylisting"], |settings| settings.greylisting.key = GreylistingKey::Organization)
        .await;
    assert_eq!(from(&daemon, "203.0.113.10", "out-1.big.co.uk").await, "DUNNO");
    assert_eq!(from(&daemon, "203.0.113.11", "out-2.big.co.uk").await, LATER, "its neighbours are not");
}

pub(crate) async fn what_spf_lists_is_one_pool(world: &World) {
    let dns = DnsServer::start().expect("started");
    dns.txt("sender.test", "v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.0/24 -all");
    let address = dns.address();
    let daemon = by_organization(world, |settings| {
        settings.dns.servers = vec![address];
        settings.dns.timeout = Interval::seconds(30);
        settings.spf.timeout = Interval::seconds(30);
        settings.limits.request_timeout = Interval::seconds(60);
    })
    .await;
    assert_eq!(from(&daemon, "203.0.113.10", "unknown").await, LATER);
    world.clock.set(NOW + 900);
    assert_eq!(from(&daemon, "192.0.2.1", "unknown").await, LATER, "not listed");
    assert_eq!(from(&daemon, "198.51.100.1", "unknown").await, "DUNNO");
    let keys = "SELECT COUNT(*) FROM greylisting_tracking WHERE client_address = 'spf:sender.test'";
    assert_eq!(world.numbers(&world.iredapd, keys).await, [[1]]);
}

/// T15: a network that names ever new senders is put off as before but fills no table, and delays nobody else.
pub(crate) async fn threat_t15_floods_fill_no_table(world: &World) {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let daemon = world
        .daemon_with(&["greylisting"], |settings| settings.greylisting.new_contacts_per_minute = 40)
        .await;
    let mut client = crate::world::Client::connect(&daemon);
    for number in 0..150 {
        let sender = format!("s{number}@sender{number}.test");
        let address = format!("203.0.113.{number}");
        assert_eq!(client.ask(&arrival(&sender, "alice@example.com", &address)).await, LATER);
    }
    const ROWS: &str = "SELECT COUNT(*) FROM greylisting_tracking";
    assert_eq!(world.numbers(&world.iredapd, ROWS).await, [[40]]);
    assert_eq!(client.ask(&arrival("friend@sender.test", "alice@example.com", "198.51.100.1")).await, LATER);
    assert_eq!(world.numbers(&world.iredapd, ROWS).await, [[41]], "others are not concerned");
    // Case and extension make no new contact.
    for sender in ["FRIEND@sender.test", "friend+1@sender.test", "Friend+2@Sender.Test"] {
        assert_eq!(client.ask(&arrival(sender, "Alice+x@Example.com", "198.51.100.1")).await, LATER);
    }
    assert_eq!(world.numbers(&world.iredapd, ROWS).await, [[41]]);
    // What came first and did not come again goes first; who has passed stays.
    world.clock.set(NOW + 900);
    assert_eq!(client.ask(&arrival("s0@sender0.test", "alice@example.com", "203.0.113.0")).await, "DUNNO");
    let small = world.daemon_with(&["greylisting"], |settings| settings.greylisting.most_contacts = 5).await;
    small.clean_up().await;
    let left = world.numbers(&world.iredapd, "SELECT passed FROM greylisting_tracking").await;
    assert_eq!(left, [[1]], "steps are larger than this table");
}
