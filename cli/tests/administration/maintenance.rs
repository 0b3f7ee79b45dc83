//! `outrider senderscore` and `outrider cleanup`

use serde_json::{Value, json};

use crate::ground::Ground;

pub(crate) fn scores(ground: &Ground) {
    ground.script("DELETE FROM senderscore_cache");
    ground
        .script("INSERT INTO senderscore_cache (client_address, score, time) VALUES ('192.0.2.7', 5, 1000)");
    let shown = ground.json("senderscore show 192.0.2.7");
    assert_eq!(shown["refused"], true);
    let called = ground.call("senderscore whitelist 192.0.2.7 192.0.2.8 2001:db8::1 x");
    assert_eq!(called.code, 65, "{called:?}");
    assert_eq!(
        ground.rows("SELECT client_address, score, time FROM senderscore_cache ORDER BY client_address"),
        ["192.0.2.7 100 4102444799", "192.0.2.8 100 4102444799"]
    );
    assert_eq!(ground.json("senderscore show 192.0.2.8")["permanent"], true);
    assert_eq!(ground.call("senderscore forget 192.0.2.8").code, 64, "nobody was asked");
    assert_eq!(ground.call("senderscore forget 192.0.2.8 --yes").code, 0);
    assert_eq!(ground.call("senderscore forget 192.0.2.8 --yes").code, 1);
    let unknown = ground.call("senderscore show 192.0.2.8 --json");
    assert_eq!((unknown.code, unknown.text.trim()), (1, "null"));
}

pub(crate) fn old_rows_go(ground: &Ground) {
    for table in
        ["DELETE FROM greylisting_tracking", "DELETE FROM senderscore_cache", "DELETE FROM smtp_sessions"]
    {
        ground.script(table);
    }
    ground.script(
        "INSERT INTO greylisting_tracking (sender, recipient, client_address, record_expired) VALUES \
         ('old', 'r', 'c', 1000), ('new', 'r', 'c', 4000000000)",
    );
    ground.script(
        "INSERT INTO senderscore_cache (client_address, score, time) VALUES ('192.0.2.1', 50, 1000), \
         ('192.0.2.2', 100, 4102444799)",
    );
    ground.script("INSERT INTO smtp_sessions (time_num) VALUES (1000), (4000000000)");
    let report = ground.json("cleanup");
    let row = |table: &str| -> Value {
        let one = report.as_array().unwrap().iter().find(|one| one["table"] == table).unwrap();
        json!([one["removed"], one["left"]])
    };
    for table in ["greylisting_tracking", "senderscore_cache", "smtp_sessions"] {
        assert_eq!(row(table), json!([1, 1]), "{table}");
    }
    assert_eq!(row("throttle_tracking"), json!([0, 0]));
    assert_eq!(ground.rows("SELECT sender FROM greylisting_tracking"), ["new"]);
}
