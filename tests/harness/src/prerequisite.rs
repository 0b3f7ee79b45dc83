//! What a test needs of the machine.

use std::ffi::OsStr;

use crate::process::run;

/// Set by `tests/run` once it has installed everything.
const COMPLETE: &str = "OUTRIDER_TESTS_COMPLETE";

/// Whether what a test needs is there; if not, it says so and may be skipped. On a machine that is said to be complete it fails
/// then: nothing goes untested in silence.
///
/// # Panics
/// `is_there` is false and the environment has `OUTRIDER_TESTS_COMPLETE=1`.
pub fn met(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(std::env::var_os(COMPLETE).as_deref() != Some(OsStr::new("1")), "{what} is not installed");
        eprintln!("skipped: {what} is not installed");
    }
    is_there
}

/// Whether `openssl` is there, which makes the certificates.
pub fn has_openssl() -> bool {
    met("openssl", run("openssl", &["version"]).is_ok())
}
