//! Every route with every kind of missing or wrong credentials.

use outrider_core::settings::Secret;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::server::{Server, TOKEN, read_reply, request, settings};

const LIST_ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/list@a.example"),
    ("HEAD", "/api/list@a.example"),
    ("POST", "/api/list@a.example"),
    ("PUT", "/api/list@a.example"),
    ("DELETE", "/api/list@a.example"),
    ("GET", "/api/list@a.example/owners"),
    ("PUT", "/api/list@a.example/owners"),
    ("GET", "/api/list@a.example/moderators"),
    ("PUT", "/api/list@a.example/moderators"),
    ("GET", "/api/list@a.example/subscribers"),
    ("POST", "/api/list@a.example/subscribers"),
    ("GET", "/api/list@a.example/has_subscriber/u@x.example"),
    ("GET", "/api/subscriber/u@x.example/subscribed"),
    ("POST", "/api/subscriber/u@x.example/subscribe"),
];

const ACCOUNT_ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/domains"),
    ("GET", "/api/domain/a.example"),
    ("POST", "/api/domain/new.example"),
    ("PUT", "/api/domain/a.example"),
    ("DELETE", "/api/domain/a.example"),
    ("DELETE", "/api/domain/a.example/keep_mailbox_days/1"),
    ("PUT", "/api/domain/admins/a.example"),
    ("GET", "/api/users/a.example"),
    ("PUT", "/api/users/a.example"),
    ("GET", "/api/user/u@a.example"),
    ("POST", "/api/user/new@a.example"),
    ("PUT", "/api/user/u@a.example"),
    ("DELETE", "/api/user/u@a.example"),
    ("DELETE", "/api/user/u@a.example/keep_mailbox_days/1"),
    ("POST", "/api/user/u@a.example/change_email/v@a.example"),
    ("GET", "/api/aliases/a.example"),
    ("GET", "/api/alias/al@a.example"),
    ("POST", "/api/alias/al@a.example"),
    ("PUT", "/api/alias/al@a.example"),
    ("DELETE", "/api/alias/al@a.example"),
    ("POST", "/api/alias/al@a.example/change_email/al2@a.example"),
    ("GET", "/api/admin/root@x.example"),
    ("POST", "/api/admin/new@x.example"),
    ("PUT", "/api/admin/root@x.example"),
    ("DELETE", "/api/admin/root@x.example"),
    ("POST", "/api/verify_password/user/u@a.example"),
    ("POST", "/api/verify_password/admin/root@x.example"),
    ("GET", "/api/throttle/global/inbound"),
    ("POST", "/api/throttle/a.example/outbound"),
    ("DELETE", "/api/throttle/u@a.example/outbound"),
    ("GET", "/api/greylisting/all"),
    ("GET", "/api/greylisting/a.example"),
    ("POST", "/api/greylisting/global"),
    ("DELETE", "/api/greylisting/u@a.example"),
    ("GET", "/api/greylisting/a.example/whitelists"),
    ("POST", "/api/greylisting/global/whitelists"),
    ("POST", "/api/greylisting/whitelist_spf_domains"),
    ("GET", "/api/wblist/inbound/whitelist/a.example"),
    ("POST", "/api/wblist/outbound/blacklist/global"),
    ("PUT", "/api/wblist/inbound/blacklist/u@a.example"),
    ("DELETE", "/api/wblist/outbound/whitelist/a.example"),
    ("GET", "/api/spampolicy/global"),
    ("PUT", "/api/spampolicy/domain/a.example"),
    ("DELETE", "/api/spampolicy/user/u@a.example"),
];

#[tokio::test]
async fn threat_t39_every_list_route_needs_the_token() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    let header = "X-MLMMJADMIN-API-AUTH-TOKEN";
    let upper = TOKEN.to_uppercase();
    let credentials = [
        (String::new(), "NO_API_AUTH_TOKEN"),
        (format!("{header}:\r\n"), "NO_API_AUTH_TOKEN"),
        (format!("{header}: wrong\r\n"), "INVALID_MLMMJADMIN_API_AUTH_TOKEN"),
        (format!("{header}: {upper}\r\n"), "INVALID_MLMMJADMIN_API_AUTH_TOKEN"),
        (format!("{header}: {TOKEN}\r\n{header}: {TOKEN}\r\n"), "INVALID_MLMMJADMIN_API_AUTH_TOKEN"),
        (
            format!("{header}: {TOKEN}\r\nX_MLMMJADMIN_API_AUTH_TOKEN: wrong\r\n"),
            "INVALID_MLMMJADMIN_API_AUTH_TOKEN",
        ),
        (format!("Authorization: Bearer {TOKEN}\r\n"), "NO_API_AUTH_TOKEN"),
        (format!("Cookie: {header}={TOKEN}\r\n"), "NO_API_AUTH_TOKEN"),
    ];
    for (method, path) in LIST_ROUTES {
        for (head, code) in &credentials {
            let in_query = format!("{path}?{header}={TOKEN}");
            let sent = request(method, &in_query, head, &format!("{header}={TOKEN}&name=x"));
            // The answer to HEAD has no body; what it says is that nothing failed below HTTP.
            if *method == "HEAD" {
                continue;
            }
            let reply = server.raw("lists", sent.as_bytes()).await.unwrap();
            assert_eq!(reply.status, 200, "{method} {path}");
            assert_eq!(reply.json(), json!({"_success": false, "_msg": code}), "{method} {path} {head:?}");
        }
    }
    assert!(!server.spool().join("a.example").exists());
    assert_eq!(server.count("SELECT COUNT(*) FROM maillists").await, 0);
}

#[tokio::test]
async fn threat_t39_every_account_route_needs_a_session() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    server.add_user("u@a.example").await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("root@x.example").await;
    let credentials = [
        String::new(),
        "Cookie: iRedAdmin=\r\n".to_owned(),
        "Cookie: iRedAdmin=0123456789abcdef\r\n".to_owned(),
        format!("Cookie: iRedAdmin={session}; iRedAdmin={session}\r\n"),
        format!("Cookie: iredadmin={session}\r\n"),
        format!("X-MLMMJADMIN-API-AUTH-TOKEN: {TOKEN}\r\n"),
    ];
    for (method, path) in ACCOUNT_ROUTES {
        for prefix in ["", "/iredadmin"] {
            for head in &credentials {
                let sent =
                    request(method, &format!("{prefix}{path}"), head, "name=x&password=Adm1n%23Secret");
                let reply = server.raw("accounts", sent.as_bytes()).await.unwrap();
                assert_eq!(
                    reply.json(),
                    json!({"_success": false, "_msg": "LOGIN_REQUIRED"}),
                    "{method} {prefix}{path} {head:?}"
                );
            }
        }
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM domain").await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM mailbox").await, 1);
}

#[tokio::test]
async fn threat_t43_administrators_of_another_domain_reach_nothing() {
    let server = Server::start(settings()).await;
    for domain in ["a.example", "b.example"] {
        server.add_domain(domain).await;
    }
    server.add_user("u@a.example").await;
    server.add_admin("boss@x.example", &["b.example"]).await;
    server.add_admin("root@x.example", &["ALL"]).await;
    let session = server.login("boss@x.example").await;
    for (method, path) in ACCOUNT_ROUTES.iter().filter(|(_, path)| *path != "/api/domains") {
        let form = "name=x&password=Adm1n%23Secret&quota=1&isGlobalAdmin=yes&addAdmin=boss@x.example";
        let reply = server.account(&session, method, path, form).await;
        assert_eq!(reply.json(), json!({"_success": false, "_msg": "PERMISSION_DENIED"}), "{method} {path}");
    }
    let domains = server.account(&session, "GET", "/api/domains?name_only=yes", "").await;
    assert_eq!(domains.json()["_data"], json!(["b.example"]));
}

#[tokio::test]
async fn each_request_of_a_connection_is_authenticated_by_itself() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect("lists").await;
    for (token, code) in [
        (TOKEN, "NO_SUCH_ACCOUNT"),
        ("wrong", "INVALID_MLMMJADMIN_API_AUTH_TOKEN"),
        ("", "NO_API_AUTH_TOKEN"),
        (TOKEN, "NO_SUCH_ACCOUNT"),
    ] {
        let sent = format!(
            "GET /api/list@a.example HTTP/1.1\r\nHost: localhost\r\nx-mlmmjadmin-api-auth-token: {token}\r\n\r\n"
        );
        stream.write_all(sent.as_bytes()).await.unwrap();
        let reply = read_reply(&mut stream).await.unwrap();
        assert_eq!(reply.json()["_msg"], code, "{token:?}");
    }
}

#[tokio::test]
async fn paths_and_methods_are_answered_before_the_token() {
    let server = Server::start(settings()).await;
    for (role, method, path, status) in [
        ("lists", "GET", "/", 404),
        ("lists", "GET", "/api/../etc/passwd", 404),
        ("lists", "GET", "/api/..%2f..%2fetc@a.example", 404),
        ("lists", "GET", "/api/list", 404),
        ("lists", "PATCH", "/api/list@a.example", 405),
        ("lists", "POST", "/api/list@a.example/owners", 405),
        ("accounts", "GET", "/", 404),
        ("accounts", "GET", "/api/unknown", 404),
        ("accounts", "GET", "/api/login", 405),
        ("accounts", "PATCH", "/api/domains", 405),
    ] {
        let reply = server.raw(role, request(method, path, "", "").as_bytes()).await.unwrap();
        assert_eq!(reply.status, status, "{role} {method} {path}");
    }
}

#[tokio::test]
async fn without_a_configured_token_one_is_made_up() {
    use std::os::unix::fs::PermissionsExt;
    let mut without = settings();
    without.lists.api_auth_tokens = Vec::new();
    let server = Server::start(without).await;
    let path = server.folder.path().join("api-auth-token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap();
    for (token, code) in [(token.trim(), "NO_SUCH_ACCOUNT"), ("", "NO_API_AUTH_TOKEN")] {
        let head = format!("X-MLMMJADMIN-API-AUTH-TOKEN: {token}\r\n");
        let sent = request("GET", "/api/list@a.example", &head, "");
        assert_eq!(server.raw("lists", sent.as_bytes()).await.unwrap().json()["_msg"], code);
    }
}

#[tokio::test]
async fn an_empty_configured_token_prevents_the_start() {
    use outrider_core::daemon::{DaemonSettings, Findings};
    let mut empty = settings();
    empty.lists.api_auth_tokens = vec![Secret::new(TOKEN), Secret::new("")];
    let mut findings = Findings::new();
    empty.check(&mut findings);
    assert!(findings.is_fatal());
    assert!(Server::try_start(empty).await.is_err());
}

#[tokio::test]
async fn only_accepted_clients_are_let_in() {
    let mut restricted = settings();
    restricted.lists.restrict_access = true;
    restricted.lists.accepted_clients = vec!["192.0.2.1".parse().unwrap()];
    restricted.accounts.restful_api_clients = vec!["192.0.2.0/24".to_owned()];
    let server = Server::start(restricted).await;
    assert_eq!(
        server.list("GET", "/api/list@a.example", "").await.json()["_msg"],
        "NOT_AUTHORIZED_API_CLIENT"
    );
    assert_eq!(server.try_login("root@x.example", "x").await.json()["_msg"], "NOT_AUTHORIZED");
    let forwarded = request("GET", "/api/domains", "X-Forwarded-For: 192.0.2.7\r\n", "");
    let reply = server.raw("accounts", forwarded.as_bytes()).await.unwrap();
    assert_eq!(reply.json()["_msg"], "LOGIN_REQUIRED");
}

#[tokio::test]
async fn the_account_api_is_off_unless_switched_on() {
    let mut off = settings();
    off.accounts.enable_restful_api = false;
    let server = Server::start(off).await;
    for (method, path) in ACCOUNT_ROUTES.iter().chain(&[("POST", "/api/login")]) {
        let reply = server.raw("accounts", request(method, path, "", "").as_bytes()).await.unwrap();
        assert_eq!(reply.status, 404, "{method} {path}");
    }
}
