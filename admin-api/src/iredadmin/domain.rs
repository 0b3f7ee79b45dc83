//! The calls about domains.

use outrider_core::directory::write::{DomainChange, DomainSettings, Edit, NewDomain};
use outrider_core::sql::Row;
use serde_json::Value;

use super::actor::Actor;
use super::failure::Failure;
use super::route::Keep;
use super::value::{self, is_domain, is_foreign, number};
use super::{AccountApi, view};
use crate::http::{Answer, Parameters};

/// Pages of a domain that can be taken away from its administrators.
const PROFILES: &[&str] = &[
    "bcc",
    "relay",
    "catchall",
    "aliases",
    "throttle",
    "greylisting",
    "wblist",
    "spampolicy",
    "backupmx",
    "password_policies",
    "advanced",
];
/// Pages of a user that can be taken away from domain administrators.
const USER_PROFILES: &[&str] =
    &["bcc", "forwarding", "relay", "aliases", "throttle", "greylisting", "wblist", "spampolicy"];
/// Pages of self-service that can be taken away from users.
const USER_PREFERENCES: &[&str] =
    &["personal_info", "forwarding", "wblist", "quarantine", "rcvd_mails", "spampolicy"];

impl AccountApi {
    /// `GET /api/domains`
    pub(super) async fn domains(&self, actor: &Actor, sent: &Parameters) -> Result<Answer, Failure> {
        let mut rows = self.accounts.domains(actor.domains()).await?;
        if sent.is_yes("disabled_only") {
            rows.retain(|row| !row.flag("active"));
        }
        let data: Vec<Value> = if sent.is_yes("name_only") {
            rows.iter().filter_map(|row| row.text("domain")).map(Value::from).collect()
        } else {
            rows.iter().map(|row| Value::from(view::object(row, &self.policy.hidden))).collect()
        };
        Ok(Answer::data(data))
    }

    /// `GET /api/domain/DOMAIN`
    pub(super) async fn read_domain(&self, actor: &Actor, domain: &str) -> Result<Answer, Failure> {
        let row = self.managed_domain(actor, domain).await?;
        let mut data = view::object(&row, &self.policy.hidden);
        data.insert("alias_domains".to_owned(), self.accounts.alias_domains(domain).await?.into());
        data.insert("admins".to_owned(), self.accounts.admins_of(domain).await?.into());
        Ok(Answer::data(data))
    }

    /// `POST /api/domain/DOMAIN`
    pub(super) async fn create_domain(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        if !is_domain(domain) {
            return Err(Failure::INVALID_DOMAIN_NAME);
        }
        let mut change = limits(sent);
        own_settings(&mut change, sent);
        let new = NewDomain { domain: domain.to_owned(), change, transport: self.policy.transport.clone() };
        self.accounts.create_domain(&new, &self.now()).await?;
        Ok(Answer::success())
    }

    /// `PUT /api/domain/DOMAIN`
    pub(super) async fn update_domain(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let row = self.managed_domain(actor, domain).await?;
        let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        let disabled = settings.list("disabled_domain_profiles");
        let may = |profile: &str| actor.is_global() || !disabled.iter().any(|name| name == profile);
        let mut change = if actor.is_global() { limits(sent) } else { DomainChange::default() };
        own_settings(&mut change, sent);
        if actor.is_global() {
            change.active = value::status(sent);
            change.setting_lists = switches(sent);
            change.alias_domains =
                value::edit(sent, ["aliasDomains", "addAliasDomain", "removeAliasDomain"], is_domain);
        } else if may("aliases") {
            // A name that nobody has proved to own is not added by a domain's own administrator.
            change.alias_domains = sent
                .get("removeAliasDomain")
                .map(|names| Edit::Adjust { add: Vec::new(), remove: value::list(names, is_domain) });
        }
        if may("password_policies") {
            for (name, key) in
                [("minPasswordLength", "min_passwd_length"), ("maxPasswordLength", "max_passwd_length")]
            {
                if let Some(length) = number(sent, name, 0) {
                    change.settings.push((key, length.to_string()));
                }
            }
        }
        if may("bcc") {
            change.sender_bcc = value::address(sent, "senderBcc");
            change.recipient_bcc = value::address(sent, "recipientBcc");
        }
        if may("catchall") {
            change.catch_all = sent.get("catchall").map(|targets| value::list(targets, is_foreign));
        }
        if may("relay") {
            change.outbound_relay = sent.get("outboundRelay").and_then(value::transport);
        }
        if may("backupmx") {
            self.backup_mx(&mut change, domain, sent);
        }
        self.accounts.change_domain(domain, &change, &self.now()).await?;
        Ok(Answer::success())
    }

    /// `DELETE /api/domain/DOMAIN[/keep_mailbox_days/N]`
    pub(super) async fn delete_domain(
        &self,
        actor: &Actor,
        domain: &str,
        keep: Keep,
    ) -> Result<Answer, Failure> {
        self.managed_domain(actor, domain).await?;
        let day = self.removal_day(keep, actor);
        self.accounts.delete_domain(domain, &actor.username, day.as_deref()).await?;
        Ok(Answer::success())
    }

    /// `PUT /api/domain/admins/DOMAIN`
    pub(super) async fn domain_admins(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        let edit = if sent.contains("removeAllAdmins") {
            Edit::Replace(value::list(sent.get("addAdmin").unwrap_or(""), is_foreign))
        } else {
            let names = |name| value::list(sent.get(name).unwrap_or(""), is_foreign);
            Edit::Adjust { add: names("addAdmin"), remove: names("removeAdmin") }
        };
        self.accounts.change_admins_of(domain, &edit, &self.now()).await?;
        Ok(Answer::success())
    }

    /// The row of a domain in the actor's care. To others a domain that does not exist looks like one that is not
    /// theirs.
    pub(super) async fn managed_domain(&self, actor: &Actor, domain: &str) -> Result<Row, Failure> {
        if !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        if !is_domain(domain) {
            return Err(Failure::INVALID_DOMAIN_NAME);
        }
        self.accounts.domain(domain).await?.ok_or(Failure::NO_SUCH_ACCOUNT)
    }

    fn backup_mx(&self, change: &mut DomainChange, domain: &str, sent: &Parameters) {
        change.backup_mx = sent.flag("is_backupmx");
        match change.backup_mx {
            Some(true) => {
                let primary = sent.get("primarymx").and_then(value::transport).filter(|p| !p.is_empty());
                let primary = primary.unwrap_or_else(|| domain.to_owned());
                change.transport = Some(format!("relay:{primary}"));
            }
            Some(false) => change.transport = Some(self.policy.transport.clone()),
            None => {}
        }
    }
}

/// What only global administrators set.
fn limits(sent: &Parameters) -> DomainChange {
    let mut change = DomainChange {
        max_quota: number(sent, "quota", 0),
        mailboxes: number(sent, "numberOfUsers", -1),
        aliases: number(sent, "numberOfAliases", -1),
        maillists: number(sent, "numberOfLists", -1),
        transport: sent.get("transport").and_then(value::transport).filter(|text| !text.is_empty()),
        ..DomainChange::default()
    };
    if let Some(quota) = number(sent, "maxUserQuota", 0) {
        change.settings.push(("max_user_quota", positive(quota)));
    }
    change
}

/// What the administrators of a domain set too.
fn own_settings(change: &mut DomainChange, sent: &Parameters) {
    change.description = value::get(sent, &["name", "cn"]).map(value::text);
    if let Some(language) = value::language(sent) {
        change.settings.push(("default_language", language));
    }
    if let Some(quota) = number(sent, "defaultQuota", 0) {
        change.settings.push(("default_user_quota", positive(quota)));
    }
}

/// No limit is said by the absence of the key.
fn positive(number: i64) -> String {
    if number > 0 { number.to_string() } else { String::new() }
}

/// Lists of names in `domain.settings`.
fn switches(sent: &Parameters) -> Vec<(&'static str, Edit)> {
    let service = |name: &str| {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let mut switches = Vec::new();
    if let Some(edit) = value::edit(sent, ["services", "addService", "removeService"], service) {
        switches.push(("enabled_services", edit));
    }
    for (key, disable, enable, known) in [
        ("disabled_domain_profiles", "disableDomainProfile", "enableDomainProfile", PROFILES),
        ("disabled_user_profiles", "disableUserProfile", "enableUserProfile", USER_PROFILES),
        ("disabled_user_preferences", "disableUserPreference", "enableUserPreference", USER_PREFERENCES),
    ] {
        if let Some(edit) = value::edit(sent, ["", disable, enable], |name| known.contains(&name)) {
            switches.push((key, edit));
        }
    }
    switches
}
