//! E-mail authentication: DKIM signing and verification (RFC 6376, 8301, 8463), Authentication-Results (RFC 8601).
//!
//! ```text
//! header, body pieces -> [`canonical`] -> digest -> [`sign`]   -> DKIM-Signature field
//!                                               -> [`verify`] -> outcomes -> [`results`] -> Authentication-Results
//! ```
//!
//! Signer and verifier are ours, over the primitives of aws-lc-rs: the tag order, the list of signed fields, the
//! time stamps and the result words have to be those of Amavisd, a message need not be in one piece of memory, and
//! one pass over the body serves several signatures. The tests hold them to the `mail-auth` crate as an
//! independent second opinion, in both directions.
//!
//! Limits: [`verify::MAX_SIGNATURES`] signatures a message, RSA keys of at most [`key::MAX_RSA_BITS`] bits,
//! [`signature::MAX_SIGNED_NAMES`] names in `h=`.

pub mod canonical;
pub mod key;
pub mod results;
pub mod sign;
pub mod signature;
pub mod tag;
pub mod verify;
