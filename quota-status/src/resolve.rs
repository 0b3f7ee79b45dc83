//! Following an address to the mailboxes behind it (`resolve_aliases`).
//!
//! The order is that of Postfix' maps on an iRedMail server: mailbox, alias or forwarding, alias domain, catch-all.
//! Addresses already seen are not followed again, so loops end; more than [`MAX_DEPTH`] steps in a row or
//! [`MAX_NODES`] addresses in all end the search without an opinion.
//!
//! Mail is refused only when every local mailbox is full and nothing leads elsewhere. The search stops at the
//! first mailbox with room and at the first address outside. A mailbox whose usage cannot be read decides nothing as long
//! as there is such a one.

use crate::limit::{Bounds, Fit};
use crate::recipient;
use outrider_core::directory::{Directory, DirectoryError, DomainScope, QuotaAccount};
use std::collections::{HashSet, VecDeque};

/// Aliases in a row.
const MAX_DEPTH: usize = 10;
/// Addresses looked at.
const MAX_NODES: usize = 1000;

/// What the search found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// No mailbox and no address outside.
    Nobody,
    /// A mailbox with room, or an address outside.
    Accepts,
    /// All mailboxes refuse; the account is the last one looked at.
    Refuses(Fit, QuotaAccount),
    /// Nobody accepts for certain, and the usage of this account could not be read.
    Unread(QuotaAccount),
    /// The search was given up.
    TooMany,
}

/// Follows `name`, which is no mailbox, for a message of `size` bytes.
pub(crate) async fn resolve(
    directory: &dyn Directory,
    name: &str,
    size: u64,
    bounds: &Bounds,
    delimiters: &str,
) -> Result<Resolved, DirectoryError> {
    let mut seen = HashSet::from([name.to_owned()]);
    let mut queue: VecDeque<(String, usize)> = VecDeque::new();
    let mut refused: Option<(Fit, QuotaAccount)> = None;
    let mut unread: Option<QuotaAccount> = None;
    let mut targets = targets_of(directory, name).await?;
    let mut depth = 0;
    loop {
        for target in targets {
            let target = recipient::member(&target, delimiters);
            if seen.contains(&target) {
                continue;
            }
            if depth == MAX_DEPTH || seen.len() == MAX_NODES {
                return Ok(Resolved::TooMany);
            }
            seen.insert(target.clone());
            queue.push_back((target, depth + 1));
        }
        let Some((address, level)) = queue.pop_front() else { break };
        depth = level;
        targets = Vec::new();
        if let Some(account) = directory.quota_account(&address).await? {
            if account.limit_bytes > 0 && account.usage_failure.is_some() {
                unread.get_or_insert(account);
                continue;
            }
            // A negative limit is a mistake of the administrator; it must not cost a whole list its mail.
            match bounds.check(account.limit_bytes.max(0), account.used_bytes.unwrap_or(0), size) {
                Fit::Fits => return Ok(Resolved::Accepts),
                // "Too large" is true of the list only if it is true of all its members.
                fit => {
                    let all = refused.is_none_or(|(others, _)| others == Fit::TooLarge);
                    refused = Some((if all { fit } else { Fit::Full }, account));
                }
            }
            continue;
        }
        targets = targets_of(directory, &address).await?;
        if targets.is_empty() && !is_local(directory, &address).await? {
            return Ok(Resolved::Accepts);
        }
    }
    Ok(match (unread, refused) {
        (Some(account), _) => Resolved::Unread(account),
        (None, Some((fit, account))) => Resolved::Refuses(fit, account),
        (None, None) => Resolved::Nobody,
    })
}

/// Where mail to an address that is no mailbox goes.
async fn targets_of(directory: &dyn Directory, address: &str) -> Result<Vec<String>, DirectoryError> {
    let targets = directory.forwarding_targets(address).await?;
    if !targets.is_empty() {
        return Ok(targets);
    }
    let Some((local, domain)) = address.rsplit_once('@') else { return Ok(Vec::new()) };
    if let Some(target) = directory.alias_target(domain).await? {
        return Ok(vec![format!("{local}@{target}")]);
    }
    directory.forwarding_targets(domain).await
}

async fn is_local(directory: &dyn Directory, address: &str) -> Result<bool, DirectoryError> {
    match address.rsplit_once('@') {
        Some((_, domain)) => directory.is_local_domain(domain, DomainScope::ALL).await,
        // A program, a file, a local account: not for us to judge.
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Grace;
    use outrider_core::directory::SqlDirectory;
    use outrider_core::schema::Database;
    use outrider_core::sql::{DatabaseSettings, Db, Stmt, Value};

    const BOUNDS: Bounds = Bounds { grace: Grace::Percent(10), max_mail_size: 0 };

    struct Tables {
        db: Db,
        directory: SqlDirectory,
        _folder: tempfile::TempDir,
    }

    impl Tables {
        /// Domain d.example with mailboxes full (1 MB, full), room (1 MB, empty) and big (4 MB, full).
        async fn new() -> Tables {
            let folder = tempfile::tempdir().unwrap();
            let db = DatabaseSettings::default().open(Database::Vmail, folder.path()).await.unwrap();
            let directory = SqlDirectory::new(db.clone());
            let tables = Tables { db, directory, _folder: folder };
            const DOMAIN: Stmt = Stmt::same("INSERT INTO domain (domain) VALUES (?)");
            const MAILBOX: Stmt =
                Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES (?, ?, ?)");
            const USED: Stmt =
                Stmt::same("INSERT INTO used_quota (username, bytes, domain) VALUES (?, ?, ?)");
            tables.run(&DOMAIN, &["d.example".into()]).await;
            for (name, megabytes, used) in [("full", 1, 1 << 20), ("room", 1, 0), ("big", 4, 4 << 20)] {
                let address = Value::from(format!("{name}@d.example"));
                let domain = Value::from("d.example");
                tables.run(&MAILBOX, &[address.clone(), domain.clone(), megabytes.into()]).await;
                tables.run(&USED, &[address, used.into(), domain]).await;
            }
            tables
        }

        async fn run(&self, stmt: &Stmt, args: &[Value]) {
            self.db.execute(stmt, args).await.unwrap();
        }

        async fn forward(&self, address: &str, targets: &[&str]) {
            const FORWARD: Stmt = Stmt::same(
                "INSERT INTO forwardings (address, forwarding, domain) VALUES (?, ?, 'd.example')",
            );
            for target in targets {
                self.run(&FORWARD, &[address.into(), (*target).into()]).await;
            }
        }

        async fn resolve(&self, name: &str, size: u64) -> Resolved {
            resolve(&self.directory, name, size, &BOUNDS, "+").await.unwrap()
        }

        async fn refused(&self, name: &str, size: u64) -> Option<Fit> {
            match self.resolve(name, size).await {
                Resolved::Refuses(fit, _) => Some(fit),
                Resolved::Accepts => None,
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn lists_refuse_only_when_everybody_does() {
        let tables = Tables::new().await;
        let lists: &[(&str, &[&str], u64, Option<Fit>)] = &[
            ("one", &["full@d.example"], 1, Some(Fit::Full)),
            ("two", &["full@d.example", "big@d.example"], 1, Some(Fit::Full)),
            ("some", &["full@d.example", "room@d.example"], 1, None),
            ("away", &["full@d.example", "x@remote.example"], 1, None),
            ("ghost", &["full@d.example", "nobody@d.example"], 1, Some(Fit::Full)),
            ("extended", &["Full+box@D.example"], 1, Some(Fit::Full)),
            ("nested", &["one@d.example"], 1, Some(Fit::Full)),
            ("local-account", &["root"], 1, None),
            // 2 MB never fit into 1 MB, but into 4 MB.
            ("large", &["full@d.example"], 2 << 20, Some(Fit::TooLarge)),
            ("mixed", &["full@d.example", "big@d.example"], 2 << 20, Some(Fit::Full)),
            ("mixed-2", &["big@d.example", "full@d.example"], 2 << 20, Some(Fit::Full)),
        ];
        for (name, members, _, _) in lists {
            tables.forward(&format!("{name}@d.example"), members).await;
        }
        for (name, _, size, expected) in lists {
            assert_eq!(tables.refused(&format!("{name}@d.example"), *size).await, *expected, "{name}");
        }
        assert_eq!(tables.resolve("nobody@d.example", 1).await, Resolved::Nobody);
        assert_eq!(tables.resolve("", 1).await, Resolved::Nobody);
    }

    #[tokio::test]
    async fn alias_domains_and_catch_all() {
        let tables = Tables::new().await;
        const ALIAS: Stmt = Stmt::same(
            "INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('a.example', 'd.example')",
        );
        tables.run(&ALIAS, &[]).await;
        assert_eq!(tables.refused("full@a.example", 1).await, Some(Fit::Full));
        assert_eq!(tables.refused("room@a.example", 1).await, None);
        assert_eq!(tables.resolve("nobody@a.example", 1).await, Resolved::Nobody);
        tables.forward("d.example", &["full@d.example"]).await;
        assert_eq!(tables.refused("nobody@d.example", 1).await, Some(Fit::Full));
        assert_eq!(tables.refused("nobody@a.example", 1).await, Some(Fit::Full));
    }

    #[tokio::test]
    async fn loops_and_crowds_end() {
        let tables = Tables::new().await;
        tables.forward("self@d.example", &["self@d.example"]).await;
        assert_eq!(tables.resolve("self@d.example", 1).await, Resolved::Nobody);
        tables.forward("ping@d.example", &["pong@d.example"]).await;
        tables.forward("pong@d.example", &["ping@d.example", "full@d.example"]).await;
        assert_eq!(tables.refused("ping@d.example", 1).await, Some(Fit::Full));

        for step in 0..12 {
            let next = format!("step{}@d.example", step + 1);
            tables.forward(&format!("step{step}@d.example"), &[&next]).await;
        }
        tables.forward("step12@d.example", &["full@d.example"]).await;
        assert_eq!(tables.resolve("step2@d.example", 1).await, Resolved::TooMany);
        assert_eq!(tables.refused("step3@d.example", 1).await, Some(Fit::Full));

        let members: Vec<String> = (0..1100).map(|n| format!("ghost{n}@d.example")).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        tables.forward("crowd@d.example", &members).await;
        assert_eq!(tables.resolve("crowd@d.example", 1).await, Resolved::TooMany);
    }
}
