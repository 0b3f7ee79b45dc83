//! The session log: rows for `smtp_sessions`, written after the answer was given.
//!
//! Rows wait in a bounded queue; a background task takes what has gathered and writes it in one transaction. When the queue is
//! full (the database is away or too slow) rows are dropped and counted: no client waits for the log.

use std::time::Duration;

use outrider_core::daemon::Shutdown;
use outrider_core::sql::DbError;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::request::{PolicyRequest, State};
use crate::settings::SessionLogSettings;
use crate::store::sessions::{SessionRow, SessionStore};

/// How long a first row waits for others. The table has an index over nearly every column: the fewer commits, the less it takes
/// from those that somebody waits for. Who reads the table right after an answer should find it there all the same.
const GATHERING: Duration = Duration::from_millis(20);
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// After the wish to stop, a queue empty for so long stays empty.
const LAST_REQUESTS: Duration = Duration::from_millis(300);
/// Attempts to write a batch before it is dropped.
const ATTEMPTS: u32 = 30;

/// Where answers leave their rows.
pub(crate) struct SessionLog {
    queue: mpsc::Sender<SessionRow>,
    dropped: Counter,
}

/// The background half.
pub(crate) struct SessionWriter {
    rows: mpsc::Receiver<SessionRow>,
    dropped: Counter,
}

/// A queue of this many rows; `dropped` counts those that did not fit or could not be written.
pub(crate) fn queue(length: usize, dropped: Counter) -> (SessionLog, SessionWriter) {
    let (sender, rows) = mpsc::channel(length.max(1));
    (SessionLog { queue: sender, dropped: dropped.clone() }, SessionWriter { rows, dropped })
}

impl SessionLog {
    /// Leaves a row if the settings want one for this answer.
    pub(crate) fn note(
        &self,
        request: &PolicyRequest,
        action: &str,
        now: i64,
        settings: &SessionLogSettings,
    ) {
        if wanted(request, action, settings) && self.queue.try_send(row(request, action, now)).is_err() {
            self.dropped.inc();
        }
    }
}

/// The state is compared exactly here, unlike elsewhere: so it has always been.
fn wanted(request: &PolicyRequest, action: &str, settings: &SessionLogSettings) -> bool {
    let passed = action.starts_with("DUNNO");
    let in_question = match request.protocol_state.as_str() {
        "END-OF-MESSAGE" => request.state == Some(State::EndOfMessage),
        "RCPT" => !passed,
        _ => false,
    };
    settings.enabled
        && in_question
        && !(settings.skip_dunno && passed)
        && !(settings.skip_greylisting && action.starts_with("451 4.7.1"))
        && !(settings.skip_whitelisted && action.split(' ').next() == Some("OK"))
}

fn row(request: &PolicyRequest, action: &str, now: i64) -> SessionRow {
    let (word, rest) = action.split_once(' ').unwrap_or((action, ""));
    SessionRow {
        time: now,
        action: word.to_owned(),
        reason: if word == "DUNNO" { String::new() } else { rest.to_owned() },
        instance: request.instance.clone(),
        client_address: request.client_address.clone(),
        client_name: request.client_name.clone(),
        reverse_client_name: request.reverse_client_name.clone(),
        helo_name: request.helo_name.clone(),
        sender: request.sender_without_ext.clone(),
        sender_domain: request.sender_domain.clone(),
        sasl_username: request.sasl_username.clone(),
        sasl_domain: request.sasl_domain.clone(),
        recipient: request.recipient_without_ext.clone(),
        recipient_domain: request.recipient_domain.clone(),
        encryption_protocol: request.encryption_protocol.clone(),
        encryption_cipher: request.encryption_cipher.clone(),
        server_address: request.server_address.clone(),
        server_port: request.server_port.clone(),
    }
}

impl SessionWriter {
    /// Writes rows until `shutdown` asks, and then those that the last requests leave. `store` gives the table of the
    /// settings in force.
    pub(crate) async fn run(mut self, store: impl Fn() -> SessionStore, shutdown: Shutdown) {
        let mut batch = Vec::new();
        loop {
            let most = store().batch();
            tokio::select! {
                _ = self.rows.recv_many(&mut batch, most) => {}
                () = shutdown.wait() => break,
            }
            tokio::select! {
                () = self.gather(&mut batch, most) => {}
                // What has been taken is written before the rest.
                () = shutdown.wait() => {}
            }
            self.write(&batch, &store).await;
            batch.clear();
        }
        let most = store().batch();
        while let Ok(1..) = timeout(LAST_REQUESTS, self.rows.recv_many(&mut batch, most)).await {
            self.write(&batch, &store).await;
            batch.clear();
        }
        self.rows.close();
    }

    /// Takes more rows, until there are enough or it has been long enough.
    async fn gather(&mut self, batch: &mut Vec<SessionRow>, most: usize) {
        let end = tokio::time::sleep(GATHERING);
        tokio::pin!(end);
        while batch.len() < most {
            tokio::select! {
                taken = self.rows.recv_many(batch, most - batch.len()) => if taken == 0 { return },
                () = &mut end => return,
            }
        }
    }

    async fn write(&self, batch: &[SessionRow], store: &impl Fn() -> SessionStore) {
        for attempt in 1..=ATTEMPTS {
            match store().insert(batch).await {
                Ok(()) => return,
                Err(error) if error.is_temporary() && attempt < ATTEMPTS && !self.rows.is_closed() => {
                    if attempt == 1 {
                        tracing::warn!(rows = batch.len(), %error, "the session log has to wait");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return self.write_singly(batch, store(), &error).await,
            }
        }
    }

    /// One bad row does not take the others with it.
    async fn write_singly(&self, batch: &[SessionRow], store: SessionStore, first: &DbError) {
        let mut lost = 0;
        if first.is_temporary() || batch.len() == 1 {
            lost = batch.len() as u64;
        } else {
            for row in batch {
                lost += u64::from(store.insert(std::slice::from_ref(row)).await.is_err());
            }
        }
        if lost > 0 {
            tracing::warn!(rows = lost, error = %first, "rows of the session log are lost");
            self.dropped.inc_by(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn which_answers_leave_a_row() {
        let all = SessionLogSettings::default();
        let none = SessionLogSettings { enabled: false, ..all.clone() };
        let no_dunno = SessionLogSettings { skip_dunno: true, ..all.clone() };
        let no_grey = SessionLogSettings { skip_greylisting: true, ..all.clone() };
        let no_ok = SessionLogSettings { skip_whitelisted: true, ..all.clone() };
        for (state, action, settings, expected) in [
            ("RCPT", "DUNNO", &all, false),
            ("RCPT", "REJECT Blacklisted", &all, true),
            ("rcpt", "REJECT Blacklisted", &all, false),
            ("END-OF-MESSAGE", "DUNNO", &all, true),
            ("END-OF-MESSAGE", "DUNNO", &no_dunno, false),
            ("END-OF-MESSAGE", "REJECT x", &no_dunno, true),
            ("end-of-message", "DUNNO", &all, false),
            ("DATA", "DUNNO", &all, false),
            ("RCPT", "451 4.7.1 later", &no_grey, false),
            ("RCPT", "OK", &no_ok, false),
            ("RCPT", "OK", &all, true),
            ("RCPT", "REJECT x", &none, false),
        ] {
            let request = request(&format!("protocol_state={state}\nsender=\nrecipient=a@example.com"));
            assert_eq!(wanted(&request, action, settings), expected, "{state} {action}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let dropped = Counter::default();
        let (log, _writer) = queue(2, dropped.clone());
        let request = request("protocol_state=RCPT\nsender=\nrecipient=a+x@example.com");
        (0..5).for_each(|_| log.note(&request, "REJECT Not authorized", 7, &SessionLogSettings::default()));
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn rows_hold_addresses_without_extension() {
        let request = request("protocol_state=RCPT\nsender=s+x@example.org\nrecipient=a+x@example.com");
        let row = row(&request, "REJECT Not authorized", 7);
        assert_eq!((row.action.as_str(), row.reason.as_str()), ("REJECT", "Not authorized"));
        assert_eq!((row.sender.as_str(), row.recipient.as_str()), ("s@example.org", "a@example.com"));
    }
}
