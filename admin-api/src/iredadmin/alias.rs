//! The calls about mail aliases.

use outrider_core::directory::write::AliasChange;
use serde_json::Value;

use super::actor::Actor;
use super::failure::Failure;
use super::route::Verb;
use super::user::{account_parts, same_domain};
use super::value::{self, is_foreign};
use super::{AccountApi, view};
use crate::http::{Answer, Parameters};

/// Who may send to an alias.
const POLICIES: &[&str] =
    &["public", "domain", "subdomain", "membersonly", "moderatorsonly", "membersandmoderatorsonly"];

impl AccountApi {
    /// `GET /api/aliases/DOMAIN`
    pub(super) async fn aliases(
        &self,
        actor: &Actor,
        domain: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.managed_domain(actor, domain).await?;
        let mut rows = self.accounts.aliases(domain).await?;
        if sent.is_yes("disabled_only") {
            rows.retain(|row| !row.flag("active"));
        }
        let data: Vec<Value> = if sent.is_yes("email_only") {
            rows.iter().filter_map(|row| row.text("address")).map(Value::from).collect()
        } else {
            rows.iter().map(|row| view::object(row, &self.policy.hidden).into()).collect()
        };
        Ok(Answer::data(data))
    }

    /// `GET`, `POST`, `PUT` and `DELETE /api/alias/ALIAS`
    pub(super) async fn alias(
        &self,
        actor: &Actor,
        verb: Verb,
        alias: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let (_, domain) = account_parts(alias)?;
        if !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        match verb {
            Verb::Read => {
                let (row, members) = self.accounts.alias(alias).await?.ok_or(Failure::NO_SUCH_ACCOUNT)?;
                let mut data = view::object(&row, &self.policy.hidden);
                data.insert("members".to_owned(), members.into());
                return Ok(Answer::data(data));
            }
            Verb::Create => self.accounts.create_alias(alias, &change(sent), &self.now()).await?,
            Verb::Update => self.accounts.change_alias(alias, &change(sent), &self.now()).await?,
            Verb::Delete => self.accounts.delete_alias(alias).await?,
        }
        Ok(Answer::success())
    }

    /// `POST /api/alias/ALIAS/change_email/NEW`
    pub(super) async fn rename_alias(&self, actor: &Actor, old: &str, new: &str) -> Result<Answer, Failure> {
        let (_, domain) = account_parts(old)?;
        if !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        same_domain(old, new)?;
        self.accounts.rename_alias(old, new).await?;
        Ok(Answer::success())
    }
}

fn change(sent: &Parameters) -> AliasChange {
    let policy = sent.get("accessPolicy").map(str::to_lowercase);
    AliasChange {
        name: value::get(sent, &["name", "cn"]).map(value::text),
        access_policy: policy.filter(|policy| POLICIES.contains(&policy.as_str())),
        active: value::status(sent),
        members: value::edit(sent, ["members", "addMember", "removeMember"], is_foreign),
    }
}
