//! T33: a name server, or somebody who pretends to be one, that answers as no real one does. The client 203.0.113.10 is
//! listed by the honest part of the answers, 203.0.113.66 by the other one.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use outrider_core::dns::{DnsError, DnsSettings, HickoryResolver, Resolver as _};
use outrider_core::settings::Interval;
use outrider_tests::dns_server::DnsServer;
use outrider_tests::hostile_dns::{A, HostileDns, Question, Section, TXT, Transport, text_data};

use crate::world::{World, arrival, ask};

const HONEST: &str = "v=spf1 ip4:203.0.113.10 -all";
const FORGED: &str = "v=spf1 ip4:203.0.113.66 -all";
const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";

/// Nearly as much as one answer can hold, with what counts at its end.
fn long_record() -> String {
    let filler = "ip4:192.0.2.77 ".repeat(4050);
    format!("v=spf1 {filler}{}ip4:203.0.113.10", "x ".repeat(1000))
}

fn script(question: &Question) -> Vec<Vec<u8>> {
    let name = question.name.as_str();
    let reply = question.reply();
    if question.kind != TXT {
        return vec![reply.bytes()];
    }
    match name.split_once('.').map_or(name, |(first, _)| first) {
        "good" | "end" => vec![reply.txt(name, HONEST).bytes()],
        "missing" => vec![reply.no_such_name().bytes()],
        // A guess comes first.
        "id" => vec![
            reply.clone().wrong_id().txt(name, FORGED).bytes(),
            reply.clone().about("other.test").txt(name, FORGED).bytes(),
            vec![0],
            reply.txt(name, HONEST).bytes(),
        ],
        "extra" => vec![
            reply
                .txt("other.test", FORGED)
                .txt(name, HONEST)
                .txt("test", FORGED)
                .record(Section::Authority, "victim.test", TXT, &text_data(FORGED))
                .record(Section::Additional, "victim.test", TXT, &text_data(FORGED))
                .record(Section::Additional, "good.test", TXT, &text_data(FORGED))
                .bytes(),
        ],
        // Nothing about the name itself.
        "foreign" => vec![reply.txt("other.test", FORGED).bytes()],
        "aside" => vec![
            reply
                .txt("other.test", FORGED)
                .record(Section::Additional, name, TXT, &text_data(HONEST))
                .bytes(),
        ],
        "beside" => {
            vec![reply.cname(name, "good.test").txt("other.test", FORGED).bytes()]
        }
        "both" => {
            vec![reply.cname(name, "end.test").txt("end.test", HONEST).txt("other.test", FORGED).bytes()]
        }
        "loop1" => vec![reply.cname(name, "loop2.test").bytes()],
        "loop2" => vec![reply.cname(name, "loop1.test").bytes()],
        "self" => vec![reply.cname(name, name).bytes()],
        "ring" => {
            vec![reply.cname(name, "a.ring.test").cname("a.ring.test", name).txt("x.test", FORGED).bytes()]
        }
        "short3" => vec![reply.cname(name, "short2.test").bytes()],
        "short2" => vec![reply.cname(name, "short1.test").bytes()],
        "short1" => vec![reply.cname(name, "good.test").bytes()],
        // A record whose name points at itself, and one whose name points at the question which points back.
        "pointer" => {
            let mut bytes = reply.bytes();
            bytes[7] = 1;
            let at = u16::try_from(bytes.len()).unwrap_or(0) | 0xc000;
            bytes.extend(at.to_be_bytes());
            bytes.extend([0, 16, 0, 1, 0, 0, 0, 60, 0, 2, 1, b'x']);
            vec![bytes]
        }
        "pointers" => {
            let mut bytes = reply.bytes();
            bytes[7] = 1;
            let at = u16::try_from(bytes.len()).unwrap_or(0);
            bytes.extend(((at + 2) | 0xc000).to_be_bytes());
            bytes.extend((at | 0xc000).to_be_bytes());
            bytes.extend([0, 16, 0, 1, 0, 0, 0, 60, 0, 2, 1, b'x']);
            vec![bytes]
        }
        // More records promised than there are, and a text longer than its record.
        "counts" => {
            let mut bytes = reply.txt(name, FORGED).bytes();
            bytes[6..12].fill(0xff);
            vec![bytes]
        }
        "overlong" => vec![reply.record(Section::Answer, name, TXT, b"\xffv=spf1 ip4:203.0.113.66").bytes()],
        "cut" => match question.transport {
            Transport::Udp => vec![reply.truncated().txt(name, FORGED).bytes()],
            Transport::Tcp => vec![reply.txt(name, HONEST).bytes()],
        },
        "stump" => match question.transport {
            Transport::Udp => vec![reply.truncated().txt(name, FORGED).bytes()],
            Transport::Tcp => Vec::new(),
        },
        "two" => vec![reply.txt(name, "x").txt(name, HONEST).txt(name, FORGED).bytes()],
        "long" => match question.transport {
            Transport::Udp => vec![reply.truncated().bytes()],
            Transport::Tcp => vec![reply.txt(name, &long_record()).bytes()],
        },
        text => match text.strip_prefix("chain").and_then(|number| number.parse::<u32>().ok()) {
            Some(0) => vec![reply.txt(name, FORGED).bytes()],
            Some(number) => vec![reply.cname(name, &format!("chain{}.test", number - 1)).bytes()],
            None => vec![reply.no_such_name().bytes()],
        },
    }
}

/// Names, and whether each of the two clients is listed.
const CASES: [(&str, bool, bool); 23] = [
    ("good.test", true, false),
    ("missing.test", false, false),
    ("id.test", true, false),
    ("extra.test", true, false),
    ("victim.test", false, false),
    ("other.test", false, false),
    ("foreign.test", false, false),
    ("aside.test", false, false),
    ("beside.test", true, false),
    ("both.test", true, false),
    ("loop1.test", false, false),
    ("self.test", false, false),
    ("ring.test", false, false),
    ("short3.test", true, false),
    ("chain20.test", false, false),
    ("pointer.test", false, false),
    ("pointers.test", false, false),
    ("counts.test", false, false),
    ("overlong.test", false, false),
    ("cut.test", true, false),
    ("stump.test", false, false),
    ("two.test", true, false),
    ("long.test", true, false),
];

fn settings(dns: &HostileDns) -> DnsSettings {
    DnsSettings { servers: vec![dns.address()], timeout: Interval::seconds(2), ..DnsSettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t33_greylisting_believes_only_what_is_about_the_name_it_asked_for() {
    let dns = HostileDns::start(script).expect("started");
    let world = World::sqlite().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let daemon = world
        .daemon_with(&["greylisting"], |changed| {
            changed.greylisting.bypass_spf = true;
            changed.dns = settings(&dns);
            changed.spf.timeout = Interval::seconds(60);
        })
        .await;
    let begin = Instant::now();
    // All at once: none of them stands in the way of another.
    let answers = CASES.iter().flat_map(|&(domain, honest, forged)| {
        [("203.0.113.10", honest), ("203.0.113.66", forged)].map(|(client, listed)| {
            let daemon = &daemon;
            async move {
                let sender = format!("x@{domain}");
                let answer = ask(daemon, &arrival(&sender, "alice@example.com", client)).await;
                (domain, client, listed, answer)
            }
        })
    });
    for (domain, client, listed, answer) in futures_util::future::join_all(answers).await {
        assert_eq!(answer, if listed { "DUNNO" } else { LATER }, "{domain} {client}");
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    // Chains end, each name asked no more often than the attempts allow.
    let chain: Vec<String> = dns.asked("test").into_iter().map(|question| question.name).collect();
    let chain: Vec<&String> = chain.iter().filter(|name| name.starts_with("chain")).collect();
    assert!((8..=40).contains(&chain.len()), "{chain:?}");
    for name in ["loop1.test", "loop2.test", "self.test", "ring.test", "stump.test", "pointer.test"] {
        let asked = dns.asked(name).len();
        assert!((1..=40).contains(&asked), "{name}: {asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t33_the_resolver_is_bounded_and_believes_nothing_it_did_not_ask_for() {
    let dns = HostileDns::start(|question| match (question.name.as_str(), question.kind) {
        ("host.test", A) => vec![
            question
                .reply()
                .record(Section::Answer, "other.test", A, &[203, 0, 113, 66])
                .record(Section::Answer, "HOST.test", A, &[203, 0, 113, 10])
                .bytes(),
        ],
        ("thing.test", A) => {
            vec![question.reply().record(Section::Answer, "other.test", A, &[203, 0, 113, 66]).bytes()]
        }
        ("alias.test", A) => vec![
            question
                .reply()
                .record(Section::Answer, "host.test", A, &[203, 0, 113, 10])
                .cname("alias.test", "Host.test")
                .record(Section::Answer, "alias.test.evil.test", A, &[203, 0, 113, 66])
                .bytes(),
        ],
        ("elsewhere.test", A) => vec![
            question
                .reply()
                .cname("other.test", "evil.test")
                .record(Section::Answer, "evil.test", A, &[203, 0, 113, 66])
                .bytes(),
        ],
        _ => script(question),
    })
    .expect("started");
    let resolver = HickoryResolver::from_settings(&settings(&dns)).expect("made");
    let ten = Ipv4Addr::new(203, 0, 113, 10);
    assert_eq!(resolver.a("host.test").await, Ok(vec![ten]));
    assert_eq!(resolver.a("alias.test").await, Ok(vec![ten]));
    for name in ["thing.test", "elsewhere.test"] {
        assert!(resolver.a(name).await.is_err(), "{name}");
    }
    assert_eq!(resolver.txt("aside.test").await, Err(DnsError::NoData));
    let record = |text: &str| Ok(vec![text.as_bytes().to_vec()]);
    // Those with aliases once more, from memory.
    let kept = ["extra.test", "both.test", "short3.test", "short2.test", "short3.test"];
    let fresh = ["id.test", "extra.test", "beside.test", "both.test", "short3.test", "cut.test"];
    for name in fresh.into_iter().chain(kept) {
        assert_eq!(resolver.txt(name).await, record(HONEST), "{name}");
    }
    let long = resolver.txt("long.test").await;
    assert!(long == record(&long_record()), "{:?}", long.map(|records| records.len()));
    assert_eq!(resolver.txt("two.test").await.map(|records| records.len()), Ok(3));
    assert_eq!(resolver.txt("missing.test").await, Err(DnsError::NoSuchName));
    // What is cut off is not known; it is neither taken for whole nor for nothing.
    for name in ["stump.test", "pointer.test", "pointers.test", "counts.test", "overlong.test"] {
        let error = resolver.txt(name).await.expect_err(name);
        assert!(!error.is_negative(), "{name}: {error}");
    }
    for name in ["loop1.test", "self.test", "ring.test", "chain20.test"] {
        assert!(resolver.txt(name).await.is_err(), "{name}");
    }
}

/// Numbers outside of the scale are no score: they refuse nobody and are not written down.
#[tokio::test]
async fn a_reputation_outside_of_its_scale_is_none() {
    let world = World::sqlite().await;
    let dns = DnsServer::start().expect("started");
    dns.a("1.113.0.203.score.senderscore.com", Ipv4Addr::new(127, 0, 4, 100));
    dns.a("2.113.0.203.score.senderscore.com", Ipv4Addr::new(127, 0, 4, 101));
    world
        .script(
            &world.iredapd,
            "INSERT INTO senderscore_cache (client_address, score) VALUES ('203.0.113.3', 0), ('203.0.113.4', -1)",
        )
        .await;
    let address = dns.address();
    let daemon = world
        .daemon_with(&["senderscore"], |settings| {
            settings.senderscore.reject_score = 100;
            settings.dns.servers = vec![address];
        })
        .await;
    for (client, refused) in
        [("203.0.113.1", true), ("203.0.113.2", false), ("203.0.113.3", true), ("203.0.113.4", false)]
    {
        let answer = ask(&daemon, &arrival("x@sender.test", "alice@example.com", client)).await;
        assert_eq!(answer.starts_with("REJECT "), refused, "{client}: {answer}");
    }
    let scores = "SELECT score FROM senderscore_cache ORDER BY client_address";
    assert_eq!(world.numbers(&world.iredapd, scores).await, [[100], [0], [-1]]);
}
