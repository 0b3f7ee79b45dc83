//! The directory in iRedMail's SQL tables.

use super::{
    AccountSource, Answer, Directory, DirectoryError, DomainQuota, DomainScope, ListEntry, ListKind,
    PasswordChange, QuotaAccount, SenderRights, maildir_below, may_be_local,
};
use crate::daemon::DependencyHealth;
use crate::sql::{Db, DbError, Row, Stmt, Value, escape_like};
use std::sync::atomic::{AtomicBool, Ordering};

const DOMAIN: Stmt = Stmt::same("SELECT 1 FROM domain WHERE domain = ? AND active = 1");
const DOMAIN_NOT_BACKUP: Stmt =
    Stmt::same("SELECT 1 FROM domain WHERE domain = ? AND active = 1 AND backupmx = 0");
const DOMAIN_OR_ALIAS: Stmt = Stmt::same(
    "SELECT 1 FROM domain WHERE domain = ? AND active = 1 \
     UNION ALL SELECT 1 FROM alias_domain a JOIN domain d ON d.domain = a.target_domain \
     WHERE a.alias_domain = ? AND d.active = 1",
);
const DOMAIN_NOT_BACKUP_OR_ALIAS: Stmt = Stmt::same(
    "SELECT 1 FROM domain WHERE domain = ? AND active = 1 AND backupmx = 0 \
     UNION ALL SELECT 1 FROM alias_domain a JOIN domain d ON d.domain = a.target_domain \
     WHERE a.alias_domain = ? AND d.active = 1",
);
const ALIAS_TARGET: Stmt = Stmt::same(
    "SELECT a.target_domain AS name FROM alias_domain a JOIN domain d ON d.domain = a.target_domain \
     WHERE a.alias_domain = ? AND d.active = 1",
);
const ALIAS_DOMAIN_OF: Stmt =
    Stmt::same("SELECT 1 FROM alias_domain WHERE alias_domain = ? AND target_domain = ?");
const DOMAIN_NAMES: Stmt = Stmt::same(
    "SELECT domain AS name FROM domain WHERE domain = ? \
     UNION SELECT alias_domain FROM alias_domain WHERE target_domain = ? \
     UNION SELECT target_domain FROM alias_domain WHERE alias_domain = ? \
     UNION SELECT b.alias_domain FROM alias_domain a JOIN alias_domain b ON b.target_domain = a.target_domain \
     WHERE a.alias_domain = ?",
);
const LOCAL_DOMAINS: Stmt = Stmt::same(
    "SELECT domain AS name FROM domain WHERE active = 1 \
     UNION SELECT a.alias_domain FROM alias_domain a JOIN domain d ON d.domain = a.target_domain \
     WHERE d.active = 1",
);
const LOGIN_HAS_ALIAS: Stmt = Stmt::same(
    "SELECT 1 FROM forwardings WHERE address = ? AND is_alias = 1 \
     AND (forwarding = ? OR forwarding LIKE ? ESCAPE '!') LIMIT 1",
);
const USERS_WITH_ALIAS: Stmt = Stmt::same(
    "SELECT f.forwarding AS name FROM forwardings f JOIN mailbox m ON m.username = f.forwarding \
     WHERE f.address = ? AND f.is_alias = 1 AND m.domain = ?",
);
const ALIAS_HAS_MEMBER: Stmt = Stmt::same(
    "SELECT 1 FROM forwardings WHERE address = ? AND forwarding = ? AND is_list = 1 AND active = 1 LIMIT 1",
);
const ACTIVE_MAILLIST: Stmt = Stmt::same("SELECT 1 FROM maillists WHERE address = ? AND active = 1 LIMIT 1");
const ALIAS_POLICY: Stmt = Stmt::same("SELECT accesspolicy AS name FROM alias WHERE address = ?");
const MAILLIST_POLICY: Stmt = Stmt::same("SELECT accesspolicy AS name FROM maillists WHERE address = ?");
const LIST_ENTRY: Stmt = Stmt::same(
    "SELECT address, active, accesspolicy, 0 AS managed FROM alias WHERE address = ? \
     UNION ALL SELECT address, active, accesspolicy, 1 FROM maillists WHERE address = ?",
);
const ALIAS_MEMBERS: Stmt =
    Stmt::same("SELECT forwarding AS name FROM forwardings WHERE address = ? AND is_list = 1");
const MODERATORS: Stmt = Stmt::same("SELECT moderator AS name FROM moderators WHERE address = ?");
const OWNERS: Stmt = Stmt::same("SELECT owner AS name FROM maillist_owners WHERE address = ?");
const PASSWORD_LAST_CHANGE: Stmt =
    Stmt::same("SELECT passwordlastchange AS name FROM mailbox WHERE username = ?");
const MAILBOX_EXISTS: Stmt = Stmt::same("SELECT 1 FROM mailbox WHERE username = ?");
const QUOTA_ACCOUNT: Stmt = Stmt::per_engine(
    "SELECT m.username, m.quota, q.bytes FROM mailbox m JOIN domain d ON d.domain = m.domain \
     LEFT JOIN used_quota q ON q.username = m.username \
     WHERE m.username = ? AND m.active = 1 AND m.`enablequota-status` = 1 AND d.active = 1 AND d.backupmx = 0",
    "SELECT m.username, m.quota, q.bytes FROM mailbox m JOIN domain d ON d.domain = m.domain \
     LEFT JOIN used_quota q ON q.username = m.username \
     WHERE m.username = ? AND m.active = 1 AND m.\"enablequota-status\" = 1 AND d.active = 1 AND d.backupmx = 0",
    "SELECT m.username, m.quota, q.bytes FROM mailbox m JOIN domain d ON d.domain = m.domain \
     LEFT JOIN used_quota q ON q.username = m.username \
     WHERE m.username = ? AND m.active = 1 AND m.\"enablequota-status\" = 1 AND d.active = 1 AND d.backupmx = 0",
);
/// For tables older than iRedMail 1.0, which have no such column.
const QUOTA_ACCOUNT_BEFORE_1_0: Stmt = Stmt::same(
    "SELECT m.username, m.quota, q.bytes FROM mailbox m JOIN domain d ON d.domain = m.domain \
     LEFT JOIN used_quota q ON q.username = m.username \
     WHERE m.username = ? AND m.active = 1 AND d.active = 1 AND d.backupmx = 0",
);
/// The same without usage, for when that cannot be read.
const QUOTA_LIMIT: Stmt = Stmt::per_engine(
    "SELECT m.username, m.quota FROM mailbox m JOIN domain d ON d.domain = m.domain \
     WHERE m.username = ? AND m.active = 1 AND m.`enablequota-status` = 1 AND d.active = 1 AND d.backupmx = 0",
    "SELECT m.username, m.quota FROM mailbox m JOIN domain d ON d.domain = m.domain \
     WHERE m.username = ? AND m.active = 1 AND m.\"enablequota-status\" = 1 AND d.active = 1 AND d.backupmx = 0",
    "SELECT m.username, m.quota FROM mailbox m JOIN domain d ON d.domain = m.domain \
     WHERE m.username = ? AND m.active = 1 AND m.\"enablequota-status\" = 1 AND d.active = 1 AND d.backupmx = 0",
);
const QUOTA_LIMIT_BEFORE_1_0: Stmt = Stmt::same(
    "SELECT m.username, m.quota FROM mailbox m JOIN domain d ON d.domain = m.domain \
     WHERE m.username = ? AND m.active = 1 AND d.active = 1 AND d.backupmx = 0",
);
const DOMAIN_QUOTA: Stmt = Stmt::per_engine(
    "SELECT d.maxquota, (SELECT CAST(SUM(q.bytes) AS SIGNED) FROM used_quota q WHERE q.domain = d.domain) AS bytes \
     FROM domain d WHERE d.domain = ? AND d.active = 1 AND d.maxquota > 0",
    "SELECT d.maxquota, (SELECT CAST(SUM(q.bytes) AS BIGINT) FROM used_quota q WHERE q.domain = d.domain) AS bytes \
     FROM domain d WHERE d.domain = ? AND d.active = 1 AND d.maxquota > 0",
    "SELECT d.maxquota, (SELECT SUM(q.bytes) FROM used_quota q WHERE q.domain = d.domain) AS bytes \
     FROM domain d WHERE d.domain = ? AND d.active = 1 AND d.maxquota > 0",
);
const MAILDIR: Stmt = Stmt::same(
    "SELECT mailboxformat, mailboxfolder, storagebasedirectory, storagenode, maildir FROM mailbox WHERE username = ?",
);
const USED_QUOTA: Stmt = Stmt::same("SELECT bytes FROM used_quota WHERE username = ?");
const FORWARDING_TARGETS: Stmt = Stmt::same(
    "SELECT f.forwarding AS name FROM forwardings f JOIN domain d ON d.domain = f.domain \
     WHERE f.address = ? AND f.active = 1 AND d.active = 1 AND d.backupmx = 0",
);

/// The unit of `mailbox.quota`.
const MEGABYTE: i64 = 1 << 20;
/// What "never" is in `passwordlastchange`.
const EPOCH: &str = "1970-01-01 00:00:00";

/// Accounts in the vmail database.
#[derive(Debug)]
pub struct SqlDirectory {
    vmail: Db,
    before_1_0: AtomicBool,
}

impl SqlDirectory {
    /// The accounts in this database.
    pub fn new(vmail: Db) -> SqlDirectory {
        SqlDirectory { vmail, before_1_0: AtomicBool::new(false) }
    }

    /// The database itself.
    pub fn vmail(&self) -> &Db {
        &self.vmail
    }

    async fn rows(
        &self,
        question: &'static str,
        stmt: &Stmt,
        args: &[Value],
    ) -> Result<Vec<Row>, DirectoryError> {
        self.vmail.fetch_all(stmt, args).await.map_err(|cause| DirectoryError { question, cause })
    }

    async fn any(&self, question: &'static str, stmt: &Stmt, args: &[Value]) -> Result<bool, DirectoryError> {
        Ok(!self.rows(question, stmt, args).await?.is_empty())
    }

    async fn names(
        &self,
        question: &'static str,
        stmt: &Stmt,
        args: &[Value],
    ) -> Result<Vec<String>, DirectoryError> {
        let rows = self.rows(question, stmt, args).await?;
        Ok(rows.iter().filter_map(|row| row.text("name")).map(str::to_lowercase).collect())
    }

    /// Limit and usage of a mailbox; limit and what was said about usage when only that cannot be read.
    async fn quota_rows(&self, address: &str) -> Result<(Vec<Row>, Option<DbError>), DbError> {
        let args = [lower(address)];
        if !self.before_1_0.load(Ordering::Relaxed) {
            match self.limit_and_usage(&QUOTA_ACCOUNT, &QUOTA_LIMIT, &args).await {
                Err(DbError::Refused(_)) => {}
                outcome => return outcome,
            }
        }
        // The limit alone was refused as well, so it is not the usage that is in the way.
        let found = self.limit_and_usage(&QUOTA_ACCOUNT_BEFORE_1_0, &QUOTA_LIMIT_BEFORE_1_0, &args).await?;
        if !self.before_1_0.swap(true, Ordering::Relaxed) {
            tracing::info!("mailbox has no column enablequota-status: quota is checked for every mailbox");
        }
        Ok(found)
    }

    /// The row of a mailbox without its usage.
    async fn limit_rows(&self, address: &str) -> Result<Vec<Row>, DbError> {
        let args = [lower(address)];
        if !self.before_1_0.load(Ordering::Relaxed) {
            match self.vmail.fetch_all(&QUOTA_LIMIT, &args).await {
                Err(DbError::Refused(_)) => {}
                outcome => return outcome,
            }
        }
        self.vmail.fetch_all(&QUOTA_LIMIT_BEFORE_1_0, &args).await
    }

    /// Asks `limit` when the server refuses `both`, and only then: a server out of reach would have no answer either.
    async fn limit_and_usage(
        &self,
        both: &Stmt,
        limit: &Stmt,
        args: &[Value],
    ) -> Result<(Vec<Row>, Option<DbError>), DbError> {
        match self.vmail.fetch_all(both, args).await {
            Ok(rows) => Ok((rows, None)),
            Err(refusal @ (DbError::Refused(_) | DbError::TryAgain(_))) => {
                Ok((self.vmail.fetch_all(limit, args).await?, Some(refusal)))
            }
            Err(error) => Err(error),
        }
    }
}

/// The account in a row, without usage.
fn account(row: &Row, address: &str) -> QuotaAccount {
    QuotaAccount {
        username: row.text("username").unwrap_or(address).to_lowercase(),
        limit_bytes: row.int("quota").unwrap_or(0).saturating_mul(MEGABYTE),
        used_bytes: None,
        usage_failure: None,
    }
}

fn lower(name: &str) -> Value {
    Value::Text(name.to_lowercase())
}

impl Directory for SqlDirectory {
    fn source(&self) -> AccountSource {
        AccountSource::Sql
    }

    fn is_local_domain<'a>(&'a self, domain: &'a str, scope: DomainScope) -> Answer<'a, bool> {
        Box::pin(async move {
            if !may_be_local(domain) {
                return Ok(false);
            }
            let question = "a domain";
            let domain = lower(domain);
            match (scope.backup_mx, scope.alias_domains) {
                (true, false) => self.any(question, &DOMAIN, &[domain]).await,
                (false, false) => self.any(question, &DOMAIN_NOT_BACKUP, &[domain]).await,
                (true, true) => self.any(question, &DOMAIN_OR_ALIAS, &[domain.clone(), domain]).await,
                (false, true) => {
                    self.any(question, &DOMAIN_NOT_BACKUP_OR_ALIAS, &[domain.clone(), domain]).await
                }
            }
        })
    }

    fn alias_target<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            if !may_be_local(domain) {
                return Ok(None);
            }
            Ok(self.names("an alias domain", &ALIAS_TARGET, &[lower(domain)]).await?.into_iter().next())
        })
    }

    fn alias_domain_of<'a>(&'a self, alias: &'a str, target: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            self.any("an alias domain", &ALIAS_DOMAIN_OF, &[lower(alias), lower(target)]).await
        })
    }

    fn domain_names<'a>(&'a self, domain: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let domain = lower(domain);
            let args = [domain.clone(), domain.clone(), domain.clone(), domain];
            self.names("the names of a domain", &DOMAIN_NAMES, &args).await
        })
    }

    fn local_domains(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.names("all domains", &LOCAL_DOMAINS, &[]))
    }

    fn login_has_alias<'a>(&'a self, login: &'a str, sender: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let login = login.to_lowercase();
            let extended = match login.split_once('@') {
                Some((local, domain)) => format!("{}+%@{}", escape_like(local), escape_like(domain)),
                // Nothing but itself.
                None => escape_like(&login),
            };
            let args = [lower(sender), Value::Text(login), Value::Text(extended)];
            self.any("addresses of a login", &LOGIN_HAS_ALIAS, &args).await
        })
    }

    fn login_may_use<'a>(
        &'a self,
        login: &'a str,
        sender: &'a str,
        rights: SenderRights,
    ) -> Answer<'a, bool> {
        Box::pin(async move {
            Ok((rights.aliases && self.login_has_alias(login, sender).await?)
                || (rights.lists && self.alias_has_member(sender, login).await?))
        })
    }

    fn alias_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            self.any("a member of an alias", &ALIAS_HAS_MEMBER, &[lower(list), lower(member)]).await
        })
    }

    fn is_active_maillist<'a>(&'a self, address: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.any("a mailing list", &ACTIVE_MAILLIST, &[lower(address)]).await })
    }

    fn list_policy<'a>(&'a self, kind: ListKind, address: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let stmt = match kind {
                ListKind::Alias => &ALIAS_POLICY,
                ListKind::Maillist => &MAILLIST_POLICY,
            };
            let rows = self.rows("an access policy", stmt, &[lower(address)]).await?;
            Ok(rows.first().map(|row| row.text("name").unwrap_or_default().to_lowercase()))
        })
    }

    /// Moderators are those who may always write to a list in these tables.
    fn list_entry<'a>(&'a self, address: &'a str) -> Answer<'a, Option<ListEntry>> {
        Box::pin(async move {
            let rows = self.rows("a list", &LIST_ENTRY, &[lower(address), lower(address)]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let moderators = self.moderators(address).await?;
            Ok(Some(ListEntry {
                address: row.text("address").unwrap_or(address).to_lowercase(),
                active: row.int("active") == Some(1),
                policy: row.text("accesspolicy").unwrap_or_default().to_lowercase(),
                managed: row.int("managed") == Some(1),
                allowed: moderators.clone(),
                moderators,
                owners: self.owners(address).await?,
            }))
        })
    }

    fn list_has_member<'a>(&'a self, list: &'a str, member: &'a str) -> Answer<'a, bool> {
        self.alias_has_member(list, member)
    }

    fn users_with_alias<'a>(&'a self, domain: &'a str, alias: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            self.names("the user of an alias", &USERS_WITH_ALIAS, &[lower(alias), lower(domain)]).await
        })
    }

    fn alias_members<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move { self.names("members of an alias", &ALIAS_MEMBERS, &[lower(address)]).await })
    }

    fn moderators<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move { self.names("moderators", &MODERATORS, &[lower(address)]).await })
    }

    fn owners<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move { self.names("owners of a list", &OWNERS, &[lower(address)]).await })
    }

    fn password_last_change<'a>(&'a self, username: &'a str) -> Answer<'a, Option<PasswordChange>> {
        Box::pin(async move {
            let rows = self.rows("the age of a password", &PASSWORD_LAST_CHANGE, &[lower(username)]).await?;
            Ok(rows.first().map(|row| PasswordChange::Time(row.text("name").unwrap_or(EPOCH).to_owned())))
        })
    }

    fn mailbox_exists<'a>(&'a self, username: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.any("a mailbox", &MAILBOX_EXISTS, &[lower(username)]).await })
    }

    fn quota_account<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        Box::pin(async move {
            let question = "the quota of a mailbox";
            let (rows, usage_failure) =
                self.quota_rows(address).await.map_err(|cause| DirectoryError { question, cause })?;
            let used = |row: &Row| if usage_failure.is_none() { row.int("bytes") } else { None };
            Ok(rows.first().map(|row| QuotaAccount {
                used_bytes: used(row),
                usage_failure: usage_failure.as_ref().map(ToString::to_string),
                ..account(row, address)
            }))
        })
    }

    fn quota_limit<'a>(&'a self, address: &'a str) -> Answer<'a, Option<QuotaAccount>> {
        Box::pin(async move {
            let question = "the quota of a mailbox";
            let rows = self.limit_rows(address).await.map_err(|cause| DirectoryError { question, cause })?;
            Ok(rows.first().map(|row| account(row, address)))
        })
    }

    fn domain_quota<'a>(&'a self, domain: &'a str) -> Answer<'a, Option<DomainQuota>> {
        Box::pin(async move {
            let rows = self.rows("the quota of a domain", &DOMAIN_QUOTA, &[lower(domain)]).await?;
            Ok(rows.first().map(|row| DomainQuota {
                limit_bytes: row.int("maxquota").unwrap_or(0).saturating_mul(MEGABYTE),
                used_bytes: row.int("bytes").unwrap_or(0),
            }))
        })
    }

    fn maildir<'a>(&'a self, username: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let rows = self.rows("the folder of a mailbox", &MAILDIR, &[lower(username)]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let text = |name| row.text(name).unwrap_or_default();
            // The home folder is told in lower case, the folder in it as it is (wiring of iRedMail).
            let home = [text("storagebasedirectory"), text("storagenode"), text("maildir")].join("/");
            Ok(maildir_below(&home.to_lowercase(), text("mailboxformat"), text("mailboxfolder")))
        })
    }

    fn used_quota<'a>(&'a self, username: &'a str) -> Answer<'a, Option<i64>> {
        Box::pin(async move {
            let rows = self.rows("the usage of a mailbox", &USED_QUOTA, &[lower(username)]).await?;
            Ok(rows.first().and_then(|row| row.int("bytes")))
        })
    }

    fn forwarding_targets<'a>(&'a self, address: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move { self.names("forwardings", &FORWARDING_TARGETS, &[lower(address)]).await })
    }

    fn health(&self) -> Vec<DependencyHealth> {
        vec![self.vmail.health("vmail")]
    }
}
