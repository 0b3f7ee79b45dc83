//! Exit codes (`sysexits.h`), for scripts and service managers.

/// A check or a demonstration said no; nothing is wrong with the command itself.
pub(crate) const NEGATIVE: u8 = 1;
/// The command was called in a way it does not understand.
pub(crate) const USAGE: u8 = 64;
/// Internal error.
pub(crate) const INTERNAL: u8 = 70;
/// The operating system refused a socket, a file or a process.
pub(crate) const SYSTEM: u8 = 71;
/// The settings are wrong.
pub(crate) const CONFIGURATION: u8 = 78;
