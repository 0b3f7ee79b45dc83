//! The policy service: Postfix asks it about every recipient and every message (SMTPD_POLICY_README, port 7777), and it
//! answers from the tables that iRedMail's administration panel writes.
//!
//! ```text
//! bytes -> core::codec::policy -> PolicyRequest -> chain of plugins -> Verdict -> action=...
//!                                                     ^
//!                          Context: settings, accounts, stores, DNS, clock
//! ```
//!
//! Other policy servers can be steps of the chain, see [`forward`].
//!
//! Limits: those of [`outrider_core::codec::policy`] on a request, `[limits]` on connections and time. An answer that
//! takes longer than `limits.request_timeout` is given as `on_failure.deadline` says, by default `DUNNO`.

pub mod admin;
pub mod background;
pub mod cache;
pub mod chain;
mod cleanup;
pub mod context;
mod daemon;
pub mod forward;
pub mod limit;
mod list_api;
mod log_line;
mod metrics;
pub mod network_rate;
mod notify;
pub mod plugin;
pub mod request;
mod schedule;
mod session;
mod session_log;
pub mod settings;
pub mod spf;
pub mod store;
pub mod verdict;
mod waits;
pub mod whitelist_domains;

pub use daemon::Policyd;
pub use settings::Settings;
