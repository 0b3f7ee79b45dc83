//! The accounts directory on a real LDAP server with iRedMail's object classes.

mod answers;
mod connection;
mod ground;
