//! srsd: the Sender Rewriting Scheme for Postfix' canonical maps.
//!
//! # Protocol
//!
//! Port 7778 (role `forward`) translates envelope senders into SRS addresses, port 7779 (role `reverse`) translates
//! them back. Both speak tcp_table and socketmap, told apart by the first byte of a connection:
//!
//! ```text
//! sender_canonical_maps = tcp:127.0.0.1:7778            or socketmap:inet:127.0.0.1:7778:forward
//! sender_canonical_classes = envelope_sender
//! recipient_canonical_maps = tcp:127.0.0.1:7779         or socketmap:inet:127.0.0.1:7779:reverse
//! recipient_canonical_classes = envelope_recipient,header_recipient
//! ```
//!
//! On tcp_table the replies are those of iRedAPD, on socketmap those of PostSRSd 2.
//!
//! # Diagnostics
//!
//! Each rewritten and each reversed address is one log line at `info`. An address whose hash or time stamp is wrong
//! is logged as "not reversed": many of them are somebody guessing.
//!
//! # Security
//!
//! Whoever reaches the ports can have addresses signed; they listen on loopback only by default. Secrets are
//! never logged. A bounce address works for 22 days for anybody, and SRS1 addresses as long as their secret.

mod conversation;
mod counters;
mod service;
mod session;
mod settings;
mod texts;

pub use settings::Settings;

use conversation::{Conversation, Direction};
use counters::Counters;
use outrider_core::daemon::{
    Connection, Daemon, DependencyHealth, Environment, Shutdown, StartError, Workers,
};
use outrider_core::forwarding::Forwarding;
use service::{Batch, Service};
use session::SessionLimits;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;

/// Role of the listener for envelope senders.
pub const FORWARD: &str = "forward";
/// Role of the listener for envelope recipients.
pub const REVERSE: &str = "reverse";

/// The daemon.
pub struct Srsd {
    env: Environment,
    service: RwLock<Arc<Service>>,
    counters: Arc<Counters>,
    reloaded: Notify,
}

impl Srsd {
    fn service(&self) -> Arc<Service> {
        self.service.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn open(settings: &Settings, env: &Environment) -> Result<Service, StartError> {
        Ok(Service {
            // Boxed: what opens four kinds of databases is large, and is needed once.
            forwarding: Box::pin(Forwarding::open(&settings.srs(), env)).await?,
            request: settings.limits.request_timeout.duration(),
            idle: settings.limits.idle_timeout.duration(),
        })
    }
}

impl Daemon for Srsd {
    const NAME: &'static str = "srsd";
    const ABOUT: &'static str =
        "rewrites envelope senders for forwarding (SRS) and reverses them for bounces";
    const WORKERS: Workers = Workers::One;
    type Settings = Settings;

    async fn start(settings: Arc<Settings>, env: Environment) -> Result<Self, StartError> {
        let service = Arc::new(Srsd::open(&settings, &env).await?);
        let counters = Arc::new(Counters::new(env.metrics.clone()));
        Ok(Srsd { env, service: RwLock::new(service), counters, reloaded: Notify::new() })
    }

    async fn reload(&self, settings: Arc<Settings>) -> Result<(), StartError> {
        let service = Srsd::open(&settings, &self.env).await?;
        service.forwarding.inherit(&self.service().forwarding);
        *self.service.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(service);
        self.reloaded.notify_one();
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: Connection, shutdown: Shutdown) {
        let direction = if connection.role == REVERSE { Direction::Reverse } else { Direction::Forward };
        let limits = {
            let service = self.service();
            SessionLimits { idle: service.idle, request: service.request }
        };
        let batch = || Batch::new(self.service(), self.counters.clone());
        let conversation = Conversation::new(direction);
        session::serve(connection.stream, conversation, batch, limits, shutdown.wait()).await;
    }

    async fn background(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.requested() {
            let service = self.service();
            tokio::select! {
                () = shutdown.wait() => {}
                () = self.reloaded.notified() => {}
                () = service.forwarding.keep_current(&shutdown) => {}
            }
        }
    }

    fn health(&self) -> Vec<DependencyHealth> {
        self.service().forwarding.health()
    }
}
