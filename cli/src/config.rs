//! The folder of settings files that `--config` names.

use std::path::{Path, PathBuf};

use outrider_core::daemon::Daemon;
use outrider_core::settings;

use crate::exit;
use crate::failure::Failure;

/// Where it usually is.
pub(crate) const FOLDER: &str = "/etc/outrider";

/// The settings file of a daemon in `folder`.
pub(crate) fn file_of<D: Daemon>(folder: &Path) -> PathBuf {
    folder.join(format!("{}.toml", D::NAME))
}

/// The settings of a daemon, for verbs that work in its place; warnings go to standard error. A daemon without a file runs
/// on its defaults, but a folder that was named and holds none is a mistake.
pub(crate) fn load<D: Daemon>(folder: &Path) -> Result<D::Settings, Failure> {
    let file = file_of::<D>(folder);
    let exists = file.exists();
    if !exists && folder != Path::new(FOLDER) {
        let text = format!("there is no {}; an empty one means the built-in defaults", file.display());
        return Err(Failure::new(exit::NO_INPUT, text));
    }
    let loaded = settings::load::<D::Settings>(exists.then_some(&*file), D::NAME)?;
    if !loaded.findings.is_empty() {
        eprintln!("{}", loaded.findings);
    }
    Ok(loaded.settings)
}
