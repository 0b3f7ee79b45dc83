//! Mailboxes: what is known about one, and whether a message fits into it.

use crate::cache::Cache;
use crate::limit::{self, Bounds, Fit};
use crate::settings::Settings;
use crate::usage::Usage;
use outrider_core::directory::{Directory, DirectoryError, DomainQuota, QuotaAccount};
use outrider_core::sql::DbError;
use std::sync::Arc;

/// A mailbox with everything that decides about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mailbox {
    pub(crate) account: QuotaAccount,
    /// What its domain may use and does; `None` where that has no limit or does not count (`domain_quota`).
    pub(crate) domain: Option<DomainQuota>,
}

/// Whether a message fits into the mailbox of an address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// There is no such mailbox.
    Unknown,
    Fits,
    Refused(Fit, Mailbox),
    /// The limit is negative.
    Nonsense(Mailbox),
    /// There is a limit, but the usage could not be read.
    Unread(Mailbox),
}

/// The mailboxes of the server.
pub(crate) struct Accounts {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) usage: Usage,
    pub(crate) bounds: Bounds,
    domain_quota: bool,
    mailboxes: Cache<Option<Mailbox>>,
    domains: Cache<Option<DomainQuota>>,
}

impl Accounts {
    /// # Errors
    /// As [`Usage::new`].
    pub(crate) fn new(settings: &Settings, directory: Arc<dyn Directory>) -> Result<Accounts, DbError> {
        let (life, size) = (settings.cache_life.duration(), settings.cache_size);
        Ok(Accounts {
            directory,
            usage: Usage::new(settings)?,
            bounds: Bounds { grace: settings.quota_grace, max_mail_size: settings.quota_max_mail_size.0 },
            domain_quota: settings.domain_quota,
            mailboxes: Cache::new(life, size),
            domains: Cache::new(life, if settings.domain_quota { size } else { 1 }),
        })
    }

    /// Whether a message of `size` bytes fits into the mailbox `address`.
    pub(crate) async fn look(&self, address: &str, size: u64) -> Result<Finding, DirectoryError> {
        // What is remembered may only ever let mail pass or send it on to the aliases.
        match self.mailboxes.get(address) {
            Some(None) => return Ok(Finding::Unknown),
            Some(Some(mailbox)) if self.judge(&mailbox, size).is_none() => return Ok(Finding::Fits),
            _ => {}
        }
        let found = self.find(address).await?;
        if found.as_ref().is_none_or(Mailbox::may_be_remembered) {
            self.mailboxes.put(address, found.clone());
        }
        let Some(mailbox) = found else { return Ok(Finding::Unknown) };
        Ok(match self.judge(&mailbox, size) {
            None => Finding::Fits,
            Some(Objection::DoesNotFit(fit)) => Finding::Refused(fit, mailbox),
            Some(Objection::Nonsense) => Finding::Nonsense(mailbox),
            Some(Objection::Unread) => Finding::Unread(mailbox),
        })
    }

    /// The mailbox `address`, asked anew.
    pub(crate) async fn find(&self, address: &str) -> Result<Option<Mailbox>, DirectoryError> {
        let account = match &self.usage {
            Usage::Sql => self.directory.quota_account(address).await?,
            _ => self.directory.quota_limit(address).await?,
        };
        let Some(mut account) = account else { return Ok(None) };
        // Where there is no limit, usage does not matter.
        if account.limit_bytes > 0 && !matches!(self.usage, Usage::Sql) {
            match self.usage.read(&*self.directory, &account.username).await {
                Ok(used) => account.used_bytes = used,
                Err(why) => account.usage_failure = Some(why),
            }
        }
        let mut domain = None;
        if self.domain_quota {
            match self.domain_of(&account.username).await {
                Ok(found) => domain = found,
                Err(error) => account.usage_failure = Some(error.to_string()),
            }
        }
        Ok(Some(Mailbox { account, domain }))
    }

    async fn domain_of(&self, username: &str) -> Result<Option<DomainQuota>, DirectoryError> {
        let Some((_, domain)) = username.rsplit_once('@') else { return Ok(None) };
        if let Some(known) = self.domains.get(domain) {
            return Ok(known);
        }
        let found = self.directory.domain_quota(domain).await?;
        if found.as_ref().is_none_or(|sum| limit::far_from_limit(sum.limit_bytes, sum.used_bytes)) {
            self.domains.put(domain, found.clone());
        }
        Ok(found)
    }

    /// What stands against a message of `size` bytes in a mailbox.
    pub(crate) fn judge(&self, mailbox: &Mailbox, size: u64) -> Option<Objection> {
        let Mailbox { account, domain } = mailbox;
        if account.limit_bytes < 0 {
            return Some(Objection::Nonsense);
        }
        // Without a limit, usage does not matter; of a domain it is not known then whether it has one.
        if account.usage_failure.is_some() && (account.limit_bytes > 0 || self.domain_quota) {
            return Some(Objection::Unread);
        }
        let own = self.bounds.check(account.limit_bytes, account.used_bytes.unwrap_or(0), size);
        let shared = domain
            .as_ref()
            .map_or(Fit::Fits, |domain| self.bounds.check(domain.limit_bytes, domain.used_bytes, size));
        match (own, shared) {
            (Fit::Fits, Fit::Fits) => None,
            (Fit::TooLarge, _) | (_, Fit::TooLarge) => Some(Objection::DoesNotFit(Fit::TooLarge)),
            _ => Some(Objection::DoesNotFit(Fit::Full)),
        }
    }
}

/// Why a message is not simply taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    DoesNotFit(Fit),
    Nonsense,
    Unread,
}

impl Mailbox {
    /// Whether it is so far from all limits that what is known of it may be a few seconds old.
    fn may_be_remembered(&self) -> bool {
        let Mailbox { account, domain } = self;
        account.usage_failure.is_none()
            && account.limit_bytes >= 0
            && limit::far_from_limit(account.limit_bytes, account.used_bytes.unwrap_or(0))
            && domain.as_ref().is_none_or(|sum| limit::far_from_limit(sum.limit_bytes, sum.used_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: i64 = 1 << 20;

    fn mailbox(limit_bytes: i64, used: i64, domain: Option<(i64, i64)>) -> Mailbox {
        Mailbox {
            account: QuotaAccount {
                username: "u@d.example".into(),
                limit_bytes,
                used_bytes: Some(used),
                usage_failure: None,
            },
            domain: domain.map(|(limit_bytes, used_bytes)| DomainQuota { limit_bytes, used_bytes }),
        }
    }

    #[test]
    fn only_what_cannot_matter_is_remembered() {
        let mut unread = mailbox(MB, 0, None);
        unread.account.usage_failure = Some("gone".into());
        for (mailbox, expected) in [
            (mailbox(MB, 1000, None), true),
            (mailbox(0, i64::MAX, None), true),
            (mailbox(MB, 1_000_000, None), false),
            (mailbox(-1, 0, None), false),
            (unread, false),
            (mailbox(MB, 1000, Some((MB, 1000))), true),
            (mailbox(MB, 1000, Some((MB, MB - 1))), false),
        ] {
            assert_eq!(mailbox.may_be_remembered(), expected, "{mailbox:?}");
        }
    }
}
