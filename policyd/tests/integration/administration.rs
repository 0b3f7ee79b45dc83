//! What an administrator sees and forgets of counters and contacts, in the tables and on a Valkey server.

use std::net::Ipv4Addr;
use std::sync::Arc;

use outrider_core::directory::write::{AccountKey, ThrottleKind};
use outrider_policyd::Settings;
use outrider_policyd::admin::tracking::{Answer, Whose};
use outrider_policyd::admin::{Administration, Subject};
use outrider_policyd::limit::Limit;
use outrider_policyd::settings::GreylistingKey;
use outrider_policyd::whitelist_domains::Domains;
use outrider_tests::dns_server::DnsServer;

use crate::world::{NOW, Service, World, arrival, ask, submission};

const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";

pub(crate) async fn open(world: &World, change: impl FnOnce(&mut Settings)) -> Administration {
    let mut settings = world.settings.clone();
    change(&mut settings);
    let opened = Administration::open(Arc::new(settings), world.folder.path(), world.clock.clone()).await;
    opened.expect("opened")
}

async fn counted(admin: &Administration, user: &str) -> Option<[i64; 3]> {
    let subject = Subject { user: user.to_owned(), client: "192.0.2.7".to_owned() };
    let explained = admin.explain_throttle(ThrottleKind::Outbound, &subject).await.expect("explained");
    let messages = explained.limits.iter().find(|effect| effect.limit == Limit::MaxMsgs).expect("all limits");
    assert!(messages.value.is_some(), "{explained:?}");
    let counted = explained.counters.first().expect("a counter").counted?;
    assert_eq!(counted.until, counted.since + 3600);
    Some([counted.messages, counted.bytes, counted.since])
}

pub(crate) async fn counters_are_shown_and_forgotten(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [5, -1]).await;
    world.limit(11, "a@other.example", "outbound", [5, 0]).await;
    let daemon = world.daemon(&["throttle"]).await;
    let admin = open(world, |_| {}).await;
    assert_eq!(counted(&admin, "a@example.com").await, None);
    for (sender, recipients) in [("a@example.com", "5"), ("b@example.com", "2"), ("a@other.example", "3")] {
        assert_eq!(ask(&daemon, &submission(sender, recipients, "100")).await, "DUNNO");
    }
    let full = "REJECT Throttling quota exceeded";
    assert_eq!(ask(&daemon, &submission("a@example.com", "1", "100")).await, full);
    assert_eq!(counted(&admin, "a@example.com").await, Some([5, 100, NOW]));
    assert_eq!(counted(&admin, "b@example.com").await, Some([2, 100, NOW]));
    assert_eq!(counted(&admin, "c@example.com").await, None);
    // The period is over.
    world.clock.set(NOW + 3601);
    assert_eq!(counted(&admin, "b@example.com").await, None);
    world.clock.set(NOW);

    let reset = async |kinds: &[ThrottleKind]| admin.reset_throttle("a@example.com", kinds).await;
    assert_eq!(reset(&[ThrottleKind::Inbound]).await, Ok(0));
    assert_eq!(reset(&ThrottleKind::ALL).await, Ok(1));
    assert_eq!(reset(&ThrottleKind::ALL).await, Ok(0));
    assert_eq!(counted(&admin, "a@example.com").await, None);
    assert_eq!(ask(&daemon, &submission("a@example.com", "1", "100")).await, "DUNNO", "a new period");
    let mut counters = world.counters().await;
    counters.sort();
    assert_eq!(counters, [[1, 1, 100], [1, 2, 100], [1, 3, 100], [11, 3, 100]]);

    // With a limit goes what it counted, and nothing of the limit whose number begins alike.
    let everybody = AccountKey::parse("@.").expect("an account");
    assert_eq!(admin.remove_throttle(&everybody, ThrottleKind::Inbound).await, Ok(0));
    assert_eq!(admin.remove_throttle(&everybody, ThrottleKind::Outbound).await, Ok(1));
    assert_eq!(world.counters().await, [[11, 3, 100]]);
}

/// Client, sender and whether it passed, in the order of the answer.
fn brief(answer: &Answer) -> Vec<(String, String, bool)> {
    let sender = |contact: &outrider_policyd::admin::tracking::Contact| contact.sender.clone();
    let brief = answer.tracked.iter().map(|one| {
        let sender = one.contact.as_ref().map_or("-".to_owned(), sender);
        (one.client_address.clone(), sender, one.passed)
    });
    brief.collect()
}

async fn is_found(admin: &Administration, whose: Whose, expected: &[(&str, &str, bool)]) -> Answer {
    let answer = admin.tracked(&whose, 10).await.expect("asked");
    let expected: Vec<_> = expected
        .iter()
        .map(|&(client, sender, passed)| (client.to_owned(), sender.to_owned(), passed))
        .collect();
    assert_eq!(brief(&answer), expected, "{whose:?}");
    assert!(!answer.cut);
    answer
}

async fn comes(
    world: &World,
    daemon: &Service,
    after: i64,
    client: &str,
    sender: &str,
    name: &str,
) -> String {
    world.clock.set(NOW + after);
    let mut request = arrival(sender, "alice@example.com", client);
    request.push(("client_name", name));
    ask(daemon, &request).await
}

async fn greylisting(world: &World, change: impl FnOnce(&mut Settings)) -> Service {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world.daemon_with(&["greylisting"], change).await
}

pub(crate) async fn contacts_are_found(world: &World) {
    let daemon = greylisting(world, |settings| settings.greylisting.fold_sender_digits = true).await;
    let admin = open(world, |settings| settings.greylisting.fold_sender_digits = true).await;
    for (after, client, sender) in [
        (0, "203.0.113.1", "x@one.test"),
        (1, "203.0.113.2", "bounce-77@two.test"),
        (2, "203.0.113.2", ""),
        (2, "203.0.113.2", "x@one.test"),
        (3, "203.0.113.1", "x@sub.one.test"),
    ] {
        assert_eq!(comes(world, &daemon, after, client, sender, "unknown").await, LATER);
    }
    let client = |last: u8| Whose::Client([203, 0, 113, last].into());
    let address = |text: &str| Whose::Address(text.to_owned());
    let domain = |text: &str| Whose::Domain(text.to_owned());
    is_found(
        &admin,
        client(1),
        &[("203.0.113.1", "x@sub.one.test", false), ("203.0.113.1", "x@one.test", false)],
    )
    .await;
    is_found(&admin, client(9), &[]).await;
    is_found(
        &admin,
        address("x@one.test"),
        &[("203.0.113.2", "x@one.test", false), ("203.0.113.1", "x@one.test", false)],
    )
    .await;
    is_found(&admin, address("bounce-77@two.test"), &[("203.0.113.2", "bounce-#@two.test", false)]).await;
    is_found(&admin, domain("two.test"), &[("203.0.113.2", "bounce-#@two.test", false)]).await;
    is_found(&admin, domain("wo.test"), &[]).await;
    is_found(&admin, domain("t?o.test"), &[]).await;
    let answer = admin.tracked(&address("alice@example.com"), 10).await.expect("asked");
    assert_eq!(answer.tracked.len(), 5);
    let first = answer.tracked[0].contact.as_ref().expect("a contact");
    assert_eq!((first.init_time, first.block_expired, first.blocked_count), (NOW + 3, NOW + 903, 1));
    assert_eq!(admin.tracked(&domain("example.com"), 2).await.expect("asked").tracked, answer.tracked[..2]);

    // One of the clients comes again: of it only that is known, in the tables with the contact that did it.
    assert_eq!(comes(world, &daemon, 1000, "203.0.113.2", "x@one.test", "unknown").await, "DUNNO");
    let on_valkey = world.valkey.is_some();
    let sender = if on_valkey { "-" } else { "x@one.test" };
    let answer = is_found(&admin, client(2), &[("203.0.113.2", sender, true)]).await;
    assert_eq!(answer.tracked[0].record_expired, NOW + 1000 + 30 * 86_400);
    assert!(!answer.without_passed);
    let answer = admin.tracked(&address("x@one.test"), 10).await.expect("asked");
    assert_eq!(answer.without_passed, on_valkey, "what cannot be answered is said");
    assert_eq!(answer.tracked.iter().filter(|one| one.passed).count(), usize::from(!on_valkey));
}

pub(crate) async fn contacts_of_pools_are_found(world: &World) {
    let organization = |settings: &mut Settings| settings.greylisting.key = GreylistingKey::Organization;
    let daemon = greylisting(world, organization).await;
    let admin = open(world, organization).await;
    for (client, sender, name) in [
        ("198.51.100.7", "x@one.test", "unknown"),
        ("198.51.100.8", "y@one.test", "mail-1.eu.big.co.uk"),
        ("2001:db8:1:2::7", "z@one.test", "unknown"),
    ] {
        assert_eq!(comes(world, &daemon, 0, client, sender, name).await, LATER);
    }
    let client = |text: &str| Whose::Client(text.parse().expect("an address"));
    let of_network = ("198.51.100.0/24", "x@one.test", false);
    is_found(&admin, client("198.51.100.7"), &[of_network]).await;
    is_found(&admin, Whose::Network("198.51.100.0/24".parse().expect("a network")), &[of_network]).await;
    is_found(&admin, client("2001:db8:1:2::99"), &[("2001:db8:1:2::/64", "z@one.test", false)]).await;
    is_found(&admin, Whose::Pool("name:big.co.uk".into()), &[("name:big.co.uk", "y@one.test", false)]).await;
    is_found(&admin, Whose::Pool("spf:big.co.uk".into()), &[]).await;
    is_found(&admin, Whose::Address("y@one.test".into()), &[("name:big.co.uk", "y@one.test", false)]).await;
}

pub(crate) async fn whitelisted_clients_are_forgotten(world: &World) {
    let daemon = greylisting(world, |_| {}).await;
    for sql in ["DELETE FROM greylisting_whitelist_domains", "DELETE FROM greylisting_whitelist_domain_spf"] {
        world.script(&world.iredapd, sql).await;
    }
    let dns = DnsServer::start().expect("started");
    dns.txt("big.test", "v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.1 -all");
    let admin = open(world, |settings| settings.dns.servers = vec![dns.address()]).await;
    for client in ["203.0.113.1", "203.0.113.2"] {
        assert_eq!(comes(world, &daemon, 0, client, "x@one.test", "unknown").await, LATER);
    }
    let domains = Domains::Named(vec!["big.test".to_owned()]);
    let refreshed = admin.refresh_whitelist_domains(domains).await.expect("refreshed");
    assert_eq!(refreshed[0].addresses, 2);
    is_found(&admin, Whose::Client(Ipv4Addr::new(203, 0, 113, 1).into()), &[]).await;
    is_found(&admin, Whose::Domain("one.test".into()), &[("203.0.113.2", "x@one.test", false)]).await;
    world.script(&world.iredapd, "DELETE FROM greylisting_whitelist_domain_spf").await;
}

/// What others have put among our keys is passed over, and a prefix that reads as a pattern is none.
pub(crate) async fn threat_t37_listings_pass_over_nonsense(world: &World) {
    let server = |words: &[&str]| world.valkey.as_ref().expect("a server").command(words).expect("answered");
    let daemon = greylisting(world, |settings| settings.counters.prefix = "[o]*:".into()).await;
    assert_eq!(comes(world, &daemon, 0, "203.0.113.1", "x@one.test", "unknown").await, LATER);
    for key in ["o-x:greylisting:{203.0.113.3}:triplets", "[o]*:greylisting:{203.0.113.4}:triplets"] {
        server(&["HSET", key, "10:q@one.testalice@example.com", "1 2 3 4"]);
    }
    let beside = "[o]*:greylisting:{203.0.113.1}:triplets";
    for (field, value) in [
        ("10:x@one.test\u{fffd}", "words"),
        ("99:@one.test", "1 2 3 4"),
        ("@one.test", "1 2 3 4"),
        ("10:r@one.testb@example.com", "9 2 3 4"),
    ] {
        server(&["HSET", beside, field, value]);
    }
    server(&["SET", "[o]*:greylisting:{203.0.113.5}:triplets", "text"]);
    server(&["SET", "[o]*:greylisting:{203.0.113.5}:passed", "tomorrow"]);
    server(&["SET", "[o]*:throttle:1:a@example.com", "text"]);
    let admin = open(world, |settings| settings.counters.prefix = "[o]*:".into()).await;
    let (good, other) = (("203.0.113.1", "x@one.test", false), ("203.0.113.4", "q@one.test", false));
    is_found(&admin, Whose::Domain("one.test".into()), &[good, other]).await;
    is_found(&admin, Whose::Client(Ipv4Addr::new(203, 0, 113, 5).into()), &[]).await;
    is_found(&admin, Whose::Client(Ipv4Addr::new(203, 0, 113, 1).into()), &[good]).await;
    world.limit(1, "@.", "outbound", [5, -1]).await;
    assert_eq!(counted(&admin, "a@example.com").await, None);
}
