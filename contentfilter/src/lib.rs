//! contentfilter: takes mail from Postfix on ports 10024 (from outside), 10026 (own users) and 10027 (lists), signs
//! or verifies it with DKIM, edits its header and gives it back on 10025 or 10028.
//!
//! ```text
//! Postfix -> [`session`] -> [`store`] -> [`process`] -> [`relay`] -> Postfix
//!                                           |
//!                           [`facts`], [`dkim`], [`edit`], [`outcome`], [`notify`], [`report`]
//! ```
//!
//! It speaks SMTP and LMTP with XFORWARD to both sides. A client hears 250 only after the next hop's 250 (or, where one
//! of several recipients was refused, after a report to the sender was accepted); everything uncertain is 4xx, and
//! the client keeps the mail.

pub mod bank;
pub mod dkim;
pub mod edit;
pub mod facts;
pub mod filter;
pub mod hop;
pub mod identity;
pub mod notify;
pub mod outcome;
pub mod process;
pub mod relay;
pub mod report;
mod rewrite;
pub mod session;
mod settings;
pub mod store;
pub mod trace;

pub use settings::{
    BankSettings, BareNewline, ClientBank, DkimSettings, KeySettings, LogTemplate, OneOrMany, Settings,
    SignatureOptions,
};

use filter::Filter;
use outrider_core::daemon::{Connection, Daemon, DependencyHealth, Environment, Local, Shutdown, StartError};
use outrider_core::forwarding::Forwarding;
use relay::SystemConnect;
use session::Origin;
use std::sync::Arc;
use tokio::sync::Notify;

/// The daemon.
#[derive(Debug)]
pub struct ContentFilter {
    filter: Filter,
    env: Environment,
    reloaded: Notify,
}

/// Who rewrites envelope senders, if the settings want it.
async fn open_forwarding(
    settings: &Settings,
    env: &Environment,
) -> Result<Option<Arc<Forwarding>>, StartError> {
    if !settings.rewrite_forwarded {
        return Ok(None);
    }
    // Boxed: what opens four kinds of databases is large, and is needed once.
    Ok(Some(Arc::new(Box::pin(Forwarding::open(&settings.srs, env)).await?)))
}

impl Daemon for ContentFilter {
    const NAME: &'static str = "contentfilter";
    const ABOUT: &'static str =
        "SMTP content filter: DKIM signing and verification between Postfix and Postfix";
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<ContentFilter, StartError> {
        let resolver = Filter::resolver_for(&settings)?;
        let forwarding = open_forwarding(&settings, &env).await?;
        let filter = Filter::new(settings, &env, Arc::new(SystemConnect), resolver)?;
        filter.set_forwarding(forwarding);
        Ok(ContentFilter { filter, env, reloaded: Notify::new() })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let forwarding = open_forwarding(&settings, &self.env).await?;
        self.filter.reload(settings)?;
        if let (Some(new), Some(old)) = (&forwarding, self.filter.forwarding()) {
            new.inherit(&old);
        }
        self.filter.set_forwarding(forwarding);
        self.reloaded.notify_one();
        Ok(())
    }

    async fn background(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.requested() {
            let forwarding = self.filter.forwarding();
            let current = async {
                match &forwarding {
                    Some(forwarding) => forwarding.keep_current(&shutdown).await,
                    None => shutdown.wait().await,
                }
            };
            tokio::select! {
                () = self.reloaded.notified() => {}
                () = current => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let origin = Origin {
            role: connection.role,
            peer: connection.peer.ip(),
            local: match connection.local {
                Local::Tcp(address) => Some((address.ip().to_canonical(), address.port())),
                Local::Unix(_) => None,
            },
        };
        if let Err(error) = session::serve(connection.stream, origin, &self.filter, shutdown).await {
            tracing::debug!(event = "client lost", client = %connection.peer, reason = %error);
        }
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.filter.health()
    }
}
