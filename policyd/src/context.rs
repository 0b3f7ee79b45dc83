//! What the rules may look at.
//!
//! A context is made from one set of settings and never changes; a reload makes a new one, and requests that began
//! keep theirs. It also holds all caches, so a reload empties them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use outrider_core::clock::SharedClock;
use outrider_core::directory::{Directory, DirectoryError, DomainScope};
use outrider_core::dns::Resolver;
use outrider_core::network::{InvalidAddress, NetworkList};
use outrider_core::sql::DbError;
use outrider_core::{address, lookup};

use crate::background::Lookups;
use crate::list_api::ListApi;
use crate::metrics::PolicyMetrics;
use crate::network_rate::NetworkRate;
use crate::notify::Notifier;
use crate::request::PolicyRequest;
use crate::settings::Settings;
use crate::spf::SpfLookup;
use crate::store::Stores;

/// Everything outside of a request that decides about it.
pub struct Context {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Clients that are trusted.
    pub mynetworks: NetworkList,
    /// The host's own name, lower case.
    pub hostname: String,
    /// The sender exceptions of reject_sender_login_mismatch, ready for look-up.
    pub senders: SenderExceptions,
    /// Accounts, domains and lists.
    pub directory: Arc<dyn Directory>,
    /// The tables of the policy service.
    pub stores: Stores,
    /// Name look-ups.
    pub resolver: Arc<dyn Resolver>,
    /// SPF records.
    pub spf: SpfLookup,
    /// Reputation scores that are being asked for; `None` where that failed.
    pub scores: Lookups<Option<i64>>,
    /// First contacts that greylisting remembers.
    pub new_contacts: Arc<NetworkRate>,
    /// Members of mailing lists.
    pub list_api: Option<ListApi>,
    /// Mail to the administrator.
    pub notifier: Notifier,
    /// Counters. They decide nothing.
    pub metrics: PolicyMetrics,
    /// The time of day.
    pub clock: SharedClock,
}

/// Sender addresses and logins with more rights than others.
#[derive(Clone, Debug, Default)]
pub struct SenderExceptions {
    /// Local senders that need no login.
    pub forged: HashSet<String>,
    /// Logins that may use other senders.
    pub logins: HashSet<String>,
    /// Addresses and domains whose passwords do not age.
    pub ageless: HashSet<String>,
}

impl SenderExceptions {
    /// The lists of the settings in lower case.
    pub fn new(settings: &Settings) -> SenderExceptions {
        let lower = |list: &[String]| list.iter().map(|entry| entry.to_lowercase()).collect();
        SenderExceptions {
            forged: lower(&settings.reject_sender_login_mismatch.allowed_forged_senders),
            logins: lower(&settings.reject_sender_login_mismatch.allowed_logins),
            ageless: lower(&settings.force_change_password.never_expire),
        }
    }
}

/// Why a rule could not decide. It counts as having no opinion, or as the settings say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The accounts could not be asked.
    #[error(transparent)]
    Accounts(#[from] DirectoryError),
    /// A table of the policy service could not be used.
    #[error("{table}: {cause}")]
    Table {
        /// Which.
        table: &'static str,
        /// Why.
        cause: DbError,
        /// Whose database it is in.
        database: Database,
    },
    /// The client's address is none.
    #[error(transparent)]
    Client(#[from] InvalidAddress),
    /// An attribute that the rule needs is missing or no number.
    #[error("attribute {0} is missing or no number")]
    Attribute(&'static str),
    /// A look-up without which the rule would have to refuse goes on in the background.
    #[error("{0}: not looked up in time")]
    Unfinished(String),
}

impl RuleError {
    /// Whether something of ours failed. Bad data of the client is no failure of ours.
    pub fn is_ours(&self) -> bool {
        !matches!(self, RuleError::Client(_) | RuleError::Attribute(_))
    }
}

/// Whose settings say what a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// White- and blacklists.
    Amavisd,
    /// The policy service's own.
    Iredapd,
    /// The Valkey server of counters and triplets.
    Valkey,
}

/// Names the table in an error.
pub(crate) fn iredapd(table: &'static str) -> impl FnOnce(DbError) -> RuleError {
    move |cause| RuleError::Table { table, cause, database: Database::Iredapd }
}

impl Context {
    /// Names what could not be used of counters and triplets in an error.
    pub(crate) fn counters(&self, table: &'static str) -> impl FnOnce(DbError) -> RuleError + use<> {
        let database = if self.stores.valkey.is_some() { Database::Valkey } else { Database::Iredapd };
        move |cause| RuleError::Table { table, cause, database }
    }

    /// Now, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.clock.unix_seconds()
    }

    /// How long the request may wait for others now. All its questions to them together leave a fifth of its deadline for
    /// the databases, so that a slow server costs the answer to that question and not the whole decision.
    pub fn patience(&self, request: &PolicyRequest) -> Duration {
        self.settings.outside_budget().saturating_sub(request.arrived.elapsed())
    }

    /// How long the request may wait for a name server now.
    pub fn dns_patience(&self, request: &PolicyRequest) -> Duration {
        self.patience(request).min(self.settings.spf.timeout.duration())
    }

    /// Whether the client is this machine or in `mynetworks`.
    ///
    /// # Errors
    /// If the client's address is none, which also means that it cannot be told.
    pub fn is_trusted(&self, request: &PolicyRequest) -> Result<bool, InvalidAddress> {
        if request.is_from_here() {
            return Ok(true);
        }
        self.mynetworks.contains(&request.client_address, self.settings.all_wildcard_addresses)
    }

    /// The keys that cover an address, for [`Settings::reading`].
    pub fn policy_keys(&self, address: &str) -> Vec<String> {
        lookup::policy_keys(address, self.settings.reading())
    }

    /// Whether a domain is the host itself or hosted here.
    ///
    /// # Errors
    /// If the accounts cannot be asked.
    pub async fn is_local_domain(&self, domain: &str, scope: DomainScope) -> Result<bool, DirectoryError> {
        if !domain.is_empty() && domain == self.hostname {
            return Ok(true);
        }
        self.directory.is_local_domain(domain, scope).await
    }

    /// The address under the domain that its own is an alias of, if it is one.
    ///
    /// # Errors
    /// If the accounts cannot be asked.
    pub async fn under_alias_target(&self, address: &str) -> Result<Option<String>, DirectoryError> {
        let Some((local, domain)) = address::split_first(address) else { return Ok(None) };
        let target = self.directory.alias_target(domain).await?;
        Ok(target.map(|target| format!("{local}@{target}")))
    }
}
