//! Talking to the service manager: state, status text and watchdog (sd_notify(3)).
//!
//! Everything here does nothing when `$NOTIFY_SOCKET` is not set, so that daemons run the same without systemd.

use std::time::Duration;

use sd_notify::NotifyState;

/// Sends states; a failure is only worth a debug line, the service works without.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(event = "service manager not notified", reason = %error);
    }
}

/// The listeners are open and the settings are good.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Settings are being read again; [`ready`] ends it. The time stamp is what `Type=notify-reload` waits for.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// The daemon is going down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// What `systemctl status` shows.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// A line end would begin another variable of the notification.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// How often the service manager wants a sign of life (`$WATCHDOG_USEC` for this process), if it does.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Sends one sign of life after the event loop has shown that it turns.
///
/// A new task must be scheduled and finished within `patience`: with all worker threads stuck this never happens, the
/// sign stays away and the service manager restarts the daemon.
pub async fn prove_progress(patience: Duration) -> bool {
    let turned = tokio::time::timeout(patience, tokio::spawn(tokio::task::yield_now())).await;
    let alive = matches!(turned, Ok(Ok(())));
    if alive {
        send(&[NotifyState::Watchdog]);
    }
    alive
}
