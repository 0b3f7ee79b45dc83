//! The account API: domains, mail users, aliases and administrators by HTTP, with the paths, parameters and answers of
//! iRedAdmin-Pro's REST API.
//!
//! It is served below `/api` and, for proxies that pass the path on, below `/iredadmin/api`, and only where the
//! settings switch it on. A session begins with `POST /api/login` and is carried by a cookie; path and method are looked
//! at first, then the client, then the session, then the rights. Every answer but 404, 405 and 500 is status 200
//! with `_success`.

pub(crate) mod actor;
mod admin;
mod alias;
pub(crate) mod client;
mod domain;
mod failure;
pub(crate) mod journal;
pub(crate) mod limiter;
mod login;
pub(crate) mod maildir;
mod route;
mod rules;
pub(crate) mod session;
mod user;
mod value;
mod view;

use std::sync::Arc;

use outrider_core::clock::SharedClock;
use outrider_core::directory::write::{Accounts, Rules};
use outrider_core::random::SharedRandom;
use prometheus_client::metrics::counter::Counter;

use crate::http::{Answer, Head, Parameters, Site};
use crate::mlmmj::ListApi;
use crate::password::{self, Vault};
use actor::Actor;
use client::ClientList;
use failure::Failure;
use journal::Journal;
use limiter::{Bound, Limiter};
use login::Origin;
use route::{Call, Keep, NoCall, Verb};
use session::{Lifetime, Sessions};

/// What the settings say about accounts.
#[derive(Debug, Clone)]
pub(crate) struct AccountPolicy {
    /// Whether the API is served at all.
    pub(crate) enabled: bool,
    /// The prefix under which a proxy shows the application.
    pub(crate) base_path: String,
    /// Who may use the API.
    pub(crate) clients: ClientList,
    /// From where administrators may log in.
    pub(crate) admin_clients: ClientList,
    /// From where global administrators may log in.
    pub(crate) global_admin_clients: ClientList,
    /// Proxies that name the client.
    pub(crate) proxies: ClientList,
    /// When sessions end.
    pub(crate) session: Lifetime,
    /// How many logins may fail.
    pub(crate) login_bound: Bound,
    /// The rules of new passwords.
    pub(crate) rules: password::Rules,
    /// Where mailboxes are put.
    pub(crate) layout: maildir::Layout,
    /// The format of new mailboxes.
    pub(crate) mailbox_format: String,
    /// The folder of new mailboxes.
    pub(crate) mailbox_folder: String,
    /// The transport of new domains.
    pub(crate) transport: String,
    /// Whether further addresses of a user may be below any hosted domain.
    pub(crate) aliases_anywhere: bool,
    /// Columns that are never shown.
    pub(crate) hidden: Vec<String>,
}

/// The account API.
pub(crate) struct AccountApi {
    pub(crate) accounts: Accounts,
    /// The lists, whose subscriptions follow the accounts.
    pub(crate) lists: Arc<ListApi>,
    pub(crate) journal: Journal,
    /// Limits, greylisting, black and white lists and content policies.
    pub(crate) rules: Rules,
    pub(crate) sessions: Sessions,
    pub(crate) vault: Vault,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) policy: AccountPolicy,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) login_failures: Counter,
}

/// A request that may be served.
pub(crate) enum Admitted {
    Login(Origin),
    Logout(Option<String>),
    Call(Call, Actor),
}

impl AccountApi {
    /// The time as the tables hold it, `YYYY-MM-DD HH:MM:SS` in UTC.
    fn now(&self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    fn timestamp(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.clock.unix_seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// The local time on this server.
    fn local(&self) -> jiff::Zoned {
        self.timestamp().to_zoned(jiff::tz::TimeZone::system())
    }

    /// The day on which the files of a removed mailbox go; `None` for never. Only global administrators may keep them
    /// for ever or longer than a year.
    fn removal_day(&self, keep: Keep, actor: &Actor) -> Option<String> {
        const LONGEST: u32 = 365;
        let days = match keep {
            Keep::Unsaid | Keep::Days(0) if actor.is_global() => return None,
            Keep::Unsaid | Keep::Days(0) => LONGEST,
            Keep::Days(days) if actor.is_global() => days,
            Keep::Days(days) => days.min(LONGEST),
        };
        let day = self.local().date().checked_add(jiff::Span::new().days(i64::from(days)));
        // Beyond the end of the calendar is as good as never.
        day.ok().map(|day| day.strftime("%Y-%m-%d").to_string())
    }

    async fn dispatch(&self, admitted: Admitted, sent: &Parameters) -> Result<Answer, Failure> {
        let (call, actor) = match admitted {
            Admitted::Login(origin) => return self.login(origin, sent).await,
            Admitted::Logout(session) => return self.logout(session).await,
            Admitted::Call(call, actor) => (call, actor),
        };
        match call {
            Call::Login | Call::Logout => Err(Failure::LOGIN_REQUIRED),
            Call::Domains => self.domains(&actor, sent).await,
            Call::Domain(Verb::Read, domain) => self.read_domain(&actor, &domain).await,
            Call::Domain(Verb::Create, domain) => self.create_domain(&actor, &domain, sent).await,
            Call::Domain(_, domain) => self.update_domain(&actor, &domain, sent).await,
            Call::DeleteDomain(domain, keep) => self.delete_domain(&actor, &domain, keep).await,
            Call::DomainAdmins(domain) => self.domain_admins(&actor, &domain, sent).await,
            Call::Users(domain) => self.users(&actor, &domain, sent).await,
            Call::ChangeUsers(domain) => self.update_users(&actor, &domain, sent).await,
            Call::User(Verb::Read, user) => self.read_user(&actor, &user).await,
            Call::User(Verb::Create, user) => self.create_user(&actor, &user, sent).await,
            Call::User(_, user) => self.update_user(&actor, &user, sent).await,
            Call::DeleteUser(user, keep) => self.delete_user(&actor, &user, keep).await,
            Call::RenameUser(old, new) => self.rename_user(&actor, &old, &new).await,
            Call::Aliases(domain) => self.aliases(&actor, &domain, sent).await,
            Call::Alias(verb, alias) => self.alias(&actor, verb, &alias, sent).await,
            Call::RenameAlias(old, new) => self.rename_alias(&actor, &old, &new).await,
            Call::Admin(verb, admin) => self.admin(&actor, verb, &admin, sent).await,
            Call::VerifyUser(user) => self.verify_user(&actor, &user, sent).await,
            Call::VerifyAdmin(admin) => self.verify_admin(&actor, &admin, sent).await,
            Call::Throttle(verb, scope, kind) => self.throttle(&actor, verb, &scope, kind, sent).await,
            Call::Greylisting(verb, scope) => self.greylisting(&actor, verb, &scope, sent).await,
            Call::AllGreylisting => self.all_greylisting(&actor).await,
            Call::GreylistingSenders(verb, scope) => {
                self.greylisting_senders(&actor, verb, &scope, sent).await
            }
            Call::GreylistingDomains => self.greylisting_domains(&actor, sent).await,
            Call::Listed(verb, scope, direction, colour) => {
                self.listed(&actor, verb, &scope, (direction, colour), sent).await
            }
            Call::SpamPolicy(verb, scope) => self.spam_policy(&actor, verb, &scope, sent).await,
        }
    }
}

impl Site for AccountApi {
    type Admitted = Admitted;

    fn name(&self) -> &'static str {
        "accounts"
    }

    async fn admit(&self, head: &Head) -> Result<Admitted, Answer> {
        if !self.policy.enabled {
            return Err(Answer::not_found());
        }
        let call = route::find(&head.method, &head.path, &self.policy.base_path);
        let call = call.map_err(|no_call| match no_call {
            NoCall::NotFound => Answer::not_found(),
            NoCall::MethodNotAllowed => Answer::method_not_allowed(),
        })?;
        let client = client::address(head.peer, &head.headers, &self.policy.proxies);
        // Browsers say when another site made them send a request; no such request is meant.
        let foreign = head.headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site");
        if foreign || !self.policy.clients.admits(client) {
            return Err(Answer::failure("NOT_AUTHORIZED"));
        }
        match call {
            Call::Login => {
                let secure = client::is_secure(head.peer, &head.headers, &self.policy.proxies);
                Ok(Admitted::Login(Origin { client, secure }))
            }
            Call::Logout => Ok(Admitted::Logout(session::id_in(&head.headers))),
            call => match self.actor(&head.headers, client).await {
                Ok(actor) => Ok(Admitted::Call(call, actor)),
                Err(failure) => Err(Answer::failure(failure.code())),
            },
        }
    }

    async fn answer(self: Arc<Self>, admitted: Admitted, parameters: Parameters) -> Answer {
        let entry = match &admitted {
            Admitted::Call(call, actor) => journal::entry(call, actor, &parameters),
            _ => None,
        };
        match self.dispatch(admitted, &parameters).await {
            Ok(answer) => {
                if let Some(entry) = entry {
                    self.journal.write(&entry).await;
                }
                answer
            }
            Err(failure) => Answer::failure(failure.code()),
        }
    }
}
