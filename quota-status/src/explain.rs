//! Why an address is answered as it is: `outrider quota explain`.
//!
//! The verdict comes from the code that answers Postfix, with nothing remembered; what is told around it is asked anew.

use crate::account::{Mailbox, Objection};
use crate::answer::{Checker, GivenUp, Verdict};
use crate::counters::Counters;
use crate::limit::Fit;
use crate::recipient::{self, Recipient};
use crate::resolve::{self, What};
use crate::settings::Settings;
use outrider_core::clock::{SharedClock, SystemClock};
use outrider_core::directory::{AccountSource, DirectoryError, DomainScope};
use outrider_core::metrics::Metrics;
use outrider_core::settings::Interval;
use outrider_core::sql::DbError;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Everything about one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// As given.
    pub recipient: String,
    /// What is looked up: in lower case, without brackets and extension; `None` when it is no address.
    pub name: Option<String>,
    /// The size of the message asked about, in bytes.
    pub size: u64,
    /// Whether aliases are followed.
    pub resolve_aliases: bool,
    /// The addresses looked at, the recipient first.
    pub addresses: Vec<Explained>,
    /// What Postfix is answered.
    pub action: String,
    /// Why, in words.
    pub because: String,
}

/// One address that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// In lower case.
    pub address: String,
    /// Aliases between the recipient and it.
    pub depth: usize,
    /// What it is, in words.
    pub what: String,
    /// Where mail to it goes.
    pub targets: Vec<String>,
    /// Its mailbox, if the quota service looks at it.
    pub mailbox: Option<Room>,
}

/// A mailbox and what fits into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// The name under which usage is stored.
    pub username: String,
    /// In bytes; 0 is unlimited, negative a mistake.
    pub limit_bytes: i64,
    /// Where the limit is written.
    pub limit_source: &'static str,
    /// In bytes; `None` when nothing is stored.
    pub used_bytes: Option<i64>,
    /// Where usage is read.
    pub used_source: &'static str,
    /// Why usage could not be read.
    pub usage_failure: Option<String>,
    /// What a message may exceed the limit by, in bytes.
    pub grace_bytes: u64,
    /// What all mailboxes of the domain may use together, in bytes.
    pub domain_limit_bytes: Option<i64>,
    /// What they use, in bytes.
    pub domain_used_bytes: Option<i64>,
    /// What becomes of the message: `fits`, `full`, `too large`, `wrong limit`, `usage unknown`.
    pub message: &'static str,
}

/// Explains what Postfix would be answered about `recipient` for a message of `size` bytes.
///
/// # Errors
/// [`DbError`] when the databases or files that the settings name cannot be used at all; that they do not answer is
/// part of the explanation.
pub async fn explain(
    settings: &Settings,
    state: &Path,
    recipient: &str,
    size: u64,
) -> Result<Explanation, DbError> {
    let settings = Settings { cache_life: Interval::seconds(0), ..settings.clone() };
    let clock: SharedClock = Arc::new(SystemClock);
    let accounts = crate::open(&settings, state, &clock).await?;
    let counters = Arc::new(Counters::new(Arc::new(Metrics::new("quota-status"))));
    let asked = Asked { checker: Checker::new(&settings, accounts, counters), settings: &settings, size };
    let mut explanation = Explanation {
        recipient: recipient.to_owned(),
        name: None,
        size,
        resolve_aliases: settings.resolve_aliases,
        addresses: Vec::new(),
        action: "DUNNO".to_owned(),
        because: String::new(),
    };
    let name = match recipient::parse(Some(recipient.as_bytes()), &settings.recipient_delimiter) {
        Recipient::Name(name) => name,
        Recipient::Missing => {
            explanation.because = "there is no recipient".to_owned();
            return Ok(explanation);
        }
        Recipient::Unparseable => {
            explanation.because = "it is not an address".to_owned();
            return Ok(explanation);
        }
    };
    explanation.name = Some(name.clone());
    let mut steps = Vec::new();
    let outcome = asked.checker.verdict(&name, size, Some(&mut steps)).await;
    let told = async {
        let mut told = Vec::new();
        for step in steps {
            let mailbox = match step.what {
                What::Mailbox => asked.room(&step.address).await?,
                _ => None,
            };
            let what = asked.in_words(step.what, &step.address).await?;
            told.push(Explained {
                address: step.address,
                depth: step.depth,
                what,
                targets: step.targets,
                mailbox,
            });
        }
        if told.is_empty() {
            told.push(asked.alone(&name).await?);
        }
        Ok::<_, DirectoryError>(told)
    };
    match outcome {
        Ok(verdict) => {
            explanation.action = asked.checker.text(&verdict).to_owned();
            explanation.because = because(&verdict);
            match tokio::time::timeout(settings.lookup_timeout.duration(), told).await {
                Ok(Ok(told)) => explanation.addresses = told,
                Ok(Err(error)) => explanation.because += &format!("; the details are missing: {error}"),
                Err(_) => explanation.because += "; the details are missing: no answer in time",
            }
        }
        Err(reason) => {
            explanation.action = asked.checker.without_accounts().to_owned();
            explanation.because = match reason {
                GivenUp::Failed(error) => error.to_string(),
                GivenUp::Late => "the accounts did not answer in time".to_owned(),
            };
        }
    }
    Ok(explanation)
}

struct Asked<'a> {
    checker: Checker,
    settings: &'a Settings,
    size: u64,
}

impl Asked<'_> {
    /// The recipient, where nothing is followed.
    async fn alone(&self, name: &str) -> Result<Explained, DirectoryError> {
        let mailbox = match self.checker.may_be_user(name) {
            true => self.room(name).await?,
            false => None,
        };
        let mut targets = Vec::new();
        let what = match &mailbox {
            Some(_) => "mailbox".to_owned(),
            None if !self.checker.may_be_user(name) => {
                "has characters that auth_username_chars does not allow, so it is not looked up".to_owned()
            }
            None => {
                let directory = &*self.checker.accounts.directory;
                let delimiters = &self.settings.recipient_delimiter;
                targets = directory.forwarding_targets(name).await?;
                if targets.is_empty() {
                    targets = resolve::other_ways(directory, name, delimiters).await?;
                }
                targets.retain(|target| target != name);
                match targets.is_empty() {
                    true => self.nobody(name).await?.to_owned(),
                    false => "no mailbox, but leads to others; resolve_aliases is off".to_owned(),
                }
            }
        };
        Ok(Explained { address: name.to_owned(), depth: 0, what, targets, mailbox })
    }

    async fn in_words(&self, what: What, address: &str) -> Result<String, DirectoryError> {
        Ok(match what {
            What::Forwards => "leads to others".to_owned(),
            What::Mailbox => "mailbox".to_owned(),
            What::Unchecked => {
                "mailing list, or mailbox that is not checked: it, its domain or the service is switched off"
                    .to_owned()
            }
            What::Outside => "not of this server".to_owned(),
            What::Nobody => self.nobody(address).await?.to_owned(),
        })
    }

    /// Why there is no mailbox to look at.
    async fn nobody(&self, address: &str) -> Result<&'static str, DirectoryError> {
        let directory = &*self.checker.accounts.directory;
        if directory.mailbox_exists(address).await? {
            return Ok(match self.settings.accounts {
                AccountSource::Sql => {
                    "mailbox that is not checked: it or its domain is not active, the domain is a backup MX, or \
                     enablequota-status is 0"
                }
                AccountSource::Ldap => {
                    "mailbox that is not checked: it or its domain is not active, or it lacks enabledService mail or \
                     quota-status"
                }
            });
        }
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        Ok(match directory.is_local_domain(domain, DomainScope::ALL).await? {
            true => "no such mailbox in this domain",
            false => "its domain is not hosted here, or not active",
        })
    }

    async fn room(&self, address: &str) -> Result<Option<Room>, DirectoryError> {
        let accounts = &self.checker.accounts;
        let Some(mailbox) = accounts.find(address).await? else { return Ok(None) };
        let message = match accounts.judge(&mailbox, self.size) {
            None => "fits",
            Some(Objection::DoesNotFit(Fit::TooLarge)) => "too large",
            Some(Objection::DoesNotFit(_)) => "full",
            Some(Objection::Nonsense) => "wrong limit",
            Some(Objection::Unread) => "usage unknown",
        };
        let Mailbox { account, domain } = mailbox;
        Ok(Some(Room {
            grace_bytes: accounts.bounds.grace_of(account.limit_bytes),
            username: account.username,
            limit_bytes: account.limit_bytes,
            limit_source: match self.settings.accounts {
                AccountSource::Sql => "mailbox.quota",
                AccountSource::Ldap => "mailQuota",
            },
            used_bytes: account.used_bytes,
            used_source: accounts.usage.name(),
            usage_failure: account.usage_failure,
            domain_limit_bytes: domain.as_ref().map(|domain| domain.limit_bytes),
            domain_used_bytes: domain.as_ref().map(|domain| domain.used_bytes),
            message,
        }))
    }
}

fn because(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Success => "the message is taken".to_owned(),
        Verdict::NoUser => "there is no mailbox to look at".to_owned(),
        Verdict::Refused(Fit::TooLarge, mailbox) => {
            format!("the message would not even fit into the empty mailbox {}", mailbox.account.username)
        }
        Verdict::Refused(_, mailbox) => {
            format!("the message does not fit into the mailbox {}", mailbox.account.username)
        }
        Verdict::Nonsense(mailbox) => format!("the limit of {} is negative", mailbox.account.username),
        Verdict::Unread(mailbox) => {
            let why = mailbox.account.usage_failure.as_deref().unwrap_or("it could not be read");
            format!("the usage of {} is not known: {why}", mailbox.account.username)
        }
        Verdict::NoOpinion => "aliases without end: too many in a row, or too many addresses".to_owned(),
    }
}
