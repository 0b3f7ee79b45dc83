//! Settings: typed values read from `/etc/outrider/<daemon>.toml`.
//!
//! * The file, then `<daemon>.d/*.toml` beside it in byte order, then the environment
//!   (`OUTRIDER_<SERVICE>_<KEY>`); a later value replaces an earlier one. An empty or missing file is valid:
//!   the defaults live in the program.
//! * Unknown keys, wrong types and values out of range are errors. All of them are reported at once, each with
//!   file, line, key and a way to repair it.
//! * Structures are declared with [`settings!`](crate::settings!), which keeps name, type, default and
//!   documentation of a key in one place; help, reference and the packaged file are generated from it.

mod document;
mod findings;
#[cfg(feature = "http")]
mod http_url;
mod load;
mod schema;
mod secret;
mod sections;
mod types;

pub use document::{Documented, FieldDoc, Probe, SectionDoc, ViaLeaf, ViaSection, reference, undocumented};
pub use findings::{Finding, Findings, Severity};
#[cfg(feature = "http")]
pub use http_url::{HttpUrl, HttpUrlError};
pub(crate) use load::environment_prefix;
pub use load::{Loaded, Origins, SettingsError, default_path, load, load_from};
pub use schema::{Key, keys};
pub use sections::{
    Facility, LimitSettings, LogLevel, LogSettings, LogStyle, LogTarget, MetricsSettings, ProcessSettings,
};
pub use types::{Interval, ListenAddress, Secret, Size};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One socket on which a daemon wants to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// What clients of this socket speak to: `"policy"`, `"forward"`, `"inbound"` and so on.
    pub role: &'static str,
    /// Where.
    pub address: ListenAddress,
}

/// The sections that every daemon has and that the frame itself reads.
#[derive(Clone, Copy, Debug)]
pub struct FrameSettings<'a> {
    /// `[log]`
    pub log: &'a LogSettings,
    /// `[metrics]`
    pub metrics: &'a MetricsSettings,
    /// `[process]`
    pub process: &'a ProcessSettings,
    /// `[limits]`
    pub limits: &'a LimitSettings,
}

/// The settings of one daemon, as the frame sees them.
///
/// The type must accept an empty file (`#[serde(default, deny_unknown_fields)]`, which
/// [`settings!`](crate::settings!) writes).
pub trait DaemonSettings: Default + DeserializeOwned + Serialize + Clone + Send + Sync + 'static {
    /// False for settings of a process that has no listeners of its own; they may then name none.
    const SERVES_CLIENTS: bool = true;

    /// The sockets to listen on, in the order of the ready line.
    fn listeners(&self) -> Vec<ListenerSpec>;

    /// The sections that belong to the frame.
    fn frame(&self) -> FrameSettings<'_>;

    /// Checks what types cannot express. Keys are dotted (`"greylisting.block"`); no network, no database.
    fn check(&self, findings: &mut Findings);

    /// What each key means; types made by [`settings!`](crate::settings!) answer `Self::document()`.
    fn describe() -> SectionDoc {
        SectionDoc::default()
    }
}

/// The checks of the frame's own sections together with those of the daemon.
pub fn check<T: DaemonSettings>(settings: &T, findings: &mut Findings) {
    let listeners = settings.listeners();
    if T::SERVES_CLIENTS && listeners.is_empty() {
        findings.error("", "the daemon listens nowhere", "add at least one listen address");
    }
    sections::check_frame(&settings.frame(), &listeners, findings);
    settings.check(findings);
}

#[cfg(test)]
mod tests;
