//! Passwords of administrators and mail users: checking them against what is stored, making what is stored, and
//! the rules for new ones.
//!
//! A stored value is only ever compared through its scheme. A value without a scheme prefix is a hash too, if it has one
//! of the two bare forms in use (`$1$...` and 32 hexadecimal digits); any other bare value matches nothing, so a
//! stolen hash is not a password, and a broken row lets nobody in.

mod crypt;
mod digest;
mod hash;
mod legacy;
mod rules;
mod scheme;
mod vault;

pub use hash::DefaultScheme;
pub(crate) use rules::{Bounds, Rules};
pub(crate) use scheme::is_known;
pub(crate) use vault::Vault;

/// Longest password that is looked at, in bytes.
pub(crate) const MAX_PASSWORD: usize = 1024;
