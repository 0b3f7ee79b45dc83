//! The decision about one request (quota-status of Dovecot, case by case).

use crate::account::{Accounts, Finding, Mailbox};
use crate::counters::{Counters, Outcome};
use crate::limit::{self, Fit};
use crate::recipient::{self, Recipient};
use crate::resolve::{self, Resolved, Step};
use crate::settings::{OnFailure, Settings};
use outrider_core::codec::policy::{Limits, Request};
use outrider_core::directory::DirectoryError;
use outrider_core::policy_session::{Action, Failure, PolicyHandler, SessionLimits};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Said when the accounts could not be asked, and when an account makes no sense.
const TEMPORARY: &str = "DEFER_IF_PERMIT Temporary internal error";
/// Said when an account is known but not how much it uses.
const USAGE_UNREAD: &str = "DEFER_IF_PERMIT Internal quota calculation error";

/// The answers of one set of settings.
pub(crate) struct Checker {
    pub(crate) accounts: Accounts,
    counters: Arc<Counters>,
    success: String,
    nouser: String,
    overquota: String,
    toolarge: Option<String>,
    delimiters: String,
    name_characters: String,
    resolve_aliases: bool,
    check_end_of_message: bool,
    on_failure: OnFailure,
    lookup_timeout: Duration,
    /// Bounds of a connection.
    pub(crate) session: SessionLimits,
}

/// What is to be said about a recipient.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    NoUser,
    Refused(Fit, Mailbox),
    /// The limit of the mailbox is negative.
    Nonsense(Mailbox),
    /// There is a limit, but the usage could not be read.
    Unread(Mailbox),
    /// Aliases without end.
    NoOpinion,
}

impl Checker {
    pub(crate) fn new(settings: &Settings, accounts: Accounts, counters: Arc<Counters>) -> Self {
        Checker {
            accounts,
            counters,
            success: settings.quota_status_success.clone(),
            nouser: settings.quota_status_nouser.clone(),
            overquota: settings.quota_status_overquota.clone(),
            toolarge: settings.quota_status_toolarge.clone(),
            delimiters: settings.recipient_delimiter.clone(),
            name_characters: settings.auth_username_chars.clone(),
            resolve_aliases: settings.resolve_aliases,
            check_end_of_message: settings.check_end_of_message,
            on_failure: settings.on_failure,
            lookup_timeout: settings.lookup_timeout.duration(),
            session: SessionLimits {
                // Dovecot has no bounds; here that of the whole request is the one that is met.
                codec: Limits {
                    strip_carriage_return: true,
                    line: Limits::default().total,
                    attributes: 4096,
                    ..Limits::default()
                },
                idle: settings.limits.idle_timeout.duration(),
                request: settings.limits.request_timeout.duration(),
            },
        }
    }

    /// The answer, and what it is counted as.
    async fn decide(&self, request: &Request) -> (Action, Outcome) {
        if let Some(state) = request.first("protocol_state")
            && !self.is_asked_at(state)
        {
            tracing::warn!(
                event = "not asked",
                state = %String::from_utf8_lossy(state),
                reason = "quota is checked at RCPT: use it in smtpd_recipient_restrictions"
            );
            return (Action::DUNNO, Outcome::NoOpinion);
        }
        let value = request.first("recipient");
        let name = match recipient::parse(value, &self.delimiters) {
            Recipient::Name(name) => name,
            Recipient::Missing => return (Action::DUNNO, Outcome::NoOpinion),
            Recipient::Unparseable => {
                let shown = String::from_utf8_lossy(value.unwrap_or_default());
                tracing::error!(event = "not checked", rcpt = %shown, reason = "not an address");
                return (Action::DUNNO, Outcome::NoOpinion);
            }
        };
        let size = limit::size(request.last("size"));
        match self.verdict(&name, size, None).await {
            Ok(verdict) => self.say(&name, size, verdict),
            Err(GivenUp::Failed(error)) => self.give_up(&name, &error.to_string()),
            Err(GivenUp::Late) => {
                self.counters.timeout("lookup");
                self.give_up(&name, "the accounts did not answer in time")
            }
        }
    }

    /// Whether requests of this `protocol_state` are answered. At END-OF-MESSAGE Postfix knows the true size, but names
    /// the recipient only if it is the only one.
    fn is_asked_at(&self, state: &[u8]) -> bool {
        state.eq_ignore_ascii_case(b"RCPT")
            || (self.check_end_of_message && state.eq_ignore_ascii_case(b"END-OF-MESSAGE"))
    }

    /// What is to be said about `name`, within `lookup_timeout`. Addresses that are followed are written into `steps`.
    pub(crate) async fn verdict(
        &self,
        name: &str,
        size: u64,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Verdict, GivenUp> {
        match tokio::time::timeout(self.lookup_timeout, self.look_up(name, size, steps)).await {
            Ok(outcome) => outcome.map_err(GivenUp::Failed),
            Err(_) => Err(GivenUp::Late),
        }
    }

    async fn look_up(
        &self,
        name: &str,
        size: u64,
        steps: Option<&mut Vec<Step>>,
    ) -> Result<Verdict, DirectoryError> {
        if !self.may_be_user(name) {
            return Ok(Verdict::NoUser);
        }
        if self.resolve_aliases {
            let found = resolve::resolve(&self.accounts, name, size, &self.delimiters, steps).await?;
            return Ok(match found {
                Resolved::Nobody => Verdict::NoUser,
                Resolved::Accepts => Verdict::Success,
                Resolved::Refuses(fit, mailbox) => Verdict::Refused(fit, mailbox),
                Resolved::Unread(mailbox) => Verdict::Unread(mailbox),
                Resolved::Nonsense(mailbox) => Verdict::Nonsense(mailbox),
                Resolved::TooMany => Verdict::NoOpinion,
            });
        }
        Ok(match self.accounts.look(name, size).await? {
            Finding::Unknown => Verdict::NoUser,
            Finding::Fits => Verdict::Success,
            Finding::Refused(fit, mailbox) => Verdict::Refused(fit, mailbox),
            Finding::Unread(mailbox) => Verdict::Unread(mailbox),
            Finding::Nonsense(mailbox) => Verdict::Nonsense(mailbox),
        })
    }

    /// Whether the name has only characters that user names have; others are not looked up.
    pub(crate) fn may_be_user(&self, name: &str) -> bool {
        self.name_characters.is_empty() || name.chars().all(|c| self.name_characters.contains(c))
    }

    /// The text of the answer.
    pub(crate) fn text(&self, verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Success => &self.success,
            Verdict::NoUser => &self.nouser,
            Verdict::Refused(Fit::TooLarge, _) => self.toolarge.as_ref().unwrap_or(&self.overquota),
            Verdict::Refused(..) => &self.overquota,
            Verdict::Nonsense(_) => TEMPORARY,
            Verdict::Unread(_) => self.failure(USAGE_UNREAD),
            Verdict::NoOpinion => "DUNNO",
        }
    }

    fn say(&self, name: &str, size: u64, verdict: Verdict) -> (Action, Outcome) {
        let text = self.text(&verdict);
        let outcome = match &verdict {
            Verdict::Success => Outcome::Success,
            Verdict::NoUser => Outcome::NoUser,
            Verdict::Refused(fit, mailbox) => {
                let Mailbox { account, domain } = mailbox;
                tracing::info!(
                    event = "refused",
                    rcpt = %name,
                    mailbox = %account.username,
                    used = account.used_bytes.unwrap_or(0),
                    limit = account.limit_bytes,
                    domain_used = domain.as_ref().map(|domain| domain.used_bytes),
                    domain_limit = domain.as_ref().map(|domain| domain.limit_bytes),
                    size,
                    action = %text
                );
                match (fit, &self.toolarge) {
                    (Fit::TooLarge, Some(_)) => Outcome::TooLarge,
                    _ => Outcome::OverQuota,
                }
            }
            Verdict::Nonsense(mailbox) => {
                tracing::error!(
                    event = "not checked",
                    mailbox = %mailbox.account.username,
                    limit = mailbox.account.limit_bytes,
                    reason = "the quota of the mailbox is negative"
                );
                Outcome::Failed
            }
            Verdict::Unread(mailbox) => {
                let cause = mailbox.account.usage_failure.as_deref().unwrap_or_default();
                tracing::warn!(
                    event = "not checked",
                    rcpt = %name,
                    mailbox = %mailbox.account.username,
                    reason = %format_args!("reading the usage of the mailbox: {cause}")
                );
                Outcome::Failed
            }
            Verdict::NoOpinion => {
                tracing::warn!(event = "not checked", rcpt = %name, reason = "aliases without end");
                Outcome::NoOpinion
            }
        };
        (action(text), outcome)
    }

    fn give_up(&self, name: &str, reason: &str) -> (Action, Outcome) {
        tracing::warn!(event = "not checked", rcpt = %name, reason);
        (Action::from(self.failure(TEMPORARY)), Outcome::Failed)
    }

    fn failure(&self, text: &'static str) -> &'static str {
        match self.on_failure {
            OnFailure::Defer => text,
            OnFailure::Pass => "DUNNO",
        }
    }

    /// The answer when the accounts could not be asked.
    pub(crate) fn without_accounts(&self) -> &'static str {
        self.failure(TEMPORARY)
    }
}

/// Why there is no verdict.
#[derive(Debug)]
pub(crate) enum GivenUp {
    Failed(DirectoryError),
    /// Not within `lookup_timeout`.
    Late,
}

/// The usual answer is one that needs no copy.
fn action(text: &str) -> Action {
    match text {
        "DUNNO" => Action::DUNNO,
        text => Action(Cow::Owned(text.to_owned())),
    }
}

impl PolicyHandler for Checker {
    type Peer = ();

    async fn answer(&self, request: &Request, (): &()) -> Action {
        let begin = Instant::now();
        self.counters.repeated(request.repeated());
        let (action, outcome) = self.decide(request).await;
        self.counters.answer(outcome, begin.elapsed());
        action
    }

    fn overdue(&self) -> Action {
        Action::from(self.without_accounts())
    }

    fn failed(&self, failure: Failure) {
        match failure {
            Failure::Deadline => self.counters.timeout("request"),
            Failure::Panic => self.counters.panic(),
            _ => {}
        }
    }
}
