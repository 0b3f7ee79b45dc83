//! Who is rewritten when mail is forwarded: the SRS engine with its settings, secrets, domains and kept senders.
//!
//! [`crate::srs`] makes and reads addresses and knows nothing else. Here stands what has to be known around it: which
//! senders are left alone ([`Left`]), which domains are local, and where the senders behind tokens are. Everything that
//! comes from a database is in memory before it is needed; only a token costs a statement.

mod domains;
mod originals;
mod rules;
mod secrets;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use originals::create_statements;
pub use rules::{Forward, Left, Reverse};
pub use secrets::{GENERATED, secrets_in};
pub use settings::{
    AddressCheck, ExcludeStyle, HashAlphabet, OnFailure, OriginalEnvelope, Separator, SrsSettings,
};

use crate::bounded_file;
use crate::daemon::{DependencyHealth, Environment, Shutdown, StartError};
use crate::host_name::full_host_name;
use crate::sql::DbError;
use crate::srs::{DomainList, ListStyle, Reversed, Srs, Token};
use domains::Domains;
use originals::{KeepError, Originals, Place};
use rules::{Context, Decision, Rules};
use settings::is_host_name;
use source::SqlSource;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How soon domains are read again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// One set of settings at work.
pub struct Forwarding {
    rules: Rules,
    domains: Domains,
    /// The file of local domains, and what it said when it was last read.
    file: Option<PathBuf>,
    file_domains: RwLock<Arc<DomainList>>,
    source: Arc<SqlSource>,
    originals: Option<Originals>,
    on_failure: OnFailure,
    refresh: Duration,
    env: Environment,
}

impl Forwarding {
    /// Reads secrets and list files and opens the databases, without waiting for a server. Nothing is known of the
    /// domains in databases before [`Forwarding::keep_current`] has run.
    ///
    /// # Errors
    /// A file cannot be read, an embedded database cannot be made, a setting cannot work.
    pub async fn open(settings: &SrsSettings, env: &Environment) -> Result<Forwarding, StartError> {
        let other = |error: DbError| StartError::Other(Box::new(error));
        let source = Arc::new(SqlSource::new(settings, env));
        source.open().await.map_err(other)?;
        let domains = match settings.directory_domains || settings.exclude_table {
            true => Domains::new(Box::new(source.clone())),
            false => Domains::none(),
        };
        let file_domains = match &settings.domains_file {
            Some(path) => read_domains(path).map_err(|error| StartError::File(path.clone(), error))?,
            None => DomainList::default(),
        };
        Ok(Forwarding {
            rules: rules(settings, env)?,
            domains,
            file: settings.domains_file.clone(),
            file_domains: RwLock::new(Arc::new(file_domains)),
            source,
            originals: open_originals(settings, env).await.map_err(other)?,
            on_failure: settings.on_failure,
            refresh: settings.refresh.duration(),
            env: env.clone(),
        })
    }

    /// Takes over what `earlier` knew, for a change of settings: better old domains than none.
    pub fn inherit(&self, earlier: &Forwarding) {
        self.domains.inherit(&earlier.domains);
    }

    /// Keeps what is in memory current until `shutdown` asks: reads the domains every `refresh`, sooner after a failure,
    /// and removes expired senders.
    pub async fn keep_current(&self, shutdown: &Shutdown) {
        while !shutdown.requested() {
            let round = async {
                self.read_again().await;
                let pause = if self.domains.failure().is_some() { RETRY } else { self.refresh };
                tokio::time::sleep(pause.min(self.refresh)).await;
            };
            tokio::select! {
                () = shutdown.wait() => return,
                () = round => {}
            }
        }
    }

    /// Reads the domains once; what cannot be read stays as it was.
    pub async fn read_again(&self) {
        self.domains.refresh().await;
        if let Some(path) = &self.file {
            let name = path.clone();
            let read = tokio::task::spawn_blocking(move || read_domains(&name)).await;
            match read.unwrap_or_else(|fault| Err(std::io::Error::other(fault))) {
                Ok(list) => {
                    *self.file_domains.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list)
                }
                Err(error) => {
                    let file = path.display();
                    tracing::warn!(event = "domains not read", file = %file, reason = %error);
                }
            }
        }
        if let Some(originals) = &self.originals
            && let Err(error) = originals.clean(self.now()).await
        {
            tracing::warn!(event = "kept senders not cleaned up", reason = %error);
        }
    }

    /// Waits until the first attempt to read the domains has ended, at most for `patience`; returns at once afterwards.
    pub async fn first_attempt(&self, patience: Duration) {
        self.domains.first_attempt(patience).await;
    }

    /// Decides about a sender; a token is kept within `patience`.
    pub async fn forward(&self, sender: &str, patience: Duration) -> Forward {
        let now = self.now();
        let decision = self.caught(|| {
            let (knowledge, file) = (self.domains.now(), self.file_domains());
            self.rules.decide(sender, Context { knowledge: &knowledge, file: &file }, now)
        });
        let (token, address, embedded) = match decision {
            Some(Decision::Done(outcome)) => return outcome,
            Some(Decision::Keep { token, address, embedded }) => (token, address, embedded),
            None => return Forward::Undecided,
        };
        // Boxed: each connection would hold the room for a statement of each kind of server otherwise.
        match Box::pin(self.keep(&token, sender, now, patience)).await {
            Ok(()) => Forward::Rewritten(address),
            Err(reason) => {
                tracing::warn!(event = "sender not kept", reason);
                match (self.on_failure, embedded) {
                    (OnFailure::Defer, _) => Forward::Unkept,
                    (OnFailure::Pass, Some(address)) => Forward::Rewritten(address),
                    (OnFailure::Pass, None) => Forward::Left(Left::TooLong),
                }
            }
        }
    }

    async fn keep(&self, token: &Token, sender: &str, now: i64, patience: Duration) -> Result<(), String> {
        let Some(originals) = &self.originals else { return Err("there is no envelope_database".to_owned()) };
        match tokio::time::timeout(patience, originals.keep(token, sender, now)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ KeepError::Full(_))) => Err(error.to_string()),
            Ok(Err(error)) => Err(format!("envelope_database: {error}")),
            Err(_) => Err(format!("envelope_database: no answer within {patience:?}")),
        }
    }

    /// What [`Forwarding::forward`] would answer, with nothing kept.
    pub fn preview(&self, sender: &str) -> Forward {
        let (knowledge, file) = (self.domains.now(), self.file_domains());
        match self.rules.decide(sender, Context { knowledge: &knowledge, file: &file }, self.now()) {
            Decision::Done(outcome) => outcome,
            Decision::Keep { address, .. } => Forward::Rewritten(address),
        }
    }

    /// The engine, for questions about single addresses.
    pub fn srs(&self) -> &Srs {
        &self.rules.srs
    }

    /// Why the domains could not be read the last time; `None` if they were.
    pub fn failure(&self) -> Option<String> {
        self.domains.failure()
    }

    /// Gives back the original of an address; one behind a token is looked for within `patience`.
    pub async fn reverse(&self, address: &str, patience: Duration) -> Reverse {
        let now = self.now();
        let reversed = match self.caught(|| self.rules.srs.reverse(address, now)) {
            Some(Ok(reversed)) => reversed,
            Some(Err(error)) => return Reverse::Left(error),
            None => return Reverse::Undecided,
        };
        let Some(token) = reversed.token() else { return Reverse::Original(reversed) };
        let Some(originals) = &self.originals else { return Reverse::NoDatabase };
        match Box::pin(tokio::time::timeout(patience, originals.find(&token, now))).await {
            Ok(Ok(Some(address))) => Reverse::Original(Reversed { address, srs1: false }),
            Ok(Ok(None)) => Reverse::UnknownToken,
            Ok(Err(error)) => {
                tracing::warn!(event = "sender not found", reason = %error);
                Reverse::Unreadable
            }
            Err(_) => {
                tracing::warn!(event = "sender not found", reason = "envelope_database does not answer");
                Reverse::Unreadable
            }
        }
    }

    /// Whether mail to a domain stays on this mail system; `None` while that is not known.
    pub fn is_local(&self, domain: &str) -> Option<bool> {
        let (knowledge, file) = (self.domains.now(), self.file_domains());
        self.rules.is_local(domain, Context { knowledge: &knowledge, file: &file })
    }

    /// Whether what is not known is a temporary error.
    pub fn defers(&self) -> bool {
        self.on_failure == OnFailure::Defer
    }

    /// Whether each database is there.
    pub fn health(&self) -> Vec<DependencyHealth> {
        let mut health = self.source.health();
        health.extend(self.originals.as_ref().map(|originals| originals.db().health("envelopes")));
        health
    }

    fn now(&self) -> i64 {
        self.env.clock.unix_seconds()
    }

    fn file_domains(&self) -> Arc<DomainList> {
        self.file_domains.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rules are pure, so nothing is left half done by a panic.
    fn caught<T>(&self, decide: impl FnOnce() -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(decide)).ok();
        if outcome.is_none() {
            self.env.metrics.panic();
        }
        outcome
    }
}

impl std::fmt::Debug for Forwarding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Forwarding").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Tokens are looked up where a database is named, also when no new ones are made.
async fn open_originals(settings: &SrsSettings, env: &Environment) -> Result<Option<Originals>, DbError> {
    if settings.original_envelope == OriginalEnvelope::Embedded && settings.envelope_database.is_none() {
        return Ok(None);
    }
    let place = Place {
        url: settings.envelope_database.as_ref(),
        password_file: settings.envelope_database_password_file.as_ref(),
        state: &env.state_directory,
        options: &settings.database.pool_options(),
        validity_days: settings.srs_options("").validity_days,
        limit: settings.envelope_database_limit,
    };
    Originals::open(place).await.map(Some)
}

fn rules(settings: &SrsSettings, env: &Environment) -> Result<Rules, StartError> {
    let host_name = settings.myhostname.clone().unwrap_or_else(full_host_name).to_lowercase();
    let domain = settings.srs_domain.clone().unwrap_or_else(|| host_name.clone());
    let domain = if is_host_name(&domain) {
        domain
    } else {
        tracing::warn!(
            event = "forwarding off",
            reason = "the host has no full name, and srs_domain is not set; senders stay as they are",
            host = %domain
        );
        String::new()
    };
    Ok(Rules {
        srs: Srs::new(settings.srs_options(&domain), secrets::load(settings, env)?),
        address_check: settings.address_check.into(),
        host_name,
        local: DomainList::new(ListStyle::Postsrsd2, &settings.domains),
        excluded: DomainList::new(settings.list_style(), &settings.exclude),
        always_rewrite: settings.always_rewrite,
        keep_own_addresses: settings.keep_own_addresses,
        token_beyond: settings.token_beyond(),
    })
}

/// Bytes: longer than any list of domains of one mail system.
const LONGEST_FILE: u64 = 64 * 1024 * 1024;

/// A domain a line, or a Postfix map whose keys are domains: what follows a blank is the value.
fn read_domains(path: &Path) -> std::io::Result<DomainList> {
    let (bytes, _) = bounded_file::read(path, LONGEST_FILE)?;
    let text = str::from_utf8(&bytes).map_err(std::io::Error::other)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let keys = lines.filter_map(|line| line.split_whitespace().next());
    Ok(DomainList::new(ListStyle::Postsrsd2, keys))
}
