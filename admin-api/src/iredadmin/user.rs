//! The calls about mail users.

use std::collections::HashMap;

use outrider_core::directory::write::{DomainSettings, NewUser, UserChange};
use outrider_core::sql::Row;
use serde_json::Value;

use super::actor::{Actor, Level};
use super::failure::Failure;
use super::route::Keep;
use super::value::{self, is_account, is_foreign, number};
use super::{AccountApi, maildir, view};
use crate::http::{Answer, Parameters};
use crate::password::{self, Bounds};

impl AccountApi {
    /// `GET /api/users/DOMAIN`
    pub(super) async fn users(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.managed_domain(actor, domain).await?;
        let mut rows = self.accounts.users(domain).await?;
        if sent.is_yes("disabled_only") {
            rows.retain(|row| !row.flag("active"));
        }
        if sent.is_yes("email_only") {
            let names: Vec<&str> = rows.iter().filter_map(|row| row.text("username")).collect();
            return Ok(Answer::data(names));
        }
        let stored = self.accounts.stored_in(domain).await?;
        let stored: HashMap<String, (i64, i64)> =
            stored.into_iter().map(|(name, bytes, messages)| (name, (bytes, messages))).collect();
        let data: Vec<Value> = rows
            .iter()
            .map(|row| {
                let username = row.text("username").unwrap_or("").to_lowercase();
                let (bytes, messages) = stored.get(&username).copied().unwrap_or_default();
                self.shown(row, bytes, messages)
            })
            .collect();
        Ok(Answer::data(data))
    }

    /// `GET /api/user/USER`
    pub(super) async fn read_user(&self, actor: &Actor, user: &str) -> Result<Answer, Failure> {
        let row = self.reachable_user(actor, user).await?;
        let (bytes, messages) = self.accounts.stored(user).await?;
        Ok(Answer::data(self.shown(&row, bytes, messages)))
    }

    /// `POST /api/user/USER`
    pub(super) async fn create_user(
        &self,
        actor: &Actor,
        user: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let (local, domain) = account_parts(user)?;
        if !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        let row = self.accounts.domain(domain).await?.ok_or(Failure::INVALID_DOMAIN_NAME)?;
        if self.accounts.user(user).await?.is_some() {
            return Err(Failure::new("ALREADY_EXISTS"));
        }
        let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        let quota = number(sent, "quota", 0).or_else(|| number(sent, "mailQuota", 0));
        let stored = match self.new_password(sent, &settings).await {
            Ok(Some(stored)) => stored,
            // The password is what is looked at last.
            refused => {
                self.accounts.has_room_for_user(user, quota).await?;
                return Err(refused.err().unwrap_or(Failure::new("PW_EMPTY")));
            }
        };
        // Where mail lies, and what a removal erases later, is not for the administrator of one domain to say.
        let location = match sent.get("maildir").filter(|_| actor.is_global()) {
            Some(path) => maildir::explicit(path).ok_or(Failure::new("INVALID_ACTION"))?,
            None => {
                let time = self.local().strftime("%Y.%m.%d.%H.%M.%S").to_string();
                self.policy.layout.of(local, domain, &time)
            }
        };
        let [base_directory, node, maildir] = location;
        let new = NewUser {
            username: user.to_owned(),
            password: stored,
            name: value::get(sent, &["name", "cn"]).map(value::text).unwrap_or_default(),
            language: value::language(sent)
                .or_else(|| settings.get("default_language").map(str::to_owned))
                .filter(|language| language.len() <= 5)
                .unwrap_or_default(),
            quota,
            base_directory,
            node,
            maildir,
            mailbox_format: mailbox_format(sent).unwrap_or_else(|| self.policy.mailbox_format.clone()),
            mailbox_folder: mailbox_folder(sent).unwrap_or_else(|| self.policy.mailbox_folder.clone()),
        };
        self.accounts.create_user(&new, &self.now()).await?;
        Ok(Answer::success())
    }

    /// `PUT /api/user/USER`
    pub(super) async fn update_user(
        &self,
        actor: &Actor,
        user: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let row = self.reachable_user(actor, user).await?;
        self.check_outranks(actor, &row).await?;
        let (_, domain) = account_parts(user)?;
        let row = self.accounts.domain(domain).await?.ok_or(Failure::NO_SUCH_ACCOUNT)?;
        let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        let mut change = self.user_change(actor, &settings, sent)?;
        if allows(actor, &settings, "personal_info", "") {
            // The rules for passwords cannot be held against a hash; users are bound by them.
            if actor.level == Level::OwnMailbox
                && sent.contains("password_hash")
                && !sent.contains("password")
            {
                return Err(Failure::new("INVALID_PASSWORD_SCHEME"));
            }
            change.password = self.new_password(sent, &settings).await?;
        }
        self.accounts.change_users(&[user.to_owned()], &change, &self.now()).await?;
        Ok(Answer::success())
    }

    /// `PUT /api/users/DOMAIN`
    pub(super) async fn update_users(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let row = self.managed_domain(actor, domain).await?;
        let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        let rows = self.accounts.users(domain).await?;
        let mut users = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(username) = row.text("username")
                && self.outranks(actor, row).await?
            {
                users.push(username.to_lowercase());
            }
        }
        let change = UserChange {
            active: value::status(sent),
            language: value::language(sent),
            transport: sent.get("transport").and_then(value::transport).filter(|_| actor.is_global()),
            password: self.new_password(sent, &settings).await?,
            ..UserChange::default()
        };
        self.accounts.change_users(&users, &change, &self.now()).await?;
        Ok(Answer::success())
    }

    /// `DELETE /api/user/USER[/keep_mailbox_days/N]`
    pub(super) async fn delete_user(&self, actor: &Actor, user: &str, keep: Keep) -> Result<Answer, Failure> {
        let row = self.managed_user(actor, user).await?;
        self.check_outranks(actor, &row).await?;
        let day = self.removal_day(keep, actor);
        self.accounts.delete_user(user, &actor.username, day.as_deref()).await?;
        self.lists.forget(user).await;
        Ok(Answer::success())
    }

    /// `POST /api/user/USER/change_email/NEW`
    pub(super) async fn rename_user(&self, actor: &Actor, old: &str, new: &str) -> Result<Answer, Failure> {
        let row = self.managed_user(actor, old).await?;
        self.check_outranks(actor, &row).await?;
        same_domain(old, new)?;
        self.accounts.rename_user(old, new).await?;
        self.lists.rename(old, new).await;
        Ok(Answer::success())
    }

    /// `POST /api/verify_password/user/USER`
    pub(super) async fn verify_user(
        &self,
        actor: &Actor,
        user: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        let row = self.accounts.user(user).await?;
        self.verified(row.as_ref(), sent).await
    }

    /// The answer to a password check; somebody who does not exist is not told apart.
    pub(super) async fn verified(&self, row: Option<&Row>, sent: &Parameters) -> Result<Answer, Failure> {
        let password = sent.get("password").unwrap_or("");
        if password.is_empty() {
            return Err(Failure::new("EMPTY_PASSWORD"));
        }
        let stored = row.and_then(|row| row.text("password"));
        if self.vault.verify(stored, password).await {
            Ok(Answer::success())
        } else {
            Err(Failure::INVALID_CREDENTIALS)
        }
    }

    /// What to store for the password that was sent, if one was.
    pub(super) async fn new_password(
        &self,
        sent: &Parameters,
        settings: &DomainSettings,
    ) -> Result<Option<String>, Failure> {
        if let Some(hash) = sent.get("password_hash").filter(|_| !sent.contains("password")) {
            if !password::is_known(hash) {
                return Err(Failure::new("INVALID_PASSWORD_SCHEME"));
            }
            return Ok(Some(hash.to_owned()));
        }
        let Some(password) = sent.get("password") else { return Ok(None) };
        let rules = &self.policy.rules;
        let bounds = Bounds {
            min: settings.int("min_passwd_length").filter(|n| *n > 0).unwrap_or(rules.bounds.min),
            max: settings.int("max_passwd_length").filter(|n| *n > 0).unwrap_or(rules.bounds.max),
        };
        rules.check(password, bounds)?;
        self.vault.hash(password).await.map(Some).ok_or(Failure::SERVER_DOWN)
    }

    fn shown(&self, row: &Row, bytes: i64, messages: i64) -> Value {
        let mut object = view::object(row, &self.policy.hidden);
        object.insert("stored_bytes".to_owned(), bytes.into());
        object.insert("stored_messages".to_owned(), messages.into());
        object.into()
    }

    /// The row of a user that the actor manages or is.
    async fn reachable_user(&self, actor: &Actor, user: &str) -> Result<Row, Failure> {
        if actor.level == Level::OwnMailbox && actor.username == user {
            return self.accounts.user(user).await?.ok_or(Failure::NO_SUCH_ACCOUNT);
        }
        self.managed_user(actor, user).await
    }

    /// The row of a user in the actor's care: by the address and by what the row says about the domain.
    async fn managed_user(&self, actor: &Actor, user: &str) -> Result<Row, Failure> {
        let (_, domain) = account_parts(user)?;
        if !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        let row = self.accounts.user(user).await?.ok_or(Failure::NO_SUCH_ACCOUNT)?;
        if actor.manages(&row.text("domain").unwrap_or("").to_lowercase()) {
            Ok(row)
        } else {
            Err(Failure::PERMISSION_DENIED)
        }
    }

    /// Whether the actor's rights cover those of a mail user, who may be an administrator too. Whoever sets a password
    /// can log in with it, so somebody with further rights is not changed by an administrator with fewer.
    async fn outranks(&self, actor: &Actor, row: &Row) -> Result<bool, Failure> {
        let username = row.text("username").unwrap_or("").to_lowercase();
        if actor.is_global() || actor.username == username {
            return Ok(true);
        }
        if row.flag("isglobaladmin") {
            return Ok(false);
        }
        // Without this mark rows of `domain_admins` give a mail user no rights.
        if !row.flag("isadmin") {
            return Ok(true);
        }
        let domains = self.accounts.administered_by(&username).await?;
        Ok(domains.iter().all(|domain| actor.manages(domain)))
    }

    async fn check_outranks(&self, actor: &Actor, row: &Row) -> Result<(), Failure> {
        if self.outranks(actor, row).await? { Ok(()) } else { Err(Failure::PERMISSION_DENIED) }
    }

    /// The changes that were sent and that the actor may make; others are passed over.
    fn user_change(
        &self,
        actor: &Actor,
        settings: &DomainSettings,
        sent: &Parameters,
    ) -> Result<UserChange, Failure> {
        let may = |preference: &str, profile: &str| allows(actor, settings, preference, profile);
        let text = |names: &[&str]| value::get(sent, names).map(value::text);
        let mut change =
            UserChange { aliases_anywhere: self.policy.aliases_anywhere, ..UserChange::default() };
        if may("personal_info", "") {
            change.name = text(&["name", "cn"]);
            change.first_name = text(&["gn"]);
            change.last_name = text(&["sn"]);
            change.language = value::language(sent);
        }
        if may("forwarding", "forwarding") {
            change.forwarding =
                value::edit(sent, ["forwarding", "addForwarding", "removeForwarding"], is_foreign);
        }
        if actor.level == Level::OwnMailbox {
            return Ok(change);
        }
        change.employee_id = text(&["employeeid"]);
        change.quota = number(sent, "quota", 0).or_else(|| number(sent, "mailQuota", 0));
        change.active = value::status(sent);
        change.services =
            value::edit(sent, ["services", "addService", "removeService"], |name| !name.is_empty());
        if may("", "aliases") {
            change.aliases = value::edit(sent, ["aliases", "addAlias", "removeAlias"], is_account);
        }
        if may("", "bcc") {
            change.sender_bcc = value::address(sent, "senderBcc");
            change.recipient_bcc = value::address(sent, "recipientBcc");
        }
        if actor.is_global() {
            change.global_admin = sent.flag("isGlobalAdmin");
            change.transport = sent.get("transport").and_then(value::transport);
            change.mailbox_format = mailbox_format(sent);
            change.mailbox_folder = mailbox_folder(sent);
            if let Some(path) = sent.get("maildir") {
                change.maildir = Some(maildir::explicit(path).ok_or(Failure::new("INVALID_ACTION"))?);
            }
        }
        Ok(change)
    }
}

/// Whether the pages a change belongs to are open to the actor: preferences for users, profiles for domain
/// administrators. An empty name is always open to administrators and never to users.
fn allows(actor: &Actor, settings: &DomainSettings, preference: &str, profile: &str) -> bool {
    let closed = |key: &str, name: &str| settings.list(key).iter().any(|disabled| disabled == name);
    match &actor.level {
        Level::Global => true,
        Level::Domains(_) => profile.is_empty() || !closed("disabled_user_profiles", profile),
        Level::OwnMailbox => !preference.is_empty() && !closed("disabled_user_preferences", preference),
    }
}

/// Local part and domain of a valid address of an account.
pub(super) fn account_parts(address: &str) -> Result<(&str, &str), Failure> {
    address.rsplit_once('@').filter(|_| is_account(address)).ok_or(Failure::INVALID_MAIL)
}

/// An account stays in its domain when its address changes.
pub(super) fn same_domain(old: &str, new: &str) -> Result<(), Failure> {
    let ((_, old), (_, new)) = (account_parts(old)?, account_parts(new)?);
    if old == new { Ok(()) } else { Err(Failure::new("DOMAIN_NAME_MISMATCH")) }
}

fn mailbox_format(sent: &Parameters) -> Option<String> {
    let format = sent.get("mailboxFormat")?.to_lowercase();
    matches!(format.as_str(), "maildir" | "mdbox" | "sdbox").then_some(format)
}

fn mailbox_folder(sent: &Parameters) -> Option<String> {
    let folder = sent.get("mailboxFolder")?;
    let fits = (1..=20).contains(&folder.len()) && folder.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| folder.to_owned())
}
