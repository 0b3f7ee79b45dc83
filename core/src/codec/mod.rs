//! Wire codecs: bytes in, values out, no I/O.
//!
//! Each decoder takes the receive buffer of a connection, removes what it understood and answers
//! `Ok(None)` while more bytes are needed, so that a request may arrive in pieces of any size and
//! several may arrive at once.

pub mod header;
pub mod netstring;
pub mod policy;
pub mod policy_answer;
pub mod smtp;
pub mod socketmap;
pub mod tcp_table;
