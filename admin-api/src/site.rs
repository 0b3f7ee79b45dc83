//! The daemon: it builds both APIs from the settings and hands each connection to the one its socket speaks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use outrider_core::daemon::{Connection, Daemon, DependencyHealth, Environment, Shutdown, StartError};
use outrider_core::directory::write::{self, Accounts};
use outrider_core::sql::Databases;
use prometheus_client::metrics::counter::Counter;

use crate::http::{self, Bounds};
use crate::iredadmin::client::ClientList;
use crate::iredadmin::journal::Journal;
use crate::iredadmin::limiter::{Bound, Limiter};
use crate::iredadmin::maildir::Layout;
use crate::iredadmin::session::{Lifetime, Sessions};
use crate::iredadmin::{AccountApi, AccountPolicy};
use crate::mlmmj::{Gate, ListApi, Policy, confirm, spool};
use crate::password::{self, Rules, Vault};
use crate::settings::{ACCOUNTS, AccountSettings, Backend, LISTS, Settings};
use crate::token::{self, Tokens};

/// Where Debian puts the texts of mlmmj.
const USUAL_TEMPLATES: &str = "/usr/share/mlmmj/text.skel";

/// How often sessions that ended are removed.
const SWEEP: Duration = Duration::from_secs(600);

/// The daemon.
pub struct AdminApi {
    env: Environment,
    databases: Databases,
    lasting: Lasting,
    snapshot: RwLock<Arc<Snapshot>>,
}

/// What lives as long as the daemon, whatever is reloaded.
struct Lasting {
    tokens_refused: Counter,
    logins_refused: Counter,
    limiter: Arc<Limiter>,
    sessions: Sessions,
}

/// Both APIs with the settings they were made with.
struct Snapshot {
    bounds: Bounds,
    list_body: usize,
    lists: Arc<ListApi>,
    accounts: Arc<AccountApi>,
}

impl Daemon for AdminApi {
    const NAME: &'static str = "admin-api";
    const ABOUT: &'static str = "administration of mailing lists and accounts by HTTP";

    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Self, StartError> {
        let databases = Databases::open(&settings.database, &env.state_directory)
            .await
            .map_err(|error| StartError::Other(Box::new(error)))?;
        let lasting = Lasting {
            tokens_refused: env.metrics.counter("token_failures_total", "Requests without a valid token"),
            logins_refused: env.metrics.counter("login_failures_total", "Logins that were refused"),
            limiter: Arc::default(),
            sessions: Sessions::open(&env.state_directory)
                .await
                .map_err(|error| StartError::Other(Box::new(error)))?,
        };
        let snapshot = Snapshot::new(&settings, &env, &databases, &lasting)?;
        Ok(Self { env, databases, lasting, snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let snapshot = Snapshot::new(&settings, &self.env, &self.databases, &self.lasting)?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let snapshot = self.snapshot();
        let (bounds, metrics) = (snapshot.bounds, self.env.metrics.clone());
        match connection.role {
            LISTS => {
                let bounds = Bounds { body: snapshot.list_body, ..bounds };
                http::serve(snapshot.lists.clone(), connection, shutdown, bounds, metrics).await;
            }
            ACCOUNTS => http::serve(snapshot.accounts.clone(), connection, shutdown, bounds, metrics).await,
            role => tracing::error!(event = "connection dropped", reason = "unknown role", role),
        }
    }

    async fn background(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let idle = self.snapshot().accounts.policy.session.idle;
            let before = self.env.clock.unix_seconds().saturating_sub(idle);
            if let Err(error) = self.lasting.sessions.sweep(before).await {
                tracing::warn!(event = "sessions stay", reason = %error);
            }
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.databases.health()
    }
}

impl AdminApi {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Snapshot {
    fn new(
        settings: &Settings,
        env: &Environment,
        databases: &Databases,
        lasting: &Lasting,
    ) -> Result<Self, StartError> {
        let lists = Arc::new(list_api(settings, env, databases, lasting)?);
        Ok(Self {
            bounds: Bounds {
                headers: settings.http.max_headers,
                head: settings.http.max_head.bytes(),
                body: settings.http.max_body.bytes(),
                head_timeout: settings.http.head_timeout.duration(),
                body_timeout: settings.http.body_timeout.duration(),
                request_timeout: settings.http.request_timeout.duration(),
            },
            list_body: settings.http.max_list_body.bytes(),
            accounts: Arc::new(account_api(&settings.accounts, env, databases, lasting, &lists)?),
            lists,
        })
    }
}

fn list_api(
    settings: &Settings,
    env: &Environment,
    databases: &Databases,
    lasting: &Lasting,
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
    let gate = Gate::new(tokens, &lists.token_header, clients, lasting.tokens_refused.clone());
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

fn account_api(
    settings: &AccountSettings,
    env: &Environment,
    databases: &Databases,
    lasting: &Lasting,
    lists: &Arc<ListApi>,
) -> Result<AccountApi, StartError> {
    let clients = |key: &str, entries: &[String]| {
        ClientList::parse(entries)
            .map_err(|entry| StartError::Settings(format!("accounts.{key}: {entry:?} names no clients")))
    };
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let policy = AccountPolicy {
        enabled: settings.enable_restful_api,
        base_path: settings.base_path.clone(),
        clients: clients("restful_api_clients", &settings.restful_api_clients)?,
        admin_clients: clients("admin_login_ip_list", &settings.admin_login_ip_list)?,
        global_admin_clients: clients("global_admin_ip_list", &settings.global_admin_ip_list)?,
        proxies: clients("trusted_proxies", &settings.trusted_proxies)?,
        session: Lifetime {
            idle: seconds(settings.session_timeout.duration()),
            any_client: settings.session_ignore_change_ip,
        },
        login_bound: Bound {
            failures: settings.login_failures,
            window: seconds(settings.login_window.duration()),
        },
        rules: Rules {
            letter: settings.password_has_letter,
            uppercase: settings.password_has_uppercase,
            digit: settings.password_has_number,
            special: settings.password_has_special_char,
            bounds: password::Bounds {
                min: settings.min_password_length.into(),
                max: settings.max_password_length.into(),
            },
        },
        layout: Layout {
            base: settings.storage_base_directory.clone(),
            hashed: settings.maildir_hashed,
            prepend_domain: settings.maildir_prepend_domain,
            append_timestamp: settings.maildir_append_timestamp,
            domain_hashed: settings.maildir_domain_hashed,
        },
        mailbox_format: settings.mailbox_format.clone(),
        mailbox_folder: settings.mailbox_folder.clone(),
        transport: settings.default_mta_transport.clone(),
        aliases_anywhere: settings.user_alias_cross_all_domains,
        hidden: settings.api_hidden_user_profiles.clone(),
    };
    Ok(AccountApi {
        accounts: Accounts::new(databases.vmail.clone())
            .with_traces(databases.iredapd.clone(), databases.amavisd.clone()),
        lists: lists.clone(),
        journal: Journal::new(databases.iredadmin.clone()),
        rules: write::Rules::new(databases.iredapd.clone(), databases.amavisd.clone()),
        sessions: lasting.sessions.clone(),
        vault: Vault::new(settings.default_password_scheme, settings.password_workers, env.random.clone()),
        limiter: lasting.limiter.clone(),
        policy,
        clock: env.clock.clone(),
        random: env.random.clone(),
        login_failures: lasting.logins_refused.clone(),
    })
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
