//! Accounts: domains, mailboxes, aliases and lists, as every daemon asks for them.
//!
//! [`Directory`] is the one interface; [`SqlDirectory`] answers it from iRedMail's tables, [`LdapDirectory`] from its LDAP
//! tree, and [`CachedDirectory`] remembers answers for a short while. [`open()`] gives the one of the settings. Names are compared in lower case, whatever case they are asked in. A
//! question that finds nothing is answered `None`, `false` or an empty list; an error always means that the accounts could
//! not be asked, never that somebody does not exist.

mod cache;
#[cfg(feature = "ldap")]
mod ldap;
mod open;
mod sql;
pub mod write;

pub use cache::{CachedDirectory, DirectorySettings};
#[cfg(feature = "ldap")]
pub use ldap::{LdapDirectory, LdapSettings, LdapUri};
pub use open::AccountSource;
#[cfg(feature = "ldap")]
pub use open::open;
pub use sql::SqlDirectory;

use crate::daemon::DependencyHealth;
use crate::sql::DbError;
use std::future::Future;
use std::pin::Pin;

/// A future of an object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a question comes back with.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, DirectoryError>>;

/// The accounts could not be asked. Whatever the cause, it is no answer: a mail service treats it as temporary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("looking up {question}: {cause}")]
pub struct DirectoryError {
    /// What was asked for, in a few words, without addresses.
    pub question: &'static str,
    /// What the database or the LDAP server said.
    pub cause: DbError,
}

/// Which domains count as local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainScope {
    /// Also those for which this server is only a backup MX.
    pub backup_mx: bool,
    /// Also alias domains of an active domain, whether the alias row itself is active or not.
    pub alias_domains: bool,
}

impl DomainScope {
    /// Everything hosted here in any way.
    pub const ALL: DomainScope = DomainScope { backup_mx: true, alias_domains: true };
}

/// The two kinds of addresses that lead to several people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// A mail alias: table `alias`.
    Alias,
    /// A mailing list of mlmmj: table `maillists`.
    Maillist,
}

/// What the quota service needs of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaAccount {
    /// The name under which usage is stored.
    pub username: String,
    /// The limit in bytes; 0 is unlimited, negative is a mistake of the administrator.
    pub limit_bytes: i64,
    /// Bytes used, where the same question finds them; `None` when there is no row yet.
    pub used_bytes: Option<i64>,
    /// Why the usage could not be read although the account could, in words; `used_bytes` is then `None`.
    pub usage_failure: Option<String>,
}

/// What all mailboxes of a domain may use together, and do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainQuota {
    /// The limit in bytes, above 0.
    pub limit_bytes: i64,
    /// The sum of what is stored about the mailboxes of the domain.
    pub used_bytes: i64,
}

/// By which ways a login may come to a sender address that is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderRights {
    /// The address is a further one of the user.
    pub aliases: bool,
    /// The address is that of a list or an alias of which the user is a member.
    pub lists: bool,
}

/// What decides who may write to a list. All texts are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Its own address.
    pub address: String,
    /// Whether it takes mail at all.
    pub active: bool,
    /// The access policy; `""` when it is not set.
    pub policy: String,
    /// Whether a list manager (mlmmj) looks after it and knows the members.
    pub managed: bool,
    /// Who may write to it beside those the policy names: addresses, `domain`, `*@domain`, and `.domain` for a domain
    /// and all below it.
    pub allowed: Vec<String>,
    /// Its moderators.
    pub moderators: Vec<String>,
    /// Its owners.
    pub owners: Vec<String>,
}

/// When a password was changed, as the accounts keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordChange {
    /// `mailbox.passwordlastchange`: `YYYY-MM-DD HH:MM:SS` in the server's local time.
    Time(String),
    /// `shadowLastChange`: days since the beginning of 1970.
    Day(i64),
}

/// The accounts of a mail server. Every method may be called with any text at all.
pub trait Directory: Send + Sync {
    /// Where the accounts are kept. Some rules of mail services are about one kind of accounts only.
    fn source(&self) -> AccountSource;

    /// Whether a domain is hosted here and active.
    fn is_local_domain<'a>(&'a self, domain: &'a str, scope: DomainScope) -> Answer<'a, bool>;

    /// The active domain that `domain` is an alias of.
    fn alias_target<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<String>>;

    /// Whether `alias` is an alias domain of `target`; neither has to be active.
    fn alias_domain_of<'a>(&'a self, alias: &'a str, target: &'a str) -> Answer<'a, bool>;

    /// All names of the domain that has this name: its own and its aliases, active or not.
    fn domain_names<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<String>>;

    /// All names of domains hosted here: active ones, backup MX included, and aliases of active ones.
    fn local_domains(&self) -> Answer<'_, Vec<String>>;

    /// Whether `sender` is an extra address of the mailbox `login`, or of `login` with a `+extension`.
    fn login_has_alias<'a>(&'a self, login: &'a str, sender: &'a str) -> Answer<'a, bool>;

    /// Whether `login` may use the address `sender` by any of these ways.
    fn login_may_use<'a>(&'a self, login: &'a str, sender: &'a str, rights: SenderRights)
    -> Answer<'a, bool>;

    /// Whether `member` is an active member of the mail alias `list`.
    fn alias_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool>;

    /// Whether an active mailing list has this address.
    fn is_active_maillist<'a>(&'a self, address: &'a str) -> Answer<'a, bool>;

    /// The access policy of a list in lower case, `""` when it is not set; `None` when there is no such list. Inactive
    /// lists count.
    fn list_policy<'a>(&'a self, kind: ListKind, address: &'a str) -> Answer<'a, Option<String>>;

    /// The list of this address; `None` when the address is something else or unknown. Inactive lists count.
    fn list_entry<'a>(&'a self, address: &'a str) -> Answer<'a, Option<ListEntry>>;

    /// Whether `member` is an active member of a list without a manager, under any address. Members from outside count.
    fn list_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool>;

    /// The users of `domain` who have `alias` as a further address.
    fn users_with_alias<'a>(&'a self, domain: &'a str, alias: &'a str) -> Answer<'a, Vec<String>>;

    /// The members of a mail alias in lower case, active or not.
    fn alias_members<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>>;

    /// The moderators of an alias or a list in lower case; `*@domain` stands for a whole domain.
    fn moderators<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>>;

    /// The owners of a mailing list in lower case.
    fn owners<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>>;

    /// When the password of a mailbox was last changed; never changed is the beginning of 1970. `None` when there is no such
    /// mailbox.
    fn password_last_change<'a>(&'a self, username: &'a str) -> Answer<'a, Option<PasswordChange>>;

    /// Whether a mailbox exists, active or not.
    fn mailbox_exists<'a>(&'a self, username: &'a str) -> Answer<'a, bool>;

    /// The active mailbox `address` in an active domain that is not a backup MX, with the quota service switched on. Usage
    /// that cannot be read is no error but told in the account.
    fn quota_account<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>>;

    /// As [`Directory::quota_account`], for who knows the usage from elsewhere: stored usage is not looked at.
    fn quota_limit<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>>;

    /// The limit for all mailboxes of an active domain together; `None` when there is none.
    fn domain_quota<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<DomainQuota>>;

    /// The Maildir++ folder of a mailbox as Dovecot is told it, active or not; `None` when there is no such mailbox or
    /// it has another format.
    fn maildir<'a>(&'a self, username: &'a str) -> Answer<'a, Option<String>>;

    /// Bytes used by a mailbox; `None` when nothing is stored.
    fn used_quota<'a>(&'a self, username: &'a str) -> Answer<'a, Option<i64>>;

    /// Where mail to an address goes as Postfix sees it: active rows of active domains that are not backup MX, for
    /// aliases, lists and mailboxes alike, in lower case.
    fn forwarding_targets<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>>;

    /// Whether that what answers is there.
    fn health(&self) -> Vec<DependencyHealth>;

    /// Forgets remembered answers, after accounts were changed. Nothing to do where nothing is remembered.
    fn forget(&self) {}
}

/// The Maildir++ folder below a home folder. An empty format is maildir, an empty folder `Maildir`, as iRedMail has it.
fn maildir_below(home: &str, format: &str, folder: &str) -> Option<String> {
    if !(format.is_empty() || format.eq_ignore_ascii_case("maildir")) {
        return None;
    }
    let folder = if folder.is_empty() { "Maildir" } else { folder };
    Some(format!("{}/{folder}", home.trim_end_matches('/')))
}

/// Whether a name can be that of a hosted domain at all: it has a dot and none of the characters
/// ``~!#$%^&*()+\/`` or a blank.
pub fn may_be_local(domain: &str) -> bool {
    domain.contains('.') && !domain.contains(|c: char| "~!#$%^&*()+\\/ ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_mailboxes() {
        for (home, format, folder, expected) in [
            (
                "/var/vmail/vmail1/d.example/u/",
                "maildir",
                "Maildir",
                Some("/var/vmail/vmail1/d.example/u/Maildir"),
            ),
            ("/home/u", "", "", Some("/home/u/Maildir")),
            ("/home/u", "Maildir", "mail", Some("/home/u/mail")),
            ("/home/u", "mdbox", "mdbox", None),
        ] {
            assert_eq!(maildir_below(home, format, folder).as_deref(), expected, "{home} {format} {folder}");
        }
    }

    #[test]
    fn names_that_are_never_local() {
        for (domain, expected) in [
            ("example.com", true),
            ("sub.example.co", true),
            ("localhost", false),
            ("", false),
            ("a b.example", false),
            ("ex+ample.com", false),
            ("a/b.example", false),
        ] {
            assert_eq!(may_be_local(domain), expected, "{domain}");
        }
    }
}
