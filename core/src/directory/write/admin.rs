//! Administrators: stand-alone ones in `admin`, mail users with rights, and which domains each of them has.

use super::{AccountError, Accounts, Edit, Result, column, domain_of, found, taken};
use crate::sql::{Row, Stmt, Transaction, Value};

/// The domain of `domain_admins` that means all.
const ALL: &str = "ALL";

/// What kind of account somebody logs in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminKind {
    /// A row in `admin`.
    StandAlone,
    /// A row in `mailbox`.
    MailUser,
}

/// Somebody who may log in, with what the tables say about rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccount {
    /// The address.
    pub username: String,
    /// The stored form of the password.
    pub password: String,
    /// Which table the account is in.
    pub kind: AdminKind,
    /// Whether the account administers everything.
    pub global: bool,
    /// Whether a mail user has the mark of a domain administrator; always true for stand-alone ones.
    pub admin: bool,
    /// The domains the account administers; empty for global ones.
    pub domains: Vec<String>,
}

/// An administrator to be made.
#[derive(Debug, Clone, Default)]
pub struct NewAdmin {
    /// The address, not below a hosted domain.
    pub username: String,
    /// The stored form of the password.
    pub password: String,
    /// The display name.
    pub name: String,
    /// The language.
    pub language: String,
    /// Whether everything is administered.
    pub global: bool,
    /// Whether it may be used.
    pub active: bool,
}

const STAND_ALONE: Stmt = Stmt::same("SELECT * FROM admin WHERE username = ?");
const STAND_ALONE_ACTIVE: Stmt =
    Stmt::same("SELECT username, password FROM admin WHERE username = ? AND active = 1");
const MAIL_USER: Stmt = Stmt::same(
    "SELECT username, password, isadmin, isglobaladmin FROM mailbox WHERE username = ? AND active = 1",
);
const DOMAINS: Stmt =
    Stmt::same("SELECT domain FROM domain_admins WHERE username = ? AND active = 1 ORDER BY domain");
const ALL_DOMAINS: Stmt = Stmt::same("SELECT domain FROM domain_admins WHERE username = ?");
const ADMINS_OF: Stmt = Stmt::same("SELECT username FROM domain_admins WHERE domain = ? ORDER BY username");
const INSERT: Stmt = Stmt::same(
    "INSERT INTO admin (username, password, name, language, passwordlastchange, created, active) \
     VALUES (?, ?, ?, ?, ?, ?, ?)",
);
const INSERT_DOMAIN: Stmt =
    Stmt::same("INSERT INTO domain_admins (username, domain, created, active) VALUES (?, ?, ?, 1)");
const DELETE_DOMAIN: Stmt = Stmt::same("DELETE FROM domain_admins WHERE username = ? AND domain = ?");
const DELETE_DOMAINS: Stmt = Stmt::same("DELETE FROM domain_admins WHERE username = ?");
const DELETE: Stmt = Stmt::same("DELETE FROM admin WHERE username = ?");
const SET_NAME: Stmt = Stmt::same("UPDATE admin SET name = ? WHERE username = ?");
const SET_LANGUAGE: Stmt = Stmt::same("UPDATE admin SET language = ? WHERE username = ?");
const SET_ACTIVE: Stmt = Stmt::same("UPDATE admin SET active = ? WHERE username = ?");
const SET_PASSWORD: Stmt =
    Stmt::same("UPDATE admin SET password = ?, passwordlastchange = ? WHERE username = ?");
const SET_MODIFIED: Stmt = Stmt::same("UPDATE admin SET modified = ? WHERE username = ?");
const MAILBOX: Stmt = Stmt::same("SELECT username FROM mailbox WHERE username = ?");
const SET_IS_ADMIN: Stmt = Stmt::same("UPDATE mailbox SET isadmin = ? WHERE username = ?");
const HAS_DOMAINS: Stmt =
    Stmt::same("SELECT domain FROM domain_admins WHERE username = ? AND domain <> 'ALL'");
const DOMAIN: Stmt = Stmt::same("SELECT domain FROM domain WHERE domain = ?");

impl Accounts {
    /// The active account of somebody who logs in: a stand-alone administrator, else a mail user.
    pub async fn admin_account(&self, username: &str) -> Result<Option<AdminAccount>> {
        let stand_alone = self.vmail.fetch_optional(&STAND_ALONE_ACTIVE, &[username.into()]).await?;
        let (row, kind) = match stand_alone {
            Some(row) => (row, AdminKind::StandAlone),
            None => match self.vmail.fetch_optional(&MAIL_USER, &[username.into()]).await? {
                Some(row) => (row, AdminKind::MailUser),
                None => return Ok(None),
            },
        };
        let rows = self.vmail.fetch_all(&DOMAINS, &[username.into()]).await?;
        let domains: Vec<String> = rows.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect();
        let everything = domains.iter().any(|domain| domain == ALL);
        let global = everything && (kind == AdminKind::StandAlone || row.flag("isglobaladmin"));
        Ok(Some(AdminAccount {
            username: username.to_owned(),
            password: row.text("password").unwrap_or("").to_owned(),
            kind,
            global,
            admin: kind == AdminKind::StandAlone || row.flag("isadmin"),
            domains: domains.into_iter().filter(|domain| domain != ALL).map(|d| d.to_lowercase()).collect(),
        }))
    }

    /// The row of a stand-alone administrator.
    pub async fn admin(&self, username: &str) -> Result<Option<Row>> {
        Ok(self.vmail.fetch_optional(&STAND_ALONE, &[username.into()]).await?)
    }

    /// The domains that an account administers, in lower case, `all` for everything. Rights that are switched off are
    /// told too: they may be switched on again.
    pub async fn administered_by(&self, username: &str) -> Result<Vec<String>> {
        let rows = self.vmail.fetch_all(&ALL_DOMAINS, &[username.into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0).map(str::to_lowercase)).collect())
    }

    /// Who administers a domain.
    pub async fn admins_of(&self, domain: &str) -> Result<Vec<String>> {
        let rows = self.vmail.fetch_all(&ADMINS_OF, &[domain.into()]).await?;
        Ok(rows.iter().filter_map(|row| row.text_at(0).map(str::to_owned)).collect())
    }

    /// Makes a stand-alone administrator.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotAllowed` if the address is below a hosted domain.
    pub async fn create_admin(&self, new: &NewAdmin, now: &str) -> Result<()> {
        if self.is_hosted(domain_of(&new.username)).await? {
            return Err(AccountError::NotAllowed);
        }
        let mut tx = self.vmail.begin().await?;
        if found(&mut tx, &STAND_ALONE, &[Value::from(&new.username)]).await? {
            return Err(AccountError::AlreadyExists);
        }
        let row = [
            Value::from(&new.username),
            Value::from(&new.password),
            Value::from(&new.name),
            Value::from(&new.language),
            Value::time(now),
            Value::time(now),
            new.active.into(),
        ];
        tx.execute(&INSERT, &row).await.map_err(taken)?;
        set_global(&mut tx, &new.username, new.global, now).await?;
        Ok(tx.commit().await?)
    }

    /// Changes a stand-alone administrator; what is `None` stays as it is.
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn change_admin(&self, username: &str, change: &AdminChange, now: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &STAND_ALONE, &[username.into()]).await? {
            return Err(AccountError::NoSuchAccount);
        }
        let values = [
            (&SET_NAME, change.name.as_ref().map(Value::from)),
            (&SET_LANGUAGE, change.language.as_ref().map(Value::from)),
            (&SET_ACTIVE, change.active.map(Value::from)),
        ];
        for (stmt, value) in values {
            if let Some(value) = value {
                tx.execute(stmt, &[value, username.into()]).await?;
            }
        }
        if let Some(password) = &change.password {
            tx.execute(&SET_PASSWORD, &[password.into(), Value::time(now), username.into()]).await?;
        }
        if let Some(global) = change.global {
            set_global(&mut tx, username, global, now).await?;
        }
        tx.execute(&SET_MODIFIED, &[Value::time(now), username.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Removes a stand-alone administrator.
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn delete_admin(&self, username: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &STAND_ALONE, &[username.into()]).await? {
            return Err(AccountError::NoSuchAccount);
        }
        tx.execute(&DELETE, &[username.into()]).await?;
        tx.execute(&DELETE_DOMAINS, &[username.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Changes who administers a domain. Addresses that are no account are passed over; a mail user gets or loses the
    /// mark of an administrator.
    ///
    /// # Errors
    /// `NoSuchAccount` if there is no such domain.
    pub async fn change_admins_of(&self, domain: &str, edit: &Edit, now: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &DOMAIN, &[domain.into()]).await? {
            return Err(AccountError::NoSuchAccount);
        }
        let current = column(&mut tx, &ADMINS_OF, &[domain.into()]).await?;
        let wanted = edit.apply(current.clone());
        for gone in current.iter().filter(|admin| !wanted.contains(admin)) {
            tx.execute(&DELETE_DOMAIN, &[gone.into(), domain.into()]).await?;
            if !found(&mut tx, &HAS_DOMAINS, &[gone.into()]).await? {
                tx.execute(&SET_IS_ADMIN, &[false.into(), gone.into()]).await?;
            }
        }
        for new in wanted.iter().filter(|admin| !current.contains(admin)) {
            let mail_user = found(&mut tx, &MAILBOX, &[new.into()]).await?;
            if mail_user {
                tx.execute(&SET_IS_ADMIN, &[true.into(), new.into()]).await?;
            } else if !found(&mut tx, &STAND_ALONE, &[new.into()]).await? {
                continue;
            }
            tx.execute(&INSERT_DOMAIN, &[new.into(), domain.into(), Value::time(now)])
                .await
                .map_err(taken)?;
        }
        Ok(tx.commit().await?)
    }
}

/// A change of a stand-alone administrator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminChange {
    /// The display name.
    pub name: Option<String>,
    /// The language.
    pub language: Option<String>,
    /// Whether the account is in use.
    pub active: Option<bool>,
    /// The stored form of a new password.
    pub password: Option<String>,
    /// Whether everything is administered.
    pub global: Option<bool>,
}

async fn set_global(tx: &mut Transaction, username: &str, global: bool, now: &str) -> Result<()> {
    tx.execute(&DELETE_DOMAIN, &[username.into(), ALL.into()]).await?;
    if global {
        tx.execute(&INSERT_DOMAIN, &[username.into(), ALL.into(), Value::time(now)]).await.map_err(taken)?;
    }
    Ok(())
}
