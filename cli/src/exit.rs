//! Exit codes (`sysexits.h`), for scripts and service managers.

/// A check, a look-up or a demonstration said no; nothing is wrong with the command itself.
pub(crate) const NEGATIVE: u8 = 1;
/// The command was called in a way it does not understand.
pub(crate) const USAGE: u8 = 64;
/// Something among the given data is wrong; the rest was done.
pub(crate) const BAD_DATA: u8 = 65;
/// A file that is needed does not exist.
pub(crate) const NO_INPUT: u8 = 66;
/// A database or another service is not there.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Internal error.
pub(crate) const INTERNAL: u8 = 70;
/// The operating system refused a socket, a file or a process.
pub(crate) const SYSTEM: u8 = 71;
/// A file cannot be made.
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub(crate) const INPUT_OUTPUT: u8 = 74;
/// Refused for now: the same call may succeed later.
pub(crate) const TRY_AGAIN: u8 = 75;
/// The settings, or the rights in a database, are wrong.
pub(crate) const CONFIGURATION: u8 = 78;
