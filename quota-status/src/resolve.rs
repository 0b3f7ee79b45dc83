//! Following an address to the mailboxes behind it (`resolve_aliases`).
//!
//! The order is that of Postfix' maps on an iRedMail server: alias or forwarding, mailbox, alias domain, catch-all. A
//! mailbox that forwards counts as one only if it is among its own targets, as it is when it keeps a copy. Addresses already
//! seen are not followed again, so loops end; more than [`MAX_DEPTH`] steps in a row or [`MAX_NODES`] addresses in all end
//! the search without an opinion.
//!
//! Mail is refused only when every local mailbox is full and nothing leads elsewhere. The search stops at the
//! first mailbox with room and at the first address outside. A mailbox whose usage cannot be read decides nothing as long
//! as there is such a one; a mailbox that exists but is not checked has room, and so has a mailing list.

use crate::account::{Accounts, Finding, Mailbox};
use crate::limit::Fit;
use crate::recipient;
use outrider_core::directory::{Directory, DirectoryError, DomainScope};
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
    /// All mailboxes refuse; this is the last one looked at.
    Refuses(Fit, Mailbox),
    /// Nobody accepts for certain, and the usage of this mailbox could not be read.
    Unread(Mailbox),
    /// The address is a mailbox whose limit is negative.
    Nonsense(Mailbox),
    /// The search was given up.
    TooMany,
}

/// One address that was looked at.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) address: String,
    /// Aliases between it and the recipient.
    pub(crate) depth: usize,
    pub(crate) targets: Vec<String>,
    pub(crate) what: What,
}

/// What an address turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It only leads to other addresses.
    Forwards,
    /// A mailbox, whatever its state.
    Mailbox,
    /// A mailbox that the quota service is not to look at, or a mailing list.
    Unchecked,
    /// An address of another server, a program, a local account.
    Outside,
    /// Nothing.
    Nobody,
}

/// Follows `name` for a message of `size` bytes. Each address looked at is written into `steps`, if somebody wants to
/// know.
pub(crate) async fn resolve(
    accounts: &Accounts,
    name: &str,
    size: u64,
    delimiters: &str,
    mut steps: Option<&mut Vec<Step>>,
) -> Result<Resolved, DirectoryError> {
    let directory = &*accounts.directory;
    let mut seen = HashSet::from([name.to_owned()]);
    let mut queue = VecDeque::from([(name.to_owned(), 0)]);
    let mut refused: Option<(Fit, Mailbox)> = None;
    let mut unread: Option<Mailbox> = None;
    while let Some((address, depth)) = queue.pop_front() {
        let mut targets = forwardings(directory, &address, delimiters).await?;
        let forwards_only = !targets.is_empty() && !targets.contains(&address);
        let finding = match forwards_only {
            true => Finding::Unknown,
            false => accounts.look(&address, size).await?,
        };
        let mut what = if finding == Finding::Unknown { What::Forwards } else { What::Mailbox };
        if what == What::Forwards && targets.is_empty() {
            targets = other_ways(directory, &address, delimiters).await?;
        }
        if what == What::Forwards && !targets.iter().any(|target| *target != address) {
            // With itself as its target it is delivered here: to a mailbox, or to a mailing list of mlmmj.
            what = match depth > 0 && !targets.is_empty() {
                true => What::Unchecked,
                false => without_targets(directory, &address, depth).await?,
            };
        }
        if let Some(steps) = steps.as_deref_mut() {
            steps.push(Step { address: address.clone(), depth, targets: targets.clone(), what });
        }
        match finding {
            Finding::Fits => return Ok(Resolved::Accepts),
            // A negative limit is a mistake of the administrator; it must not cost a whole list its mail.
            Finding::Nonsense(mailbox) if depth == 0 => return Ok(Resolved::Nonsense(mailbox)),
            Finding::Nonsense(_) => return Ok(Resolved::Accepts),
            Finding::Unread(mailbox) => {
                unread.get_or_insert(mailbox);
            }
            // "Too large" is true of a list only if it is true of all its members.
            Finding::Refused(fit, mailbox) => {
                let all = refused.is_none_or(|(others, _)| others == Fit::TooLarge);
                refused = Some((if all { fit } else { Fit::Full }, mailbox));
            }
            Finding::Unknown if matches!(what, What::Outside | What::Unchecked) => {
                return Ok(Resolved::Accepts);
            }
            Finding::Unknown => {}
        }
        for target in targets {
            if seen.contains(&target) {
                continue;
            }
            if depth == MAX_DEPTH || seen.len() == MAX_NODES {
                return Ok(Resolved::TooMany);
            }
            seen.insert(target.clone());
            queue.push_back((target, depth + 1));
        }
    }
    Ok(match (unread, refused) {
        (Some(mailbox), _) => Resolved::Unread(mailbox),
        (None, Some((fit, mailbox))) => Resolved::Refuses(fit, mailbox),
        (None, None) => Resolved::Nobody,
    })
}

async fn forwardings(
    directory: &dyn Directory,
    address: &str,
    delimiters: &str,
) -> Result<Vec<String>, DirectoryError> {
    let targets = directory.forwarding_targets(address).await?;
    Ok(targets.iter().map(|target| recipient::member(target, delimiters)).collect())
}

/// Where mail to an address goes that is neither a mailbox nor has forwardings: to the same name in the domain of which its
/// own is an alias, or to the catch-all addresses.
pub(crate) async fn other_ways(
    directory: &dyn Directory,
    address: &str,
    delimiters: &str,
) -> Result<Vec<String>, DirectoryError> {
    let Some((local, domain)) = address.rsplit_once('@') else { return Ok(Vec::new()) };
    match directory.alias_target(domain).await? {
        Some(target) => Ok(vec![format!("{local}@{target}")]),
        None => forwardings(directory, domain, delimiters).await,
    }
}

/// What an address is that leads nowhere and is no mailbox to be checked. The recipient itself is what Postfix asks
/// about, so there is nothing to tell about it.
async fn without_targets(
    directory: &dyn Directory,
    address: &str,
    depth: usize,
) -> Result<What, DirectoryError> {
    if depth == 0 {
        return Ok(What::Nobody);
    }
    let local = match address.rsplit_once('@') {
        Some((_, domain)) => directory.is_local_domain(domain, DomainScope::ALL).await?,
        // A program, a file, a local account: not for us to judge.
        None => false,
    };
    Ok(match local {
        false => What::Outside,
        true if directory.mailbox_exists(address).await? => What::Unchecked,
        true => What::Nobody,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use outrider_core::directory::SqlDirectory;
    use outrider_core::schema::Database;
    use outrider_core::settings::Interval;
    use outrider_core::sql::{DatabaseSettings, Db, Stmt, Value};
    use std::sync::Arc;

    struct Tables {
        db: Db,
        accounts: Accounts,
        _folder: tempfile::TempDir,
    }

    impl Tables {
        /// Domain d.example with mailboxes full (1 MB, full), room (1 MB, empty) and big (4 MB, full).
        async fn new() -> Tables {
            let folder = tempfile::tempdir().unwrap();
            let db = DatabaseSettings::default().open(Database::Vmail, folder.path()).await.unwrap();
            let directory = Arc::new(SqlDirectory::new(db.clone()));
            let settings = Settings { cache_life: Interval::seconds(0), ..Settings::default() };
            let accounts = Accounts::new(&settings, directory).unwrap();
            let tables = Tables { db, accounts, _folder: folder };
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
            resolve(&self.accounts, name, size, "+", None).await.unwrap()
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
    async fn forwarding_mailboxes_count_only_where_they_keep_a_copy() {
        let tables = Tables::new().await;
        let cases: &[(&str, &[&str], Option<Fit>)] = &[
            // The mailbox has room or not, mail goes elsewhere all the same.
            ("full@d.example", &["room@d.example"], None),
            ("full@d.example", &["x@remote.example"], None),
            ("room@d.example", &["big@d.example"], Some(Fit::Full)),
            ("full@d.example", &["full@d.example", "big@d.example"], Some(Fit::Full)),
            ("full@d.example", &["full@d.example", "x@remote.example"], None),
            ("full@d.example", &["full@d.example"], Some(Fit::Full)),
        ];
        for (name, targets, expected) in cases {
            tables.run(&Stmt::same("DELETE FROM forwardings"), &[]).await;
            tables.forward(name, targets).await;
            assert_eq!(tables.refused(name, 1).await, *expected, "{name} to {targets:?}");
        }
    }

    #[tokio::test]
    async fn a_member_who_is_not_checked_has_room() {
        let tables = Tables::new().await;
        tables.forward("list@d.example", &["full@d.example", "room@d.example"]).await;
        tables.forward("room@d.example", &["room@d.example"]).await;
        const FILL: Stmt =
            Stmt::same("UPDATE used_quota SET bytes = 1048576 WHERE username = 'room@d.example'");
        const SWITCH_OFF: Stmt =
            Stmt::same("UPDATE mailbox SET \"enablequota-status\" = 0 WHERE username = 'room@d.example'");
        tables.run(&FILL, &[]).await;
        assert_eq!(tables.refused("list@d.example", 1).await, Some(Fit::Full));
        tables.run(&SWITCH_OFF, &[]).await;
        assert_eq!(tables.refused("list@d.example", 1).await, None);
        // Of the recipient itself nothing is known then, as without following.
        assert_eq!(tables.resolve("room@d.example", 1).await, Resolved::Nobody);
        // Mailboxes need no row that leads to themselves.
        tables.run(&Stmt::same("DELETE FROM forwardings WHERE address = 'room@d.example'"), &[]).await;
        assert_eq!(tables.refused("list@d.example", 1).await, None);
        // A mailing list, of which only its own row is there.
        tables.forward("both@d.example", &["full@d.example", "team@d.example"]).await;
        assert_eq!(tables.refused("both@d.example", 1).await, Some(Fit::Full));
        tables.forward("team@d.example", &["team@d.example"]).await;
        assert_eq!(tables.refused("both@d.example", 1).await, None);
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
