//! T35: a real LDAP server that refers elsewhere, cuts answers off, refuses a login later, and holds entries that are
//! huge, binary or oddly named. What is not known is never a refusal and never "no such list".

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use outrider_core::daemon::Daemon as _;
use outrider_policyd::settings::{InvalidAddress, OnFailure};
use outrider_tests::slapd::Slapd;

use crate::ldap::{daemon, rcpt};
use crate::world::{Service, World};

const REFUSED: &str = "REJECT Not authorized";
const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const LISTS: &str = "ldap_maillist_access_policy";
const MEMBER: &str = "alice@example.com";
const STRANGER: &str = "x@remote.example";
const STAFF: &str = "staff@example.com";

/// `None` where slapd is not installed.
async fn ground() -> Option<(World, Slapd)> {
    if !Slapd::is_installed() {
        return None;
    }
    Some((World::sqlite().await, Slapd::start().expect("started")))
}

fn dn(rest: &str) -> String {
    format!("{rest},{}", Slapd::BASE_DN)
}

/// A list for its members, in LDIF.
fn list(name: &str, address: &str) -> String {
    format!(
        "dn: {name}\nobjectClass: mailList\nmail: {address}\naccountStatus: active\nenabledService: mail\n\
         enabledService: deliver\naccessPolicy: membersOnly\n"
    )
}

/// A user, in LDIF.
fn user(name: &str, address: &str) -> String {
    format!(
        "dn: {name}\nobjectClass: inetOrgPerson\nobjectClass: mailUser\ncn: x\nsn: x\nuid: x\nmail: {address}\n\
         accountStatus: active\nenabledService: mail\nenabledService: deliver\nenabledService: shadowaddress\n"
    )
}

/// Asks until this is the answer.
async fn back(service: &Service, expected: &str) {
    let begin = Instant::now();
    loop {
        let answer = rcpt(service, STRANGER, STAFF, "").await;
        if answer == expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the way back was not found: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t35_referrals_are_not_followed_and_no_answer() {
    let Some((world, server)) = ground().await else { return };
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let there = elsewhere.local_addr().expect("an address");
    let defers = daemon(&world, &server, LISTS, |_| {}).await;
    let passes = daemon(&world, &server, LISTS, |settings| settings.on_failure.vmail = OnFailure::Pass).await;
    assert_eq!(rcpt(&defers, STRANGER, STAFF, "").await, REFUSED);

    // A whole domain that is elsewhere: it cannot be told who is a member, nor whether there is such a list.
    let referral = |name: &str, more: &str| {
        format!(
            "dn: {name}\nobjectClass: referral\nobjectClass: extensibleObject\n{more}\n\
             ref: ldap://{there}/o=domains,dc=example,dc=com\n"
        )
    };
    let far = dn("domainName=far.example");
    server.add(&referral(&far, "domainName: far.example")).expect("added");
    for (sender, recipient) in [
        (STRANGER, "staff@far.example"),
        (STRANGER, STAFF),
        (MEMBER, STAFF),
        (STRANGER, "nobody@example.com"),
    ] {
        assert_eq!(rcpt(&defers, sender, recipient, "").await, DEFER, "{sender} {recipient}");
        assert_eq!(rcpt(&passes, sender, recipient, "").await, "DUNNO", "{sender} {recipient}");
    }
    let forget =
        |name: &str| format!("dn: {name}\ncontrol: 2.16.840.1.113730.3.4.2 true\nchangetype: delete\n");
    server.modify(&forget(&far)).expect("deleted");
    back(&defers, REFUSED).await;

    // Below the list's own domain: the list is found, its members are not all here.
    let part = dn("ou=Far,domainName=example.com");
    server.add(&referral(&part, "ou: Far")).expect("added");
    assert_eq!(rcpt(&defers, STRANGER, STAFF, "").await, DEFER);
    assert_eq!(rcpt(&passes, STRANGER, STAFF, "").await, "DUNNO");
    server.modify(&forget(&part)).expect("deleted");
    back(&defers, REFUSED).await;
    assert_eq!(rcpt(&defers, MEMBER, STAFF, "").await, "DUNNO");

    let called = tokio::time::timeout(Duration::from_millis(10), elsewhere.accept()).await;
    assert!(called.is_err(), "nobody goes elsewhere: {called:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t35_answers_cut_off_are_no_answers() {
    let Some((world, mut server)) = ground().await else { return };
    let defers = daemon(&world, &server, LISTS, |_| {}).await;
    let passes = daemon(&world, &server, LISTS, |settings| settings.on_failure.vmail = OnFailure::Pass).await;
    let small = daemon(&world, &server, LISTS, |settings| settings.ldap.size_limit = 1).await;
    // A second account with the list's address makes an answer of two entries.
    let twin = user(&dn("mail=twin@example.com,ou=Users,domainName=example.com"), "twin@example.com");
    server.add(&format!("{twin}shadowAddress: {STAFF}\n")).expect("added");
    assert_eq!(rcpt(&defers, STRANGER, STAFF, "").await, REFUSED);
    assert_eq!(rcpt(&small, STRANGER, STAFF, "").await, DEFER, "our own limit");
    assert_eq!(rcpt(&small, MEMBER, "both@example.com", "").await, "DUNNO", "one entry is within it");
    server.restart_with_size_limit(Some(1)).expect("restarted");
    assert_eq!(rcpt(&defers, STRANGER, STAFF, "").await, DEFER, "the server's");
    assert_eq!(rcpt(&passes, STRANGER, STAFF, "").await, "DUNNO");
    assert_eq!(rcpt(&defers, STRANGER, "both@example.com", "").await, REFUSED);
    assert_eq!(rcpt(&defers, MEMBER, "both@example.com", "").await, "DUNNO");
    server.restart_with_size_limit(None).expect("restarted");
    back(&defers, REFUSED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t35_a_login_refused_later_is_a_failure_until_it_is_accepted_again() {
    let Some((world, mut server)) = ground().await else { return };
    let service = daemon(&world, &server, LISTS, |_| {}).await;
    let up = || service.health().iter().any(|one| one.name == "ldap" && one.up);
    assert_eq!(rcpt(&service, STRANGER, STAFF, "").await, REFUSED);
    assert!(up());
    let password = |text: &str| {
        format!("dn: {}\nchangetype: modify\nreplace: userPassword\nuserPassword: {text}\n", Slapd::BIND_DN)
    };
    server.modify(&password("Changed-1")).expect("changed");
    assert_eq!(rcpt(&service, STRANGER, STAFF, "").await, REFUSED, "logged in already");
    server.stop().expect("stopped");
    server.resume().expect("started");
    for sender in [STRANGER, MEMBER] {
        assert_eq!(rcpt(&service, sender, STAFF, "").await, DEFER, "{sender}");
    }
    assert!(!up());
    let health = format!("{:?}", service.health());
    assert!(!health.contains(Slapd::BIND_PASSWORD), "{health}");
    server.modify(&password(Slapd::BIND_PASSWORD)).expect("changed back");
    back(&service, REFUSED).await;
    assert_eq!(rcpt(&service, MEMBER, STAFF, "").await, "DUNNO");
    assert!(up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t35_huge_and_binary_entries_are_what_they_are() {
    let Some((world, server)) = ground().await else { return };
    let service = daemon(&world, &server, LISTS, |_| {}).await;
    // Photographs, certificates and bytes that are no text, beside what is asked for; and values by the ten thousand.
    let photograph: Vec<u8> = (0..400_000_u32).map(|number| (number * 7 % 251) as u8 | 0x80).collect();
    let photograph = BASE64_STANDARD.encode(photograph);
    let change = |name: &str, attribute: &str, value: &str| {
        format!("dn: {name}\nchangetype: modify\nadd: {attribute}\n{attribute}{value}\n\n")
    };
    let alice = dn("mail=alice@example.com,ou=Users,domainName=example.com");
    let mut ldif = change(&alice, "jpegPhoto", &format!(":: {photograph}"));
    ldif.push_str(&change(
        &alice,
        "audio",
        &format!(":: {}", BASE64_STANDARD.encode([0, 0xff, b'\n', 0xfe])),
    ));
    let both = dn("mail=both@example.com,ou=Groups,domainName=example.com");
    let many = |attribute: &str, end: &str| -> String {
        (0..10_000).map(|number| format!("{attribute}: n{number:05}{end}\n")).collect()
    };
    ldif.push_str(&format!(
        "dn: {both}\nchangetype: modify\nadd: listAllowedUser\n{}\n",
        many("listAllowedUser", "@many.example")
    ));
    ldif.push_str(&format!(
        "dn: {alice}\nchangetype: modify\nadd: shadowAddress\n{}\n",
        many("shadowAddress", "@alias.example")
    ));
    server.modify(&ldif).expect("changed");
    for (sender, recipient, expected) in [
        (MEMBER, STAFF, "DUNNO"),
        ("n00000@alias.example", STAFF, "DUNNO"),
        ("n09999@alias.example", STAFF, "DUNNO"),
        ("n10000@alias.example", STAFF, REFUSED),
        (STRANGER, STAFF, REFUSED),
        ("n00000@many.example", "both@example.com", "DUNNO"),
        ("n09999@many.example", "both@example.com", "DUNNO"),
        ("n10000@many.example", "both@example.com", REFUSED),
        ("guest@partner.example", "both@example.com", "DUNNO"),
    ] {
        assert_eq!(rcpt(&service, sender, recipient, "").await, expected, "{sender} {recipient}");
    }
    // Only what decides is fetched.
    let log = server.log();
    let asked: Vec<&str> = log.lines().filter(|line| line.contains("SRCH attr=")).collect();
    assert!(!asked.is_empty());
    for line in asked {
        assert!(!line.contains("jpegPhoto") && !line.contains("attr=*"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_t35_oddly_named_entries_are_found_by_exactly_their_names() {
    let Some((world, server)) = ground().await else { return };
    // Names of entries with all that RFC 4514 wants escaped, as \\XX and as the sign itself.
    let odd_domain = "we,ird+1=2;3.example";
    let below = dn("domainName=we\\,ird\\2b1\\=2\\;3.example");
    let mut ldif = format!(
        "dn: {below}\nobjectClass: mailDomain\ndomainName: {odd_domain}\naccountStatus: active\nenabledService: mail\n\n"
    );
    let address = format!("list@{odd_domain}");
    ldif.push_str(&list(&format!("mail=list@we\\2cird\\+1=2\\3b3.example,{below}"), &address));
    let member = "\"me\",<1>=#\\@example.com";
    let named = dn("mail=\\\"me\\\"\\2c\\3c1\\>=#\\\\@example.com,ou=Users,domainName=example.com");
    ldif.push_str(&format!("\n{}memberOfGroup: {STAFF}\n\n", user(&named, member)));
    let groups = dn("ou=Groups,domainName=example.com");
    for (name, address) in [
        ("mail=\\#first\\, second\\+third@example.com", "#first, second+third@example.com"),
        ("mail=a\\3db\\3c\\3ec@example.com", "a=b<>c@example.com"),
        ("mail=*@example.com", "*@example.com"),
    ] {
        ldif.push_str(&format!("{}\n", list(&format!("{name},{groups}"), address)));
    }
    server.add(&ldif).expect("added");
    let service = daemon(&world, &server, LISTS, |settings| {
        settings.invalid_address = InvalidAddress::Check;
        // A plus sign is a sign like any other here.
        settings.recipient_delimiters = vec!["~".to_owned()];
    })
    .await;
    for (sender, recipient, expected) in [
        (member, STAFF.to_owned(), "DUNNO"),
        ("\"me\",<1>=#@example.com", STAFF.to_owned(), REFUSED),
        ("\\22me\\22,<1>=#\\@example.com", STAFF.to_owned(), REFUSED),
        (STRANGER, address.clone(), REFUSED),
        (MEMBER, address.clone(), REFUSED),
        (STRANGER, "a=b<>c@example.com".to_owned(), REFUSED),
        (STRANGER, "*@example.com".to_owned(), REFUSED),
        // Not any list, and not that of another spelling.
        (STRANGER, "x@example.com".to_owned(), "DUNNO"),
        (STRANGER, "a\\3db<>c@example.com".to_owned(), "DUNNO"),
        // Names with blanks are no addresses of the tree.
        (STRANGER, "#first, second+third@example.com".to_owned(), "DUNNO"),
        (STRANGER, "list@we\\,ird\\+1=2\\;3.example".to_owned(), "DUNNO"),
    ] {
        assert_eq!(rcpt(&service, sender, &recipient, "").await, expected, "{sender} {recipient}");
    }
}
