//! `outrider greylist`

use std::net::Ipv4Addr;

use serde_json::json;

use crate::ground::Ground;

const RULES: &str =
    "SELECT account, priority, sender, sender_priority, active FROM greylisting ORDER BY account, sender";
const ADDRESSES: &str =
    "SELECT account, sender, comment FROM greylisting_whitelist_domain_spf ORDER BY sender";

pub(crate) fn rules_are_made_listed_and_removed(ground: &Ground) {
    ground.script("DELETE FROM greylisting");
    assert_eq!(ground.call("greylist enable").code, 0);
    let told = ground.json("greylist disable --from 192.0.2.0/24 --to @Example.com");
    assert_eq!(told, json!({"account": "@example.com", "sender": "192.0.2.0/24", "active": false}));
    ground.json("greylist enable --from Friend@sender.test --to a@example.com");
    // Once more: the row changes, there is no second one.
    ground.json("greylist disable --from friend@sender.test --to a@example.com");
    assert_eq!(
        ground.rows(RULES),
        ["@. 0 @. 0 1", "@example.com 60 192.0.2.0/24 70 0", "a@example.com 100 friend@sender.test 100 0"]
    );
    let listed = ground.json("greylist list");
    let accounts: Vec<_> = listed.as_array().unwrap().iter().map(|rule| rule["account"].clone()).collect();
    assert_eq!(
        accounts,
        ["a@example.com", "@example.com", "@."],
        "the first that covers a mail stands first"
    );
    let text = ground.call("greylist list");
    assert!(text.text.starts_with("TO ") && text.text.contains("disabled"), "{text:?}");
    assert!(text.complaint.contains("directly on"), "{text:?}");

    let refused = ground.call("greylist delete --to a@example.com --from friend@sender.test");
    assert_eq!(refused.code, 64, "nobody was asked: {refused:?}");
    assert_eq!(ground.rows(RULES).len(), 3);
    assert_eq!(ground.call("greylist delete --to a@example.com --from friend@sender.test --yes").code, 0);
    assert_eq!(ground.call("greylist delete --to a@example.com --from friend@sender.test --yes").code, 1);
    assert_eq!(ground.rows(RULES).len(), 2);
    for nonsense in ["--to example.com", "--to 192.0.2.1", "--from user@*", "--from 192.0.2.1/24"] {
        assert_eq!(ground.call(&format!("greylist enable {nonsense}")).code, 65, "{nonsense}");
    }
}

pub(crate) fn whitelists_take_the_good_and_name_the_bad(ground: &Ground) {
    const ROWS: &str = "SELECT account, sender FROM greylisting_whitelists ORDER BY sender";
    ground.script("DELETE FROM greylisting_whitelists");
    let called =
        ground.call("greylist whitelist add --to @example.com A@x.test nonsense 2001:DB8:0::1 @y.test");
    assert_eq!(called.code, 65, "{called:?}");
    assert!(called.complaint.contains("\"nonsense\""), "{called:?}");
    let rows = ["@example.com 2001:db8::1", "@example.com @y.test", "@example.com a@x.test"];
    let mut found = ground.rows(ROWS);
    found.sort();
    assert_eq!(found, rows);
    let told = ground.json("greylist whitelist remove --yes --to @example.com a@x.test");
    assert_eq!(told, json!({"added": [], "removed": ["a@x.test"]}));
    let again = ground.call("greylist whitelist remove --yes --to @example.com a@x.test");
    assert_eq!(again.code, 1);
    assert!(again.complaint.contains("\"a@x.test\" was not listed"), "{again:?}");
    assert_eq!(ground.json("greylist whitelist list").as_array().unwrap().len(), 2);
}

fn empty_domains(ground: &Ground) {
    ground.script("DELETE FROM greylisting_whitelist_domains");
    ground.script("DELETE FROM greylisting_whitelist_domain_spf");
    ground.script("DELETE FROM greylisting_whitelists");
}

pub(crate) fn domains_are_looked_up(ground: &Ground) {
    empty_domains(ground);
    assert_eq!(ground.json("greylist refresh-spf"), json!([]), "nothing to do");
    ground.dns.txt(
        "one.test",
        "v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.1 ip4:0.0.0.0/0 include:spf.one.test -all",
    );
    ground.dns.txt("spf.one.test", "v=spf1 ip6:2001:db8::/32 ~all");
    ground.dns.txt("two.test", "v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.2 -all");
    ground.dns.mx("plain.test", "mx.plain.test");
    ground.dns.a("mx.plain.test", Ipv4Addr::new(198, 51, 100, 3));
    ground.script(
        "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES \
         ('@.', '192.0.2.99', 'AUTO-UPDATE: one.test'), ('@.', '192.0.2.98', 'AUTO-UPDATE: other.test'), \
         ('@.', '2001:db8::/32', 'AUTO-UPDATE: two.test')",
    );
    ground.script("DELETE FROM greylisting_tracking");
    ground.script(
        "INSERT INTO greylisting_tracking (sender, recipient, client_address) VALUES \
         ('s@one.test', 'r', '198.51.100.1'), ('s@one.test', 'r', '198.51.100.9')",
    );
    ground.json("greylist whitelist-domain add one.test @Two.test plain.test");
    let report = ground.json("greylist refresh-spf");
    let brief: Vec<String> = report
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {} {}", one["domain"], one["outcome"], one["addresses"]).replace('"', ""))
        .collect();
    assert_eq!(brief, ["one.test replaced 3", "plain.test replaced 1", "two.test replaced 2"]);
    let rows = [
        "@. 192.0.2.98 AUTO-UPDATE: other.test",
        "@. 198.51.100.1 AUTO-UPDATE: one.test",
        "@. 198.51.100.2 AUTO-UPDATE: two.test",
        "@. 198.51.100.3 AUTO-UPDATE: plain.test",
        "@. 2001:db8::/32 AUTO-UPDATE: one.test",
        "@. 203.0.113.0/24 AUTO-UPDATE: one.test",
    ];
    assert_eq!(ground.rows(ADDRESSES), rows);
    assert_eq!(
        ground.rows("SELECT client_address FROM greylisting_tracking"),
        ["198.51.100.9"],
        "who is whitelisted now is no contact any more"
    );

    // A domain that is looked up once only, and one that is added on the way.
    ground.dns.txt("three.test", "v=spf1 ip4:198.51.100.4 -all");
    ground.json("greylist refresh-spf three.test");
    let removed = ground.json("greylist whitelist-domain remove --yes three.test");
    assert_eq!(removed["removed"], json!(["three.test"]), "it was not listed, but had addresses");
    ground.json("greylist refresh-spf three.test");
    assert_eq!(
        ground.rows("SELECT domain FROM greylisting_whitelist_domains WHERE domain = 'three.test'").len(),
        0
    );
    ground.json("greylist refresh-spf --submit three.test");
    assert_eq!(
        ground.rows("SELECT domain FROM greylisting_whitelist_domains WHERE domain = 'three.test'").len(),
        1
    );
    let listed = ground.json("greylist whitelist-domain list");
    let three = listed.as_array().unwrap().iter().find(|one| one["domain"] == "three.test").unwrap();
    assert_eq!(three, &json!({"domain": "three.test", "listed": true, "addresses": ["198.51.100.4"]}));

    // With a domain go its addresses, also those that old releases kept elsewhere.
    ground.script(
        "INSERT INTO greylisting_whitelists (account, sender, comment) VALUES ('@.', '192.0.2.1', 'AUTO-UPDATE: one.test')",
    );
    ground.json("greylist whitelist-domain remove --yes one.test");
    assert!(ground.rows("SELECT sender FROM greylisting_whitelists").is_empty());
    assert!(!ground.rows(ADDRESSES).iter().any(|row| row.contains("one.test")));
    // What it shared with another domain is the other's from the next look-up on.
    ground.json("greylist refresh-spf");
    assert!(ground.rows(ADDRESSES).contains(&"@. 203.0.113.0/24 AUTO-UPDATE: two.test".to_owned()));
    assert_eq!(ground.json("greylist seed --list").as_array().unwrap().len(), 45);
}

/// Rows that other programs have written as they were typed.
pub(crate) fn capitals_of_other_programs_are_no_obstacle(ground: &Ground) {
    ground.script("DELETE FROM greylisting_whitelists");
    ground.script("DELETE FROM greylisting_whitelist_domains");
    ground.script("DELETE FROM greylisting_whitelist_domain_spf");
    ground.script("INSERT INTO greylisting_whitelist_domains (domain) VALUES ('Capital.test')");
    ground.script(
        "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES \
         ('@.', '198.51.100.40', 'AUTO-UPDATE: Capital.test'), ('@.', '198.51.100.41', 'AUTO-UPDATE: Capital.test')",
    );
    ground
        .script("INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', 'Friend@Capital.test')");
    ground.json("greylist whitelist-domain add Capital.test");
    ground.json("greylist whitelist add FRIEND@capital.test");
    assert_eq!(
        ground.rows("SELECT domain FROM greylisting_whitelist_domains").len(),
        1,
        "it is there already"
    );
    assert_eq!(ground.rows("SELECT sender FROM greylisting_whitelists").len(), 1);

    ground.dns.txt("capital.test", "v=spf1 ip4:198.51.100.41 ip4:198.51.100.42 -all");
    ground.json("greylist refresh-spf");
    let addresses = "SELECT sender FROM greylisting_whitelist_domain_spf ORDER BY sender";
    assert_eq!(ground.rows(addresses), ["198.51.100.41", "198.51.100.42"]);
    ground.json("greylist refresh-spf CAPITAL.test");
    assert_eq!(ground.rows(addresses), ["198.51.100.41", "198.51.100.42"]);

    assert_eq!(
        ground.json("greylist whitelist-domain remove --yes capital.test")["removed"],
        json!(["capital.test"])
    );
    assert!(ground.rows("SELECT domain FROM greylisting_whitelist_domains").is_empty());
    assert!(ground.rows(addresses).is_empty());
    ground.json("greylist whitelist remove --yes friend@capital.test");
    assert!(ground.rows("SELECT sender FROM greylisting_whitelists").is_empty());
    // Spellings that we write otherwise, and forms that we do not write at all.
    for sender in ["198.51.100.0/255.255.255.0", "2001:DB8:0::1", "user@*"] {
        ground.script(format!(
            "INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '{sender}')"
        ));
        ground.json(&format!("greylist whitelist remove --yes {sender}"));
        assert!(ground.rows("SELECT sender FROM greylisting_whitelists").is_empty(), "{sender}");
    }
    ground.json("greylist whitelist-domain add Upper.Test");
    assert_eq!(ground.rows("SELECT domain FROM greylisting_whitelist_domains"), ["upper.test"]);
    ground.script("DELETE FROM greylisting_whitelist_domains");
}

/// A network that is half of the world is not whitelisted, and not passed over in silence.
pub(crate) fn networks_too_wide_are_counted(ground: &Ground) {
    ground.dns.txt("wide.test", "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 ip4:198.51.100.50 -all");
    let told = ground.json("greylist refresh-spf wide.test");
    assert_eq!((&told[0]["addresses"], &told[0]["too_wide"]), (&json!(1), &json!(2)), "{told}");
    let called = ground.call("greylist refresh-spf wide.test");
    assert_eq!(called.code, 0, "{called:?}");
    let line = "wide.test: 2 networks wider than /8 were left out";
    assert!(called.text.lines().any(|text| text == line), "{called:?}");
    ground.script("DELETE FROM greylisting_whitelist_domain_spf");
}

pub(crate) fn a_silent_name_server_changes_nothing(ground: &Ground) {
    empty_domains(ground);
    ground.script("INSERT INTO greylisting_whitelist_domains (domain) VALUES ('one.test')");
    ground.script(
        "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) \
         VALUES ('@.', '192.0.2.99', 'AUTO-UPDATE: one.test')",
    );
    ground.dns.set_silent(true);
    let called = ground.call("greylist refresh-spf --json");
    ground.dns.set_silent(false);
    assert_eq!(called.code, 75, "{called:?}");
    assert!(called.text.contains("name server failed"), "{called:?}");
    assert_eq!(ground.rows(ADDRESSES), ["@. 192.0.2.99 AUTO-UPDATE: one.test"]);
}

pub(crate) fn hosts_that_refresh_at_once_end_with_the_right_rows(ground: &Ground) {
    empty_domains(ground);
    let domains: Vec<String> = (0..8).map(|number| format!("d{number}.test")).collect();
    for (number, domain) in domains.iter().enumerate() {
        // Neighbours share a network.
        ground.dns.txt(
            domain,
            &format!(
                "v=spf1 ip4:198.18.{number}.0/24 ip4:198.18.{}.0/24 ip4:198.19.0.{number} -all",
                number + 1
            ),
        );
    }
    ground.json(&format!("greylist whitelist-domain add {}", domains.join(" ")));
    for _ in 0..3 {
        ground.script("DELETE FROM greylisting_whitelist_domain_spf");
        ground.script(
            "INSERT INTO greylisting_whitelist_domain_spf (account, sender, comment) VALUES \
             ('@.', '192.0.2.1', 'AUTO-UPDATE: d0.test'), ('@.', '192.0.2.2', 'AUTO-UPDATE: d7.test')",
        );
        let hosts: Vec<_> = (0..4).map(|_| ground.start("greylist refresh-spf")).collect();
        for host in hosts {
            let output = host.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut expected: Vec<String> = (0..9).map(|number| format!("198.18.{number}.0/24")).collect();
        expected.extend((0..8).map(|number| format!("198.19.0.{number}")));
        expected.sort();
        let mut found = ground.rows("SELECT sender FROM greylisting_whitelist_domain_spf");
        found.sort();
        assert_eq!(found, expected);
    }
}

pub(crate) fn contacts_are_found_by_whoever_had_them(ground: &Ground) {
    ground.script("DELETE FROM greylisting_tracking");
    ground.script(
        "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
         block_expired, record_expired, blocked_count, passed) VALUES \
         ('s@one.test', 'r@example.com', '192.0.2.7', 'one.test', 'example.com', 100, 200, 4000000000, 3, 1), \
         ('s@two.test', 'r@example.com', '192.0.2.8', 'two.test', 'example.com', 101, 4000000000, 4000000001, 1, 0), \
         ('', 'x@example.com', '192.0.2.8', '', 'example.com', 102, 200, 300, 1, 0), \
         ('s@pool.test', 'r@pool.test', '198.51.100.0/24', 'pool.test', 'pool.test', 103, 200, 300, 1, 0), \
         ('t@pool.test', 'r@pool.test', 'name:big.co.uk', 'pool.test', 'pool.test', 104, 200, 4000000000, 1, 0)",
    );
    for (whose, states) in [
        ("192.0.2.7", &["passed"][..]),
        ("192.0.2.8", &["over", "blocked"]),
        ("R+box@example.com", &["blocked", "passed"]),
        ("s@two.test", &["blocked"]),
        ("@example.com", &["over", "blocked", "passed"]),
        ("198.51.100.7", &["over"]),
        ("198.51.100.0/24", &["over"]),
        ("name:Big.co.uk", &["may come"]),
    ] {
        let found = ground.json(&format!("greylist tracking {whose}"));
        let found: Vec<&str> =
            found.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
        assert_eq!(found, states, "{whose}");
    }
    assert_eq!(ground.json("greylist tracking --limit 1 @example.com").as_array().unwrap().len(), 1);
    assert_eq!(ground.call("greylist tracking 192.0.2.1").code, 1);
    assert_eq!(ground.call("greylist tracking nobody").code, 65);
    assert_eq!(ground.call("greylist tracking spf:big.co.uk").code, 1);
    assert_eq!(ground.call("greylist tracking 198.51.100.7/24").code, 65, "no network");
}
