//! The calls about stand-alone administrators, all of them for global administrators only.

use outrider_core::directory::write::{AccountError, AdminChange, DomainSettings, NewAdmin};

use super::actor::Actor;
use super::failure::Failure;
use super::route::Verb;
use super::user::account_parts;
use super::{AccountApi, value, view};
use crate::http::{Answer, Parameters};

impl AccountApi {
    /// `GET`, `POST`, `PUT` and `DELETE /api/admin/ADMIN`
    pub(super) async fn admin(
        &self,
        actor: &Actor,
        verb: Verb,
        admin: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        account_parts(admin)?;
        match verb {
            Verb::Read => {
                let row = self.accounts.admin(admin).await?.ok_or(Failure::NO_SUCH_ACCOUNT)?;
                return Ok(Answer::data(view::object(&row, &self.policy.hidden)));
            }
            Verb::Create => self.create_admin(admin, sent).await?,
            Verb::Update => {
                let change = AdminChange {
                    name: value::get(sent, &["name", "cn"]).map(value::text),
                    language: value::language(sent),
                    active: value::status(sent),
                    password: self.new_password(sent, &DomainSettings::default()).await?,
                    global: sent.flag("isGlobalAdmin"),
                };
                self.accounts.change_admin(admin, &change, &self.now()).await?;
            }
            Verb::Delete => self.accounts.delete_admin(admin).await?,
        }
        Ok(Answer::success())
    }

    async fn create_admin(&self, admin: &str, sent: &Parameters) -> Result<(), Failure> {
        let (_, domain) = account_parts(admin)?;
        if self.accounts.is_hosted(domain).await? {
            return Err(Failure::new("CAN_NOT_BE_LOCAL_DOMAIN"));
        }
        let stored = self.new_password(sent, &DomainSettings::default()).await?;
        let Some(password) = stored else { return Err(Failure::new("PW_EMPTY")) };
        let new = NewAdmin {
            username: admin.to_owned(),
            password,
            name: value::get(sent, &["name", "cn"]).map(value::text).unwrap_or_default(),
            language: value::language(sent).unwrap_or_default(),
            global: sent.is_yes("isGlobalAdmin"),
            active: value::status(sent).unwrap_or(true),
        };
        self.accounts.create_admin(&new, &self.now()).await.map_err(|error| match error {
            AccountError::NotAllowed => Failure::new("CAN_NOT_BE_LOCAL_DOMAIN"),
            error => error.into(),
        })
    }

    /// `POST /api/verify_password/admin/ADMIN`
    pub(super) async fn verify_admin(
        &self,
        actor: &Actor,
        admin: &str,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        let row = self.accounts.admin(admin).await?;
        self.verified(row.as_ref(), sent).await
    }
}
