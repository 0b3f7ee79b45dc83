//! What two Outrider daemons need and what has a meaning of its own.
//!
//! Knowledge flows one way: the `outrider` command knows the daemons, the daemons know this crate, and this
//! crate knows no daemon. Inside, codecs are pure (bytes in, values out), sessions are generic over their
//! stream, and clock, randomness, DNS and stores are passed in, never reached for.

pub mod address;
pub mod bounded_file;
pub mod clock;
pub mod codec;
pub mod daemon;
#[cfg(feature = "sql")]
pub mod directory;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "ldap")]
pub mod forwarding;
pub mod gather;
#[cfg(feature = "http")]
pub mod health;
pub mod host_name;
pub mod log;
pub mod lookup;
#[cfg(feature = "mailauth")]
pub mod mailauth;
pub mod metrics;
pub mod net;
pub mod network;
pub mod policy_session;
pub mod privilege;
pub mod python;
pub mod random;
#[cfg(feature = "sql")]
pub mod schema;
pub mod settings;
#[cfg(feature = "sql")]
pub mod sql;
pub mod srs;
pub mod systemd;
