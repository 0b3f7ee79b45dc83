//! The tools of iRedAPD by their old names, through links.

use crate::ground::Ground;

pub(crate) fn old_names_do_what_they_did(ground: &Ground) {
    ground.script("DELETE FROM greylisting");
    ground.script("DELETE FROM greylisting_whitelists");
    ground.script("DELETE FROM greylisting_whitelist_domains");
    ground.script("DELETE FROM greylisting_whitelist_domain_spf");
    ground.script("DELETE FROM senderscore_cache");
    let good = |name: &str, arguments: &str| {
        let called = ground.tool(name, arguments);
        assert_eq!((called.code, called.complaint.as_str()), (0, ""), "{name} {arguments}: {called:?}");
        called.text
    };
    good("greylisting_admin", "--enable");
    good("greylisting_admin.py", "--disable --to @example.com --from @sender.test");
    assert_eq!(
        ground.rows("SELECT account, sender, active FROM greylisting ORDER BY account, sender"),
        ["@. @. 1", "@example.com @sender.test 0"]
    );
    assert!(good("greylisting_admin", "--list").contains("@sender.test"));
    good("greylisting_admin", "--delete --to @example.com --from @sender.test");
    good("greylisting_admin", "--delete --to @example.com --from @sender.test");
    assert_eq!(ground.rows("SELECT account FROM greylisting"), ["@."]);
    // Nothing looks for these; the tools wrote them all the same.
    good("greylisting_admin", "--disable --to user+box@example.com --from 198.51.*.*");
    good("greylisting_admin", "--add-whitelist --from 192.0.*.7");
    assert!(good("greylisting_admin", "--list").contains("user+box@example.com"));
    assert!(good("greylisting_admin", "--list-whitelists").contains("192.0.*.7"));
    assert_eq!(ground.call("greylist disable --to user+box@example.com").code, 65);
    assert_eq!(ground.call("greylist whitelist add 192.0.*.7").code, 65);
    assert_eq!(ground.call("greylist delete --yes --to user+box@example.com --from 198.51.*.*").code, 0);
    good("greylisting_admin", "--add-whitelist --from friend@sender.test");
    assert!(good("greylisting_admin", "--list-whitelists").contains("friend@sender.test"));
    good("greylisting_admin", "--whitelist-domain --from @listed.test");
    assert!(good("greylisting_admin", "--list-whitelist-domains").contains("listed.test"));
    assert_eq!(ground.tool("greylisting_admin", "--whitelist-domain").code, 64, "which?");

    ground.dns.txt("listed.test", "v=spf1 ip4:198.51.100.30 -all");
    ground.dns.txt("submitted.test", "v=spf1 ip4:198.51.100.31 -all");
    good("spf_to_greylist_whitelists", "");
    assert!(good("spf_to_greylist_whitelists", "--submit").contains("listed.test"));
    let text = good("spf_to_greylist_whitelists", "--debug --submit submitted.test");
    assert!(text.contains("+ 198.51.100.31"), "{text}");
    assert_eq!(
        ground.rows("SELECT sender FROM greylisting_whitelist_domain_spf ORDER BY sender"),
        ["198.51.100.30", "198.51.100.31"]
    );
    good("greylisting_admin", "--remove-whitelist-domain --from @listed.test");
    good("greylisting_admin", "--remove-whitelist-domain --from @listed.test");
    assert_eq!(ground.rows("SELECT domain FROM greylisting_whitelist_domains"), ["submitted.test"]);
    assert_eq!(ground.rows("SELECT sender FROM greylisting_whitelist_domain_spf"), ["198.51.100.31"]);

    good("wblist_admin", "--account @example.com --blacklist --add Spam@x.test @y.test");
    good("wblist_admin", "--account @example.com --whitelist --blacklist --add @y.test");
    good("wblist_admin", "--account @example.com --blacklist --add 192.0.2.* @a.test");
    let list = |colour: &str| good("wblist_admin", &format!("--account @example.com {colour} --list"));
    assert_eq!(list("--blacklist"), "192.0.2.*\n@a.test\nspam@x.test\n");
    assert_eq!(list("--whitelist"), "@y.test\n");
    assert_eq!(list(""), "192.0.2.*\n@a.test\n@y.test\nspam@x.test\n");
    good("wblist_admin", "--account @example.com --whitelist --delete @y.test");
    good("wblist_admin", "--account @example.com --whitelist --delete @y.test nonsense");
    ground.respell("192.0.2.*", "198.51.100.0/255.255.255.128");
    good("wblist_admin", "--account @example.com --blacklist --delete 198.51.100.0/255.255.255.128");
    assert_eq!(list("--blacklist"), "@a.test\nspam@x.test\n");
    good("wblist_admin", "--account @example.com --blacklist --delete-all");
    assert_eq!(list(""), "");
    good("wblist_admin", "--blacklist --add nonsense a@x.test");
    good("wblist_admin", "--blacklist --add nonsense");
    assert_eq!(good("wblist_admin", "--blacklist --list"), "a@x.test\n");
    good("wblist_admin", "--blacklist --delete-all");

    good("senderscore_admin", "-w 192.0.2.1 192.0.2.2");
    assert_eq!(ground.rows("SELECT client_address FROM senderscore_cache").len(), 2);
    ground.script(
        "INSERT INTO throttle (account, kind, priority, period) VALUES ('@example.com', 'outbound', 1, 60)",
    );
    good("fix_throttle_priority", "");
    assert_eq!(ground.rows("SELECT priority FROM throttle"), ["60"]);
    assert!(good("cleanup_db", "").contains("smtp_sessions"));
    assert_eq!(ground.tool("cleanup_db", "--nonsense").code, 64);
}
