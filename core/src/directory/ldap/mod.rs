//! The directory in iRedMail's LDAP tree.
//!
//! Domains are `domainName=D` directly below the base; accounts are anywhere below it, found by `mail` and
//! `shadowAddress` (which also holds the addresses below alias domains). All attributes ignore case. Mailbox usage is
//! not in the tree but in table `used_quota` of database `iredadmin`.

mod filter;
mod server;
mod settings;

pub use settings::{LdapSettings, LdapUri};

use super::{
    AccountSource, Answer, Directory, DirectoryError, DomainQuota, DomainScope, ListEntry, ListKind,
    PasswordChange, QuotaAccount, SenderRights, maildir_below, may_be_local,
};
use crate::daemon::DependencyHealth;
use crate::sql::{Db, DbError, Stmt, Value};
use filter::{Filter, below};
use ldap3::Scope;
use server::{Entry, NONE, Query, Server, Want};
use std::sync::Arc;

const USED_QUOTA: Stmt = Stmt::same("SELECT bytes FROM used_quota WHERE username = ?");
/// The size of attribute domainName.
const LONGEST_DOMAIN: usize = 255;
const LIST: &[&str] = &[
    "objectClass",
    "mail",
    "accountStatus",
    "accessPolicy",
    "enabledService",
    "listAllowedUser",
    "listModerator",
    "listOwner",
];

/// Accounts in an LDAP tree.
pub struct LdapDirectory {
    server: Arc<Server>,
    base: String,
    iredadmin: Option<Db>,
}

impl LdapDirectory {
    /// The accounts in this tree, with usage of mailboxes from `iredadmin`, if anybody wants to know it. Connects when
    /// something is asked. To be called inside the runtime.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for a file of authorities that cannot be used.
    pub fn new(settings: &LdapSettings, iredadmin: Option<Db>) -> Result<LdapDirectory, DbError> {
        let server = Server::new(settings)?;
        server.watch(&settings.base_dn);
        Ok(LdapDirectory { server, base: settings.base_dn.clone(), iredadmin })
    }

    async fn search(&self, question: &'static str, query: Query) -> Result<Vec<Entry>, DirectoryError> {
        self.server.search(query).await.map_err(|cause| DirectoryError { question, cause })
    }

    fn query(
        &self,
        scope: Scope,
        parts: Vec<Filter>,
        attributes: &'static [&'static str],
        want: Want,
    ) -> Query {
        Query { base: self.base.clone(), scope, filter: Filter::All(parts), attributes, want, above: None }
    }

    /// Whether there is such an entry.
    async fn any(
        &self,
        question: &'static str,
        scope: Scope,
        parts: Vec<Filter>,
    ) -> Result<bool, DirectoryError> {
        let query = self.query(scope, parts, NONE, Want::Any);
        Ok(!self.search(question, query).await?.is_empty())
    }

    /// All accounts of this kind.
    async fn accounts(
        &self,
        question: &'static str,
        parts: Vec<Filter>,
        attributes: &'static [&'static str],
    ) -> Result<Vec<Entry>, DirectoryError> {
        self.search(question, self.query(Scope::Subtree, parts, attributes, Want::All)).await
    }

    /// The account with this address: rather the one whose own it is than one that has it as a further one.
    async fn account(
        &self,
        question: &'static str,
        address: &str,
        parts: Vec<Filter>,
        attributes: &'static [&'static str],
    ) -> Result<Option<Entry>, DirectoryError> {
        if !is_name(address) {
            return Ok(None);
        }
        let address = address.to_lowercase();
        let parts = parts.into_iter().chain([Filter::address(&address)]).collect();
        let mut entries = self.accounts(question, parts, attributes).await?;
        let own = entries.iter().position(|entry| entry.has("mail", &address)).unwrap_or(0);
        Ok((own < entries.len()).then(|| entries.swap_remove(own)))
    }

    /// Accounts below one domain; none when there is no such domain.
    async fn below_domain(
        &self,
        question: &'static str,
        domain: &str,
        folder: Option<&str>,
        parts: Vec<Filter>,
        attributes: &'static [&'static str],
        want: Want,
    ) -> Result<Vec<Entry>, DirectoryError> {
        // A longer one could make a name of an entry that the server refuses.
        if !may_be_local(domain) || !is_name(domain) || domain.len() > LONGEST_DOMAIN {
            return Ok(Vec::new());
        }
        let domain = below(&self.base, "domainName", domain);
        let base = folder.map_or(domain.clone(), |folder| below(&domain, "ou", folder));
        let query = Query {
            base,
            above: Some(self.base.clone()),
            ..self.query(Scope::Subtree, parts, attributes, want)
        };
        self.search(question, query).await
    }

    async fn attribute_of_list(
        &self,
        question: &'static str,
        address: &str,
        attribute: &'static [&'static str; 1],
    ) -> Result<Vec<String>, DirectoryError> {
        let entry = self.account(question, address, vec![list_or_alias()], attribute).await?;
        Ok(entry.map_or(Vec::new(), |entry| entry.values(attribute[0]).to_vec()))
    }
}

/// Whether an address, login or domain can be in the tree at all. Its names are ASCII, and blanks at their ends and
/// control characters are ignored when names are compared (RFC 4518, 2.6), so that " root@example.com" would be found
/// as root@example.com.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn list_or_alias() -> Filter {
    Filter::Any(vec![Filter::class("mailList"), Filter::class("mailAlias")])
}

fn active() -> Filter {
    Filter::is("accountStatus", "active")
}

fn service(name: &str) -> Filter {
    Filter::is("enabledService", name)
}

/// What all of Postfix' look-ups of accounts have in common.
fn in_service() -> Vec<Filter> {
    vec![active(), Filter::is_not("domainStatus", "disabled"), service("mail")]
}

/// The user of this address, as a filter.
fn user(address: &str) -> Vec<Filter> {
    vec![Filter::class("mailUser"), Filter::address(address)]
}

/// Directly written into an alias.
fn member_of_alias(alias: &str, member: &str) -> Filter {
    Filter::All(vec![
        Filter::class("mailAlias"),
        Filter::address(alias),
        Filter::is("mailForwardingAddress", member),
    ])
}

/// A user who belongs to a list.
fn member_of_list(list: &str, member: &str) -> Filter {
    let mut parts = user(member);
    parts.push(Filter::is("memberOfGroup", list));
    Filter::All(parts)
}

/// A number of the tree; far too large ones are as large as a number can be.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

impl Directory for LdapDirectory {
    fn source(&self) -> AccountSource {
        AccountSource::Ldap
    }

    fn is_local_domain<'a>(&'a self, domain: &'a str, scope: DomainScope) -> Answer<'a, bool> {
        Box::pin(async move {
            if !may_be_local(domain) || !is_name(domain) {
                return Ok(false);
            }
            let mut parts = vec![Filter::class("mailDomain"), active(), service("mail")];
            parts.push(if scope.alias_domains {
                Filter::domain(domain)
            } else {
                Filter::is("domainName", domain)
            });
            if !scope.backup_mx {
                parts.push(Filter::is_not("domainBackupMX", "yes"));
            }
            self.any("a domain", Scope::OneLevel, parts).await
        })
    }

    fn alias_target<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            if !is_name(domain) {
                return Ok(None);
            }
            let parts = vec![Filter::class("mailDomain"), active(), Filter::is("domainAliasName", domain)];
            let query = self.query(Scope::OneLevel, parts, &["domainName"], Want::All);
            let entries = self.search("an alias domain", query).await?;
            Ok(entries.first().and_then(|entry| entry.first("domainName")).map(str::to_owned))
        })
    }

    fn alias_domain_of<'a>(&'a self, alias: &'a str, target: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            if !is_name(alias) || !is_name(target) {
                return Ok(false);
            }
            let parts = vec![
                Filter::class("mailDomain"),
                Filter::is("domainName", target),
                Filter::is("domainAliasName", alias),
            ];
            self.any("an alias domain", Scope::OneLevel, parts).await
        })
    }

    fn domain_names<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            if !is_name(domain) {
                return Ok(Vec::new());
            }
            let parts = vec![Filter::class("mailDomain"), Filter::domain(domain)];
            let query = self.query(Scope::OneLevel, parts, &["domainName", "domainAliasName"], Want::All);
            let entries = self.search("the names of a domain", query).await?;
            Ok(domain_names(&entries))
        })
    }

    fn local_domains(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async move {
            let parts = vec![Filter::class("mailDomain"), active(), service("mail")];
            let query = self.query(Scope::OneLevel, parts, &["domainName", "domainAliasName"], Want::Pages);
            Ok(domain_names(&self.search("all domains", query).await?))
        })
    }

    fn login_has_alias<'a>(&'a self, login: &'a str, sender: &'a str) -> Answer<'a, bool> {
        self.login_may_use(login, sender, SenderRights { aliases: true, lists: false })
    }

    fn login_may_use<'a>(
        &'a self,
        login: &'a str,
        sender: &'a str,
        rights: SenderRights,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut ways = Vec::new();
            if rights.aliases {
                ways.push(Filter::All(vec![
                    Filter::class("mailUser"),
                    Filter::is("mail", login),
                    Filter::is("shadowAddress", sender),
                ]));
            }
            if rights.lists {
                ways.push(member_of_list(sender, login));
                ways.push(member_of_alias(sender, login));
            }
            if ways.is_empty() || !is_name(login) || !is_name(sender) {
                return Ok(false);
            }
            self.any("the senders of a login", Scope::Subtree, vec![Filter::Any(ways)]).await
        })
    }

    fn alias_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        self.login_may_use(member, list, SenderRights { aliases: false, lists: true })
    }

    fn is_active_maillist<'a>(&'a self, address: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            if !is_name(address) {
                return Ok(false);
            }
            let parts = vec![Filter::class("mailList"), active(), service("mlmmj"), Filter::address(address)];
            self.any("a mailing list", Scope::Subtree, parts).await
        })
    }

    fn list_policy<'a>(&'a self, kind: ListKind, address: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let class = match kind {
                ListKind::Alias => "mailAlias",
                ListKind::Maillist => "mailList",
            };
            let parts = vec![Filter::class(class)];
            let entry = self.account("an access policy", address, parts, &["mail", "accessPolicy"]).await?;
            Ok(entry.map(|entry| entry.first("accessPolicy").unwrap_or_default().to_owned()))
        })
    }

    fn list_entry<'a>(&'a self, address: &'a str) -> Answer<'a, Option<ListEntry>> {
        Box::pin(async move {
            let kinds = ["mailUser", "mailList", "mailAlias"].map(Filter::class).to_vec();
            let parts = vec![Filter::is_not("domainStatus", "disabled"), Filter::Any(kinds)];
            let entry = self.account("a list", address, parts, LIST).await?;
            // An address that is also a user's or an alias' belongs to that one.
            Ok(entry.filter(|entry| entry.has("objectClass", "maillist")).map(|entry| ListEntry {
                address: entry.first("mail").unwrap_or(address).to_owned(),
                active: entry.has("accountStatus", "active"),
                policy: entry.first("accessPolicy").unwrap_or_default().to_owned(),
                managed: entry.has("enabledService", "mlmmj"),
                allowed: entry.values("listAllowedUser").to_vec(),
                moderators: entry.values("listModerator").to_vec(),
                owners: entry.values("listOwner").to_vec(),
            }))
        })
    }

    fn list_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let Some((_, domain)) = list.rsplit_once('@') else { return Ok(false) };
            if !is_name(list) || !is_name(member) {
                return Ok(false);
            }
            let parts = vec![
                active(),
                Filter::Any(vec![Filter::class("mailUser"), Filter::class("mailExternalUser")]),
                Filter::is("memberOfGroup", list),
                Filter::address(member),
            ];
            let found = self.below_domain("a member of a list", domain, None, parts, NONE, Want::Any).await?;
            Ok(!found.is_empty())
        })
    }

    fn users_with_alias<'a>(&'a self, domain: &'a str, alias: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            if !is_name(alias) {
                return Ok(Vec::new());
            }
            let parts =
                vec![Filter::class("mailUser"), service("shadowaddress"), Filter::is("shadowAddress", alias)];
            let question = "the user of an alias";
            let found =
                self.below_domain(question, domain, Some("Users"), parts, &["mail"], Want::All).await?;
            Ok(values(&found, "mail"))
        })
    }

    fn alias_members<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let question = "members of an alias";
            let attributes = &["objectClass", "mail", "mailForwardingAddress"];
            let entry = self.account(question, address, vec![list_or_alias()], attributes).await?;
            let Some(entry) = entry else { return Ok(Vec::new()) };
            if entry.has("objectClass", "mailalias") {
                return Ok(entry.values("mailForwardingAddress").to_vec());
            }
            let list = entry.first("mail").unwrap_or(address);
            let parts = vec![
                Filter::Any(vec![Filter::class("mailUser"), Filter::class("mailExternalUser")]),
                Filter::is("memberOfGroup", list),
            ];
            Ok(values(&self.accounts(question, parts, &["mail"]).await?, "mail"))
        })
    }

    fn moderators<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.attribute_of_list("moderators", address, &["listModerator"]))
    }

    fn owners<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.attribute_of_list("owners of a list", address, &["listOwner"]))
    }

    fn password_last_change<'a>(&'a self, username: &'a str) -> Answer<'a, Option<PasswordChange>> {
        Box::pin(async move {
            let parts = vec![Filter::class("mailUser")];
            let question = "the age of a password";
            let entry = self.account(question, username, parts, &["mail", "shadowLastChange"]).await?;
            let day = |entry: Entry| entry.first("shadowLastChange").and_then(number).unwrap_or(0);
            Ok(entry.map(|entry| PasswordChange::Day(day(entry))))
        })
    }

    fn mailbox_exists<'a>(&'a self, username: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            if !is_name(username) {
                return Ok(false);
            }
            let parts = vec![Filter::class("mailUser"), Filter::is("mail", username)];
            self.any("a mailbox", Scope::Subtree, parts).await
        })
    }

    fn quota_account<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        Box::pin(async move {
            let Some(account) = self.quota_limit(address).await? else { return Ok(None) };
            // Usage is kept elsewhere; without it the account is known all the same.
            let (used_bytes, usage_failure) = match self.used_quota(&account.username).await {
                Ok(used) => (used, None),
                Err(error) => (None, Some(error.cause.to_string())),
            };
            Ok(Some(QuotaAccount { used_bytes, usage_failure, ..account }))
        })
    }

    fn quota_limit<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        Box::pin(async move {
            if !is_name(address) {
                return Ok(None);
            }
            let mut parts = in_service();
            parts.extend([
                Filter::class("mailUser"),
                service("quota-status"),
                Filter::Any(vec![
                    Filter::is("mail", address),
                    Filter::All(vec![service("shadowaddress"), Filter::is("shadowAddress", address)]),
                ]),
            ]);
            let question = "the quota of a mailbox";
            let entry = self.account(question, address, parts, &["mail", "mailQuota"]).await?;
            Ok(entry.map(|entry| QuotaAccount {
                username: entry.first("mail").unwrap_or(address).to_owned(),
                limit_bytes: entry.first("mailQuota").and_then(number).unwrap_or(0),
                used_bytes: None,
                usage_failure: None,
            }))
        })
    }

    /// The tree has no limit that all mailboxes of a domain share.
    fn domain_quota<'a>(&'a self, _domain: &'a str) -> Answer<'a, Option<DomainQuota>> {
        Box::pin(async { Ok(None) })
    }

    fn maildir<'a>(&'a self, username: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let parts = vec![Filter::class("mailUser")];
            let attributes = &["mail", "homeDirectory", "mailboxFormat", "mailboxFolder"];
            let entry = self.account("the folder of a mailbox", username, parts, attributes).await?;
            Ok(entry.as_ref().and_then(|entry| {
                let text = |name| entry.first(name).unwrap_or_default();
                maildir_below(entry.first("homeDirectory")?, text("mailboxFormat"), text("mailboxFolder"))
            }))
        })
    }

    fn used_quota<'a>(&'a self, username: &'a str) -> Answer<'a, Option<i64>> {
        Box::pin(async move {
            let Some(db) = &self.iredadmin else { return Ok(None) };
            let row = db.fetch_optional(&USED_QUOTA, &[Value::Text(username.to_lowercase())]).await;
            let row = row.map_err(|cause| DirectoryError { question: "the usage of a mailbox", cause })?;
            Ok(row.and_then(|row| row.int("bytes")))
        })
    }

    /// As Postfix asks its maps one after the other: aliases and forwardings, then members of lists, then the mailbox
    /// itself, then, for `@domain`, the catch-all account.
    fn forwarding_targets<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let question = "forwardings";
            if !is_name(address) {
                return Ok(Vec::new());
            }
            // A domain alone means its catch-all account, which is written @domain here.
            let catch_all = format!("@{address}");
            let address = if address.contains('@') { address } else { &catch_all };
            let deliverable = || in_service().into_iter().chain([service("deliver")]);
            let forwards = Filter::Any(vec![
                Filter::class("mailAlias"),
                Filter::All(vec![Filter::class("mailUser"), service("forward")]),
            ]);
            let parts = deliverable().chain([forwards, Filter::address(address)]).collect();
            let found = self.accounts(question, parts, &["mailForwardingAddress"]).await?;
            let targets = values(&found, "mailForwardingAddress");
            if !targets.is_empty() {
                return Ok(targets);
            }
            let belongs = || Filter::is("memberOfGroup", address);
            let groups = Filter::Any(vec![
                Filter::All(vec![
                    Filter::Any(vec![Filter::class("mailUser"), Filter::class("mailExternalUser")]),
                    Filter::Any(vec![belongs(), Filter::is("shadowAddress", address)]),
                ]),
                Filter::All(vec![list_or_alias(), belongs(), Filter::is_not("shadowAddress", address)]),
                Filter::All(vec![Filter::class("mailList"), service("mlmmj"), Filter::address(address)]),
            ]);
            let parts = deliverable().chain([groups]).collect();
            let targets = values(&self.accounts(question, parts, &["mail"]).await?, "mail");
            if !targets.is_empty() {
                return Ok(targets);
            }
            let parts = deliverable().chain(user(address)).collect();
            let targets = values(&self.accounts(question, parts, &["mail"]).await?, "mail");
            if !targets.is_empty() || !address.starts_with('@') {
                return Ok(targets);
            }
            let mut parts = vec![active(), Filter::is_not("domainStatus", "disabled")];
            parts.extend(user(address));
            let found = self.accounts(question, parts, &["mailForwardingAddress"]).await?;
            Ok(values(&found, "mailForwardingAddress"))
        })
    }

    fn health(&self) -> Vec<DependencyHealth> {
        let database = self.iredadmin.as_ref().map(|db| db.health("iredadmin"));
        [self.server.health()].into_iter().chain(database).collect()
    }
}

fn domain_names(entries: &[Entry]) -> Vec<String> {
    let names = |entry: &Entry| [entry.values("domainName"), entry.values("domainAliasName")].concat();
    entries.iter().flat_map(names).collect()
}

fn values(entries: &[Entry], attribute: &str) -> Vec<String> {
    let mut values: Vec<String> = entries.iter().flat_map(|entry| entry.values(attribute)).cloned().collect();
    values.sort();
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["alice@example.com", "*", "a)(b", "example.com", "o'brien@example.com"] {
            assert!(is_name(name), "{name}");
        }
        for text in ["", " a@b.example", "a@b.example ", "a b", "a\0", "a\r\n", "ä@b.example"] {
            assert!(!is_name(text), "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("1073741824", Some(1 << 30)),
            ("-1", Some(-1)),
            ("99999999999999999999", Some(i64::MAX)),
            ("-99999999999999999999", Some(i64::MIN)),
            ("", None),
            ("-", None),
            ("1k", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
