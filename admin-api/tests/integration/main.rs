//! The whole daemon on loopback ports with embedded databases, talked to over plain sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod accounts;
mod authentication;
mod framing;
mod lists;
mod server;
