//! Domains whose mail servers are never greylisted, looked up on schedule.

use std::net::Ipv4Addr;

use outrider_core::directory::write::Rules;
use outrider_core::sql::Stmt;
use outrider_tests::dns_server::DnsServer;

use crate::world::{World, arrival, ask};

pub(crate) async fn daemons_look_them_up_at_once(world: &World) {
    world.empty().await;
    let dns = DnsServer::start().expect("started");
    dns.txt("big.test", "v=spf1 ip4:198.51.100.0/24 -all");
    dns.mx("small.test", "mx.small.test");
    dns.a("mx.small.test", Ipv4Addr::new(203, 0, 113, 9));
    for sql in [
        "DELETE FROM greylisting_whitelist_domains",
        "DELETE FROM greylisting_whitelist_domain_spf",
        "INSERT INTO greylisting_whitelist_domains (domain) VALUES ('big.test'), ('small.test')",
        "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) \
         VALUES ('@.', '192.0.2.9', 'AUTO-UPDATE: big.test')",
        "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)",
    ] {
        world.script(&world.iredapd, sql).await;
    }
    let daemon = async || {
        let change = |settings: &mut outrider_policyd::Settings| settings.dns.servers = vec![dns.address()];
        world.daemon_with(&["greylisting"], change).await
    };
    let (one, two, three) = (daemon().await, daemon().await, daemon().await);
    tokio::join!(
        one.refresh_whitelist_domains(),
        two.refresh_whitelist_domains(),
        three.refresh_whitelist_domains()
    );
    let count = "SELECT COUNT(*) FROM greylisting_whitelist_domain_spf";
    assert_eq!(world.numbers(&world.iredapd, count).await, [[2]]);
    for (client, passes) in [("198.51.100.77", true), ("203.0.113.9", true), ("192.0.2.9", false)] {
        let answer = ask(&one, &arrival("s@sender.test", "r@example.com", client)).await;
        assert_eq!(answer == "DUNNO", passes, "{client}: {answer}");
    }
    for sql in ["DELETE FROM greylisting_whitelist_domains", "DELETE FROM greylisting_whitelist_domain_spf"] {
        world.script(&world.iredapd, sql).await;
    }
}

/// Hosts that were told different things end with what one of them was told, never with a mixture.
pub(crate) async fn one_of_several_hosts_wins(world: &World) {
    world.empty().await;
    for sql in [
        "DELETE FROM greylisting_whitelist_domain_spf",
        "INSERT INTO greylisting_whitelist_domains (domain) VALUES ('big.test')",
    ] {
        world.script(&world.iredapd, sql).await;
    }
    let rules = Rules::new(world.iredapd.clone(), world.amavisd.clone());
    let told = |host: usize| -> Vec<String> {
        (0..5).map(|number| format!("198.51.{host}.{number}")).chain(["192.0.2.1".to_owned()]).collect()
    };
    let (one, two, three) = (told(1), told(2), told(3));
    for round in 0..10 {
        let (first, second, third) = tokio::join!(
            rules.replace_greylisting_addresses("big.test", &one, true),
            rules.replace_greylisting_addresses("big.test", &two, true),
            rules.replace_greylisting_addresses("big.test", &three, true),
        );
        assert!(first.is_ok() && second.is_ok() && third.is_ok(), "{first:?} {second:?} {third:?}");
        const ROWS: Stmt = Stmt::same("SELECT sender FROM greylisting_whitelist_domain_spf");
        let rows = world.iredapd.fetch_all(&ROWS, &[]).await.expect("rows");
        let mut found: Vec<String> = rows.iter().filter_map(|row| row.string("sender")).collect();
        found.sort();
        let ends = [&one, &two, &three].map(|told| {
            let mut told = told.clone();
            told.sort();
            told
        });
        assert!(ends.contains(&found), "round {round}: {found:?}");
    }
    world.script(&world.iredapd, "DELETE FROM greylisting_whitelist_domains").await;
    world.script(&world.iredapd, "DELETE FROM greylisting_whitelist_domain_spf").await;
    // Removed by somebody while it was looked up: it stays removed, unless it was asked for by name.
    assert_eq!(rules.replace_greylisting_addresses("big.test", &one, true).await, Ok(None));
    let count = "SELECT COUNT(*) FROM greylisting_whitelist_domain_spf";
    assert_eq!(world.numbers(&world.iredapd, count).await, [[0]]);
    let edited = rules.replace_greylisting_addresses("big.test", &one, false).await;
    assert_eq!(edited.expect("replaced").expect("not refused").added.len(), 6);
    world.script(&world.iredapd, "DELETE FROM greylisting_whitelist_domain_spf").await;
}
