//! What the replaced program gets wrong (the cases recorded as its quirks) and how we answer instead.

use outrider_core::sql::{Engine, Value};

use crate::world::{Client, NOW, World, arrival, ask, submission};

const LATER: &str = "451 4.7.1 Intentional policy rejection, please try again later";
const ADD_USER: &str = "INSERT INTO users (id, priority, policy_id, email) VALUES (?, ?, 0, ?)";
const ADD_ADDRESS: &str = "INSERT INTO mailaddr (id, priority, email) VALUES (?, ?, ?)";

pub(crate) async fn everything_upstream_gets_wrong_in_tables(world: &World) {
    greylisting_networks_and_wildcards(world).await;
    passed_triplets_are_marked(world).await;
    networks_of_wblists(world).await;
    outbound_lists_know_no_networks(world).await;
    logins_are_no_patterns(world).await;
    wildcard_counters_count(world).await;
    one_counter_is_read(world).await;
    lists_under_alias_domains(world).await;
    whitelisting_whole_domains(world).await;
    addresses_too_long_for_a_whitelist(world).await;
    session_rows_are_not_lost(world).await;
}

async fn greylisting_networks_and_wildcards(world: &World) {
    let cases: [(&'static str, &str, &str); 7] = [
        (
            "INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '203.0.113.*')",
            "203.0.113.10",
            "DUNNO",
        ),
        ("INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '*')", "203.0.113.10", LATER),
        (
            "INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '202.0.0.0/7')",
            "203.0.113.10",
            "DUNNO",
        ),
        (
            "INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '2001:db8:0:1:0:0:0:0/64')",
            "2001:db8:0:1::5",
            "DUNNO",
        ),
        (
            "INSERT INTO greylisting (account, priority, sender, sender_priority, active) \
             VALUES ('alice@example.com', 100, '203.0.113.0/24', 0, 0)",
            "203.0.113.10",
            "DUNNO",
        ),
        (
            "INSERT INTO greylisting (account, priority, sender, sender_priority, active) \
             VALUES ('@.', 0, 'Friend@Sender.test', 100, 0)",
            "203.0.113.10",
            "DUNNO",
        ),
        (
            "INSERT INTO greylisting_whitelists (account, sender) VALUES ('@.', '203.0.113.1/24')",
            "203.0.113.10",
            LATER,
        ),
    ];
    let daemon = world.daemon(&["greylisting"]).await;
    for (row, client, expected) in cases {
        world.empty().await;
        world
            .script(
                &world.iredapd,
                "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)",
            )
            .await;
        world.script(&world.iredapd, row).await;
        let answer = ask(&daemon, &arrival("friend@sender.test", "alice@example.com", client)).await;
        assert_eq!(answer, expected, "{row}");
    }
}

async fn passed_triplets_are_marked(world: &World) {
    world.empty().await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    world
        .execute(
            &world.iredapd,
            "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, \
             init_time, block_expired, record_expired, blocked_count, passed) \
             VALUES ('friend@sender.test', 'alice@example.com', '203.0.113.10', 'sender.test', 'example.com', ?, ?, ?, 1, 0)",
            &[(NOW - 3600).into(), (NOW - 2700).into(), (NOW + 9_999_999).into()],
        )
        .await;
    let daemon = world.daemon(&["greylisting"]).await;
    assert_eq!(
        ask(&daemon, &arrival("friend@sender.test", "alice@example.com", "203.0.113.10")).await,
        "DUNNO"
    );
    assert_eq!(world.numbers(&world.iredapd, "SELECT passed FROM greylisting_tracking").await, [[1]]);
}

async fn networks_of_wblists(world: &World) {
    let daemon = world.daemon(&["amavisd_wblist"]).await;
    for (network, client) in [
        ("203.0.113.0/24", "203.0.113.10"),
        ("203.0.113.10/32", "203.0.113.10"),
        ("203.0.113.0/255.255.255.0", "203.0.113.10"),
        ("203.0.113.0/0.0.0.255", "203.0.113.10"),
        ("203.0.0.0/08", "203.0.113.10"),
        ("203.0.0.0/16", "203.0.113.10"),
        ("128.0.0.0/128.0.0.0", "203.0.113.10"),
        ("202.0.0.0/7", "203.0.113.10"),
        ("0.0.0.0/0", "203.0.113.10"),
        ("2001:db8::/32", "2001:db8::7"),
        ("2001:db8:0:0:0:0:0:0/32", "2001:db8::7"),
    ] {
        world.empty().await;
        world.execute(&world.amavisd, ADD_USER, &[101.into(), 0.into(), Value::bytes("@.")]).await;
        world.execute(&world.amavisd, ADD_ADDRESS, &[1.into(), 7.into(), Value::bytes(network)]).await;
        world.script(&world.amavisd, "INSERT INTO wblist (rid, sid, wb) VALUES (101, 1, 'B')").await;
        let answer = ask(&daemon, &arrival("friend@sender.test", "alice@example.com", client)).await;
        assert_eq!(answer, "REJECT Blacklisted", "{network}");
        for stranger in ["20.0.113.10", "2001:db9::7"] {
            let answer = ask(&daemon, &arrival("friend@sender.test", "alice@example.com", stranger)).await;
            assert_eq!(
                answer == "DUNNO",
                network != "0.0.0.0/0" || stranger.contains(':'),
                "{network} {stranger}"
            );
        }
    }
}

async fn outbound_lists_know_no_networks(world: &World) {
    world.empty().await;
    world.execute(&world.amavisd, ADD_USER, &[3.into(), 10.into(), Value::bytes("nobody@example.com")]).await;
    world.execute(&world.amavisd, ADD_USER, &[4.into(), 10.into(), Value::bytes("alice@example.com")]).await;
    world.execute(&world.amavisd, ADD_ADDRESS, &[3.into(), 7.into(), Value::bytes("203.0.113.0/24")]).await;
    world.execute(&world.amavisd, ADD_ADDRESS, &[9.into(), 5.into(), Value::bytes("@remote.test")]).await;
    world.script(&world.amavisd, "INSERT INTO outbound_wblist (rid, sid, wb) VALUES (9, 3, 'B')").await;
    let daemon = world.daemon(&["amavisd_wblist"]).await;
    let mut request = arrival("alice@example.com", "pal@remote.test", "203.0.113.10");
    request.push(("sasl_username", "alice@example.com"));
    assert_eq!(ask(&daemon, &request).await, "DUNNO");
}

async fn logins_are_no_patterns(world: &World) {
    world.empty().await;
    world
        .script(
            &world.vmail,
            "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_alias, active) \
             VALUES ('team@example.com', 'axb+z@example.com', 'example.com', 'example.com', 1, 1)",
        )
        .await;
    let daemon = world.daemon(&["reject_sender_login_mismatch"]).await;
    for (login, expected) in [
        ("a_b@example.com", "REJECT Sender is not same as SMTP authenticate username"),
        ("axb@example.com", "DUNNO"),
    ] {
        let mut request = arrival("team@example.com", "pal@remote.test", "203.0.113.10");
        request.push(("sasl_username", login));
        assert_eq!(ask(&daemon, &request).await, expected, "{login}");
    }
}

async fn wildcard_counters_count(world: &World) {
    world.empty().await;
    world.limit(1, "192.0.2.*", "outbound", [1, -1]).await;
    let daemon = world.daemon(&["throttle"]).await;
    assert_eq!(ask(&daemon, &submission("a@example.com", "1", "1")).await, "DUNNO");
    assert_eq!(
        ask(&daemon, &submission("b@example.com", "1", "1")).await,
        "REJECT Throttling quota exceeded"
    );
}

async fn one_counter_is_read(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [5, -1]).await;
    world
        .execute(
            &world.iredapd,
            "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, init_time) VALUES (1, '192.0.2.7', 3600, 5, ?)",
            &[NOW.into()],
        )
        .await;
    let daemon = world.daemon(&["throttle"]).await;
    assert_eq!(ask(&daemon, &submission("a@example.com", "1", "1")).await, "DUNNO");
}

async fn lists_under_alias_domains(world: &World) {
    world.empty().await;
    for sql in [
        "INSERT INTO domain (domain, active) VALUES ('example.com', 1)",
        "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES ('one.test', 'example.com', 1)",
        "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES ('two.test', 'example.com', 1)",
        "INSERT INTO alias (address, accesspolicy, domain) VALUES ('mem@example.com', 'membersonly', 'example.com')",
        "INSERT INTO forwardings (address, forwarding, is_list) VALUES ('mem@example.com', 'alice@example.com', 1)",
        "INSERT INTO maillists (address, accesspolicy, domain, mlid) VALUES ('ml@example.com', 'domain', 'example.com', 'x')",
        "INSERT INTO moderators (address, moderator) VALUES ('ml@example.com', 'boss@sender.test')",
        "INSERT INTO moderators (address, moderator) VALUES ('ml@example.com', '*@friends.test')",
        "INSERT INTO moderators (address, moderator) VALUES ('ml@one.test', 'aunt@family.test')",
        "INSERT INTO moderators (address, moderator) VALUES ('ml@one.test', '*@kin.test')",
    ] {
        world.script(&world.vmail, sql).await;
    }
    let daemon = world.daemon(&["sql_alias_access_policy", "sql_ml_access_policy"]).await;
    for (sender, recipient, expected) in [
        ("alice@two.test", "mem@one.test", "DUNNO"),
        ("bob@two.test", "mem@one.test", "REJECT Not authorized"),
        ("boss@sender.test", "ml@one.test", "DUNNO"),
        ("x@sender.test", "ml@one.test", "REJECT Not authorized"),
        ("x@friends.test", "ml@example.com", "DUNNO"),
        ("x@friends.test", "ml@one.test", "DUNNO"),
        ("x@sub.friends.test", "ml@one.test", "REJECT Not authorized"),
        ("aunt@family.test", "ml@one.test", "DUNNO"),
        ("x@kin.test", "ml@one.test", "DUNNO"),
        ("aunt@family.test", "ml@example.com", "REJECT Not authorized"),
    ] {
        let answer = ask(&daemon, &arrival(sender, recipient, "203.0.113.10")).await;
        assert_eq!(answer, expected, "{sender} -> {recipient}");
    }
}

async fn whitelisting_whole_domains(world: &World) {
    use outrider_policyd::settings::{WhitelistAccount, WhitelistSender};
    world.empty().await;
    let daemon = world
        .daemon_with(&["whitelist_outbound_recipient"], |settings| {
            let rule = &mut settings.whitelist_outbound_recipient;
            (rule.for_greylisting, rule.without_spf) = (false, true);
            (rule.account, rule.sender) = (WhitelistAccount::Domain, WhitelistSender::Domain);
        })
        .await;
    for _ in 0..2 {
        assert_eq!(ask(&daemon, &submission("alice@example.com", "1", "1")).await, "DUNNO");
    }
    let count = world
        .numbers(
            &world.iredapd,
            "SELECT COUNT(*) FROM greylisting_whitelists WHERE account = '@example.com' AND sender = '@remote.test'",
        )
        .await;
    assert_eq!(count, [[1]]);
}

/// Cut to the column it would be the address of somebody else.
async fn addresses_too_long_for_a_whitelist(world: &World) {
    world.empty().await;
    let daemon = world.daemon(&["whitelist_outbound_recipient"]).await;
    let longest = if world.iredapd.engine() == Engine::MySql { 100 } else { 255 };
    for length in [longest, longest + 1] {
        let recipient = format!("{}@remote.test", "a".repeat(length - "@remote.test".len()));
        let mut request = submission("alice@example.com", "1", "1");
        request.push(("recipient", &recipient));
        assert_eq!(ask(&daemon, &request).await, "DUNNO");
    }
    let lengths = world.numbers(&world.iredapd, "SELECT LENGTH(sender) FROM greylisting_whitelists").await;
    assert_eq!(lengths, [[longest as i64]]);
}

async fn session_rows_are_not_lost(world: &World) {
    world.empty().await;
    let daemon = world.daemon(&["reject_null_sender"]).await;
    let long = "h".repeat(300);
    let mut client = Client::connect(&daemon);
    for helo in ["[ :abc ]", "it's \"quoted\" \\ ?", &long] {
        let mut request = arrival("", "alice@example.com", "203.0.113.10");
        request.extend([("sasl_username", "alice@example.com"), ("helo_name", helo)]);
        assert_eq!(client.ask(&request).await, "REJECT Policy rejection due to null sender");
    }
    // Daemons of earlier checks may still be writing theirs.
    let lengths =
        "SELECT LENGTH(helo_name) FROM smtp_sessions WHERE action = 'REJECT' AND helo_name <> '' ORDER BY id";
    for _ in 0..100 {
        if world.numbers(&world.iredapd, lengths).await.len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.numbers(&world.iredapd, lengths).await, [[8], [17], [255]]);
}
