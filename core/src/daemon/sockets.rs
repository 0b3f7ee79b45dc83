//! The sockets of a daemon: those of its clients and those of monitoring.

use crate::net::{self, BindError, BoundListener, Inherited, Socket};
use crate::settings::DaemonSettings;

/// The role of the listeners for metrics and health in the ready line.
pub(super) const METRICS: &str = "metrics";

/// Open sockets that are not yet attached to a runtime.
pub(super) struct Sockets {
    pub(super) listeners: Vec<(BoundListener, Socket)>,
    pub(super) metrics: Vec<(BoundListener, Socket)>,
    /// Metrics sockets that could not be opened: worth a warning, no reason not to serve mail.
    pub(super) missing: Vec<BindError>,
}

/// Opens all sockets, or takes over inherited ones.
pub(super) fn open<S: DaemonSettings>(settings: &S, inherited: Inherited) -> Result<Sockets, BindError> {
    let frame = settings.frame();
    let listeners = net::bind(&settings.listeners(), inherited, frame.process)?;
    let mut sockets = Sockets { listeners, metrics: Vec::new(), missing: Vec::new() };
    for address in &frame.metrics.listen {
        match net::open(address, frame.process) {
            Ok((socket, address)) => sockets.metrics.push((BoundListener { role: METRICS, address }, socket)),
            Err(error) => sockets.missing.push(error),
        }
    }
    Ok(sockets)
}
