//! The surroundings of the daemons, real and private: Postfix, Dovecot and databases started in temporary folders on free loopback ports, the
//! daemons' own binaries beside them, and clients that talk the wire protocols as a script.
//!
//! Everything is synchronous on purpose: a test reads from top to bottom, and a child process is ended by the drop of its handle, by a panic, and
//! (through the parent-death signal) even when the test itself is killed.

pub mod account;
pub mod authority;
pub mod daemon;
pub mod dkim;
pub mod dns_server;
pub mod dovecot;
pub mod folder;
pub mod fuzz;
pub mod hostile_dns;
pub mod mail_store;
pub mod mailing_list;
pub mod mariadb;
pub mod message;
pub mod policy_client;
pub mod port;
pub mod postfix;
pub mod postgres;
pub mod prerequisite;
pub mod process;
pub mod settings;
pub mod sink;
pub mod site;
pub mod slapd;
pub mod smtp_client;
pub mod store;
pub mod valkey;
pub mod wait;
