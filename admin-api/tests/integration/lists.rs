//! Lists through HTTP: what several clients do at once, what fails half-way, what was planted.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use outrider_admin_api::Backend;
use outrider_core::sql::DbUrl;
use serde_json::json;

use crate::server::{Server, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_subscriber_is_lost() {
    let server = Arc::new(Server::start(settings()).await);
    server.add_domain("a.example").await;
    assert_eq!(server.list("POST", "/api/list@a.example", "").await.json(), json!({"_success": true}));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let server = server.clone();
        clients.spawn(async move {
            for number in 0..20 {
                let form =
                    format!("add_subscribers=u{client}-{number}@x.example,gone{client}-{number}@x.example");
                let path = "/api/list@a.example/subscribers";
                assert_eq!(server.list("POST", path, &form).await.json(), json!({"_success": true}));
                let form = format!("remove_subscribers=gone{client}-{number}@x.example");
                assert_eq!(server.list("POST", path, &form).await.json(), json!({"_success": true}));
                // Somebody else changes the list at the same time.
                let form = format!("add_owners=o{client}-{number}@x.example");
                let owners = server.list("PUT", "/api/list@a.example/owners", &form).await;
                assert_eq!(owners.json(), json!({"_success": true}));
            }
        });
    }
    clients.join_all().await;
    let subscribers = server.list("GET", "/api/list@a.example/subscribers?email_only=", "").await.json();
    assert_eq!(subscribers["_data"].as_array().unwrap().len(), 160);
    let owners = server.list("GET", "/api/list@a.example/owners", "").await.json();
    assert_eq!(owners["_data"].as_array().unwrap().len(), 161);
    assert_eq!(server.count("SELECT COUNT(*) FROM maillist_owners").await, 160);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_creators_one_succeeds_and_nothing_is_left_of_the_others() {
    let server = Arc::new(Server::start(settings()).await);
    server.add_domain("a.example").await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let server = server.clone();
        clients.spawn(async move { server.list("POST", "/api/list@a.example", "").await.json() });
    }
    let answers = clients.join_all().await;
    assert_eq!(answers.iter().filter(|answer| **answer == json!({"_success": true})).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer["_msg"] == "ALREADY_EXISTS").count(), 5);
    let entries = std::fs::read_dir(server.spool().join("a.example")).unwrap();
    assert_eq!(entries.count(), 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM forwardings").await, 1);
}

#[tokio::test]
async fn a_failure_of_the_files_undoes_the_rows() {
    let mut broken = settings();
    broken.lists.template_directory = Some("/nonexistent/templates".into());
    let server = Server::start(broken).await;
    server.add_domain("a.example").await;
    let reply = server.list("POST", "/api/list@a.example", "owner=o@x.example").await;
    assert_eq!(reply.json(), json!({"_success": false, "_msg": "SKEL_DIR_NOT_EXIST"}));
    assert_eq!(server.count("SELECT COUNT(*) FROM maillists").await, 0);
    assert_eq!(server.count("SELECT COUNT(*) FROM maillist_owners").await, 0);
    assert!(!server.spool().join("a.example/list").exists());
}

#[tokio::test]
async fn a_list_leaves_no_forwarding_and_a_user_keeps_all() {
    let server = Server::start(settings()).await;
    server.add_domain("a.example").await;
    assert_eq!(server.list("POST", "/api/list@a.example", "").await.json()["_success"], true);
    let row = "INSERT INTO forwardings (address, forwarding, domain, is_list) VALUES (?, 'x@x.example', 'a.example', 1)";
    for address in ["list@a.example", "user@a.example"] {
        server.sql(row, &[address.into()]).await;
    }
    for address in ["list@a.example", "user@a.example"] {
        server.list("DELETE", &format!("/api/{address}?archive=no"), "").await;
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM forwardings WHERE address = 'list@a.example'").await, 0);
    assert_eq!(server.count("SELECT COUNT(*) FROM forwardings WHERE address = 'user@a.example'").await, 1);
}

#[tokio::test]
async fn a_database_that_is_down_leaves_no_files() {
    let mut down = settings();
    // Nothing listens on port 1.
    down.database.vmail = Some("mysql://u:p@127.0.0.1:1/vmail".parse::<DbUrl>().unwrap());
    let server = Server::start(down).await;
    let reply = server.list("POST", "/api/list@a.example", "").await;
    assert_eq!(reply.json(), json!({"_success": false, "_msg": "SQL_ERROR"}));
    assert!(!server.spool().join("a.example").exists());
    assert!(server.running.health().iter().any(|dependency| dependency.name == "vmail" && !dependency.up));
}

#[tokio::test]
async fn threat_t46_links_and_odd_addresses_reach_nothing() {
    let mut files = settings();
    files.lists.backend = Backend::None;
    let server = Server::start(files).await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("list/control")).unwrap();
    symlink(outside.path(), server.spool().join("linked.example")).unwrap();
    std::fs::create_dir(server.spool().join("a.example")).unwrap();
    symlink(outside.path().join("list"), server.spool().join("a.example/planted")).unwrap();
    for address in ["list@linked.example", "planted@a.example", "a%2Fb@a.example"] {
        for (method, path, form) in [
            ("POST", String::new(), "name=x"),
            ("PUT", String::new(), "name=x"),
            ("PUT", "/owners".to_owned(), "add_owners=o@x.example"),
            ("POST", "/subscribers".to_owned(), "add_subscribers=u@x.example"),
        ] {
            let reply = server.list(method, &format!("/api/{address}{path}"), form).await;
            assert_eq!(reply.json()["_success"], false, "{method} {address}{path}: {}", reply.body);
        }
    }
    assert_eq!(std::fs::read_dir(outside.path().join("list/control")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(outside.path().join("list")).unwrap().count(), 1);
}

#[tokio::test]
async fn values_cannot_add_lines_to_files() {
    let mut files = settings();
    files.lists.backend = Backend::None;
    let server = Server::start(files).await;
    let form = "owner=a@x.example%0Aevil@x.example&subject_prefix=x%0Ay&relay_host=h%0D%0Aevil\
                &remove_headers=A%0AB&name=n%00m";
    assert_eq!(server.list("POST", "/api/list@a.example", form).await.json(), json!({"_success": true}));
    let form = "add_subscribers=u@x.example%0Av@x.example,w%00@x.example";
    assert_eq!(
        server.list("POST", "/api/list@a.example/subscribers", form).await.json(),
        json!({"_success": true})
    );
    let control = server.spool().join("a.example/list/control");
    for (file, lines) in [("prefix", 1), ("relayhost", 1), ("delheaders", 1), ("name", 1)] {
        let text = std::fs::read_to_string(control.join(file)).unwrap();
        assert_eq!(text.lines().count(), lines, "{file}: {text:?}");
    }
    assert!(!control.join("owner").exists());
    let subscribers = server.list("GET", "/api/list@a.example/subscribers", "").await.json();
    assert_eq!(subscribers["_data"], json!([]));
}

#[tokio::test]
async fn unknown_parameters_are_refused_where_asked_for() {
    let mut strict = settings();
    strict.lists.backend = Backend::None;
    strict.lists.strict_parameters = true;
    strict.lists.default_profile.insert("smtp_port".to_owned(), "10027".to_owned());
    let server = Server::start(strict).await;
    let reply = server.list("POST", "/api/list@a.example", "add_subscribers=u@x.example").await;
    assert_eq!(reply.json()["_msg"], "UNKNOWN_PARAMETER");
    assert_eq!(server.list("POST", "/api/list@a.example", "name=n").await.json(), json!({"_success": true}));
    let data = server.list("GET", "/api/list@a.example?params=smtp_port,name", "").await.json();
    assert_eq!(data["_data"], json!({"smtp_port": "10027", "name": "n"}));
}
