//! Counters and contacts on a Valkey server.

use outrider_tests::valkey::Valkey;
use serde_json::{Value, json};

use crate::ground::Ground;

pub(crate) fn counters_are_shown_and_forgotten(ground: &Ground, server: &Valkey) {
    ground.script(
        "INSERT INTO throttle (id, account, kind, priority, period, msg_size, max_msgs, max_quota, max_rcpts) VALUES \
         (7, '@.', 'outbound', 0, 3600, -1, 100, -1, -1), (8, '@.', 'inbound', 0, 3600, -1, 100, -1, -1)",
    );
    // What the tables hold from before does not count any more.
    ground.script(
        "INSERT INTO throttle_tracking (tid, account, period, cur_msgs) VALUES (7, 'a@example.com', 60, 5)",
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = (now - 100).to_string();
    for key in ["7:a@example.com", "8:a@example.com", "7:b@example.com"] {
        let key = format!("outrider:throttle:{key}");
        server.command(&["HSET", &key, "init", &begun, "msgs", "42", "quota", "4200"]).unwrap();
    }
    let counter = || {
        let explained = ground.json("throttle show A@example.com --kind outbound");
        let limits = explained[0]["limits"].as_array().unwrap();
        limits.iter().find(|one| one["limit"] == "max_msgs").unwrap()["counter"].clone()
    };
    let since = now - 100;
    assert_eq!(
        counter(),
        json!({"key": "a@example.com", "counted": 42, "since": since, "until": since + 3600})
    );
    let text = ground.call("throttle show a@example.com");
    assert!(text.complaint.contains("redis://127.0.0.1"), "{text:?}");
    assert_eq!(ground.json("throttle reset a@example.com --yes --kind outbound")["removed"], 1);
    assert_eq!(counter()["counted"], 0);
    assert_eq!(ground.json("throttle reset a@example.com --yes")["removed"], 1);
    assert_eq!(ground.call("throttle reset a@example.com --yes").code, 1);
    assert_eq!(ground.json("throttle delete @. --yes --kind outbound")["removed"], 1);
    assert_eq!(server.command(&["DBSIZE"]).unwrap(), ":0");
}

pub(crate) fn contacts_are_shown_as_far_as_they_are_kept(ground: &Ground, server: &Valkey) {
    let far = "4000000000";
    server.command(&["SET", "outrider:greylisting:{192.0.2.7}:passed", far]).unwrap();
    for (client, contact, times) in [
        ("192.0.2.8", "10:s@one.testr@example.com", "200 4000000000 3 100"),
        ("198.51.100.0/24", "0:r@example.com", "3999999999 4000000000 1 101"),
        ("name:big.co.uk", "10:s@two.testr@example.com", "200 300 1 102"),
    ] {
        let key = format!("outrider:greylisting:{{{client}}}:triplets");
        server.command(&["HSET", &key, contact, times]).unwrap();
    }
    let called = ground.call("greylist tracking 192.0.2.7 --json");
    let known: Value = serde_json::from_str(&called.text).unwrap();
    assert_eq!(
        known,
        json!([{
            "sender": null, "recipient": null, "client_address": "192.0.2.7", "state": "passed", "init_time": null,
            "block_expired": null, "record_expired": 4_000_000_000_u64, "blocked_count": null
        }])
    );
    assert!(called.complaint.contains("name:DOMAIN"), "{called:?}");
    let text = ground.call("greylist tracking 192.0.2.7");
    assert!(text.text.contains("192.0.2.7  -     -   passed  -"), "{text:?}");
    assert!(text.complaint.contains("directly on redis://127.0.0.1"), "{text:?}");

    let states = |whose: &str| -> Vec<String> {
        let found: Value =
            serde_json::from_str(&ground.call(&format!("greylist tracking {whose} --json")).text).unwrap();
        found.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states("198.51.100.99"), ["blocked"]);
    assert_eq!(states("name:big.co.uk"), ["over"]);
    assert_eq!(states("S+x@one.test"), ["may come"]);
    assert_eq!(states("r@example.com"), ["over", "blocked", "may come"]);
    assert_eq!(states("@one.test"), ["may come"]);
    let called = ground.call("greylist tracking @one.test");
    assert!(
        called.text.contains("s@one.test") && called.complaint.contains("keeps no senders"),
        "{called:?}"
    );
    assert_eq!(ground.call("greylist tracking @nobody.test").code, 1);
}

pub(crate) fn a_server_that_is_away_is_named(ground: &Ground, server: &mut Valkey) {
    server.stop().unwrap();
    for verb in
        ["greylist tracking 192.0.2.7", "throttle reset a@example.com --yes", "throttle show a@example.com"]
    {
        let called = ground.call(verb);
        assert_eq!(called.code, 69, "{called:?}");
        assert!(called.complaint.contains("redis://127.0.0.1"), "{called:?}");
    }
}
