//! Mail users: their row in `mailbox` and what `forwardings` says about them.

use super::domain::{allocated, lock_domain, lock_for_new};
use super::domain_settings::DomainSettings;
use super::service::{SERVICES, switches};
use super::{AccountError, Accounts, Edit, Result, column, domain_of, is_taken, taken};
use crate::sql::{Row, Stmt, Transaction, Value};

/// A mail user to be made.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The address.
    pub username: String,
    /// The stored form of the password.
    pub password: String,
    /// The display name.
    pub name: String,
    /// The language, as `en_US`; empty for the domain's.
    pub language: String,
    /// The quota in MB; `None` for the domain's default.
    pub quota: Option<i64>,
    /// `storagebasedirectory`.
    pub base_directory: String,
    /// `storagenode`.
    pub node: String,
    /// `maildir`.
    pub maildir: String,
    /// `mailboxformat`.
    pub mailbox_format: String,
    /// `mailboxfolder`.
    pub mailbox_folder: String,
}

/// A change of a mail user; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The display name.
    pub name: Option<String>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The number of the employee.
    pub employee_id: Option<String>,
    /// The language.
    pub language: Option<String>,
    /// The transport of mail to this user; empty for the domain's.
    pub transport: Option<String>,
    /// The quota in MB; 0 is no limit.
    pub quota: Option<i64>,
    /// Whether the account is in use.
    pub active: Option<bool>,
    /// The stored form of a new password.
    pub password: Option<String>,
    /// Whether the user administers everything.
    pub global_admin: Option<bool>,
    /// Where mail to the user goes; the user's own address keeps a copy.
    pub forwarding: Option<Edit>,
    /// Further addresses of the user.
    pub aliases: Option<Edit>,
    /// Whether addresses of any hosted domain may be such, or only those of the user's own.
    pub aliases_anywhere: bool,
    /// Who gets a copy of all mail sent; empty for nobody.
    pub sender_bcc: Option<String>,
    /// Who gets a copy of all mail received; empty for nobody.
    pub recipient_bcc: Option<String>,
    /// The services the user may use.
    pub services: Option<Edit>,
    /// `mailboxformat`.
    pub mailbox_format: Option<String>,
    /// `mailboxfolder`.
    pub mailbox_folder: Option<String>,
    /// `storagebasedirectory`, `storagenode` and `maildir`.
    pub maildir: Option<[String; 3]>,
}

const INSERT: Stmt = Stmt::same(
    "INSERT INTO mailbox (username, password, name, language, quota, domain, storagebasedirectory, storagenode, \
     maildir, mailboxformat, mailboxfolder, passwordlastchange, created, active) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
);
const INSERT_FORWARDING: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_forwarding, active) \
     VALUES (?, ?, ?, ?, 1, ?)",
);
const INSERT_ALIAS: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_alias, active) \
     VALUES (?, ?, ?, ?, 1, ?)",
);
const COUNT: Stmt = Stmt::same("SELECT COUNT(*) FROM mailbox WHERE domain = ?");
const READ: Stmt = Stmt::same("SELECT * FROM mailbox WHERE username = ?");
const READ_DOMAIN: Stmt = Stmt::same("SELECT * FROM mailbox WHERE domain = ? ORDER BY username");
const USED: Stmt = Stmt::same("SELECT bytes, messages FROM used_quota WHERE username = ?");
const USED_IN_DOMAIN: Stmt = Stmt::same("SELECT username, bytes, messages FROM used_quota WHERE domain = ?");
const FORWARDINGS: Stmt = Stmt::same(
    "SELECT forwarding FROM forwardings WHERE address = ? AND is_forwarding = 1 ORDER BY forwarding",
);
const ALIASES: Stmt =
    Stmt::same("SELECT address FROM forwardings WHERE forwarding = ? AND is_alias = 1 ORDER BY address");
const DELETE_FORWARDING: Stmt =
    Stmt::same("DELETE FROM forwardings WHERE address = ? AND forwarding = ? AND is_forwarding = 1");
const DELETE_ALIAS: Stmt =
    Stmt::same("DELETE FROM forwardings WHERE address = ? AND forwarding = ? AND is_alias = 1");
const OWN_DOMAINS: Stmt = Stmt::same("SELECT alias_domain FROM alias_domain WHERE target_domain = ?");
const HOSTED_DOMAINS: Stmt =
    Stmt::same("SELECT domain FROM domain UNION SELECT alias_domain FROM alias_domain");
const SET_NAME: Stmt = Stmt::same("UPDATE mailbox SET name = ? WHERE username = ?");
const SET_FIRST_NAME: Stmt = Stmt::same("UPDATE mailbox SET first_name = ? WHERE username = ?");
const SET_LAST_NAME: Stmt = Stmt::same("UPDATE mailbox SET last_name = ? WHERE username = ?");
const SET_EMPLOYEE_ID: Stmt = Stmt::same("UPDATE mailbox SET employeeid = ? WHERE username = ?");
const SET_LANGUAGE: Stmt = Stmt::same("UPDATE mailbox SET language = ? WHERE username = ?");
const SET_TRANSPORT: Stmt = Stmt::same("UPDATE mailbox SET transport = ? WHERE username = ?");
const SET_QUOTA: Stmt = Stmt::same("UPDATE mailbox SET quota = ? WHERE username = ?");
const SET_ACTIVE: Stmt = Stmt::same("UPDATE mailbox SET active = ? WHERE username = ?");
const SET_FORWARDINGS_ACTIVE: Stmt =
    Stmt::same("UPDATE forwardings SET active = ? WHERE address = ? OR forwarding = ?");
const SET_PASSWORD: Stmt =
    Stmt::same("UPDATE mailbox SET password = ?, passwordlastchange = ? WHERE username = ?");
const SET_GLOBAL: Stmt = Stmt::same("UPDATE mailbox SET isglobaladmin = ? WHERE username = ?");
const DELETE_GLOBAL: Stmt = Stmt::same("DELETE FROM domain_admins WHERE username = ? AND domain = 'ALL'");
const INSERT_GLOBAL: Stmt =
    Stmt::same("INSERT INTO domain_admins (username, domain, created, active) VALUES (?, 'ALL', ?, 1)");
const SET_FORMAT: Stmt = Stmt::same("UPDATE mailbox SET mailboxformat = ? WHERE username = ?");
const SET_FOLDER: Stmt = Stmt::same("UPDATE mailbox SET mailboxfolder = ? WHERE username = ?");
const SET_MAILDIR: Stmt = Stmt::same(
    "UPDATE mailbox SET storagebasedirectory = ?, storagenode = ?, maildir = ? WHERE username = ?",
);
const SET_MODIFIED: Stmt = Stmt::same("UPDATE mailbox SET modified = ? WHERE username = ?");
const DELETE_SENDER_BCC: Stmt = Stmt::same("DELETE FROM sender_bcc_user WHERE username = ?");
const INSERT_SENDER_BCC: Stmt = Stmt::same(
    "INSERT INTO sender_bcc_user (username, bcc_address, domain, created, active) VALUES (?, ?, ?, ?, 1)",
);
const DELETE_RECIPIENT_BCC: Stmt = Stmt::same("DELETE FROM recipient_bcc_user WHERE username = ?");
const INSERT_RECIPIENT_BCC: Stmt = Stmt::same(
    "INSERT INTO recipient_bcc_user (username, bcc_address, domain, created, active) VALUES (?, ?, ?, ?, 1)",
);

impl Accounts {
    /// Whether a mail user of this name and quota could be made now.
    ///
    /// # Errors
    /// Those of [`Accounts::create_user`].
    pub async fn has_room_for_user(&self, username: &str, quota: Option<i64>) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        room(&mut tx, username, quota).await?;
        Ok(tx.rollback().await?)
    }

    /// Makes a mail user. Services that the domain has switched off are off for the user.
    ///
    /// # Errors
    /// `NoSuchDomain`, `AlreadyExists`, `NotAllowed`, `AccountLimit`, `QuotaLimit`.
    pub async fn create_user(&self, user: &NewUser, now: &str) -> Result<()> {
        let domain = domain_of(&user.username);
        let mut tx = self.vmail.begin().await?;
        let (settings, quota) = room(&mut tx, &user.username, user.quota).await?;
        let values = [
            Value::from(&user.username),
            Value::from(&user.password),
            Value::from(&user.name),
            Value::from(&user.language),
            quota.into(),
            domain.into(),
            Value::from(&user.base_directory),
            Value::from(&user.node),
            Value::from(&user.maildir),
            Value::from(&user.mailbox_format),
            Value::from(&user.mailbox_folder),
            Value::time(now),
            Value::time(now),
        ];
        tx.execute(&INSERT, &values).await.map_err(taken)?;
        let disabled = settings.list("disabled_mail_services");
        for service in SERVICES.iter().filter(|service| disabled.iter().any(|name| name == service.name)) {
            tx.execute(&service.switch, &[service.value(false), Value::from(&user.username)]).await?;
        }
        insert_forwarding(&mut tx, &user.username, &user.username, true).await?;
        Ok(tx.commit().await?)
    }

    /// The row of a mail user.
    pub async fn user(&self, username: &str) -> Result<Option<Row>> {
        Ok(self.vmail.fetch_optional(&READ, &[username.into()]).await?)
    }

    /// The rows of the mail users of a domain.
    pub async fn users(&self, domain: &str) -> Result<Vec<Row>> {
        Ok(self.vmail.fetch_all(&READ_DOMAIN, &[domain.into()]).await?)
    }

    /// Octets and messages stored for a user, as far as Dovecot has told.
    pub async fn stored(&self, username: &str) -> Result<(i64, i64)> {
        let row = self.vmail.fetch_optional(&USED, &[username.into()]).await?;
        let number = |name| row.as_ref().and_then(|row| row.int(name)).unwrap_or(0);
        Ok((number("bytes"), number("messages")))
    }

    /// The same for all users of a domain: address, octets, messages.
    pub async fn stored_in(&self, domain: &str) -> Result<Vec<(String, i64, i64)>> {
        let rows = self.vmail.fetch_all(&USED_IN_DOMAIN, &[domain.into()]).await?;
        let number = |row: &Row, name| row.int(name).unwrap_or(0);
        Ok(rows
            .iter()
            .filter_map(|row| {
                Some((row.text("username")?.to_lowercase(), number(row, "bytes"), number(row, "messages")))
            })
            .collect())
    }

    /// Changes mail users of one domain in one transaction, all of them or none.
    ///
    /// # Errors
    /// `NoSuchAccount` if one of them does not exist; `QuotaLimit`.
    pub async fn change_users(&self, users: &[String], change: &UserChange, now: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        for username in users {
            change_user(&mut tx, username, change, now).await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn change_user(tx: &mut Transaction, username: &str, change: &UserChange, now: &str) -> Result<()> {
    let domain = domain_of(username);
    let domain_row = lock_domain(tx, domain).await?.ok_or(AccountError::NoSuchAccount)?;
    let row = tx.fetch_optional(&READ, &[username.into()]).await?.ok_or(AccountError::NoSuchAccount)?;
    if let Some(quota) = change.quota {
        let before = row.int("quota").unwrap_or(0);
        if quota != before {
            check_quota(tx, domain, &domain_row, quota, before).await?;
        }
    }
    set_columns(tx, username, change, now).await?;
    let active = change.active.unwrap_or_else(|| row.flag("active"));
    if change.active.is_some() {
        let args = [active.into(), username.into(), username.into()];
        tx.execute(&SET_FORWARDINGS_ACTIVE, &args).await?;
    }
    if let Some(edit) = &change.forwarding {
        change_forwarding(tx, username, edit, active).await?;
    }
    if let Some(edit) = &change.aliases {
        change_aliases(tx, username, edit, change.aliases_anywhere, active).await?;
    }
    for (address, delete, insert) in [
        (&change.sender_bcc, &DELETE_SENDER_BCC, &INSERT_SENDER_BCC),
        (&change.recipient_bcc, &DELETE_RECIPIENT_BCC, &INSERT_RECIPIENT_BCC),
    ] {
        if let Some(address) = address {
            tx.execute(delete, &[username.into()]).await?;
            if !address.is_empty() {
                let row = [username.into(), address.into(), domain.into(), Value::time(now)];
                tx.execute(insert, &row).await?;
            }
        }
    }
    if let Some(edit) = &change.services {
        for (service, on) in switches(edit) {
            tx.execute(&service.switch, &[service.value(on), username.into()]).await?;
        }
    }
    if let Some(global) = change.global_admin {
        tx.execute(&SET_GLOBAL, &[global.into(), username.into()]).await?;
        tx.execute(&DELETE_GLOBAL, &[username.into()]).await?;
        if global {
            tx.execute(&INSERT_GLOBAL, &[username.into(), Value::time(now)]).await?;
        }
    }
    tx.execute(&SET_MODIFIED, &[Value::time(now), username.into()]).await?;
    Ok(())
}

async fn set_columns(tx: &mut Transaction, username: &str, change: &UserChange, now: &str) -> Result<()> {
    let values: [(&Stmt, Option<Value>); 10] = [
        (&SET_NAME, change.name.as_ref().map(Value::from)),
        (&SET_FIRST_NAME, change.first_name.as_ref().map(Value::from)),
        (&SET_LAST_NAME, change.last_name.as_ref().map(Value::from)),
        (&SET_EMPLOYEE_ID, change.employee_id.as_ref().map(Value::from)),
        (&SET_LANGUAGE, change.language.as_ref().map(Value::from)),
        (&SET_TRANSPORT, change.transport.as_ref().map(Value::from)),
        (&SET_QUOTA, change.quota.map(Value::from)),
        (&SET_ACTIVE, change.active.map(Value::from)),
        (&SET_FORMAT, change.mailbox_format.as_ref().map(Value::from)),
        (&SET_FOLDER, change.mailbox_folder.as_ref().map(Value::from)),
    ];
    for (stmt, value) in values {
        if let Some(value) = value {
            tx.execute(stmt, &[value, username.into()]).await?;
        }
    }
    if let Some(password) = &change.password {
        tx.execute(&SET_PASSWORD, &[password.into(), Value::time(now), username.into()]).await?;
    }
    if let Some([base, node, maildir]) = &change.maildir {
        tx.execute(&SET_MAILDIR, &[base.into(), node.into(), maildir.into(), username.into()]).await?;
    }
    Ok(())
}

/// Locks the domain and looks whether it takes one more user; its settings, and the user's quota.
async fn room(tx: &mut Transaction, username: &str, quota: Option<i64>) -> Result<(DomainSettings, i64)> {
    let row = lock_for_new(tx, username, "mailboxes", &COUNT).await?;
    let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
    let quota = quota.or_else(|| settings.int("default_user_quota")).unwrap_or(0);
    check_quota(tx, domain_of(username), &row, quota, 0).await?;
    Ok((settings, quota))
}

/// A mailbox must fit the domain's limit for one mailbox and what the domain has left; `before` MB of the sum are
/// its own. A mailbox without a limit fits only a domain without one.
async fn check_quota(tx: &mut Transaction, domain: &str, row: &Row, quota: i64, before: i64) -> Result<()> {
    let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
    let largest = settings.int("max_user_quota").unwrap_or(0);
    if largest > 0 && (quota == 0 || quota > largest) {
        return Err(AccountError::QuotaLimit);
    }
    let limit = row.int("maxquota").unwrap_or(0);
    if limit > 0 && (quota == 0 || allocated(tx, domain).await? - before + quota > limit) {
        return Err(AccountError::QuotaLimit);
    }
    Ok(())
}

async fn insert_forwarding(tx: &mut Transaction, address: &str, target: &str, active: bool) -> Result<()> {
    let row =
        [address.into(), target.into(), domain_of(address).into(), domain_of(target).into(), active.into()];
    tx.execute(&INSERT_FORWARDING, &row).await.map_err(taken)?;
    Ok(())
}

/// Mail to a user always goes somewhere: an empty list means to the mailbox itself.
async fn change_forwarding(tx: &mut Transaction, username: &str, edit: &Edit, active: bool) -> Result<()> {
    let current = column(tx, &FORWARDINGS, &[username.into()]).await?;
    let mut wanted = edit.apply(current.clone());
    if wanted.is_empty() {
        wanted.push(username.to_owned());
    }
    for gone in current.iter().filter(|target| !wanted.contains(target)) {
        tx.execute(&DELETE_FORWARDING, &[username.into(), gone.into()]).await?;
    }
    for new in wanted.iter().filter(|target| !current.contains(target)) {
        insert_forwarding(tx, username, new, active).await?;
    }
    Ok(())
}

/// Addresses that somebody has already, and those of domains the user does not belong to, are passed over.
async fn change_aliases(
    tx: &mut Transaction,
    username: &str,
    edit: &Edit,
    anywhere: bool,
    active: bool,
) -> Result<()> {
    let current = column(tx, &ALIASES, &[username.into()]).await?;
    let wanted = edit.apply(current.clone());
    for gone in current.iter().filter(|address| !wanted.contains(address)) {
        tx.execute(&DELETE_ALIAS, &[gone.into(), username.into()]).await?;
    }
    let domains = if anywhere {
        column(tx, &HOSTED_DOMAINS, &[]).await?
    } else {
        let mut own = column(tx, &OWN_DOMAINS, &[domain_of(username).into()]).await?;
        own.push(domain_of(username).to_owned());
        own
    };
    for new in wanted.iter().filter(|address| !current.contains(address)) {
        let domain = domain_of(new);
        if domains.iter().any(|own| own == domain) && !is_taken(tx, new).await? {
            let row = [new.into(), username.into(), domain.into(), domain_of(username).into(), active.into()];
            tx.execute(&INSERT_ALIAS, &row).await.map_err(taken)?;
        }
    }
    Ok(())
}
