//! What each question answers.

use outrider_core::directory::{
    AccountSource, Directory, DomainScope, ListKind, PasswordChange, SenderRights, open,
};
use outrider_tests::folder::Folder;
use outrider_tests::slapd::Slapd;

use crate::ground;

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_from_the_tree() {
    let Some(server) = ground::server() else { return };
    let folder = Folder::new("usage").expect("a folder");
    let database = ground::usage(&folder).await;
    let settings = ground::settings(&server);
    let directory = open(AccountSource::Ldap, &settings, &database, folder.path()).await.expect("opened");
    let directory = &*directory;
    assert_eq!(directory.source(), AccountSource::Ldap);
    domains(directory).await;
    senders(directory).await;
    lists(directory).await;
    mailboxes(directory).await;
    forwardings(directory).await;
    nothing_but_values(directory, &server).await;
    odd_and_huge_entries(directory, &server).await;
    let health = directory.health();
    assert_eq!(
        health.iter().map(|one| (one.name, one.up)).collect::<Vec<_>>(),
        [("ldap", true), ("iredadmin", true)]
    );
}

async fn domains(directory: &dyn Directory) {
    let scope = |backup_mx, alias_domains| DomainScope { backup_mx, alias_domains };
    for (domain, scope, expected) in [
        ("EXAMPLE.com", scope(false, false), true),
        ("backup.example", scope(false, true), false),
        ("backup.example", scope(true, false), true),
        ("off.example", scope(true, true), false),
        ("alias.example", scope(true, false), false),
        ("Alias.example", scope(false, true), true),
        ("lost.example", scope(true, true), false),
        ("nowhere.example", scope(true, true), false),
        ("example", scope(true, true), false),
    ] {
        assert_eq!(directory.is_local_domain(domain, scope).await, Ok(expected), "{domain} {scope:?}");
    }
    for (domain, target) in
        [("ALIAS.example", Some("example.com")), ("lost.example", None), ("example.com", None)]
    {
        assert_eq!(directory.alias_target(domain).await, Ok(target.map(str::to_owned)), "{domain}");
    }
    assert_eq!(directory.alias_domain_of("lost.example", "OFF.example").await, Ok(true));
    assert_eq!(directory.alias_domain_of("off.example", "lost.example").await, Ok(false));
    let names = async |domain| sorted(directory.domain_names(domain).await.expect("answered"));
    for domain in ["Example.com", "second.example"] {
        assert_eq!(names(domain).await, ["alias.example", "example.com", "second.example"], "{domain}");
    }
    assert!(names("nowhere.example").await.is_empty());
    assert_eq!(
        sorted(directory.local_domains().await.expect("answered")),
        ["alias.example", "backup.example", "example.com", "partner-site.example", "second.example"]
    );
}

async fn senders(directory: &dyn Directory) {
    let aliases = SenderRights { aliases: true, lists: false };
    let lists = SenderRights { aliases: false, lists: true };
    for (login, sender, rights, expected) in [
        ("Alice@example.com", "Nick@example.com", aliases, true),
        ("alice@example.com", "alice@alias.example", aliases, true),
        ("alice@example.com", "c@example.com", aliases, false),
        ("nick@example.com", "alice@example.com", aliases, false),
        ("alice@example.com", "staff@example.com", aliases, false),
        ("alice@example.com", "staff@example.com", lists, true),
        ("nick@example.com", "staff@example.com", lists, true),
        ("bob@example.com", "staff@example.com", lists, false),
        ("alice@example.com", "sales@example.com", lists, true),
        ("alice@example.com", "verkauf@example.com", lists, true),
        ("carol@example.com", "sales@example.com", lists, false),
        ("alice@example.com", "nick@example.com", lists, false),
        ("alice@example.com", "nick@example.com", SenderRights { aliases: true, lists: true }, true),
        ("alice@example.com", "nick@example.com", SenderRights { aliases: false, lists: false }, false),
        ("", "", SenderRights { aliases: true, lists: true }, false),
    ] {
        let answer = directory.login_may_use(login, sender, rights).await;
        assert_eq!(answer, Ok(expected), "{login} {sender} {rights:?}");
    }
    assert_eq!(directory.login_has_alias("alice@example.com", "NICK@example.com").await, Ok(true));
    assert_eq!(directory.alias_has_member("STAFF@example.com", "carol@example.com").await, Ok(true));
    assert_eq!(directory.alias_has_member("staff@example.com", "bob@example.com").await, Ok(false));
    for (domain, alias, users) in [
        ("example.com", "NICK@example.com", vec!["alice@example.com"]),
        ("example.com", "alice@alias.example", vec!["alice@example.com"]),
        // Carol has the service switched off, and u2 is at home elsewhere.
        ("example.com", "c@example.com", vec![]),
        ("example.com", "u2@partner-site.example", vec![]),
        ("nowhere.example", "nick@example.com", vec![]),
    ] {
        let found = directory.users_with_alias(domain, alias).await.expect("answered");
        assert_eq!(found, users, "{alias}");
    }
}

async fn lists(directory: &dyn Directory) {
    assert_eq!(directory.is_active_maillist("NEWS@example.com").await, Ok(true));
    for address in ["quiet@example.com", "staff@example.com", "nowhere@example.com"] {
        assert_eq!(directory.is_active_maillist(address).await, Ok(false), "{address}");
    }
    for (kind, address, policy) in [
        (ListKind::Alias, "SALES@example.com", Some("membersonly")),
        (ListKind::Alias, "staff@example.com", None),
        (ListKind::Maillist, "open@example.com", Some("")),
        (ListKind::Maillist, "quiet@example.com", Some("moderatorsonly")),
        (ListKind::Maillist, "staff@alias.example", Some("membersonly")),
    ] {
        assert_eq!(directory.list_policy(kind, address).await, Ok(policy.map(str::to_owned)), "{address}");
    }
    assert_eq!(directory.moderators("Sales@example.com").await, Ok(vec!["boss@example.com".to_owned()]));
    assert_eq!(directory.moderators("staff@example.com").await, Ok(vec!["mod@example.com".to_owned()]));
    assert_eq!(directory.owners("staff@example.com").await, Ok(vec!["owner@example.com".to_owned()]));
    let members = async |address| sorted(directory.alias_members(address).await.expect("answered"));
    assert_eq!(members("sales@example.com").await, ["alice@example.com", "someone@partner.example"]);
    assert_eq!(
        members("staff@example.com").await,
        [
            "alice@example.com",
            "carol@example.com",
            "guest@partner.example",
            "off@example.com",
            "second@partner.example",
            "u@partner-site.example"
        ]
    );
    let entry = directory.list_entry("Staff@alias.example").await.expect("answered").expect("a list");
    assert_eq!((&*entry.address, &*entry.policy), ("staff@example.com", "membersonly"));
    assert!(entry.active && !entry.managed);
    assert_eq!(
        (entry.moderators, entry.owners),
        (vec!["mod@example.com".to_owned()], vec!["owner@example.com".to_owned()])
    );
    let entry = directory.list_entry("both@example.com").await.expect("answered").expect("a list");
    assert_eq!(
        sorted(entry.allowed),
        ["*@star.example", ".tree.example", "friends.example", "guest@partner.example"]
    );
    let entry = directory.list_entry("quiet@example.com").await.expect("answered").expect("a list");
    assert!(entry.managed && !entry.active);
    for address in ["sales@example.com", "alice@example.com", "nobody@example.com", ""] {
        assert_eq!(directory.list_entry(address).await, Ok(None), "{address}");
    }
    for (member, expected) in [
        ("alice@example.com", true),
        ("Nick@example.com", true),
        ("guest@partner.example", true),
        ("second@partner.example", true),
        ("bob@example.com", false),
        // Disabled, or at home below another domain.
        ("off@example.com", false),
        ("u@partner-site.example", false),
    ] {
        assert_eq!(directory.list_has_member("staff@example.com", member).await, Ok(expected), "{member}");
    }
    assert_eq!(directory.list_has_member("staff@nowhere.example", "alice@example.com").await, Ok(false));
}

async fn mailboxes(directory: &dyn Directory) {
    for (name, day) in [
        ("Alice@example.com", Some(20162)),
        ("nick@example.com", Some(20162)),
        ("bob@example.com", Some(0)),
        ("sales@example.com", None),
        ("nobody@example.com", None),
    ] {
        let changed = directory.password_last_change(name).await;
        assert_eq!(changed, Ok(day.map(PasswordChange::Day)), "{name}");
    }
    for (name, expected) in
        [("OFF@example.com", true), ("nick@example.com", false), ("sales@example.com", false)]
    {
        assert_eq!(directory.mailbox_exists(name).await, Ok(expected), "{name}");
    }
    for (address, expected) in [
        ("Alice@example.com", Some(("alice@example.com", 1 << 30, Some(5_000_000_000)))),
        ("nick@example.com", Some(("alice@example.com", 1 << 30, Some(5_000_000_000)))),
        ("bob@example.com", Some(("bob@example.com", 0, None))),
        ("carol@example.com", Some(("carol@example.com", 0, None))),
        ("large@example.com", Some(("large@example.com", i64::MAX, None))),
        ("c@example.com", None),
        ("off@example.com", None),
        ("noquota@example.com", None),
        ("u@off.example", None),
        ("sales@example.com", None),
        ("nobody@example.com", None),
    ] {
        let account = directory.quota_account(address).await.expect("answered");
        let account = account.as_ref().map(|found| (&*found.username, found.limit_bytes, found.used_bytes));
        assert_eq!(account, expected, "{address}");
        let limit = directory.quota_limit(address).await.expect("answered");
        let limit = limit.as_ref().map(|found| (&*found.username, found.limit_bytes, found.used_bytes));
        assert_eq!(limit, expected.map(|(name, limit, _)| (name, limit, None)), "{address}");
    }
    let folder = directory.maildir("Alice@example.com").await;
    assert_eq!(folder, Ok(Some("/var/vmail/vmail1/example.com/a/l/i/alice/Maildir".to_owned())));
    assert_eq!(directory.maildir("nobody@example.com").await, Ok(None));
    assert_eq!(directory.domain_quota("example.com").await, Ok(None));
    assert_eq!(directory.used_quota("ALICE@example.com").await, Ok(Some(5_000_000_000)));
    assert_eq!(directory.used_quota("bob@example.com").await, Ok(None));
}

async fn forwardings(directory: &dyn Directory) {
    for (address, targets) in [
        ("sales@example.com", vec!["alice@example.com", "someone@partner.example"]),
        ("Forwarded@example.com", vec!["alice@example.com", "someone@partner.example"]),
        ("nick@example.com", vec!["alice@example.com"]),
        ("c@example.com", vec!["carol@example.com"]),
        ("bob@example.com", vec!["bob@example.com"]),
        ("off@example.com", vec![]),
        ("news@example.com", vec!["news@example.com"]),
        ("example.com", vec!["alice@example.com"]),
        ("@example.com", vec!["alice@example.com"]),
        ("example.org", vec![]),
        ("nobody@example.com", vec![]),
    ] {
        let found = directory.forwarding_targets(address).await.expect("answered");
        assert_eq!(found, targets, "{address}");
    }
    let found = directory.forwarding_targets("staff@example.com").await.expect("answered");
    assert!(
        found.contains(&"guest@partner.example".to_owned()) && !found.contains(&"off@example.com".to_owned())
    );
}

/// Canaries through every parameter of every question: nothing is found and nothing fails, although they would find
/// everything or break the filter if they left their place.
async fn nothing_but_values(directory: &dyn Directory, server: &Slapd) {
    let long = "x".repeat(8192);
    let canaries = [
        "*",
        "(",
        ")",
        "\\",
        "\0",
        ",",
        "+",
        "\"",
        "<",
        ">",
        ";",
        "=",
        "#",
        " ",
        "a*",
        "*)(mail=*",
        "*)(objectClass=*))(|(a=",
        ")(|(mail=*))",
        "\\2a",
        "\\",
        "a,o=domains",
        "mail=*",
        "'",
        "%",
        "\u{7f}",
        "\r\n",
        "ä\u{1F4E7}",
        &long,
    ];
    let known = "alice@example.com";
    let nobody: Vec<String> = Vec::new();
    let rights = SenderRights { aliases: true, lists: true };
    for canary in canaries {
        for name in [
            canary.to_owned(),
            format!("{canary}@example.com"),
            format!("alice@{canary}.example.com"),
            format!("{canary}.example.com"),
        ] {
            let name = name.as_str();
            let shown = &name[..name.len().min(40)];
            for scope in [DomainScope::ALL, DomainScope { backup_mx: false, alias_domains: false }] {
                assert_eq!(directory.is_local_domain(name, scope).await, Ok(false), "{shown:?}");
            }
            assert_eq!(directory.alias_target(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.domain_names(name).await.as_ref(), Ok(&nobody), "{shown:?}");
            for (first, second) in [(name, known), (known, name), (name, name)] {
                assert_eq!(directory.alias_domain_of(first, second).await, Ok(false), "{shown:?}");
                assert_eq!(directory.login_has_alias(first, second).await, Ok(false), "{shown:?}");
                assert_eq!(directory.login_may_use(first, second, rights).await, Ok(false), "{shown:?}");
                assert_eq!(directory.alias_has_member(first, second).await, Ok(false), "{shown:?}");
                assert_eq!(directory.list_has_member(first, second).await, Ok(false), "{shown:?}");
                assert_eq!(
                    directory.users_with_alias(first, second).await.as_ref(),
                    Ok(&nobody),
                    "{shown:?}"
                );
            }
            assert_eq!(directory.is_active_maillist(name).await, Ok(false), "{shown:?}");
            assert_eq!(directory.list_policy(ListKind::Alias, name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.list_policy(ListKind::Maillist, name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.list_entry(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.alias_members(name).await.as_ref(), Ok(&nobody), "{shown:?}");
            assert_eq!(directory.moderators(name).await.as_ref(), Ok(&nobody), "{shown:?}");
            assert_eq!(directory.owners(name).await.as_ref(), Ok(&nobody), "{shown:?}");
            assert_eq!(directory.forwarding_targets(name).await.as_ref(), Ok(&nobody), "{shown:?}");
            assert_eq!(directory.password_last_change(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.mailbox_exists(name).await, Ok(false), "{shown:?}");
            assert_eq!(directory.quota_account(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.quota_limit(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.maildir(name).await, Ok(None), "{shown:?}");
            assert_eq!(directory.used_quota(name).await, Ok(None), "{shown:?}");
        }
    }
    // The tree is as it was, and the password never reached the log of the server.
    assert_eq!(directory.mailbox_exists(known).await, Ok(true));
    assert!(!server.log().contains(Slapd::BIND_PASSWORD));
}

/// Entries whose own names need escaping are found by exactly their names, and one with tens of thousands of values comes
/// whole.
async fn odd_and_huge_entries(directory: &dyn Directory, server: &Slapd) {
    let aliases = format!("ou=Aliases,domainName=example.com,{}", Slapd::BASE_DN);
    let odd = [
        ("a*b@example.com", "a*b@example.com"),
        ("a(b)\\c@example.com", "a(b)\\5cc@example.com"),
        ("a,b+c\"<d>;e=f@example.com", "a\\2cb\\2bc\\22\\3cd\\3e\\3be\\3df@example.com"),
        ("#first@example.com", "\\23first@example.com"),
    ];
    let mut ldif = String::new();
    for (address, escaped) in odd {
        ldif.push_str(&format!(
            "dn: mail={escaped},{aliases}\nobjectClass: mailAlias\nmail: {address}\naccountStatus: active\n\
             enabledService: mail\nenabledService: deliver\nmailForwardingAddress: bob@example.com\n\n"
        ));
    }
    ldif.push_str(&format!(
        "dn: mail=huge@example.com,{aliases}\nobjectClass: mailAlias\nmail: huge@example.com\naccountStatus: active\n\
         enabledService: mail\nenabledService: deliver\n"
    ));
    for number in 0..30_000 {
        ldif.push_str(&format!("mailForwardingAddress: member-{number:05}@partner.example\n"));
    }
    server.add(&ldif).expect("added");
    for (address, _) in odd {
        let members = directory.alias_members(address).await.expect("answered");
        assert_eq!(members, ["bob@example.com"], "{address}");
        let rights = SenderRights { aliases: false, lists: true };
        assert_eq!(directory.login_may_use("bob@example.com", address, rights).await, Ok(true), "{address}");
    }
    // The star is a character like any other.
    assert_eq!(directory.alias_members("axb@example.com").await, Ok(Vec::new()));
    let members = directory.alias_members("huge@example.com").await.expect("answered");
    assert_eq!(members.len(), 30_000);
}
