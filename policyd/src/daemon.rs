//! The daemon: state, reload, connections.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use outrider_core::clock::SharedClock;
use outrider_core::codec::policy;
use outrider_core::daemon::{
    Connection, Daemon, DependencyHealth, Environment, Shutdown, StartError, Workers,
};
use outrider_core::directory::write::Rules;
use outrider_core::directory::{self, CachedDirectory, DirectorySettings};
use outrider_core::dns::{DnsSettings, HickoryResolver, Resolver};
use outrider_core::host_name::full_host_name;
use outrider_core::network::NetworkList;
use outrider_core::policy_session::SessionLimits;
use outrider_core::schema::Database;
use outrider_core::sql::{Db, DbError};

use crate::background::Lookups;
use crate::chain::Chain;
use crate::cleanup;
use crate::context::{Context, SenderExceptions};
use crate::forward::Forward;
use crate::list_api::ListApi;
use crate::metrics::PolicyMetrics;
use crate::network_rate::NetworkRate;
use crate::notify::Notifier;
use crate::schedule;
use crate::session_log::{self, SessionLog, SessionWriter};
use crate::settings::Settings;
use crate::spf::SpfLookup;
use crate::store::Stores;
use crate::store::counters::ValkeyStores;
use crate::store::sessions::SessionStore;
use crate::whitelist_domains;

/// The policy service.
pub struct Policyd {
    env: Environment,
    current: RwLock<Arc<Snapshot>>,
    pub(crate) sessions: SessionLog,
    writer: Mutex<Option<SessionWriter>>,
    pub(crate) metrics: PolicyMetrics,
}

/// Everything made from one set of settings.
pub(crate) struct Snapshot {
    pub(crate) context: Context,
    pub(crate) chain: Chain,
    pub(crate) rules: Rules,
    pub(crate) amavisd: Db,
    pub(crate) iredapd: Db,
}

impl Snapshot {
    pub(crate) async fn new(
        settings: Arc<Settings>,
        state: &Path,
        clock: SharedClock,
        metrics: &PolicyMetrics,
    ) -> Result<Snapshot, StartError> {
        let unusable = |error: DbError| StartError::Settings(error.to_string());
        let open = async |database| settings.database.open(database, state).await.map_err(unusable);
        let accounts = directory::open(settings.accounts, &settings.ldap, &settings.database, state).await;
        let accounts = accounts.map_err(unusable)?;
        let amavisd = open(Database::Amavisd).await?;
        let iredapd = open(Database::Iredapd).await?;
        let resolver: Arc<dyn Resolver> = Arc::new(resolver(&settings.dns)?);
        let valkey = ValkeyStores::from_settings(&settings.counters, &settings.cache, clock.clone())
            .map_err(unusable)?;
        let list_api = ListApi::from_settings(&settings.reject_sender_login_mismatch)
            .map_err(|error| StartError::Settings(error.to_string()))?;
        let cache = DirectorySettings {
            cache_life: settings.cache.lifetime,
            cache_size: settings.cache.entries,
            cache_stale: settings.cache.stale,
        };
        let stores = Stores { valkey, ..Stores::new(&iredapd, &amavisd, &settings.cache) };
        stores.measure(&|name| metrics.cache(name));
        let context = Context {
            mynetworks: NetworkList::new(&settings.mynetworks),
            hostname: settings.myhostname.clone().unwrap_or_else(full_host_name).to_lowercase(),
            senders: SenderExceptions::new(&settings),
            directory: Arc::new(CachedDirectory::new(accounts, &cache, clock.clone())),
            stores,
            metrics: metrics.clone(),
            spf: SpfLookup::new(resolver.clone(), &settings.spf),
            scores: Lookups::new(settings.spf.entries, settings.spf.lifetime.duration(), Option::is_some),
            resolver,
            new_contacts: Arc::new(NetworkRate::new(settings.greylisting.new_contacts_per_minute)),
            list_api,
            notifier: Notifier::start(&settings.notification),
            clock,
            settings: settings.clone(),
        };
        let rules = Rules::new(iredapd.clone(), amavisd.clone());
        Ok(Snapshot { chain: Chain::new(&settings), context, rules, amavisd, iredapd })
    }
}

/// A machine without `/etc/resolv.conf` asks itself, as the resolver of the C library does.
fn resolver(settings: &DnsSettings) -> Result<HickoryResolver, StartError> {
    HickoryResolver::from_settings(settings).or_else(|error| {
        tracing::warn!(%error, "asking the name server of this machine");
        let servers = vec![([127, 0, 0, 1], 53).into()];
        let settings = DnsSettings { servers, ..settings.clone() };
        HickoryResolver::from_settings(&settings).map_err(|error| StartError::Other(error.into()))
    })
}

impl Policyd {
    /// Removes all rows that have had their time, now.
    pub async fn clean_up(&self) {
        cleanup::once(&self.snapshot().context).await;
    }

    /// Looks up the mail servers of all domains that are never greylisted, now.
    pub async fn refresh_whitelist_domains(&self) {
        let snapshot = self.snapshot();
        whitelist_domains::once(&snapshot.context, &snapshot.rules, &snapshot.iredapd).await;
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn session_limits(&self) -> SessionLimits {
        let limits = &self.snapshot().context.settings.limits;
        SessionLimits {
            codec: policy::Limits::default(),
            idle: limits.idle_timeout.duration(),
            request: limits.request_timeout.duration(),
        }
    }
}

impl Daemon for Policyd {
    const NAME: &'static str = "policyd";
    const ABOUT: &'static str =
        "policy service for Postfix: greylisting, throttling, sender checks and access lists";
    const WORKERS: Workers = Workers::PerTwoProcessors;
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Policyd, StartError> {
        let metrics = PolicyMetrics::new(env.metrics.clone());
        let dropped = metrics.session_rows_dropped.clone();
        let (sessions, writer) = session_log::queue(settings.session_log.queue, dropped);
        let snapshot = Snapshot::new(settings, &env.state_directory, env.clock.clone(), &metrics).await?;
        Ok(Policyd {
            metrics,
            current: RwLock::new(Arc::new(snapshot)),
            sessions,
            writer: Mutex::new(Some(writer)),
            env,
        })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let clock = self.env.clock.clone();
        let snapshot = Snapshot::new(settings, &self.env.state_directory, clock, &self.metrics).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let limits = self.session_limits();
        let Connection { stream, peer, .. } = connection;
        self.converse(stream, peer, &limits, shutdown.wait()).await;
    }

    async fn background(self: Arc<Self>, shutdown: Shutdown) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let settings = || self.snapshot().context.settings.clone();
        let cleaning = schedule::run(
            || settings().cleanup.interval.duration(),
            || self.clean_up(),
            self.env.random.clone(),
            shutdown.clone(),
        );
        let refreshing = schedule::run(
            || settings().whitelist_domains.refresh.duration(),
            || self.refresh_whitelist_domains(),
            self.env.random.clone(),
            shutdown.clone(),
        );
        let writing = async {
            if let Some(writer) = writer {
                writer.run(|| SessionStore::new(self.snapshot().iredapd.clone()), shutdown).await;
            }
        };
        tokio::join!(cleaning, refreshing, writing);
    }

    fn health(&self) -> Vec<DependencyHealth> {
        let snapshot = self.snapshot();
        let mut health = snapshot.context.directory.health();
        health.extend([snapshot.amavisd.health("amavisd"), snapshot.iredapd.health("iredapd")]);
        health.extend(snapshot.context.stores.valkey.as_ref().map(|valkey| valkey.server.health()));
        health.extend(snapshot.chain.forwards().map(Forward::health));
        health
    }
}
