//! Domains: their row, their alias domains, what belongs to the domain as a whole, and their end.

use super::domain_settings::DomainSettings;
use super::trace::Whose;
use super::{AccountError, Accounts, Edit, Result, column, domain_of, found, is_taken, taken};
use crate::sql::{Row, Stmt, Transaction, Value, escape_like};

/// A domain to be made.
#[derive(Debug, Clone, Default)]
pub struct NewDomain {
    /// Its name.
    pub domain: String,
    /// What is set besides the defaults; limits and settings only.
    pub change: DomainChange,
    /// The transport of its mail.
    pub transport: String,
}

/// A change of a domain; what is `None` or empty stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainChange {
    /// The display name.
    pub description: Option<String>,
    /// Sum of the quotas of all mailboxes in MB; 0 is no limit.
    pub max_quota: Option<i64>,
    /// Number of mailboxes; 0 is no limit, -1 none at all.
    pub mailboxes: Option<i64>,
    /// Number of aliases, likewise.
    pub aliases: Option<i64>,
    /// Number of mailing lists, likewise.
    pub maillists: Option<i64>,
    /// The transport of its mail.
    pub transport: Option<String>,
    /// Whether the domain is in use.
    pub active: Option<bool>,
    /// Values of `domain.settings`; an empty one removes the key.
    pub settings: Vec<(&'static str, String)>,
    /// Comma-separated values of `domain.settings`.
    pub setting_lists: Vec<(&'static str, Edit)>,
    /// Who gets a copy of all mail sent; empty for nobody.
    pub sender_bcc: Option<String>,
    /// Who gets a copy of all mail received; empty for nobody.
    pub recipient_bcc: Option<String>,
    /// Whether the domain is only relayed to another server.
    pub backup_mx: Option<bool>,
    /// Who gets mail to addresses that do not exist; empty for nobody.
    pub catch_all: Option<Vec<String>>,
    /// The relay for mail sent by the domain; empty for none.
    pub outbound_relay: Option<String>,
    /// Other names of the domain.
    pub alias_domains: Option<Edit>,
}

const EXISTS: Stmt = Stmt::same(
    "SELECT domain FROM domain WHERE domain = ? UNION SELECT alias_domain FROM alias_domain WHERE alias_domain = ?",
);
const INSERT: Stmt = Stmt::same(
    "INSERT INTO domain (domain, description, transport, settings, maxquota, mailboxes, aliases, maillists, created, active) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
);
/// Locked until the transaction ends: whoever counts accounts or adds up quotas has to be alone.
const LOCK: Stmt = Stmt::per_engine(
    "SELECT * FROM domain WHERE domain = ? FOR UPDATE",
    "SELECT * FROM domain WHERE domain = ? FOR UPDATE",
    "SELECT * FROM domain WHERE domain = ?",
);
const READ: Stmt = Stmt::same("SELECT * FROM domain WHERE domain = ?");
const READ_ALL: Stmt = Stmt::same("SELECT * FROM domain ORDER BY domain");
const READ_SOME: Stmt = Stmt::same("SELECT * FROM domain WHERE domain IN (?) ORDER BY domain");
const ALIAS_DOMAINS: Stmt =
    Stmt::same("SELECT alias_domain FROM alias_domain WHERE target_domain = ? ORDER BY alias_domain");
const ALLOCATED: Stmt = Stmt::same("SELECT SUM(quota) FROM mailbox WHERE domain = ?");
const DELETE_CATCH_ALL: Stmt = Stmt::same("DELETE FROM forwardings WHERE address = ?");
const INSERT_CATCH_ALL: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, active) VALUES (?, ?, ?, ?, 1)",
);
const DELETE_RELAY: Stmt = Stmt::same("DELETE FROM sender_relayhost WHERE account = ?");
const INSERT_RELAY: Stmt = Stmt::same("INSERT INTO sender_relayhost (account, relayhost) VALUES (?, ?)");
const DELETE_ALIAS_DOMAIN: Stmt =
    Stmt::same("DELETE FROM alias_domain WHERE alias_domain = ? AND target_domain = ?");
const INSERT_ALIAS_DOMAIN: Stmt =
    Stmt::same("INSERT INTO alias_domain (alias_domain, target_domain, created, active) VALUES (?, ?, ?, 1)");
const DELETE_SENDER_BCC: Stmt = Stmt::same("DELETE FROM sender_bcc_domain WHERE domain = ?");
const INSERT_SENDER_BCC: Stmt =
    Stmt::same("INSERT INTO sender_bcc_domain (domain, bcc_address, created, active) VALUES (?, ?, ?, 1)");
const DELETE_RECIPIENT_BCC: Stmt = Stmt::same("DELETE FROM recipient_bcc_domain WHERE domain = ?");
const INSERT_RECIPIENT_BCC: Stmt =
    Stmt::same("INSERT INTO recipient_bcc_domain (domain, bcc_address, created, active) VALUES (?, ?, ?, 1)");
const SET_DESCRIPTION: Stmt = Stmt::same("UPDATE domain SET description = ? WHERE domain = ?");
const SET_MAX_QUOTA: Stmt = Stmt::same("UPDATE domain SET maxquota = ? WHERE domain = ?");
const SET_MAILBOXES: Stmt = Stmt::same("UPDATE domain SET mailboxes = ? WHERE domain = ?");
const SET_ALIASES: Stmt = Stmt::same("UPDATE domain SET aliases = ? WHERE domain = ?");
const SET_MAILLISTS: Stmt = Stmt::same("UPDATE domain SET maillists = ? WHERE domain = ?");
const SET_TRANSPORT: Stmt = Stmt::same("UPDATE domain SET transport = ? WHERE domain = ?");
const SET_ACTIVE: Stmt = Stmt::same("UPDATE domain SET active = ? WHERE domain = ?");
const SET_BACKUP_MX: Stmt = Stmt::same("UPDATE domain SET backupmx = ? WHERE domain = ?");
const SET_SETTINGS: Stmt = Stmt::same("UPDATE domain SET settings = ? WHERE domain = ?");
const SET_MODIFIED: Stmt = Stmt::same("UPDATE domain SET modified = ? WHERE domain = ?");

const RECORD_MAILBOXES: Stmt = Stmt::per_engine(
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, CONCAT(m.storagebasedirectory, '/', m.storagenode, '/', m.maildir), \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, ? \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.domain = ?",
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, m.storagebasedirectory || '/' || m.storagenode || '/' || m.maildir, \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, CAST(? AS date) \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.domain = ?",
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, m.storagebasedirectory || '/' || m.storagenode || '/' || m.maildir, \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, ? \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.domain = ?",
);
/// Rows with the domain in a column of its own.
const DELETE_BY_DOMAIN: &[Stmt] = &[
    Stmt::same("DELETE FROM alias WHERE domain = ?"),
    Stmt::same("DELETE FROM domain_admins WHERE domain = ?"),
    Stmt::same("DELETE FROM mailbox WHERE domain = ?"),
    Stmt::same("DELETE FROM recipient_bcc_domain WHERE domain = ?"),
    Stmt::same("DELETE FROM recipient_bcc_user WHERE domain = ?"),
    Stmt::same("DELETE FROM sender_bcc_domain WHERE domain = ?"),
    Stmt::same("DELETE FROM sender_bcc_user WHERE domain = ?"),
    Stmt::same("DELETE FROM forwardings WHERE domain = ?"),
    Stmt::same("DELETE FROM moderators WHERE domain = ?"),
    Stmt::same("DELETE FROM maillist_owners WHERE domain = ?"),
    Stmt::same("DELETE FROM maillists WHERE domain = ?"),
    Stmt::same("DELETE FROM used_quota WHERE domain = ?"),
    Stmt::same("DELETE FROM last_login WHERE domain = ?"),
    Stmt::same("DELETE FROM alias_domain WHERE target_domain = ?"),
    Stmt::same("DELETE FROM alias_domain WHERE alias_domain = ?"),
    Stmt::same("DELETE FROM domain WHERE domain = ?"),
];
/// Rows with addresses of the domain.
const DELETE_BY_ADDRESS: &[Stmt] = &[
    Stmt::same("DELETE FROM domain_admins WHERE username LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM sender_relayhost WHERE account LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM share_folder WHERE from_user LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM share_folder WHERE to_user LIKE ? ESCAPE '!'"),
    Stmt::same("DELETE FROM anyone_shares WHERE from_user LIKE ? ESCAPE '!'"),
];

impl Accounts {
    /// Makes a domain.
    ///
    /// # Errors
    /// `AlreadyExists`, also if it is an alias domain.
    pub async fn create_domain(&self, new: &NewDomain, now: &str) -> Result<()> {
        let (domain, change) = (&new.domain, &new.change);
        let mut tx = self.vmail.begin().await?;
        if found(&mut tx, &EXISTS, &[domain.into(), domain.into()]).await? {
            return Err(AccountError::AlreadyExists);
        }
        let mut settings = DomainSettings::default();
        apply_settings(&mut settings, change);
        let row = [
            domain.into(),
            change.description.clone().unwrap_or_default().into(),
            Value::from(change.transport.as_ref().unwrap_or(&new.transport)),
            settings.to_string().into(),
            change.max_quota.unwrap_or(0).into(),
            change.mailboxes.unwrap_or(0).into(),
            change.aliases.unwrap_or(0).into(),
            change.maillists.unwrap_or(0).into(),
            Value::time(now),
        ];
        tx.execute(&INSERT, &row).await.map_err(taken)?;
        Ok(tx.commit().await?)
    }

    /// The row of a domain.
    pub async fn domain(&self, domain: &str) -> Result<Option<Row>> {
        Ok(self.vmail.fetch_optional(&READ, &[domain.into()]).await?)
    }

    /// The rows of all domains, or of those named.
    pub async fn domains(&self, only: Option<&[String]>) -> Result<Vec<Row>> {
        Ok(match only {
            None => self.vmail.fetch_all(&READ_ALL, &[]).await?,
            Some([]) => Vec::new(),
            Some(names) => self.vmail.fetch_all(&READ_SOME, &[Value::list(names)]).await?,
        })
    }

    /// The other names of a domain.
    pub async fn alias_domains(&self, domain: &str) -> Result<Vec<String>> {
        let rows = self.vmail.fetch_all(&ALIAS_DOMAINS, &[domain.into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0)).map(str::to_owned).collect())
    }

    /// Whether mail to this domain is taken, under whatever name.
    pub async fn is_hosted(&self, domain: &str) -> Result<bool> {
        Ok(self.vmail.fetch_optional(&EXISTS, &[domain.into(), domain.into()]).await?.is_some())
    }

    /// Changes a domain.
    ///
    /// # Errors
    /// `NoSuchAccount`; `QuotaLimit` if the mailboxes have more quota than the domain would have.
    pub async fn change_domain(&self, domain: &str, change: &DomainChange, now: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        let row = lock_domain(&mut tx, domain).await?.ok_or(AccountError::NoSuchAccount)?;
        change_row(&mut tx, domain, &row, change).await?;
        change_copies(&mut tx, domain, change, now).await?;
        if let Some(targets) = &change.catch_all {
            tx.execute(&DELETE_CATCH_ALL, &[domain.into()]).await?;
            for target in targets {
                let row = [domain.into(), target.into(), domain.into(), domain_of(target).into()];
                tx.execute(&INSERT_CATCH_ALL, &row).await?;
            }
        }
        if let Some(relay) = &change.outbound_relay {
            let account = format!("@{domain}");
            tx.execute(&DELETE_RELAY, &[Value::from(&account)]).await?;
            if !relay.is_empty() {
                tx.execute(&INSERT_RELAY, &[account.into(), relay.into()]).await?;
            }
        }
        if let Some(edit) = &change.alias_domains {
            change_alias_domains(&mut tx, domain, edit, now).await?;
        }
        tx.execute(&SET_MODIFIED, &[Value::time(now), domain.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Removes a domain with all its accounts. Each mailbox is noted in `deleted_mailboxes`, to be removed from disk on
    /// `delete_date` (`YYYY-MM-DD`; `None`: never).
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn delete_domain(&self, domain: &str, admin: &str, delete_date: Option<&str>) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        lock_domain(&mut tx, domain).await?.ok_or(AccountError::NoSuchAccount)?;
        let date = delete_date.map_or(Value::Null, Value::time);
        tx.execute(&RECORD_MAILBOXES, &[admin.into(), date, domain.into()]).await?;
        for stmt in DELETE_BY_DOMAIN {
            tx.execute(stmt, &[domain.into()]).await?;
        }
        let pattern = format!("%@{}", escape_like(domain));
        for stmt in DELETE_BY_ADDRESS {
            tx.execute(stmt, &[Value::from(&pattern)]).await?;
        }
        tx.commit().await?;
        self.remove_traces(Whose::Domain(domain)).await;
        Ok(())
    }
}

/// Reads the row of a domain and keeps others from changing it until the transaction ends.
pub(super) async fn lock_domain(tx: &mut Transaction, domain: &str) -> Result<Option<Row>> {
    Ok(tx.fetch_optional(&LOCK, &[domain.into()]).await?)
}

/// Locks the domain of a new account and looks whether it takes one more; the domain's row. `limit` is the column of the
/// limit and `count` asks for the number of such accounts.
///
/// # Errors
/// `NoSuchDomain`, `AlreadyExists`, `NotAllowed`, `AccountLimit`.
pub(super) async fn lock_for_new(
    tx: &mut Transaction,
    address: &str,
    limit: &str,
    count: &Stmt,
) -> Result<Row> {
    let domain = domain_of(address);
    let row = lock_domain(tx, domain).await?.ok_or(AccountError::NoSuchDomain)?;
    if is_taken(tx, address).await? {
        return Err(AccountError::AlreadyExists);
    }
    let limit = row.int(limit).unwrap_or(0);
    if limit < 0 {
        return Err(AccountError::NotAllowed);
    }
    if limit > 0 {
        let count = tx.fetch_optional(count, &[domain.into()]).await?;
        if count.and_then(|row| row.int_at(0)).unwrap_or(0) >= limit {
            return Err(AccountError::AccountLimit);
        }
    }
    Ok(row)
}

/// MB that the mailboxes of a domain have together.
pub(super) async fn allocated(tx: &mut Transaction, domain: &str) -> Result<i64> {
    let row = tx.fetch_optional(&ALLOCATED, &[domain.into()]).await?;
    Ok(row.and_then(|row| row.int_at(0)).unwrap_or(0))
}

fn apply_settings(settings: &mut DomainSettings, change: &DomainChange) {
    for (key, value) in &change.settings {
        settings.set(key, value);
    }
    for (key, edit) in &change.setting_lists {
        settings.edit(key, edit);
    }
}

async fn change_row(tx: &mut Transaction, domain: &str, row: &Row, change: &DomainChange) -> Result<()> {
    if let Some(limit) = change.max_quota
        && limit > 0
        && allocated(tx, domain).await? > limit
    {
        return Err(AccountError::QuotaLimit);
    }
    let values: [(&Stmt, Option<Value>); 8] = [
        (&SET_DESCRIPTION, change.description.as_ref().map(Value::from)),
        (&SET_MAX_QUOTA, change.max_quota.map(Value::from)),
        (&SET_MAILBOXES, change.mailboxes.map(Value::from)),
        (&SET_ALIASES, change.aliases.map(Value::from)),
        (&SET_MAILLISTS, change.maillists.map(Value::from)),
        (&SET_TRANSPORT, change.transport.as_ref().map(Value::from)),
        (&SET_ACTIVE, change.active.map(Value::from)),
        (&SET_BACKUP_MX, change.backup_mx.map(Value::from)),
    ];
    for (stmt, value) in values {
        if let Some(value) = value {
            tx.execute(stmt, &[value, domain.into()]).await?;
        }
    }
    if !change.settings.is_empty() || !change.setting_lists.is_empty() {
        let mut settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        apply_settings(&mut settings, change);
        tx.execute(&SET_SETTINGS, &[settings.to_string().into(), domain.into()]).await?;
    }
    Ok(())
}

async fn change_copies(tx: &mut Transaction, domain: &str, change: &DomainChange, now: &str) -> Result<()> {
    for (address, delete, insert) in [
        (&change.sender_bcc, &DELETE_SENDER_BCC, &INSERT_SENDER_BCC),
        (&change.recipient_bcc, &DELETE_RECIPIENT_BCC, &INSERT_RECIPIENT_BCC),
    ] {
        if let Some(address) = address {
            tx.execute(delete, &[domain.into()]).await?;
            if !address.is_empty() {
                tx.execute(insert, &[domain.into(), address.into(), Value::time(now)]).await?;
            }
        }
    }
    Ok(())
}

/// Names that are hosted already, here or as another domain, are passed over.
async fn change_alias_domains(tx: &mut Transaction, domain: &str, edit: &Edit, now: &str) -> Result<()> {
    let current = column(tx, &ALIAS_DOMAINS, &[domain.into()]).await?;
    let wanted = edit.apply(current.clone());
    for gone in current.iter().filter(|name| !wanted.contains(name)) {
        tx.execute(&DELETE_ALIAS_DOMAIN, &[gone.into(), domain.into()]).await?;
    }
    for new in wanted.iter().filter(|name| !current.contains(name)) {
        if !found(tx, &EXISTS, &[new.into(), new.into()]).await? {
            let row = [new.into(), domain.into(), Value::time(now)];
            tx.execute(&INSERT_ALIAS_DOMAIN, &row).await.map_err(taken)?;
        }
    }
    Ok(())
}
