//! `outrider wblist`

use serde_json::json;

use crate::ground::Ground;

pub(crate) fn adding_replaces_the_opposite_entry(ground: &Ground) {
    let added = ground
        .call("wblist add --black --account A@Example.com Spam@x.test bad 192.0.2.0/24 192.0.2.* --json");
    assert_eq!(added.code, 65, "{added:?}");
    assert!(added.complaint.contains("\"bad\""), "{added:?}");
    let told: serde_json::Value = serde_json::from_str(&added.text).unwrap();
    assert_eq!(told["added"], json!(["spam@x.test", "192.0.2.0/24", "192.0.2.*"]));
    assert_eq!(told["invalid"], json!(["bad"]));
    ground.json("wblist add --white --account a@example.com spam@x.test");
    assert_eq!(
        ground.json("wblist list --account a@example.com"),
        json!([
            {"list": "whitelist", "address": "spam@x.test"},
            {"list": "blacklist", "address": "192.0.2.*"},
            {"list": "blacklist", "address": "192.0.2.0/24"},
        ])
    );
    let users = ground.list_rows("SELECT email, priority, policy_id FROM users ORDER BY priority DESC");
    assert!(users.contains(&"a@example.com 10 0".to_owned()), "{users:?}");
    let priorities = ground.list_rows("SELECT email, priority FROM mailaddr ORDER BY priority DESC");
    assert_eq!(priorities, ["spam@x.test 10", "192.0.2.* 8", "192.0.2.0/24 7"]);

    let again = ground.json("wblist add --black --account a@example.com new@x.test 192.0.2.*");
    assert_eq!((&again["added"], &again["present"]), (&json!(["new@x.test"]), &json!(["192.0.2.*"])));
    let gone = ground.call("wblist delete --yes --account a@example.com New@x.test nobody@x.test --json");
    assert!(gone.text.contains("\"new@x.test\""), "{gone:?}");
    assert!(gone.complaint.contains("\"nobody@x.test\" was not listed"), "{gone:?}");
    assert!(!gone.complaint.contains("New@x.test"), "{gone:?}");

    let removed = ground.json("wblist delete --yes --account a@example.com spam@x.test 192.0.2.*");
    assert_eq!(removed["removed"], json!(["spam@x.test", "192.0.2.*"]));
    assert_eq!(ground.call("wblist delete --yes --account a@example.com spam@x.test").code, 1);
    assert_eq!(ground.call("wblist delete-all --black --account a@example.com").code, 64, "nobody was asked");
    ground.json("wblist delete-all --yes --black --account a@example.com");
    assert_eq!(ground.json("wblist list --account a@example.com"), json!([]));
    // A spelling of other programs, which the list shows.
    ground.json("wblist add --black --account a@example.com 198.51.100.0/24");
    ground.respell("198.51.100.0/24", "198.51.100.0/255.255.255.0");
    let removed = ground.json("wblist delete --yes --account a@example.com 198.51.100.0/255.255.255.0");
    assert_eq!(removed["removed"], json!(["198.51.100.0/255.255.255.0"]));
    assert_eq!(ground.call("wblist add a@x.test").code, 64, "which list?");
    assert_eq!(ground.call("wblist list --account 192.0.2.1").code, 65);
}

pub(crate) fn outbound_lists_are_others(ground: &Ground) {
    ground.json("wblist add --outbound --black @rival.test");
    assert_eq!(ground.json("wblist list"), json!([]));
    assert_eq!(
        ground.json("wblist list --outbound --black"),
        json!([{"list": "blacklist", "address": "@rival.test"}])
    );
    assert_eq!(ground.list_rows("SELECT wb FROM outbound_wblist"), ["B"]);
    assert_eq!(ground.call("wblist add --outbound --black 192.0.2.1").code, 65, "recipients have no address");
    ground.json("wblist delete-all --outbound --black --yes");
}

pub(crate) fn reverse_names(ground: &Ground) {
    ground.script("DELETE FROM wblist_rdns");
    ground.json("wblist rdns add --white .Clients.your-server.de");
    ground.json("wblist rdns seed");
    let listed = ground.json("wblist rdns list");
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 6);
    let white = listed.iter().filter(|one| one["list"] == "whitelist").count();
    assert_eq!(white, 1, "what an administrator has listed stays: {listed:?}");
    ground.json("wblist rdns add --black .clients.your-server.de");
    assert!(ground.rows("SELECT rdns FROM wblist_rdns WHERE wb = 'W'").is_empty());
    assert_eq!(ground.call("wblist rdns delete --yes .castelecom.com.br").code, 0);
    let again = ground.call("wblist rdns delete --yes .castelecom.com.br");
    assert_eq!((again.code, again.text.as_str()), (1, "nothing to change\n"));
    assert_eq!(ground.call("wblist rdns add --black two..dots").code, 65);
}
