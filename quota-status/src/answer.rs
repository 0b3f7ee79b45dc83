//! The decision about one request (quota-status of Dovecot, case by case).

use crate::cache::Cache;
use crate::counters::{Counters, Outcome};
use crate::limit::{self, Bounds, Fit};
use crate::recipient::{self, Recipient};
use crate::resolve::{self, Resolved};
use crate::settings::{OnFailure, Settings};
use outrider_core::codec::policy::{Limits, Request};
use outrider_core::directory::{Directory, DirectoryError, QuotaAccount};
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
    directory: Arc<dyn Directory>,
    cache: Cache,
    counters: Arc<Counters>,
    bounds: Bounds,
    success: String,
    nouser: String,
    overquota: String,
    toolarge: Option<String>,
    delimiters: String,
    name_characters: String,
    resolve_aliases: bool,
    on_failure: OnFailure,
    lookup_timeout: Duration,
    /// Bounds of a connection.
    pub(crate) session: SessionLimits,
}

/// What is to be said about a recipient.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Success,
    NoUser,
    Refused(Fit, QuotaAccount),
    /// The limit of the account is negative.
    Nonsense(QuotaAccount),
    /// There is a limit, but the usage could not be read.
    Unread(QuotaAccount),
    /// Aliases without end.
    NoOpinion,
}

impl Checker {
    pub(crate) fn new(settings: &Settings, directory: Arc<dyn Directory>, counters: Arc<Counters>) -> Self {
        Checker {
            directory,
            cache: Cache::new(settings.cache_life.duration(), settings.cache_size),
            counters,
            bounds: Bounds { grace: settings.quota_grace, max_mail_size: settings.quota_max_mail_size.0 },
            success: settings.quota_status_success.clone(),
            nouser: settings.quota_status_nouser.clone(),
            overquota: settings.quota_status_overquota.clone(),
            toolarge: settings.quota_status_toolarge.clone(),
            delimiters: settings.recipient_delimiter.clone(),
            name_characters: settings.auth_username_chars.clone(),
            resolve_aliases: settings.resolve_aliases,
            on_failure: settings.on_failure,
            lookup_timeout: settings.lookup_timeout.duration(),
            session: SessionLimits {
                codec: Limits { strip_carriage_return: true, ..Limits::default() },
                idle: settings.limits.idle_timeout.duration(),
                request: settings.limits.request_timeout.duration(),
            },
        }
    }

    /// The answer, and what it is counted as.
    async fn decide(&self, request: &Request) -> (Action, Outcome) {
        if let Some(state) = request.first("protocol_state")
            && !state.eq_ignore_ascii_case(b"RCPT")
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
        match tokio::time::timeout(self.lookup_timeout, self.look_up(&name, size)).await {
            Ok(Ok(verdict)) => self.say(&name, size, verdict),
            Ok(Err(error)) => self.give_up(&name, &error.to_string()),
            Err(_) => {
                self.counters.timeout("lookup");
                self.give_up(&name, "the accounts did not answer in time")
            }
        }
    }

    async fn look_up(&self, name: &str, size: u64) -> Result<Verdict, DirectoryError> {
        if !self.may_be_user(name) {
            return Ok(Verdict::NoUser);
        }
        // What is remembered may only ever let mail pass or send it on to the aliases.
        if let Some(account) = self.cache.get(name) {
            match account.map(|account| self.judge(account, size)) {
                None => return self.unknown(name, size).await,
                Some(Verdict::Success) => return Ok(Verdict::Success),
                Some(_) => {}
            }
        }
        let account = self.directory.quota_account(name).await?;
        self.cache.put(name, &account);
        match account {
            Some(account) => Ok(self.judge(account, size)),
            None => self.unknown(name, size).await,
        }
    }

    /// Whether the name has only characters that user names have; others are not looked up.
    fn may_be_user(&self, name: &str) -> bool {
        self.name_characters.is_empty() || name.chars().all(|c| self.name_characters.contains(c))
    }

    fn judge(&self, account: QuotaAccount, size: u64) -> Verdict {
        if account.limit_bytes < 0 {
            return Verdict::Nonsense(account);
        }
        // Without a limit, usage does not matter.
        if account.limit_bytes > 0 && account.usage_failure.is_some() {
            return Verdict::Unread(account);
        }
        match self.bounds.check(account.limit_bytes, account.used_bytes.unwrap_or(0), size) {
            Fit::Fits => Verdict::Success,
            fit => Verdict::Refused(fit, account),
        }
    }

    async fn unknown(&self, name: &str, size: u64) -> Result<Verdict, DirectoryError> {
        if !self.resolve_aliases {
            return Ok(Verdict::NoUser);
        }
        let found = resolve::resolve(&*self.directory, name, size, &self.bounds, &self.delimiters).await?;
        Ok(match found {
            Resolved::Nobody => Verdict::NoUser,
            Resolved::Accepts => Verdict::Success,
            Resolved::Refuses(fit, account) => Verdict::Refused(fit, account),
            Resolved::Unread(account) => Verdict::Unread(account),
            Resolved::TooMany => Verdict::NoOpinion,
        })
    }

    fn say(&self, name: &str, size: u64, verdict: Verdict) -> (Action, Outcome) {
        match verdict {
            Verdict::Success => (action(&self.success), Outcome::Success),
            Verdict::NoUser => (action(&self.nouser), Outcome::NoUser),
            Verdict::Refused(fit, account) => {
                let (text, outcome) = match (fit, &self.toolarge) {
                    (Fit::TooLarge, Some(text)) => (text, Outcome::TooLarge),
                    _ => (&self.overquota, Outcome::OverQuota),
                };
                tracing::info!(
                    event = "refused",
                    rcpt = %name,
                    mailbox = %account.username,
                    used = account.used_bytes.unwrap_or(0),
                    limit = account.limit_bytes,
                    size,
                    action = %text
                );
                (action(text), outcome)
            }
            Verdict::Nonsense(account) => {
                tracing::error!(
                    event = "not checked",
                    mailbox = %account.username,
                    limit = account.limit_bytes,
                    reason = "the quota of the mailbox is negative"
                );
                (Action::from(TEMPORARY), Outcome::Failed)
            }
            Verdict::Unread(account) => {
                let cause = account.usage_failure.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(
                    event = "not checked",
                    rcpt = %name,
                    mailbox = %account.username,
                    reason = %format_args!("reading the usage of the mailbox: {cause}")
                );
                (self.failure(USAGE_UNREAD), Outcome::Failed)
            }
            Verdict::NoOpinion => {
                tracing::warn!(event = "not checked", rcpt = %name, reason = "aliases without end");
                (Action::DUNNO, Outcome::NoOpinion)
            }
        }
    }

    fn give_up(&self, name: &str, reason: &str) -> (Action, Outcome) {
        tracing::warn!(event = "not checked", rcpt = %name, reason);
        (self.failure(TEMPORARY), Outcome::Failed)
    }

    fn failure(&self, text: &'static str) -> Action {
        match self.on_failure {
            OnFailure::Defer => Action::from(text),
            OnFailure::Pass => Action::DUNNO,
        }
    }
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

    async fn answer(&self, request: Request, (): &()) -> Action {
        let begin = Instant::now();
        self.counters.repeated(request.repeated());
        let (action, outcome) = self.decide(&request).await;
        self.counters.answer(outcome, begin.elapsed());
        action
    }

    fn overdue(&self) -> Action {
        self.failure(TEMPORARY)
    }

    fn failed(&self, failure: Failure) {
        match failure {
            Failure::Deadline => self.counters.timeout("request"),
            Failure::Panic => self.counters.panic(),
            _ => {}
        }
    }
}
