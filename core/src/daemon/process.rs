//! What a daemon does to its own process before it serves: permissions, limits, memory dumps, faults.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use super::StartError;
use crate::privilege::Account;

/// Closes what a mail daemon has no use for. Called once, first thing.
pub(super) fn harden() {
    // Files hold addresses of other people's mail.
    umask(Mode::from_bits_truncate(0o077));
    // Passwords and keys must neither reach a core file nor be read by other processes of the account.
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Faults are caught where the work is done; here they become one log line instead of text on standard error.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let reason = info.payload_as_str().unwrap_or("unknown");
        tracing::error!(event = "program fault", reason, check = place);
    }));
}

/// Raises the number of file descriptors to what the administrator allows and warns if it is not enough: a connection
/// may need itself, a database, a name server and a file.
pub(super) fn raise_descriptors(connections: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let soft =
        if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let wanted = connections.saturating_mul(4);
    if (soft as usize) < wanted {
        tracing::warn!(
            event = "few file descriptors",
            reason = "LimitNOFILE is below four times limits.max_connections",
            limit = soft,
            wanted
        );
    }
}

/// Makes the state folder, for the account that will use it.
pub(super) fn prepare_state(folder: &Path, account: Option<&Account>) -> Result<(), StartError> {
    let failed = |error| StartError::File(folder.to_path_buf(), error);
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    match account {
        Some(account) => account.own(folder).map_err(failed),
        None => Ok(()),
    }
}
