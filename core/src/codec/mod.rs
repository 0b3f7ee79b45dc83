//! Wire formats: bytes in, values out, no input or output of their own.

pub mod netstring;
pub mod policy;
pub mod smtp;
pub mod socketmap;
pub mod tcp_table;
