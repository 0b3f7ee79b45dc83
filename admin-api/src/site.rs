//! The daemon: it builds both APIs from the settings and hands each connection to the one its socket speaks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use outrider_core::daemon::{Connection, Daemon, DependencyHealth, Environment, Shutdown, StartError};
use outrider_core::directory::write::Accounts;
use outrider_core::metrics::Metrics;
use outrider_core::sql::Databases;
use prometheus_client::metrics::counter::Counter;

use crate::http::{self, Bounds};
use crate::mlmmj::{Gate, ListApi, Policy, confirm, spool};
use crate::settings::{Backend, LISTS, Settings};
use crate::token::{self, Tokens};

/// Where Debian puts the texts of mlmmj.
const USUAL_TEMPLATES: &str = "/usr/share/mlmmj/text.skel";

/// The daemon.
pub struct AdminApi {
    env: Environment,
    databases: Databases,
    counters: Counters,
    snapshot: RwLock<Arc<Snapshot>>,
}

/// Counters that live as long as the daemon, whatever is reloaded.
struct Counters {
    tokens_refused: Counter,
}

/// Both APIs with the settings they were made with.
struct Snapshot {
    bounds: Bounds,
    lists: Arc<ListApi>,
}

impl Daemon for AdminApi {
    const NAME: &'static str = "admin-api";
    const ABOUT: &'static str = "administration of mailing lists and accounts by HTTP";

    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Self, StartError> {
        let databases = Databases::open(&settings.database, &env.state_directory)
            .await
            .map_err(|error| StartError::Other(Box::new(error)))?;
        let counters = Counters {
            tokens_refused: env.metrics.counter("token_failures_total", "Requests without a valid token"),
        };
        let snapshot = Snapshot::new(&settings, &env, &databases, &counters)?;
        Ok(Self { env, databases, counters, snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let snapshot = Snapshot::new(&settings, &self.env, &self.databases, &self.counters)?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let metrics: Arc<Metrics> = self.env.metrics.clone();
        if connection.role == LISTS {
            http::serve(snapshot.lists.clone(), connection, shutdown, snapshot.bounds, metrics).await;
        }
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.databases.health()
    }
}

impl Snapshot {
    fn new(
        settings: &Settings,
        env: &Environment,
        databases: &Databases,
        counters: &Counters,
    ) -> Result<Self, StartError> {
        Ok(Self {
            bounds: Bounds {
                headers: settings.http.max_headers,
                head: settings.http.max_head.bytes(),
                body: settings.http.max_body.bytes(),
                head_timeout: settings.http.head_timeout.duration(),
                body_timeout: settings.http.body_timeout.duration(),
                request_timeout: settings.http.request_timeout.duration(),
            },
            lists: Arc::new(list_api(settings, env, databases, counters)?),
        })
    }
}

fn list_api(
    settings: &Settings,
    env: &Environment,
    databases: &Databases,
    counters: &Counters,
) -> Result<ListApi, StartError> {
    let lists = &settings.lists;
    let configured: Vec<&str> = lists.api_auth_tokens.iter().map(|token| token.expose()).collect();
    if configured.iter().any(|token| token.is_empty()) {
        return Err(StartError::Settings("lists.api_auth_tokens holds an empty token".to_owned()));
    }
    let tokens = if configured.is_empty() {
        let path = env.state_directory.join(token::FILE_NAME);
        let made_up = token::load_or_create(&env.state_directory, env.random.as_ref())
            .map_err(|error| StartError::File(path.clone(), error))?;
        tracing::info!(event = "token from the state directory", path = %path.display());
        Tokens::new([made_up.as_str()])
    } else {
        Tokens::new(configured)
    };
    let clients = lists.restrict_access.then(|| lists.accepted_clients.clone());
    let gate = Gate::new(tokens, &lists.token_header, clients, counters.tokens_refused.clone());
    let state = &env.state_directory;
    let spool = spool::Spool {
        root: own_or_existing(lists.spool_directory.as_deref(), &state.join("mlmmj"))?,
        archive: match &lists.archive_directory {
            Some(path) if path.as_os_str().is_empty() => None,
            Some(path) => Some(path.clone()),
            None => Some(state.join("mlmmj-archive")),
        },
        templates: match &lists.template_directory {
            Some(path) => spool::Templates::Required(path.clone()),
            None => spool::Templates::IfPresent(USUAL_TEMPLATES.into()),
        },
    };
    let policy = Policy {
        transport: lists.transport.clone(),
        defaults: lists.default_profile.clone(),
        forced: lists.forced_profile.clone(),
        strict: lists.strict_parameters,
    };
    let confirm = confirm::Program {
        path: lists.subscribe_command.clone(),
        timeout: lists.subscribe_timeout.duration(),
    };
    let accounts = match lists.backend {
        Backend::None => None,
        Backend::Sql => Some(Accounts::new(databases.vmail.clone())),
    };
    Ok(ListApi::new(spool, accounts, gate, policy, confirm, env.clock.clone()))
}

/// A directory named in the settings has to be there; one of our own is made.
fn own_or_existing(configured: Option<&Path>, own: &Path) -> Result<PathBuf, StartError> {
    match configured {
        Some(path) if path.is_dir() => Ok(path.to_owned()),
        Some(path) => {
            Err(StartError::Settings(format!("lists.spool_directory: {} is no directory", path.display())))
        }
        None => {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(own)
                .map_err(|error| StartError::File(own.to_owned(), error))?;
            Ok(own.to_owned())
        }
    }
}
