//! The iRedMail tables on three servers.
