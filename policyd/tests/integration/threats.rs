//! Hostile input, by the numbers of the project's list of threats.

use std::net::Ipv4Addr;

use outrider_core::clock::Clock as _;
use outrider_core::settings::Interval;
use outrider_core::sql::Engine;
use outrider_tests::dns_server::DnsServer;
use proptest::strategy::{Strategy as _, ValueTree as _};

use crate::world::{Client, NOW, World, arrival, ask, submission};

const ALL_RULES: [&str; 12] = [
    "reject_null_sender",
    "reject_to_hostname",
    "wblist_rdns",
    "reject_sender_login_mismatch",
    "greylisting",
    "throttle",
    "sql_ml_access_policy",
    "sql_alias_access_policy",
    "amavisd_wblist",
    "whitelist_outbound_recipient",
    "senderscore",
    "sql_force_change_password",
];

const ATTRIBUTES: [&str; 12] = [
    "sender",
    "recipient",
    "sasl_username",
    "client_address",
    "client_name",
    "reverse_client_name",
    "helo_name",
    "size",
    "recipient_count",
    "instance",
    "encryption_protocol",
    "queue_id",
];

pub(crate) async fn threat_t13_values_are_never_code(world: &World) {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let daemon = world
        .daemon_with(&ALL_RULES, |settings| {
            settings.invalid_address = outrider_policyd::settings::InvalidAddress::Check;
        })
        .await;
    let mut client = Client::connect(&daemon);
    let long = "x".repeat(8000);
    for hostile in [
        "' OR '1'='1",
        "'; DELETE FROM greylisting; --",
        "\\'; DELETE FROM greylisting; --",
        "\"; DROP TABLE greylisting; --",
        "%' AND 1=0 UNION SELECT '%",
        "_%\\_!*()|&",
        ":name ? $1 @x {y}",
        "a\u{0}b\u{7f}\u{1b}[31m",
        "\u{ff07} OR 1=1 \u{202e}",
        long.as_str(),
    ] {
        for attribute in ATTRIBUTES {
            for state in ["RCPT", "END-OF-MESSAGE"] {
                let mut request = submission("alice@example.com", "1", "10");
                request
                    .extend([("reverse_client_name", "mx.sender.test"), ("client_address", "203.0.113.10")]);
                request.extend([("protocol_state", state), (attribute, hostile)]);
                let answer = client.ask(&request).await;
                assert!(!answer.contains(['\n', '\0']), "{answer}");
            }
        }
    }
    // Bytes that are no text at all.
    client.send(b"protocol_state=RCPT\nsender=\xff\xfe@\xc3.test\nrecipient=\xc3\x28@example.com\nhelo_name=\xff\n\n").await;
    assert!(client.answer().await.is_some());
    let canary = world.numbers(&world.iredapd, "SELECT COUNT(*) FROM greylisting").await;
    assert_eq!(canary, [[1]]);
}

pub(crate) async fn threat_t14_odd_clocks_and_rows(world: &World) {
    let mut client = threat_t14_clocks_back_and_forth(world).await;
    if world.engine() != Engine::MySql {
        world.clock.set(NOW);
        world.script(&world.iredapd, "UPDATE throttle_tracking SET init_time = -5, cur_msgs = 3").await;
        assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, "DUNNO");
    }
}

pub(crate) async fn threat_t14_clocks_back_and_forth(world: &World) -> Client {
    world.empty().await;
    world.limit(1, "@.", "outbound", [3, -1]).await;
    let daemon = world.daemon(&["throttle"]).await;
    let mut client = Client::connect(&daemon);
    // An hour back and forth: the window begun in the future is used up and then over.
    for (now, expected) in [
        (NOW, "DUNNO"),
        (NOW - 3600, "DUNNO"),
        (NOW + 3600, "DUNNO"),
        (NOW + 3600, "REJECT Throttling quota exceeded"),
        (NOW - 3600, "REJECT Throttling quota exceeded"),
        (NOW + 3601, "DUNNO"),
        // After January 2038.
        (2_200_000_000, "DUNNO"),
    ] {
        world.clock.set(now);
        assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, expected, "{now}");
    }
    assert_eq!(world.clock.unix_seconds(), 2_200_000_000);
    client
}

pub(crate) async fn threat_t34_rows_with_nulls_and_nonsense(world: &World) {
    world.empty().await;
    world.limit(1, "a@example.com", "outbound", [1, -1]).await;
    world.script(&world.iredapd, "DELETE FROM senderscore_cache").await;
    world
        .script(
            &world.iredapd,
            "INSERT INTO senderscore_cache (client_address, score) VALUES ('203.0.113.10', NULL)",
        )
        .await;
    if world.engine() == Engine::Sqlite {
        // SQLite takes any text in any column.
        world.script(&world.iredapd, "INSERT INTO throttle (id, account, kind, priority, period, max_msgs) VALUES (2, '@.', 'outbound', 'high', 'long', 'many')").await;
        world.script(&world.iredapd, "INSERT INTO greylisting (account, sender, priority, active) VALUES ('@.', x'ff00', 'x', 'yes')").await;
    }
    let daemon = world.daemon(&ALL_RULES).await;
    let mut client = Client::connect(&daemon);
    assert_eq!(client.ask(&arrival("x@sender.test", "a@example.com", "203.0.113.10")).await, "DUNNO");
    assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, "DUNNO");
    assert_eq!(client.ask(&submission("a@example.com", "1", "1")).await, "REJECT Throttling quota exceeded");
}

#[tokio::test]
async fn threat_t11_attributes_are_taken_for_what_they_are() {
    let world = World::sqlite().await;
    let daemon = world.daemon(&["reject_null_sender", "reject_sender_login_mismatch"]).await;
    let null = "REJECT Policy rejection due to null sender";
    let mismatch = "REJECT Sender is not same as SMTP authenticate username";
    // A login with the null sender: what is refused when it is read rightly.
    let good = "protocol_state=RCPT\nsender=\nrecipient=pal@remote.test\nsasl_username=a@example.com\n";
    let invalid = |name: &str, value: &str| format!("DUNNO Error: Invalid {name} address: {value}");
    let table: Vec<(Vec<u8>, String)> = vec![
        // The last of repeated attributes; a line is split at its first =; names are what they are.
        (format!("{good}sender=b@example.com\n").into(), mismatch.into()),
        (format!("sender=b@example.com\n{good}").into(), null.into()),
        (format!("{good}protocol_state=DATA\n").into(), "DUNNO".into()),
        (format!("protocol_state=DATA\n{good}").into(), null.into()),
        (format!("{good}sasl_username=\n").into(), "DUNNO".into()),
        (format!("{good}helo_name=a=b\nsasl_username=b@example.com=c\n").into(), null.into()),
        (
            format!("{good}Sender=b@example.com\n sender=b@example.com\nsender =b@example.com\n").into(),
            null.into(),
        ),
        (format!("{good}=b@example.com\nsender\nsender:b@example.com\n").into(), null.into()),
        // request= may be missing or anything.
        (format!("request=smtpd_access_policy\n{good}").into(), null.into()),
        (format!("request=\nrequest=something else\n{good}").into(), null.into()),
        // Nothing to decide upon.
        (b"".to_vec(), "DUNNO".into()),
        (b"no attribute\n".to_vec(), "DUNNO".into()),
        (b"request=smtpd_access_policy\n".to_vec(), "DUNNO".into()),
        (good.replace("RCPT", "").into(), "DUNNO".into()),
        (good.replace("RCPT", "RCPT\0").into(), "DUNNO".into()),
        (good.replace("RCPT", "HOLIDAY").into(), "DUNNO".into()),
        (good.replace("sender=\n", "").into(), "DUNNO".into()),
        // NUL and control bytes are of no address, and do not come back as they are.
        (good.replace("sender=", "sender=\0a@example.com").into(), invalid("sender", " a@example.com")),
        (
            good.replace("sender=", "sender=A\r\u{1b}[2J@example.com").into(),
            invalid("sender", "a  [2j@example.com"),
        ),
        (good.replace("pal@", "pal\0@").into(), invalid("recipient", "pal @remote.test")),
        (good.replace("a@example.com", "a\0@example.com").into(), invalid("sasl_username", "a @example.com")),
        ([good.as_bytes(), b"helo_name=\0\xff\x1b[31m\rsender=b@example.com\n"].concat(), null.into()),
    ];
    for (bytes, expected) in table {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let mut client = Client::connect(&daemon);
        client.send(&[bytes.as_slice(), b"\n", good.as_bytes(), b"\n"].concat()).await;
        assert_eq!(client.answer().await.as_deref(), Some(expected.as_str()), "{shown:?}");
        assert_eq!(client.answer().await.as_deref(), Some(null), "nothing is left over: {shown:?}");
    }
    // As many attributes as Postfix never sends end the connection; others go on.
    let mut crowd = Client::connect(&daemon);
    let flood = tokio::spawn(async move {
        crowd.send(format!("{good}\n{good}{}", "x=y\n".repeat(201)).as_bytes()).await;
        (crowd.answer().await, crowd.answer().await)
    });
    assert_eq!(flood.await.expect("no panic"), (Some(null.to_owned()), None));
    let mut client = Client::connect(&daemon);
    client.send(format!("{good}\n").as_bytes()).await;
    assert_eq!(client.answer().await.as_deref(), Some(null));
}

#[tokio::test]
async fn threat_t12_an_answer_is_one_line() {
    let world = World::sqlite().await;
    let daemon = world.daemon(&["reject_null_sender"]).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let value = "[^\n]{0,60}";
    for _ in 0..200 {
        let text = value.new_tree(&mut runner).expect("a value").current();
        let mut client = Client::connect(&daemon);
        let answer = client
            .ask(&[("protocol_state", "RCPT"), ("sender", &text), ("recipient", "a@example.com")])
            .await;
        assert!(!answer.chars().any(|c| c.is_ascii_control()), "{answer:?}");
        // Nothing is left over that could be taken for a second answer.
        assert_eq!(client.ask(&arrival("", "a@example.com", "203.0.113.10")).await, "DUNNO");
    }
}

#[tokio::test]
async fn threat_t19_senders_are_compared_after_normalising() {
    let world = World::sqlite().await;
    for sql in [
        "INSERT INTO domain (domain, active) VALUES ('example.com', 1)",
        "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES ('alias.test', 'example.com', 1)",
    ] {
        world.script(&world.vmail, sql).await;
    }
    let daemon = world.daemon(&["reject_null_sender", "reject_sender_login_mismatch"]).await;
    let mismatch = "REJECT Sender is not same as SMTP authenticate username";
    let forged = "REJECT SMTP AUTH is required for users under this sender domain";
    for (sender, login, expected) in [
        ("Alice@EXAMPLE.com", "ALICE@example.COM", "DUNNO"),
        ("alice+tag@example.com", "alice@example.com", "DUNNO"),
        ("alice@alias.test", "alice@example.com", "DUNNO"),
        ("bob@alias.test", "alice@example.com", mismatch),
        ("\u{430}lice@example.com", "alice@example.com", mismatch),
        ("", "alice@example.com", "REJECT Policy rejection due to null sender"),
        ("Alice@Example.COM", "", forged),
        ("alice@ALIAS.test", "", forged),
        ("alice@elsewhere.test", "", "DUNNO"),
    ] {
        let mut request = arrival(sender, "pal@remote.test", "203.0.113.10");
        request.push(("sasl_username", login));
        assert_eq!(ask(&daemon, &request).await, expected, "{sender} {login}");
    }
    // Quoted forms, where addresses that iRedAPD does not know are checked.
    let checking = world
        .daemon_with(&["reject_null_sender", "reject_sender_login_mismatch"], |settings| {
            settings.invalid_address = outrider_policyd::settings::InvalidAddress::Check;
        })
        .await;
    for (sender, login, expected) in [
        ("\"Alice\"@example.com", "alice@example.com", "DUNNO"),
        ("\"alice+tag\"@example.com", "alice@example.com", "DUNNO"),
        ("\"alice \"@example.com", "alice@example.com", mismatch),
        ("\"alice@example.com\"@elsewhere.test", "alice@example.com", mismatch),
        ("\"alice\"@example.com", "", forged),
    ] {
        let mut request = arrival(sender, "pal@remote.test", "203.0.113.10");
        request.push(("sasl_username", login));
        assert_eq!(ask(&checking, &request).await, expected, "{sender} {login}");
    }
}

/// T32: 200 clients ask about other domains while the server of one domain never answers: nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t32_nobody_waits_for_the_silent_domain_of_another() {
    let world = World::sqlite().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let dns = DnsServer::start().expect("started");
    dns.be_silent_about("slow.test");
    for number in 0..100 {
        dns.txt(&format!("listed{number}.test"), "v=spf1 ip4:203.0.113.0/24 -all");
    }
    let address = dns.address();
    let daemon = world
        .daemon_with(&["greylisting", "senderscore"], |settings| {
            settings.greylisting.bypass_spf = true;
            settings.dns.servers = vec![address];
            settings.dns.timeout = Interval::seconds(600);
            settings.spf.timeout = Interval::seconds(600);
            settings.limits.request_timeout = Interval::seconds(600);
        })
        .await;
    let ask_about = |sender: String| {
        let mut client = Client::connect(&daemon);
        tokio::spawn(async move { client.ask(&arrival(&sender, "alice@example.com", "203.0.113.10")).await })
    };
    let slow: Vec<_> = (0..40).map(|number| ask_about(format!("s{number}@slow.test"))).collect();
    while dns.queries() == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..200).map(|number| ask_about(format!("x@listed{number}.test"))).collect();
    for (number, other) in others.into_iter().enumerate() {
        let answer = other.await.expect("answered");
        let expected = if number < 100 { "DUNNO" } else { "451 4.7.1 " };
        assert!(answer.starts_with(expected), "{number}: {answer}");
    }
    assert!(slow.iter().all(|task| !task.is_finished()), "these cannot have an answer yet");
    slow.into_iter().for_each(|task| task.abort());
}

/// T32: a name server that never answers for one domain delays nobody who asks about another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t32_a_silent_name_server_stalls_only_its_own() {
    let world = World::sqlite().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let (silent, dns) = (DnsServer::start().expect("started"), DnsServer::start().expect("started"));
    silent.set_silent(true);
    dns.txt("quick.test", "v=spf1 ip4:203.0.113.0/24 -all");
    dns.a("unused.test", Ipv4Addr::LOCALHOST);
    let with_server = |server: &DnsServer| {
        let address = server.address();
        move |settings: &mut outrider_policyd::Settings| {
            settings.greylisting.bypass_spf = true;
            settings.dns.servers = vec![address];
            settings.dns.timeout = Interval::seconds(300);
            settings.spf.timeout = Interval::seconds(2);
        }
    };
    let stuck = world.daemon_with(&["greylisting"], with_server(&silent)).await;
    let start = std::time::Instant::now();
    let answer = ask(&stuck, &arrival("x@slow.test", "alice@example.com", "203.0.113.10")).await;
    assert!(answer.starts_with("451 4.7.1"), "not listed is not known: {answer}");
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());

    let daemon = world.daemon_with(&["greylisting"], with_server(&dns)).await;
    let answer = ask(&daemon, &arrival("x@quick.test", "alice@example.com", "203.0.113.11")).await;
    assert_eq!(answer, "DUNNO");
}

/// T32: what SPF may allow is not refused for good while the name server is silent; nor does it pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t32_a_silent_name_server_refuses_nobody_for_good() {
    let world = World::sqlite().await;
    let dns = DnsServer::start().expect("started");
    dns.be_silent_about("slow.test");
    dns.txt("listed.test", "v=spf1 ip4:203.0.113.0/24 -all");
    dns.txt("forged.test", "v=spf1 ip4:192.0.2.0/24 -all");
    let address = dns.address();
    let daemon = world
        .daemon_with(&["reject_sender_login_mismatch"], |settings| {
            settings.reject_sender_login_mismatch.check_spf = true;
            settings.dns.servers = vec![address];
            settings.dns.timeout = Interval::seconds(600);
            settings.spf.timeout = Interval::seconds(1);
        })
        .await;
    for (domain, expected) in
        [("listed.test", "DUNNO"), ("forged.test", "REJECT "), ("slow.test", "DEFER_IF_PERMIT ")]
    {
        // A domain that writes to itself is looked at as one that is hosted here.
        let (sender, recipient) = (format!("x@{domain}"), format!("y@{domain}"));
        let answer = ask(&daemon, &arrival(&sender, &recipient, "203.0.113.10")).await;
        assert!(answer.starts_with(expected), "{domain}: {answer}");
    }
}

/// What a name server does not say within its own time is not there, as for iRedAPD. The settings as installed, in half
/// of their time, wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_name_server_has_no_record() {
    let world = World::sqlite().await;
    let dns = DnsServer::start().expect("started");
    dns.be_silent_about("slow.test");
    dns.txt("half.test", "v=spf1 a:slow.test ip4:203.0.113.10 -all");
    let address = dns.address();
    let daemon = world
        .daemon_with(&["reject_sender_login_mismatch"], |settings| {
            settings.reject_sender_login_mismatch.check_spf = true;
            settings.dns.servers = vec![address];
            let half = |interval: Interval| Interval(interval.duration() / 2);
            let installed = outrider_policyd::Settings::default();
            settings.dns.timeout = half(installed.dns.timeout);
            settings.spf.timeout = half(installed.spf.timeout);
            settings.limits.request_timeout = half(installed.limits.request_timeout);
        })
        .await;
    for (domain, expected) in [("slow.test", "REJECT "), ("half.test", "DUNNO")] {
        let (sender, recipient) = (format!("x@{domain}"), format!("y@{domain}"));
        let answer = ask(&daemon, &arrival(&sender, &recipient, "203.0.113.10")).await;
        assert!(answer.starts_with(expected), "{domain}: {answer}");
    }
}
