//! `outrider throttle`

use serde_json::{Value, json};

use crate::ground::Ground;

const LIMITS: &str = "SELECT account, kind, priority, period, msg_size, max_msgs, max_quota, max_rcpts \
                      FROM throttle ORDER BY priority DESC, kind";

fn empty(ground: &Ground) {
    ground.script("DELETE FROM throttle_tracking");
    ground.script("DELETE FROM throttle");
}

pub(crate) fn limits_are_set_piece_by_piece(ground: &Ground) {
    empty(ground);
    assert_eq!(ground.call("throttle set @example.com --kind outbound --max-msgs 5").code, 64, "no period");
    let set = |kind: &str| {
        ground.call(&format!("throttle set --kind {kind} --period 1h --max-msgs 5 l+x@example.com")).code
    };
    assert_eq!(["outbound", "inbound", "external"].map(set), [0, 65, 65]);
    assert_eq!(ground.call("throttle delete --yes l+x@example.com").code, 0);
    ground.json("throttle set @Example.com --kind outbound --period 1h --max-msgs 5 --msg-size 10MiB");
    let told = ground.json("throttle set @example.com --kind outbound --max-quota unlimited --msg-size -1");
    assert_eq!(
        (&told["max_msgs"], &told["max_quota"], &told["msg_size"]),
        (&json!(5), &json!(0), &json!(-1))
    );
    ground.json("throttle set @ip --kind external --period 60s --max-rcpts 3");
    assert_eq!(
        ground.rows(LIMITS),
        ["@example.com outbound 60 3600 -1 5 0 -1", "@ip external 0 60 -1 -1 -1 3"]
    );
    assert_eq!(ground.json("throttle list --kind external").as_array().unwrap().len(), 1);
    for (arguments, code) in [
        ("192.0.2.0/24 --kind outbound --period 1h --max-msgs 5", 65),
        ("@example.com --kind outbound --max-msgs many", 64),
        ("@example.com --kind outbound --period 0s", 65),
        ("@example.com --kind outbound", 64),
    ] {
        assert_eq!(ground.call(&format!("throttle set {arguments}")).code, code, "{arguments}");
    }
    assert_eq!(ground.call("throttle delete @example.com").code, 64, "nobody was asked");
    assert_eq!(ground.call("throttle delete @example.com --yes --kind inbound").code, 1);
    assert_eq!(ground.json("throttle delete @example.com --yes")["removed"], 1);
    assert_eq!(ground.rows(LIMITS).len(), 1);
}

fn limit<'a>(explained: &'a Value, name: &str) -> &'a Value {
    explained[0]["limits"].as_array().unwrap().iter().find(|one| one["limit"] == name).unwrap()
}

pub(crate) fn show_says_where_a_limit_comes_from(ground: &Ground) {
    empty(ground);
    ground.script(
        "INSERT INTO throttle (id, account, kind, priority, period, msg_size, max_msgs, max_quota, max_rcpts) VALUES \
         (1, '@.', 'outbound', 0, 86400, 1000, 500, 9000, -1), \
         (2, '@example.com', 'outbound', 60, 3600, -1, 100, -1, -1), \
         (3, 'a@example.com', 'outbound', 100, 3600, -1, -1, -1, -1), \
         (4, '192.0.2.7', 'outbound', 80, 60, -1, 7, -1, -1), \
         (5, '@.', 'inbound', 0, 3600, -1, 9, -1, -1)",
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = now - 100;
    let insert = format!(
        "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) VALUES \
         (2, 'a@example.com', 3600, 42, 4200, {begun}, {begun}), (1, 'a@example.com', 86400, 1, 8000, 1000, 1000), \
         (2, 'other@example.com', 3600, 99, 99, {begun}, {begun})"
    );
    ground.script(insert);

    let explained = ground.json("throttle show A@example.com --kind outbound");
    assert_eq!(explained[0]["address"], "a@example.com");
    let messages = limit(&explained, "max_msgs");
    assert_eq!(messages["value"], 100);
    assert_eq!(messages["from"], json!({"id": 2, "account": "@example.com", "priority": 60, "period": 3600}));
    let parts: Vec<(i64, &str)> = messages["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["id"].as_i64().unwrap(), row["part"].as_str().unwrap()))
        .collect();
    assert_eq!(parts, [(3, "inherits"), (2, "supplies"), (1, "beaten")]);
    assert_eq!(
        messages["counter"],
        json!({"key": "a@example.com", "counted": 42, "since": begun, "until": begun + 3600})
    );
    let bytes = limit(&explained, "max_quota");
    assert_eq!(
        (&bytes["value"], &bytes["counter"]["counted"]),
        (&json!(9000), &json!(0)),
        "that period is over"
    );
    assert_eq!(limit(&explained, "max_rcpts")["value"], Value::Null);
    assert_eq!(limit(&explained, "msg_size")["counter"], Value::Null, "nothing is counted for one message");

    let with_client = ground.json("throttle show a@example.com --client 192.0.2.7 --kind outbound");
    let messages = limit(&with_client, "max_msgs");
    assert_eq!((&messages["value"], &messages["counter"]["key"]), (&json!(7), &json!("192.0.2.7")));
    let all = ground.json("throttle show a@example.com");
    let kinds: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["outbound", "inbound", "external"]);
    let exempt = |one: &Value| {
        one["exempt"].as_array().unwrap().iter().map(|one| one["by"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(exempt(&all[0]), ["throttle.bypass_same_domain"]);
    assert_eq!(exempt(&all[1]), ["throttle.bypass_same_domain", "throttle.bypass_local_recipient"]);
    // Logins keep their extension, other addresses are looked up without.
    let extended = ground.json("throttle show A+box@example.com");
    let addresses: Vec<&Value> = extended.as_array().unwrap().iter().map(|one| &one["address"]).collect();
    assert_eq!(addresses, ["a+box@example.com", "a@example.com", "a@example.com"]);
    let client_alone = ground.json("throttle show 192.0.2.7 --kind outbound");
    assert_eq!(limit(&client_alone, "max_msgs")["value"], 7);
    assert_eq!(
        limit(&client_alone, "msg_size")["value"],
        Value::Null,
        "without a user nothing is everybody's"
    );

    let text = ground.call("throttle show a@example.com --kind outbound").text;
    for line in [
        "outbound limits of a@example.com",
        "max_msgs   100 in 1h, from row 2 of @example.com, priority 60",
        "left open by row 3 of a@example.com",
        "in vain: 500, from row 1 of @., priority 0",
        "counted: 42, under a@example.com",
        "throttle.bypass_same_domain",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(ground.call("throttle show example.com").code, 65);
}

pub(crate) fn priorities_and_counters_are_put_right(ground: &Ground) {
    empty(ground);
    ground.script(
        "INSERT INTO throttle (id, account, kind, priority, period) VALUES (1, 'A@example.com', 'outbound', 7, 60), \
         (2, '@.', 'outbound', 0, 60), (3, 'nonsense', 'outbound', 5, 60), (4, '192.0.2.*', 'inbound', 0, 60)",
    );
    ground.script(
        "INSERT INTO throttle_tracking (tid, account, period, cur_msgs) VALUES (2, 'a@example.com', 60, 5), \
         (4, 'a@example.com', 60, 5), (2, 'b@example.com', 60, 5)",
    );
    let called = ground.call("throttle fix-priority --json");
    let told: Value = serde_json::from_str(&called.text).unwrap();
    assert_eq!(told["fixed"].as_array().unwrap().len(), 2, "{called:?}");
    assert_eq!(told["unknown"], json!(["nonsense"]));
    let mut priorities = ground.rows("SELECT priority FROM throttle ORDER BY id");
    assert_eq!(priorities, ["100", "0", "5", "70"]);
    assert_eq!(ground.json("throttle reset a@example.com --yes --kind outbound")["removed"], 1);
    assert_eq!(ground.json("throttle reset a@example.com --yes")["removed"], 1);
    priorities = ground.rows("SELECT account FROM throttle_tracking");
    assert_eq!(priorities, ["b@example.com"]);
    assert_eq!(ground.call("throttle reset a@example.com --yes").code, 1);
    empty(ground);
}
