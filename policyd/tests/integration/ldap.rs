//! Accounts in an LDAP tree: a real server with iRedMail's object classes.

use std::sync::{Arc, Mutex};

use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::settings::{Interval, Secret};
use outrider_policyd::Settings;
use outrider_policyd::settings::OnFailure;
use outrider_tests::slapd::Slapd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{Service, World, ask};

const REFUSED: &str = "REJECT Not authorized";
const MISMATCH: &str = "REJECT Sender is not same as SMTP authenticate username";
const FORGED: &str = "REJECT SMTP AUTH is required for users under this sender domain";

fn use_tree(settings: &mut Settings, server: &Slapd) {
    settings.accounts = AccountSource::Ldap;
    settings.ldap = LdapSettings {
        uri: server.uri().parse().expect("an address"),
        base_dn: Slapd::BASE_DN.to_owned(),
        bind_dn: Slapd::BIND_DN.to_owned(),
        bind_password: Secret::new(Slapd::BIND_PASSWORD),
        search_timeout: Interval::seconds(2),
        ..LdapSettings::default()
    };
}

pub(crate) async fn daemon(
    world: &World,
    server: &Slapd,
    plugin: &str,
    change: impl FnOnce(&mut Settings),
) -> Service {
    let change = |settings: &mut Settings| {
        use_tree(settings, server);
        change(settings);
    };
    world.daemon_with(&[plugin], change).await
}

pub(crate) async fn rcpt(service: &Service, sender: &str, recipient: &str, login: &str) -> String {
    let request = [
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("client_address", "192.0.2.7"),
        ("sender", sender),
        ("recipient", recipient),
        ("sasl_username", login),
    ];
    ask(service, &request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_about_an_ldap_tree() {
    if !Slapd::is_installed() {
        return;
    }
    let mut server = Slapd::start().expect("started");
    let world = World::sqlite().await;
    access_to_lists(&world, &server).await;
    ages_of_passwords(&world, &server).await;
    senders_of_a_login(&world, &server).await;
    threat_t13_names_are_never_filters(&world, &server).await;
    an_outage(&world, &mut server).await;
}

async fn access_to_lists(world: &World, server: &Slapd) {
    let service = daemon(world, server, "ldap_maillist_access_policy", |_| {}).await;
    let (member, guest, stranger) = ("alice@example.com", "guest@partner.example", "x@remote.example");
    let cases = [
        // No list at all, and lists for everybody.
        (stranger, "alice@example.com", "", "DUNNO"),
        (stranger, "sales@example.com", "", "DUNNO"),
        (stranger, "nobody@example.com", "", "DUNNO"),
        (stranger, "open@example.com", "", "DUNNO"),
        (stranger, "public@example.com", "", "DUNNO"),
        (stranger, "strange@example.com", "", "DUNNO"),
        (stranger, "closed@example.com", "", "REJECT Policy rejection"),
        // Lists with a manager: its business.
        (stranger, "news@example.com", "", "DUNNO"),
        (stranger, "quiet@example.com", "", "REJECT Policy rejection"),
        // Members, under any of their addresses and from outside.
        (member, "staff@example.com", "", "DUNNO"),
        ("Alice+tag@Example.com", "STAFF@example.com", "", "DUNNO"),
        ("nick@example.com", "staff@example.com", "", "DUNNO"),
        (member, "staff+x@alias.example", "", "DUNNO"),
        (guest, "staff@example.com", "", "DUNNO"),
        ("mod@example.com", "staff@example.com", "", "DUNNO"),
        ("owner@example.com", "staff@example.com", "", "DUNNO"),
        ("bob@example.com", "staff@example.com", "", REFUSED),
        ("off@example.com", "staff@example.com", "", REFUSED),
        (stranger, "staff@example.com", "", REFUSED),
        ("", "staff@example.com", "", REFUSED),
        (stranger, "staff@example.com", "staff@example.com", "DUNNO"),
        // Members and those who are named.
        (member, "both@example.com", "", "DUNNO"),
        (guest, "both@example.com", "", "DUNNO"),
        ("any@friends.example", "both@example.com", "", "DUNNO"),
        ("any@star.example", "both@example.com", "", "DUNNO"),
        ("any@deep.tree.example", "both@example.com", "", "DUNNO"),
        (stranger, "both@example.com", "", REFUSED),
        // Those who are named only, with a login also under their other addresses.
        (member, "inner@example.com", "", "DUNNO"),
        ("nick@example.com", "inner@example.com", "", REFUSED),
        ("nick@example.com", "inner@example.com", member, "DUNNO"),
        ("c@example.com", "inner@example.com", "carol@example.com", REFUSED),
        ("bob@example.com", "inner@example.com", "bob@example.com", REFUSED),
        ("any@alias.example", "bosses@example.com", "", REFUSED),
        ("any@alias.example", "bosses@example.com", "bob@example.com", "DUNNO"),
        ("any@example.com", "bosses@example.com", "", "DUNNO"),
        (stranger, "bosses@example.com", "bob@example.com", REFUSED),
        // The domain under all its names, and what is below.
        ("any@example.com", "ours@example.com", "", "DUNNO"),
        ("any@second.example", "ours@example.com", "", "DUNNO"),
        ("any@sub.example.com", "ours@example.com", "", REFUSED),
        ("mod@outside.example", "ours@example.com", "", "DUNNO"),
        (stranger, "ours@example.com", "", REFUSED),
        ("any@sub.example.com", "wide@example.com", "", "DUNNO"),
        ("any@sub.second.example", "wide@example.com", "", "DUNNO"),
        ("any@notexample.com", "wide@example.com", "", REFUSED),
    ];
    for (sender, recipient, login, expected) in cases {
        let answer = rcpt(&service, sender, recipient, login).await;
        assert_eq!(answer, expected, "{sender} -> {recipient}, login {login:?}");
    }
}

async fn ages_of_passwords(world: &World, server: &Slapd) {
    let expired = "REJECT change it";
    let service = daemon(world, server, "ldap_force_change_password", |settings| {
        settings.force_change_password.message = "change it".into();
        // Today is day 20162; Alice changed hers today, Carol on day 20000, Bob never did.
        settings.force_change_password.after = Interval::seconds(162 * 86_400);
        settings.force_change_password.never_expire = vec!["large@example.com".into()];
    })
    .await;
    for (login, expected) in [
        ("", "DUNNO"),
        ("alice@example.com", "DUNNO"),
        ("carol@example.com", expired),
        ("bob@example.com", expired),
        ("large@example.com", "DUNNO"),
        ("nobody@example.com", "DUNNO"),
    ] {
        assert_eq!(rcpt(&service, login, "x@remote.example", login).await, expected, "{login}");
    }
}

async fn senders_of_a_login(world: &World, server: &Slapd) {
    let alice = "alice@example.com";
    for (aliases, lists, sender, expected) in [
        (false, false, "nick@example.com", MISMATCH),
        (true, false, "nick@example.com", "DUNNO"),
        (true, false, "alice@alias.example", "DUNNO"),
        // Not an address of hers, although the domain is an alias of her own.
        (true, false, "alice@second.example", MISMATCH),
        (true, false, "staff@example.com", MISMATCH),
        (false, true, "nick@example.com", MISMATCH),
        (false, true, "staff@example.com", "DUNNO"),
        (false, true, "sales@example.com", "DUNNO"),
        (false, true, "inner@example.com", MISMATCH),
        // The list service is not set up, so nobody is known to subscribe.
        (true, true, "news@example.com", MISMATCH),
    ] {
        let service = daemon(world, server, "reject_sender_login_mismatch", |settings| {
            settings.reject_sender_login_mismatch.allow_aliases = aliases;
            settings.reject_sender_login_mismatch.allow_list_members = lists;
        })
        .await;
        let answer = rcpt(&service, sender, "x@remote.example", alice).await;
        assert_eq!(answer, expected, "{sender}, aliases {aliases}, lists {lists}");
    }
    let (api, asked) = list_service().await;
    let service = daemon(world, server, "reject_sender_login_mismatch", |settings| {
        let settings = &mut settings.reject_sender_login_mismatch;
        settings.allow_list_members = true;
        settings.list_api = Some(api);
        settings.list_api_token = Some(Secret::new("token"));
    })
    .await;
    // Only an active list with a manager is asked about, and only by its own address.
    for (sender, expected) in [
        ("quiet@example.com", MISMATCH),
        ("inner@example.com", MISMATCH),
        ("bob@example.com", MISMATCH),
        ("news@example.com", "DUNNO"),
    ] {
        assert_eq!(rcpt(&service, sender, "x@remote.example", alice).await, expected, "{sender}");
    }
    assert_eq!(*asked.lock().expect("whole"), ["GET /api/news@example.com/has_subscriber/alice@example.com"]);
    let service = daemon(world, server, "reject_sender_login_mismatch", |_| {}).await;
    for (sender, expected) in [
        ("any@example.com", FORGED),
        ("any@second.example", FORGED),
        ("any@backup.example", "DUNNO"),
        ("any@off.example", "DUNNO"),
        ("any@remote.example", "DUNNO"),
    ] {
        assert_eq!(rcpt(&service, sender, "x@other.example", "").await, expected, "{sender}");
    }
}

/// A list service that knows every subscriber, and what it was asked.
async fn list_service() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            seen.lock().expect("whole").push(line);
            let body = "{\"_success\": true}";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    (format!("http://{address}/api"), asked)
}

/// Text that would be a filter or the name of an entry if it were not escaped finds nothing and breaks nothing.
async fn threat_t13_names_are_never_filters(world: &World, server: &Slapd) {
    use outrider_policyd::settings::InvalidAddress;
    for plugin in
        ["ldap_maillist_access_policy", "ldap_force_change_password", "reject_sender_login_mismatch"]
    {
        let service = daemon(world, server, plugin, |settings| {
            settings.invalid_address = InvalidAddress::Check;
            settings.reject_sender_login_mismatch.allow_aliases = true;
            settings.reject_sender_login_mismatch.allow_list_members = true;
            settings.on_failure.vmail = OnFailure::Defer;
        })
        .await;
        let own = if plugin == "reject_sender_login_mismatch" { MISMATCH } else { "DUNNO" };
        for canary in ["*", "(", ")", "\\", ",", "+", "\"", "<", ">", ";", "*)(mail=*", "a,o=x", "'", "ä"] {
            let odd = format!("{canary}@example.com");
            let answer = rcpt(&service, "x@remote.example", &odd, &format!("{canary}x@example.com")).await;
            assert_eq!(answer, own, "{plugin} {canary}");
        }
    }
}

async fn an_outage(world: &World, server: &mut Slapd) {
    let defers = daemon(world, server, "ldap_maillist_access_policy", |_| {}).await;
    let passes = daemon(world, server, "ldap_maillist_access_policy", |settings| {
        settings.on_failure.vmail = OnFailure::Pass;
    })
    .await;
    let refused = async |service: &Service| rcpt(service, "x@remote.example", "staff@example.com", "").await;
    assert_eq!(refused(&defers).await, REFUSED);
    server.stop().expect("stopped");
    assert_eq!(refused(&defers).await, "DEFER_IF_PERMIT Service temporarily unavailable");
    assert_eq!(refused(&passes).await, "DUNNO");
    server.resume().expect("started");
    let begin = std::time::Instant::now();
    while refused(&defers).await != REFUSED {
        assert!(begin.elapsed().as_secs() < 15, "the way back was not found");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
