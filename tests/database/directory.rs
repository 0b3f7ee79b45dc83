//! The accounts directory on the tables of each server.

use outrider_core::directory::{
    AccountSource, Directory, DomainQuota, DomainScope, ListKind, PasswordChange, SenderRights, SqlDirectory,
};
use outrider_core::sql::Stmt;

use crate::ground::Ground;
use crate::values::CANARIES;

const ROWS: &[&str] = &[
    "INSERT INTO domain (domain, backupmx, active) VALUES ('example.com', 0, 1), ('backup.example', 1, 1), \
     ('off.example', 0, 0)",
    "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES ('alias.example', 'example.com', 1), \
     ('sleeping.example', 'example.com', 0), ('lost.example', 'off.example', 1)",
    "INSERT INTO mailbox (username, domain, quota, passwordlastchange, active) VALUES \
     ('u@example.com', 'example.com', 10, '2025-03-15 12:00:00', 1), \
     ('new@example.com', 'example.com', 0, '2024-01-01 00:00:00', 1), \
     ('off@example.com', 'example.com', 5, '2024-01-01 00:00:00', 0), \
     ('u@backup.example', 'backup.example', 5, '2024-01-01 00:00:00', 1)",
    "INSERT INTO used_quota (username, bytes, messages) VALUES ('u@example.com', 5000000000, 3)",
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_alias, is_list, is_forwarding, active) \
     VALUES ('nick@example.com', 'u@example.com', 'example.com', 'example.com', 1, 0, 0, 1), \
     ('old@example.com', 'u@example.com', 'example.com', 'example.com', 1, 0, 0, 0), \
     ('tag@example.com', 'u+x@example.com', 'example.com', 'example.com', 1, 0, 0, 1), \
     ('trap@example.com', 'uXx@example.com', 'example.com', 'example.com', 1, 0, 0, 1), \
     ('team@example.com', 'u@example.com', 'example.com', 'example.com', 0, 1, 0, 1), \
     ('team@example.com', 'gone@example.com', 'example.com', 'example.com', 0, 1, 0, 0), \
     ('u@example.com', 'u@example.com', 'example.com', 'example.com', 0, 0, 1, 1)",
    "INSERT INTO alias (address, domain, accesspolicy) VALUES ('team@example.com', 'example.com', 'MembersOnly')",
    "INSERT INTO maillists (address, domain, transport, accesspolicy, mlid, active) VALUES \
     ('list@example.com', 'example.com', 'mlmmj:example.com/list', '', 'id-1', 1), \
     ('quiet@example.com', 'example.com', 'mlmmj:example.com/quiet', 'domain', 'id-2', 0)",
    "INSERT INTO moderators (address, moderator, domain, dest_domain) VALUES \
     ('team@example.com', 'boss@example.com', 'example.com', 'example.com'), \
     ('team@example.com', '*@example.org', 'example.com', 'example.org')",
    "INSERT INTO maillist_owners (address, owner, domain, dest_domain) VALUES \
     ('list@example.com', 'owner@example.com', 'example.com', 'example.com')",
];

/// What each question answers, whatever the case of its letters.
pub(crate) async fn answers(ground: &Ground) {
    for sql in ROWS {
        ground.script(sql).await;
    }
    let directory = SqlDirectory::new(ground.vmail.clone());
    let scope = |backup_mx, alias_domains| DomainScope { backup_mx, alias_domains };
    let domains = [
        ("EXAMPLE.com", scope(false, false), true),
        ("backup.example", scope(false, false), false),
        ("backup.example", scope(true, false), true),
        ("off.example", scope(true, true), false),
        ("alias.example", scope(true, false), false),
        ("Alias.example", scope(false, true), true),
        ("sleeping.example", scope(false, true), true),
        ("lost.example", scope(true, true), false),
        ("nowhere.example", scope(true, true), false),
        ("example", scope(true, true), false),
    ];
    for (domain, scope, expected) in domains {
        assert_eq!(directory.is_local_domain(domain, scope).await, Ok(expected), "{domain} {scope:?}");
    }
    for (domain, target) in [
        ("ALIAS.example", Some("example.com")),
        ("sleeping.example", Some("example.com")),
        ("lost.example", None),
        ("example.com", None),
    ] {
        assert_eq!(directory.alias_target(domain).await, Ok(target.map(str::to_owned)), "{domain}");
    }
    assert_eq!(directory.alias_domain_of("lost.example", "OFF.example").await, Ok(true));
    assert_eq!(directory.alias_domain_of("off.example", "lost.example").await, Ok(false));
    let mut local = directory.local_domains().await.expect("answered");
    local.sort();
    assert_eq!(local, ["alias.example", "backup.example", "example.com", "sleeping.example"]);
    for (login, sender, expected) in [
        ("U@example.com", "Nick@example.com", true),
        ("u@example.com", "old@example.com", true),
        ("u@example.com", "tag@example.com", true),
        ("u@example.com", "trap@example.com", false),
        ("_@example.com", "nick@example.com", false),
        ("%@example.com", "tag@example.com", false),
        ("u@example.com", "team@example.com", false),
        ("u", "nick@example.com", false),
    ] {
        assert_eq!(directory.login_has_alias(login, sender).await, Ok(expected), "{login} {sender}");
    }
    assert_eq!(directory.alias_has_member("Team@example.com", "U@example.com").await, Ok(true));
    assert_eq!(directory.alias_has_member("team@example.com", "gone@example.com").await, Ok(false));
    assert_eq!(directory.is_active_maillist("LIST@example.com").await, Ok(true));
    assert_eq!(directory.is_active_maillist("quiet@example.com").await, Ok(false));
    for (kind, address, policy) in [
        (ListKind::Alias, "TEAM@example.com", Some("membersonly")),
        (ListKind::Alias, "list@example.com", None),
        (ListKind::Maillist, "list@example.com", Some("")),
        (ListKind::Maillist, "quiet@example.com", Some("domain")),
    ] {
        assert_eq!(directory.list_policy(kind, address).await, Ok(policy.map(str::to_owned)), "{address}");
    }
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let members = directory.alias_members("Team@example.com").await.expect("answered");
    assert_eq!(sorted(members), ["gone@example.com", "u@example.com"]);
    let moderators = directory.moderators("team@Example.com").await.expect("answered");
    assert_eq!(sorted(moderators), ["*@example.org", "boss@example.com"]);
    assert_eq!(directory.owners("list@example.com").await, Ok(vec!["owner@example.com".to_owned()]));
    assert_eq!(
        directory.password_last_change("U@example.com").await,
        Ok(Some(PasswordChange::Time("2025-03-15 12:00:00".to_owned())))
    );
    assert_eq!(directory.password_last_change("nobody@example.com").await, Ok(None));
    assert_eq!(directory.mailbox_exists("off@example.com").await, Ok(true));
    assert_eq!(directory.mailbox_exists("nobody@example.com").await, Ok(false));
    let account = directory.quota_account("U@Example.com").await.expect("answered").expect("an account");
    assert_eq!(
        (&*account.username, account.limit_bytes, account.used_bytes),
        ("u@example.com", 10 << 20, Some(5_000_000_000))
    );
    let account = directory.quota_account("new@example.com").await.expect("answered").expect("an account");
    assert_eq!((account.limit_bytes, account.used_bytes), (0, None));
    for address in ["off@example.com", "u@backup.example", "nick@example.com", "nobody@example.com"] {
        assert_eq!(directory.quota_account(address).await, Ok(None), "{address}");
    }
    assert_eq!(directory.used_quota("u@example.com").await, Ok(Some(5_000_000_000)));
    assert_eq!(directory.used_quota("new@example.com").await, Ok(None));
    assert_eq!(directory.forwarding_targets("team@example.com").await, Ok(vec!["u@example.com".to_owned()]));
    questions_of_ldap_rules(&directory).await;
    questions_of_the_quota_service(ground, &directory).await;
}

/// Limits without usage, limits of domains, and where mail lies.
async fn questions_of_the_quota_service(ground: &Ground, directory: &SqlDirectory) {
    let account = directory.quota_limit("U@Example.com").await.expect("answered").expect("an account");
    assert_eq!((&*account.username, account.limit_bytes), ("u@example.com", 10 << 20));
    assert_eq!((account.used_bytes, account.usage_failure), (None, None));
    for address in ["off@example.com", "u@backup.example", "nick@example.com", "nobody@example.com"] {
        assert_eq!(directory.quota_limit(address).await, Ok(None), "{address}");
    }
    assert_eq!(directory.domain_quota("example.com").await, Ok(None), "no limit");
    ground
        .script(
            "UPDATE domain SET maxquota = 100; \
             INSERT INTO used_quota (username, bytes, messages) VALUES ('new@example.com', 7, 1), ('x@other.example', 9, 1)",
        )
        .await;
    let shared = |used_bytes| Ok(Some(DomainQuota { limit_bytes: 100 << 20, used_bytes }));
    assert_eq!(directory.domain_quota("Example.com").await, shared(5_000_000_007));
    assert_eq!(directory.domain_quota("backup.example").await, shared(0));
    for domain in ["off.example", "other.example", "alias.example", ""] {
        assert_eq!(directory.domain_quota(domain).await, Ok(None), "{domain}");
    }
    ground
        .script(
            "UPDATE mailbox SET storagebasedirectory = '/var/VMAIL', storagenode = 'vmail1', maildir = 'example.com/U/' \
             WHERE username = 'u@example.com'; \
             UPDATE mailbox SET mailboxformat = 'mdbox' WHERE username = 'new@example.com'",
        )
        .await;
    let folder = directory.maildir("U@example.com").await;
    assert_eq!(folder, Ok(Some("/var/vmail/vmail1/example.com/u/Maildir".to_owned())));
    for username in ["new@example.com", "nobody@example.com"] {
        assert_eq!(directory.maildir(username).await, Ok(None), "{username}");
    }
}

/// What the rules about LDAP trees ask, answered from tables.
async fn questions_of_ldap_rules(directory: &SqlDirectory) {
    assert_eq!(directory.source(), AccountSource::Sql);
    for (domain, names) in [
        ("Example.com", vec!["alias.example", "example.com", "sleeping.example"]),
        ("sleeping.example", vec!["alias.example", "example.com", "sleeping.example"]),
        ("off.example", vec!["lost.example", "off.example"]),
        ("nowhere.example", vec![]),
    ] {
        let mut found = directory.domain_names(domain).await.expect("answered");
        found.sort();
        assert_eq!(found, names, "{domain}");
    }
    for (sender, aliases, lists, expected) in [
        ("nick@example.com", true, false, true),
        ("nick@example.com", false, true, false),
        ("team@example.com", false, true, true),
        ("team@example.com", true, false, false),
        ("list@example.com", true, true, false),
        ("nick@example.com", false, false, false),
    ] {
        let rights = SenderRights { aliases, lists };
        let answer = directory.login_may_use("U@example.com", sender, rights).await;
        assert_eq!(answer, Ok(expected), "{sender} {rights:?}");
    }
    let entry = directory.list_entry("TEAM@example.com").await.expect("answered").expect("an alias");
    assert_eq!((&*entry.address, &*entry.policy), ("team@example.com", "membersonly"));
    assert!(entry.active && !entry.managed && entry.owners.is_empty());
    assert_eq!(entry.allowed, entry.moderators);
    assert!(entry.allowed.contains(&"boss@example.com".to_owned()));
    let entry = directory.list_entry("quiet@example.com").await.expect("answered").expect("a list");
    assert!(entry.managed && !entry.active && entry.allowed.is_empty());
    let entry = directory.list_entry("list@example.com").await.expect("answered").expect("a list");
    assert_eq!((&*entry.policy, entry.owners), ("", vec!["owner@example.com".to_owned()]));
    assert_eq!(directory.list_entry("u@example.com").await, Ok(None));
    assert_eq!(directory.list_has_member("team@example.com", "u@example.com").await, Ok(true));
    assert_eq!(directory.list_has_member("team@example.com", "gone@example.com").await, Ok(false));
    for (domain, alias, expected) in [
        ("Example.com", "NICK@example.com", vec!["u@example.com"]),
        ("backup.example", "nick@example.com", vec![]),
        ("example.com", "team@example.com", vec![]),
    ] {
        let users = directory.users_with_alias(domain, alias).await.expect("answered");
        assert_eq!(users, expected, "{alias}");
    }
    assert_eq!(
        directory.health().iter().map(|one| (one.name, one.up)).collect::<Vec<_>>(),
        [("vmail", true)]
    );
}

/// Canaries through every parameter of every question: nothing is found, nothing fails, nothing changes.
pub(crate) async fn odd_names_find_nothing_and_break_nothing(ground: &Ground) {
    const CENSUS: Stmt = Stmt::same(
        "SELECT (SELECT COUNT(*) FROM domain) + (SELECT COUNT(*) FROM mailbox) + \
         (SELECT COUNT(*) FROM forwardings) + (SELECT COUNT(*) FROM alias) AS n",
    );
    let census = async || {
        let row = ground.vmail.fetch_optional(&CENSUS, &[]).await.expect("read").expect("a row");
        row.int("n")
    };
    let before = census().await;
    let directory = SqlDirectory::new(ground.vmail.clone());
    let known = "u@example.com";
    let odd = CANARIES.iter().copied().chain(["a\0b", "\u{0}"]);
    for canary in odd {
        for name in [canary.to_owned(), format!("{canary}@example.com"), format!("u@{canary}.example.com")] {
            let name = name.as_str();
            for scope in [DomainScope::ALL, DomainScope { backup_mx: false, alias_domains: false }] {
                assert_eq!(directory.is_local_domain(name, scope).await, Ok(false), "{name:?}");
            }
            assert_eq!(directory.alias_target(name).await, Ok(None), "{name:?}");
            for (first, second) in [(name, known), (known, name), (name, name)] {
                assert_eq!(directory.alias_domain_of(first, second).await, Ok(false), "{name:?}");
                assert_eq!(directory.login_has_alias(first, second).await, Ok(false), "{name:?}");
                assert_eq!(directory.alias_has_member(first, second).await, Ok(false), "{name:?}");
                let rights = SenderRights { aliases: true, lists: true };
                assert_eq!(directory.login_may_use(first, second, rights).await, Ok(false), "{name:?}");
                assert_eq!(directory.list_has_member(first, second).await, Ok(false), "{name:?}");
                let users = directory.users_with_alias(first, second).await;
                assert_eq!(users.as_deref(), Ok(&[][..]), "{name:?}");
            }
            assert_eq!(directory.domain_names(name).await.as_deref(), Ok(&[][..]), "{name:?}");
            assert_eq!(directory.list_entry(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.is_active_maillist(name).await, Ok(false), "{name:?}");
            assert_eq!(directory.list_policy(ListKind::Alias, name).await, Ok(None), "{name:?}");
            assert_eq!(directory.list_policy(ListKind::Maillist, name).await, Ok(None), "{name:?}");
            let nobody: Vec<String> = Vec::new();
            assert_eq!(directory.alias_members(name).await.as_ref(), Ok(&nobody), "{name:?}");
            assert_eq!(directory.moderators(name).await.as_ref(), Ok(&nobody), "{name:?}");
            assert_eq!(directory.owners(name).await.as_ref(), Ok(&nobody), "{name:?}");
            assert_eq!(directory.forwarding_targets(name).await.as_ref(), Ok(&nobody), "{name:?}");
            assert_eq!(directory.password_last_change(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.mailbox_exists(name).await, Ok(false), "{name:?}");
            assert_eq!(directory.quota_account(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.quota_limit(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.domain_quota(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.maildir(name).await, Ok(None), "{name:?}");
            assert_eq!(directory.used_quota(name).await, Ok(None), "{name:?}");
        }
    }
    assert_eq!(census().await, before);
}

/// NULL where an old or repaired table has it is the default of the column, not a failure.
pub(crate) async fn rows_with_nulls_are_read(ground: &Ground) {
    use outrider_core::sql::Engine;
    let directory = SqlDirectory::new(ground.vmail.clone());
    match ground.engine() {
        Engine::MySql => {
            ground
                .script(
                    "ALTER TABLE mailbox MODIFY quota bigint NULL, MODIFY passwordlastchange datetime NULL; \
                     ALTER TABLE alias MODIFY accesspolicy varchar(30) NULL; \
                     ALTER TABLE used_quota MODIFY bytes bigint NULL",
                )
                .await;
        }
        Engine::Postgres => {
            ground
                .script(
                    "ALTER TABLE mailbox ALTER quota DROP NOT NULL, ALTER passwordlastchange DROP NOT NULL; \
                     ALTER TABLE alias ALTER accesspolicy DROP NOT NULL; \
                     ALTER TABLE used_quota ALTER bytes DROP NOT NULL",
                )
                .await;
        }
        // SQLite cannot take NOT NULL back.
        Engine::Sqlite => return,
    }
    ground
        .script(
            "UPDATE mailbox SET quota = NULL, passwordlastchange = NULL; UPDATE alias SET accesspolicy = NULL; \
             UPDATE used_quota SET bytes = NULL",
        )
        .await;
    let account = directory.quota_account("u@example.com").await.expect("answered").expect("an account");
    assert_eq!((account.limit_bytes, account.used_bytes), (0, None));
    let changed = directory.password_last_change("u@example.com").await;
    assert_eq!(changed, Ok(Some(PasswordChange::Time("1970-01-01 00:00:00".to_owned()))));
    let policy = directory.list_policy(ListKind::Alias, "team@example.com").await;
    assert_eq!(policy, Ok(Some(String::new())));
}
