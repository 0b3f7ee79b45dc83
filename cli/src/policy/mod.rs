//! The verbs about the tables of the policy service.
//!
//! They work on the databases themselves, with the settings of policyd; no daemon has to run, and one that runs follows
//! within `cache.lifetime`.

pub(crate) mod cleanup;
mod desk;
pub(crate) mod greylist;
mod input;
mod provider;
mod rdns;
pub(crate) mod senderscore;
pub(crate) mod throttle;
mod throttle_show;
pub(crate) mod wblist;
mod whitelist;
pub(crate) mod wrapper;
