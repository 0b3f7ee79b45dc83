//! Logging in and out, and finding out who asks.

use std::net::IpAddr;

use hyper::header::HeaderMap;
use outrider_core::directory::write::{AdminAccount, AdminKind, DomainSettings};

use super::AccountApi;
use super::actor::{Actor, Level, level_of};
use super::failure::Failure;
use super::session::{self, COOKIE};
use super::value::is_foreign;
use crate::http::{Answer, Parameters};

/// What the head of a login tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The address of the client.
    pub(crate) client: Option<IpAddr>,
    /// Whether it came by TLS.
    pub(crate) secure: bool,
}

impl AccountApi {
    /// `POST /api/login`
    pub(super) async fn login(&self, origin: Origin, sent: &Parameters) -> Result<Answer, Failure> {
        let username = sent.get("username").unwrap_or("").trim().to_lowercase();
        let password = sent.get("password").unwrap_or("");
        if !is_foreign(&username) {
            return Err(self.refused(origin, "", "INVALID_USERNAME"));
        }
        if password.is_empty() {
            return Err(self.refused(origin, &username, "EMPTY_PASSWORD"));
        }
        if !self.policy.admin_clients.admits(origin.client) {
            return Err(self.refused(origin, &username, "NOT_ALLOWED_IP"));
        }
        let now = self.clock.unix_seconds();
        if !self.limiter.admits(&username, origin.client, now, self.policy.login_bound) {
            return Err(self.refused(origin, &username, Failure::INVALID_CREDENTIALS.code()));
        }
        let proved = match self.proved(&username, password).await {
            Ok(proved) => proved,
            Err(failure) => {
                // The password was not the reason.
                self.limiter.take_back(&username, origin.client, now);
                return Err(failure);
            }
        };
        let Some((account, level)) = proved else {
            return Err(self.refused(origin, &username, Failure::INVALID_CREDENTIALS.code()));
        };
        if level == Level::Global && !self.policy.global_admin_clients.admits(origin.client) {
            self.limiter.take_back(&username, origin.client, now);
            return Err(self.refused(origin, &username, "NOT_ALLOWED_IP"));
        }
        self.limiter.succeeded(&username, origin.client, now);
        let stamp = session::stamp(&account.password);
        let id = self.sessions.begin(&username, &stamp, origin.client, now, self.random.as_ref()).await?;
        tracing::info!(event = "login", client = %shown(origin.client), account = %username);
        let secure = if origin.secure { "; Secure" } else { "" };
        let mut answer = Answer::success();
        answer.cookie = Some(format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict{secure}"));
        Ok(answer)
    }

    /// The account and its rights, if it has any and the password is its own.
    async fn proved(&self, username: &str, password: &str) -> Result<Option<(AdminAccount, Level)>, Failure> {
        let account = self.accounts.admin_account(username).await?;
        let stored = account.as_ref().map(|account| account.password.as_str());
        // Checked whatever the rights are, so that the time tells nothing about them either.
        let verified = self.vault.verify(stored, password).await;
        let Some(account) = account.filter(|_| verified) else { return Ok(None) };
        Ok(self.level(&account).await?.map(|level| (account, level)))
    }

    /// `POST /api/logout`
    pub(super) async fn logout(&self, session: Option<String>) -> Result<Answer, Failure> {
        if let Some(id) = session {
            self.sessions.end(&id).await?;
        }
        let mut answer = Answer::success();
        answer.cookie = Some(format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"));
        Ok(answer)
    }

    /// Who sent this request, from its session and the tables as they are now.
    pub(super) async fn actor(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Result<Actor, Failure> {
        let id = session::id_in(headers).ok_or(Failure::LOGIN_REQUIRED)?;
        let now = self.clock.unix_seconds();
        let found = self.sessions.find(&id, client, now, self.policy.session).await?;
        let session = found.ok_or(Failure::LOGIN_REQUIRED)?;
        let account = self.accounts.admin_account(&session.account).await?;
        // Disabled, removed, or given another password since.
        let account = account.filter(|account| session::stamp(&account.password) == session.stamp);
        let level = match &account {
            Some(account) => self.level(account).await?,
            None => None,
        };
        match level {
            Some(level) => Ok(Actor { username: session.account, level, client }),
            None => {
                self.sessions.end(&id).await?;
                Err(Failure::LOGIN_REQUIRED)
            }
        }
    }

    async fn level(&self, account: &AdminAccount) -> Result<Option<Level>, Failure> {
        let settings = match (account.kind, account.username.rsplit_once('@')) {
            (AdminKind::MailUser, Some((_, domain))) => self.accounts.domain(domain).await?,
            _ => None,
        };
        let settings = settings.map(|row| DomainSettings::parse(row.text("settings").unwrap_or("")));
        Ok(level_of(account, settings.as_ref()))
    }

    /// One line a failure, with the client first, for programs that ban.
    fn refused(&self, origin: Origin, username: &str, code: &str) -> Failure {
        self.login_failures.inc();
        tracing::warn!(event = "login refused", client = %shown(origin.client), reason = code, account = %username);
        Failure::from(code.to_owned())
    }
}

fn shown(client: Option<IpAddr>) -> String {
    client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string())
}
