//! Accounts through HTTP: sessions, levels of rights, what the reference forgot.

use serde_json::json;

use crate::server::{PASSWORD, Server, settings};

#[tokio::test]
async fn a_session_ends_with_logout_and_with_the_password() {
    let server = Server::start(settings()).await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let required = json!({"_success": false, "_msg": "LOGIN_REQUIRED"});
    let first = server.login("root@x.example").await;
    let second = server.login("root@x.example").await;
    assert_ne!(first, second);
    assert_eq!(server.account(&first, "GET", "/api/domains", "").await.json()["_success"], true);
    assert_eq!(server.account(&first, "POST", "/api/logout", "").await.json()["_success"], true);
    assert_eq!(server.account(&first, "GET", "/api/domains", "").await.json(), required);
    assert_eq!(server.account(&second, "GET", "/api/domains", "").await.json()["_success"], true);
    server.sql("UPDATE admin SET password = '{PLAIN}other'", &[]).await;
    assert_eq!(server.account(&second, "GET", "/api/domains", "").await.json(), required);
}

#[tokio::test]
async fn rights_that_are_taken_away_are_gone_at_once() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    server.sql("DELETE FROM domain_admins", &[]).await;
    let reply = server.account(&session, "DELETE", "/api/domain/a.example", "").await;
    assert_eq!(reply.json()["_msg"], "PERMISSION_DENIED");
    server.sql("UPDATE admin SET active = 0", &[]).await;
    let reply = server.account(&session, "GET", "/api/domains", "").await;
    assert_eq!(reply.json()["_msg"], "LOGIN_REQUIRED");
}

#[tokio::test]
async fn guessing_is_stopped_even_when_it_hits() {
    let mut strict = settings();
    strict.accounts.login_failures = 3;
    let server = Server::start(strict).await;
    server.add_admin("root@x.example", &["ALL"]).await;
    for _ in 0..3 {
        assert_eq!(server.try_login("root@x.example", "wrong").await.json()["_msg"], "INVALID_CREDENTIALS");
    }
    assert_eq!(server.try_login("root@x.example", PASSWORD).await.json()["_msg"], "INVALID_CREDENTIALS");
    server.add_admin("other@x.example", &["ALL"]).await;
    server.login("other@x.example").await;
}

#[tokio::test]
async fn the_cookie_is_marked_secure_behind_tls() {
    let server = Server::start(settings()).await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let form = "username=root@x.example&password=Adm1n%23Secret";
    for (head, secure) in [("", false), ("X-Forwarded-Proto: https\r\n", true)] {
        let sent = crate::server::request("POST", "/iredadmin/api/login", head, form);
        let reply = server.raw("accounts", sent.as_bytes()).await.unwrap();
        let cookie = reply.header("set-cookie").unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert_eq!(cookie.contains("Secure"), secure, "{cookie}");
    }
}

#[tokio::test]
async fn what_is_made_disabled_is_disabled() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    for (name, status) in [("off", "&accountStatus=disabled"), ("on", "&accountStatus=active"), ("usual", "")]
    {
        for (path, form) in [
            (format!("/api/admin/{name}@y.example"), "password=Adm1n%23Secret"),
            (format!("/api/alias/{name}@a.example"), "members=m@x.example"),
        ] {
            let reply = server.account(&session, "POST", &path, &format!("{form}{status}")).await;
            assert_eq!(reply.json()["_success"], true, "{path}");
        }
    }
    for (table, right) in [
        (
            "admin",
            "SELECT COUNT(*) FROM admin WHERE username LIKE '%@y.example' AND active = (username NOT LIKE 'off@%')",
        ),
        ("alias", "SELECT COUNT(*) FROM alias WHERE active = (address NOT LIKE 'off@%')"),
        ("forwardings", "SELECT COUNT(*) FROM forwardings WHERE active = (address NOT LIKE 'off@%')"),
    ] {
        assert_eq!(server.count(right).await, 3, "{table}");
    }
}

#[tokio::test]
async fn the_password_of_a_new_user_is_looked_at_last() {
    let server = Server::start(settings()).await;
    server.add_admin("root@x.example", &["ALL"]).await;
    for domain in ["a.example", "full.example", "closed.example", "small.example"] {
        server.add_domain(domain).await;
    }
    let change = "UPDATE domain SET mailboxes = ?, maxquota = ? WHERE domain = ?";
    for (domain, mailboxes, quota) in
        [("full.example", 1, 0), ("closed.example", -1, 0), ("small.example", 0, 100)]
    {
        server.sql(change, &[mailboxes.into(), quota.into(), domain.into()]).await;
    }
    server.add_user("u@full.example").await;
    let alias = "INSERT INTO alias (address, domain) VALUES ('al@a.example', 'a.example')";
    server.sql(alias, &[]).await;
    let session = server.login("root@x.example").await;
    for (user, wrong) in [
        ("al@a.example", "ALREADY_EXISTS"),
        ("u@full.example", "ALREADY_EXISTS"),
        ("new@full.example", "EXCEEDED_DOMAIN_ACCOUNT_LIMIT"),
        ("new@closed.example", "NOT_ALLOWED"),
        ("new@small.example", "EXCEEDED_DOMAIN_QUOTA_SIZE"),
        ("new@a.example", "PW_"),
    ] {
        for password in ["password=x", ""] {
            let form = format!("quota=200&{password}");
            let reply = server.account(&session, "POST", &format!("/api/user/{user}"), &form).await.json();
            let told = reply["_msg"].as_str().unwrap_or_default().to_owned();
            assert!(told.starts_with(wrong), "{user} {password}: {told}");
        }
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM mailbox").await, 1);
}

#[tokio::test]
async fn threat_t43_no_field_raises_the_rights_of_a_domain_administrator() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_user("u@a.example").await;
    server.add_admin("boss@x.example", &["a.example"]).await;
    let session = server.login("boss@x.example").await;
    let form = "isGlobalAdmin=yes&isglobaladmin=1&isadmin=1&transport=pipe&maildir=/a/b/c&name=N";
    assert_eq!(server.account(&session, "PUT", "/api/user/u@a.example", form).await.json()["_success"], true);
    let form = "quota=9&numberOfUsers=9&numberOfAliases=9&numberOfLists=9&maxUserQuota=9&transport=x\
                &accountStatus=disabled&addAliasDomain=b.example&services=self-service\
                &disableDomainProfile=bcc&name=D";
    assert_eq!(server.account(&session, "PUT", "/api/domain/a.example", form).await.json()["_success"], true);
    let unchanged = "SELECT COUNT(*) FROM mailbox WHERE isadmin = 0 AND isglobaladmin = 0 AND transport = '' \
                     AND maildir = '' AND name = 'N'";
    assert_eq!(server.count(unchanged).await, 1);
    let unchanged = "SELECT COUNT(*) FROM domain WHERE maxquota = 0 AND mailboxes = 0 AND aliases = 0 \
                     AND maillists = 0 AND transport = 'dovecot' AND active = 1 AND description = 'D' \
                     AND COALESCE(settings, '') = ''";
    assert_eq!(server.count(unchanged).await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM alias_domain").await, 0);
    assert_eq!(server.count("SELECT COUNT(*) FROM domain_admins").await, 1);
    let form = "password=Us3r%23Secret&maildir=/a/b/c&isGlobalAdmin=yes&isadmin=1&transport=pipe";
    assert_eq!(
        server.account(&session, "POST", "/api/user/new@a.example", form).await.json()["_success"],
        true
    );
    let ignored = "SELECT COUNT(*) FROM mailbox WHERE username = 'new@a.example' AND isadmin = 0 \
                   AND isglobaladmin = 0 AND transport = '' AND storagebasedirectory <> '/a' AND maildir <> 'c'";
    assert_eq!(server.count(ignored).await, 1);
}

#[tokio::test]
async fn threat_t43_administrators_with_further_rights_are_not_taken_over() {
    let server = Server::start(settings()).await;
    for domain in ["a.example", "b.example"] {
        server.add_domain(domain).await;
    }
    for user in ["u@a.example", "root@a.example", "wide@a.example", "same@a.example"] {
        server.add_user(user).await;
    }
    for (user, domain, active) in [
        ("root@a.example", "ALL", 1),
        ("wide@a.example", "a.example", 1),
        // Switched off today, but whoever has the password then may have it when it is on again.
        ("wide@a.example", "b.example", 0),
        ("same@a.example", "a.example", 1),
    ] {
        let row = [user.into(), domain.into(), active.into()];
        server.sql("INSERT INTO domain_admins (username, domain, active) VALUES (?, ?, ?)", &row).await;
        server.sql("UPDATE mailbox SET isadmin = 1 WHERE username = ?", &[user.into()]).await;
    }
    server.sql("UPDATE mailbox SET isglobaladmin = 1 WHERE username = 'root@a.example'", &[]).await;
    server.add_admin("boss@x.example", &["a.example"]).await;
    let session = server.login("boss@x.example").await;
    let form = "password=N3w%23Secret1";
    for (user, expected) in [
        ("root@a.example", "PERMISSION_DENIED"),
        ("wide@a.example", "PERMISSION_DENIED"),
        ("same@a.example", "ok"),
    ] {
        let renamed = if expected == "ok" { "new-" } else { "" };
        for (method, path) in [
            ("PUT", format!("/api/user/{user}")),
            ("POST", format!("/api/user/{user}/change_email/new-{user}")),
            ("DELETE", format!("/api/user/{renamed}{user}")),
        ] {
            let reply = server.account(&session, method, &path, form).await.json();
            assert_eq!(reply["_msg"].as_str().unwrap_or("ok"), expected, "{method} {path}");
        }
    }
    let reply = server.account(&session, "PUT", "/api/users/a.example", form).await.json();
    assert_eq!(reply["_success"], true);
    let kept = "SELECT COUNT(*) FROM mailbox WHERE password LIKE '{PLAIN}%'";
    assert_eq!(server.count(kept).await, 2);
    assert_eq!(server.count("SELECT COUNT(*) FROM mailbox").await, 3);
}

#[tokio::test]
async fn users_with_self_service_change_some_of_their_own() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.sql("UPDATE domain SET settings = 'enabled_services:self-service;'", &[]).await;
    for user in ["u@a.example", "v@a.example"] {
        server.add_user(user).await;
    }
    let session = server.login("u@a.example").await;
    let form = "name=Me&quota=5&accountStatus=disabled&isGlobalAdmin=yes&addForwarding=w@x.example&addAlias=al@a.example";
    assert_eq!(server.account(&session, "PUT", "/api/user/u@a.example", form).await.json()["_success"], true);
    let changed = "SELECT COUNT(*) FROM mailbox WHERE username = 'u@a.example' AND name = 'Me' AND quota = 0 \
                   AND active = 1 AND isglobaladmin = 0";
    assert_eq!(server.count(changed).await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM forwardings WHERE forwarding = 'w@x.example'").await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM forwardings WHERE is_alias = 1").await, 0);
    for (method, path) in [
        ("GET", "/api/user/v@a.example"),
        ("PUT", "/api/user/v@a.example"),
        ("DELETE", "/api/user/u@a.example"),
        ("GET", "/api/users/a.example"),
        ("POST", "/api/user/u@a.example/change_email/w@a.example"),
    ] {
        let reply = server.account(&session, method, path, "name=x").await;
        assert_eq!(reply.json()["_msg"], "PERMISSION_DENIED", "{method} {path}");
    }
    let form = "password_hash=%7BPLAIN%7Dx";
    let reply = server.account(&session, "PUT", "/api/user/u@a.example", form).await;
    assert_eq!(reply.json()["_msg"], "INVALID_PASSWORD_SCHEME");
    let own = server.account(&session, "GET", "/api/user/u@a.example", "").await.json();
    assert_eq!(own["_data"]["username"], "u@a.example");
    assert!(own["_data"].get("password").is_none());
}

#[tokio::test]
async fn limits_of_a_domain_hold() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    let put = "/api/domain/a.example";
    server.account(&session, "PUT", put, "numberOfUsers=2&quota=100&maxUserQuota=80&defaultQuota=30").await;
    for (user, form, expected) in [
        ("a@a.example", "quota=0", "EXCEEDED_DOMAIN_QUOTA_SIZE"),
        ("a@a.example", "quota=81", "EXCEEDED_DOMAIN_QUOTA_SIZE"),
        ("a@a.example", "quota=80", "ok"),
        ("b@a.example", "", "EXCEEDED_DOMAIN_QUOTA_SIZE"),
        ("b@a.example", "quota=20", "ok"),
        ("c@a.example", "quota=1", "EXCEEDED_DOMAIN_ACCOUNT_LIMIT"),
    ] {
        let form = format!("password=Us3r%23Secret&{form}");
        let reply = server.account(&session, "POST", &format!("/api/user/{user}"), &form).await.json();
        assert_eq!(reply["_msg"].as_str().unwrap_or("ok"), expected, "{user} {form}");
    }
    let reply = server.account(&session, "PUT", put, "quota=99").await.json();
    assert_eq!(reply["_msg"], "EXCEEDED_DOMAIN_QUOTA_SIZE");
    let reply = server.account(&session, "PUT", "/api/user/b@a.example", "quota=21").await.json();
    assert_eq!(reply["_msg"], "EXCEEDED_DOMAIN_QUOTA_SIZE");
    let reply = server.account(&session, "PUT", "/api/user/b@a.example", "quota=10").await.json();
    assert_eq!(reply["_success"], true);
}

#[tokio::test]
async fn deleting_a_user_leaves_nothing_behind() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    for user in ["u@a.example", "v@a.example"] {
        server.add_user(user).await;
    }
    server.add_admin("root@x.example", &["ALL"]).await;
    for sql in [
        "INSERT INTO last_login (username, domain, imap) VALUES ('u@a.example', 'a.example', 1)",
        "INSERT INTO maillist_owners (address, owner, domain, dest_domain) \
         VALUES ('l@a.example', 'u@a.example', 'a.example', 'a.example')",
        "INSERT INTO sender_relayhost (account, relayhost) VALUES ('u@a.example', 'r')",
        "INSERT INTO share_folder (from_user, to_user) VALUES ('v@a.example', 'u@a.example')",
        "UPDATE forwardings SET forwarding = 'u@a.example' WHERE address = 'v@a.example'",
    ] {
        server.sql(sql, &[]).await;
    }
    let session = server.login("root@x.example").await;
    assert_eq!(
        server.account(&session, "DELETE", "/api/user/u@a.example", "").await.json()["_success"],
        true
    );
    for sql in [
        "SELECT COUNT(*) FROM last_login",
        "SELECT COUNT(*) FROM maillist_owners",
        "SELECT COUNT(*) FROM sender_relayhost",
        "SELECT COUNT(*) FROM share_folder",
        "SELECT COUNT(*) FROM forwardings WHERE address = 'u@a.example' OR forwarding = 'u@a.example'",
    ] {
        assert_eq!(server.count(sql).await, 0, "{sql}");
    }
    // Mail of somebody who forwarded to the removed user is delivered to the own mailbox again.
    let own = "SELECT COUNT(*) FROM forwardings WHERE address = 'v@a.example' AND forwarding = 'v@a.example'";
    assert_eq!(server.count(own).await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM deleted_mailboxes WHERE delete_date IS NULL").await, 1);
}

#[tokio::test]
async fn a_forgotten_alias_of_somebody_else_is_not_taken_over() {
    let server = Server::start(settings()).await;
    for domain in ["a.example", "b.example"] {
        server.add_domain(domain).await;
    }
    for user in ["u@a.example", "postmaster@a.example", "postmaster@b.example"] {
        server.add_user(user).await;
    }
    server.add_admin("boss@x.example", &["a.example"]).await;
    let session = server.login("boss@x.example").await;
    let form = "addAlias=postmaster@a.example,postmaster@b.example,info@b.example,info@a.example";
    assert_eq!(server.account(&session, "PUT", "/api/user/u@a.example", form).await.json()["_success"], true);
    let aliases = server.vmail();
    let rows = aliases
        .fetch_all(&outrider_core::sql::Stmt::same("SELECT address FROM forwardings WHERE is_alias = 1"), &[])
        .await
        .unwrap();
    let addresses: Vec<_> = rows.iter().filter_map(|row| row.text_at(0)).collect();
    assert_eq!(addresses, ["info@a.example"]);
}

#[tokio::test]
async fn subscriptions_follow_the_account_and_actions_are_written_down() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_user("u@a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    for list in ["one", "two"] {
        server.list("POST", &format!("/api/{list}@a.example"), "").await;
        let form = "add_subscribers=u@a.example,w@x.example&subscription=digest";
        server.list("POST", &format!("/api/{list}@a.example/subscribers"), form).await;
    }
    let subscribers = async |list: &str| {
        let reply = server.list("GET", &format!("/api/{list}@a.example/subscribers"), "").await;
        let mut entries: Vec<String> =
            reply.json()["_data"].as_array().unwrap().iter().map(ToString::to_string).collect();
        entries.sort();
        entries
    };
    let entry = |mail: &str| json!({"mail": mail, "subscription": "digest"}).to_string();
    let session = server.login("root@x.example").await;
    let path = "/api/user/u@a.example/change_email/v@a.example";
    assert_eq!(server.account(&session, "POST", path, "").await.json()["_success"], true);
    for list in ["one", "two"] {
        assert_eq!(subscribers(list).await, [entry("v@a.example"), entry("w@x.example")]);
    }
    assert_eq!(
        server.account(&session, "DELETE", "/api/user/v@a.example", "").await.json()["_success"],
        true
    );
    assert_eq!(subscribers("one").await, [entry("w@x.example")]);

    let refused = server.account(&session, "DELETE", "/api/user/v@a.example", "").await;
    assert_eq!(refused.json()["_msg"], "NO_SUCH_ACCOUNT");
    let log = outrider_core::sql::Db::open_file(
        &server.folder.path().join("iredadmin.db"),
        &outrider_core::sql::PoolOptions::default(),
    );
    let stmt = outrider_core::sql::Stmt::same("SELECT event, admin, username FROM log ORDER BY id");
    let rows = log.fetch_all(&stmt, &[]).await.unwrap();
    let written: Vec<_> =
        rows.iter().map(|row| (row.text("event").unwrap(), row.text("username").unwrap())).collect();
    assert_eq!(written, [("update", "u@a.example"), ("delete", "v@a.example")]);
    assert_eq!(rows[0].text("admin"), Some("root@x.example"));
}

#[tokio::test]
async fn an_address_is_on_one_list_only_and_rules_go_with_their_account() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_user("u@a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    let path = |colour: &str, scope: &str| format!("/api/wblist/inbound/{colour}/{scope}");
    for (method, colour, addresses) in [
        ("POST", "whitelist", "a@x.example,b@x.example,c@x.example"),
        ("POST", "blacklist", "b@x.example"),
        ("PUT", "whitelist", "c@x.example,b@x.example"),
    ] {
        let form = format!("addresses={addresses}");
        let reply = server.account(&session, method, &path(colour, "u@a.example"), &form).await;
        assert_eq!(reply.json()["_success"], true);
    }
    for (colour, expected) in [("whitelist", json!(["a@x.example"])), ("blacklist", json!(["b@x.example"]))] {
        let reply = server.account(&session, "GET", &path(colour, "u@a.example"), "").await;
        assert_eq!(reply.json()["_data"], expected, "{colour}");
    }
    for (method, path, form) in [
        ("POST", "/api/throttle/u@a.example/outbound", "period=60&max_msgs=5"),
        ("POST", "/api/greylisting/u@a.example", "status=disable"),
        ("POST", "/api/greylisting/u@a.example/whitelists", "senders=192.0.2.1"),
        ("PUT", "/api/spampolicy/user/u@a.example", "spam_score=4"),
        ("POST", "/api/throttle/a.example/outbound", "period=60&max_msgs=50"),
    ] {
        assert_eq!(server.account(&session, method, path, form).await.json()["_success"], true, "{path}");
    }
    assert_eq!(
        server.account(&session, "DELETE", "/api/user/u@a.example", "").await.json()["_success"],
        true
    );
    let open = |name: &str| {
        let file = server.folder.path().join(name);
        outrider_core::sql::Db::open_file(&file, &outrider_core::sql::PoolOptions::default())
    };
    for (database, sql, expected) in [
        ("iredapd.db", "SELECT COUNT(*) FROM throttle", 1),
        ("iredapd.db", "SELECT COUNT(*) FROM greylisting WHERE account <> '@.'", 0),
        ("iredapd.db", "SELECT COUNT(*) FROM greylisting_whitelists", 0),
        ("amavisd.db", "SELECT COUNT(*) FROM wblist", 0),
        ("amavisd.db", "SELECT COUNT(*) FROM policy WHERE policy_name <> '@.'", 0),
        ("amavisd.db", "SELECT COUNT(*) FROM users WHERE policy_id = 0", 0),
    ] {
        let stmt = outrider_core::sql::Stmt::same(sql);
        let row = open(database).fetch_optional(&stmt, &[]).await.unwrap();
        assert_eq!(row.and_then(|row| row.int_at(0)), Some(expected), "{sql}");
    }
}
