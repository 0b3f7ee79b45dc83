//! Encryption, refusals, outages and answers that are none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_core::directory::{Directory, DirectoryError, DomainScope, LdapSettings};
use outrider_core::settings::{Interval, Secret};
use outrider_core::sql::DbError;
use outrider_tests::slapd::Slapd;

use crate::ground::{self, directory};

async fn ask(directory: &Arc<dyn Directory>) -> Result<bool, DirectoryError> {
    directory.mailbox_exists("alice@example.com").await
}

/// Asks until there is an answer.
async fn back(directory: &Arc<dyn Directory>) {
    let begin = Instant::now();
    while ask(directory).await != Ok(true) {
        assert!(begin.elapsed() < Duration::from_secs(60), "the way back was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_connection() {
    let Some(server) = ground::server() else { return };
    let plain = ground::settings(&server);
    let trusted = LdapSettings { ca_file: Some(server.authority()), ..plain.clone() };
    let by_name = server.uri().replace("127.0.0.1", "localhost");
    let socket = LdapSettings { uri: server.socket_uri().parse().unwrap(), ..plain.clone() };
    let tls = LdapSettings { uri: server.tls_uri().parse().unwrap(), ..trusted.clone() };
    let starttls = LdapSettings { uri: by_name.parse().unwrap(), starttls: true, ..trusted.clone() };
    for settings in [&plain, &socket, &tls, &starttls] {
        assert_eq!(ask(&directory(settings).await).await, Ok(true), "{}", settings.uri);
    }
    // An unknown authority, and a name the certificate is not for.
    let unknown = LdapSettings { ca_file: None, ..tls.clone() };
    let wrong_name = LdapSettings { uri: server.uri().parse().unwrap(), ..starttls.clone() };
    for settings in [&unknown, &LdapSettings { ca_file: None, ..starttls.clone() }, &wrong_name] {
        let error = ask(&directory(settings).await).await.expect_err("not trusted");
        assert!(matches!(error.cause, DbError::Unavailable { .. }), "{error}");
        let careless = LdapSettings { verify_certificate: false, ..settings.clone() };
        assert_eq!(ask(&directory(&careless).await).await, Ok(true), "{}", careless.uri);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_no_answer_and_stays_secret() {
    let Some(server) = ground::server() else { return };
    let wrong = LdapSettings { bind_password: Secret::new("Kanarienvogel"), ..ground::settings(&server) };
    let anonymous = LdapSettings {
        bind_dn: String::new(),
        bind_password: Secret::default(),
        ..ground::settings(&server)
    };
    let elsewhere =
        LdapSettings { base_dn: "o=domain,dc=example,dc=com".into(), ..ground::settings(&server) };
    for settings in [&wrong, &anonymous, &elsewhere] {
        let directory = directory(settings).await;
        let error = ask(&directory).await.expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("Kanarienvogel"));
        assert!(directory.local_domains().await.is_err());
        assert!(directory.list_has_member("staff@example.com", "alice@example.com").await.is_err());
        assert!(directory.list_has_member("staff@nowhere.example", "alice@example.com").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_later() {
    let Some(mut server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    assert_eq!(ask(&directory).await, Ok(true));
    let password = |text: &str| {
        format!("dn: {}\nchangetype: modify\nreplace: userPassword\nuserPassword: {text}\n", Slapd::BIND_DN)
    };
    server.modify(&password("Changed-1")).expect("changed");
    // The connection is logged in already; a new one is not.
    assert_eq!(ask(&directory).await, Ok(true));
    server.stop().expect("stopped");
    server.resume().expect("started");
    assert!(ask(&directory).await.is_err());
    server.modify(&password(Slapd::BIND_PASSWORD)).expect("changed back");
    back(&directory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_costs_a_search_nothing() {
    let Some(mut server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    for _ in 0..4 {
        assert_eq!(ask(&directory).await, Ok(true));
    }
    server.stop().expect("stopped");
    server.resume().expect("started");
    // Both connections are broken; neither shows.
    for _ in 0..4 {
        assert_eq!(ask(&directory).await, Ok(true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_told_at_once_and_found_again() {
    let Some(mut server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    assert_eq!(ask(&directory).await, Ok(true));
    server.stop().expect("stopped");
    let begin = Instant::now();
    // Waiting for the limit each time would be more than a minute.
    for _ in 0..50 {
        let error = ask(&directory).await.expect_err("nobody is there");
        assert!(error.cause.is_temporary(), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(!directory.health()[0].up);
    server.resume().expect("started");
    back(&directory).await;
    assert!(directory.health()[0].up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_holds_nobody_longer_than_the_limit() {
    let Some(server) = ground::server() else { return };
    let limit = Interval::seconds(1);
    let settings =
        LdapSettings { connect_timeout: limit, search_timeout: limit, ..ground::settings(&server) };
    let directory = directory(&settings).await;
    assert_eq!(ask(&directory).await, Ok(true));
    server.freeze().expect("frozen");
    let begin = Instant::now();
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let directory = directory.clone();
            tokio::spawn(async move { ask(&directory).await })
        })
        .collect();
    for one in waiting {
        assert!(one.await.expect("ended").is_err());
    }
    // One after the other would be 200 s.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    server.thaw().expect("thawed");
    back(&directory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_short_is_no_answer() {
    let Some(mut server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    let small = LdapSettings { size_limit: 3, ..ground::settings(&server) };
    let impatient = ground::directory(&small).await;
    let members = impatient.alias_members("staff@example.com").await.expect_err("six members");
    assert!(members.cause.is_temporary() && members.to_string().contains("incomplete"), "{members}");
    assert_eq!(directory.alias_members("staff@example.com").await.map(|all| all.len()), Ok(6));
    server.restart_with_size_limit(Some(2)).expect("restarted");
    let error = directory.alias_members("staff@example.com").await.expect_err("six members");
    assert!(error.cause.is_temporary(), "{error}");
    assert!(directory.local_domains().await.is_err());
    // What one entry answers is answered.
    assert_eq!(ask(&directory).await, Ok(true));
    assert_eq!(directory.is_local_domain("example.com", DomainScope::ALL).await, Ok(true));
    server.restart_with_size_limit(None).expect("restarted");
    assert_eq!(directory.alias_members("staff@example.com").await.map(|all| all.len()), Ok(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_referral_is_not_followed_and_no_answer() {
    let Some(server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    assert_eq!(directory.mailbox_exists("nobody@example.com").await, Ok(false));
    server
        .add(&format!(
            "dn: cn=elsewhere,{}\nobjectClass: referral\nobjectClass: extensibleObject\ncn: elsewhere\n\
             ref: ldap://127.0.0.1:1/o=domains,dc=example,dc=com\n",
            Slapd::BASE_DN
        ))
        .expect("added");
    let error = directory.mailbox_exists("nobody@example.com").await.expect_err("perhaps elsewhere");
    assert!(error.cause.is_temporary(), "{error}");
    // What was found is found.
    assert_eq!(ask(&directory).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_domains_come_page_by_page_and_many_searches_at_a_time() {
    let Some(server) = ground::server() else { return };
    let directory = directory(&ground::settings(&server)).await;
    let mut ldif = String::new();
    for number in 0..1600 {
        ldif.push_str(&format!(
            "dn: domainName=d{number}.example,{}\nobjectClass: mailDomain\ndomainName: d{number}.example\n\
             accountStatus: active\nenabledService: mail\n\n",
            Slapd::BASE_DN
        ));
    }
    server.add(&ldif).expect("added");
    let both = tokio::join!(directory.local_domains(), directory.local_domains());
    for domains in [both.0, both.1] {
        assert_eq!(domains.map(|names| names.len()), Ok(1605));
    }
    let asking: Vec<_> = (0..200)
        .map(|number| {
            let directory = directory.clone();
            tokio::spawn(async move {
                let local = directory.is_local_domain(&format!("d{number}.example"), DomainScope::ALL).await;
                (local, directory.mailbox_exists(&format!("u@d{number}.example")).await)
            })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.expect("ended"), (Ok(true), Ok(false)));
    }
}
