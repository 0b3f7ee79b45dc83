//! The frame of a daemon, seen from outside: the example daemon `echod` as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

mod check;
mod harness;
mod health;
mod listen;
mod privilege;
mod reload;
mod stop;
mod systemd;
