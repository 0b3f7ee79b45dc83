//! A certificate authority of our own, as options of servers.

use std::path::Path;

pub(crate) use outrider_tests::authority::Authority;

/// `name=path`, as options of servers want it.
pub(crate) fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
