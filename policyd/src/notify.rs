//! Mail to the administrator when a throttle limit is exceeded.
//!
//! Notices are handed to a background task over a short queue, so that no client waits for the mail system; what does
//! not fit into the queue is dropped, for the next period will bring another one. The way out is a submission service
//! if its password is set, else the program `sendmail`.

mod bounded;
mod sendmail;
mod submission;

use std::error::Error;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::limit::Limit;
use crate::settings::NotificationSettings;

/// Notices that may wait.
const QUEUE: usize = 32;
/// How long sending one may take, whichever way.
const PATIENCE: Duration = Duration::from_secs(30);

/// One exceeded limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose limit: a login, a sender, a recipient or a client.
    pub user: String,
    /// The client's address.
    pub client_address: String,
    /// `outbound`, `inbound` or `external`.
    pub kind: &'static str,
    /// Which one: [`Limit::MaxMsgs`] or [`Limit::MaxQuota`].
    pub limit: Limit,
    /// Its value.
    pub value: i64,
    /// The settings rows, that of the limit first: `id=1/max_msgs=10/account=@.`
    pub setting: String,
}

impl Notice {
    fn unit(&self) -> &'static str {
        if self.limit == Limit::MaxQuota { "bytes" } else { "" }
    }

    /// The whole message, with line ends as a mail program wants them.
    fn message(&self, settings: &NotificationSettings) -> String {
        let line = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
        let limit = format!("{} {}", self.value, self.unit());
        let limit = limit.trim_end();
        let user = line(&self.user);
        format!(
            "From: {} <{}>\nTo: {}\nSubject: Throttle quota exceeded: {user}, {}={limit}\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\
             Auto-Submitted: auto-generated\n\n\
             - User: {user}\n- Client IP address: {}\n- Throttle type: {}\n- Throttle setting: {}\n\
             - Limit: {limit}\n- Detailed setting: {}\n",
            line(&settings.sender_name),
            line(&settings.sender),
            settings.recipients.iter().map(|name| line(name)).collect::<Vec<_>>().join(", "),
            self.limit.name(),
            line(&self.client_address),
            self.kind,
            self.limit.name(),
            line(&self.setting),
        )
    }
}

/// Takes notices.
pub struct Notifier {
    queue: Option<mpsc::Sender<Notice>>,
}

/// Sends them.
struct NoticeTask {
    notices: mpsc::Receiver<Notice>,
    settings: NotificationSettings,
}

impl Notifier {
    /// A notifier whose background half runs as long as itself; without recipients it drops everything.
    pub fn start(settings: &NotificationSettings) -> Notifier {
        if settings.recipients.is_empty() {
            return Notifier { queue: None };
        }
        let (notifier, task) = Notifier::halves(settings);
        tokio::spawn(task.run());
        notifier
    }

    fn halves(settings: &NotificationSettings) -> (Notifier, NoticeTask) {
        let (sender, notices) = mpsc::channel(QUEUE);
        (Notifier { queue: Some(sender) }, NoticeTask { notices, settings: settings.clone() })
    }

    /// Passes a notice on without waiting.
    pub fn send(&self, notice: Notice) {
        if let Some(queue) = &self.queue
            && queue.try_send(notice).is_err()
        {
            tracing::debug!("throttle notice dropped: too many are waiting");
        }
    }
}

impl NoticeTask {
    /// Sends notices until the notifier is gone.
    async fn run(mut self) {
        while let Some(notice) = self.notices.recv().await {
            match timeout(PATIENCE, self.deliver(&notice)).await {
                Ok(Ok(())) => tracing::debug!(kind = notice.kind, "throttle notice sent"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot send a throttle notice"),
                Err(_) => {
                    tracing::warn!(limit = ?PATIENCE, "cannot send a throttle notice: it takes too long")
                }
            }
        }
    }

    async fn deliver(&self, notice: &Notice) -> Result<(), Box<dyn Error + Send + Sync>> {
        let message = notice.message(&self.settings);
        match self.settings.submission() {
            Some(password) => Ok(submission::send(&self.settings, password, &message).await?),
            None => Ok(sendmail::send(&self.settings, &message).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn notice() -> Notice {
        Notice {
            user: "alice@example.com\nBcc: everybody@example.com".into(),
            client_address: "192.0.2.7".into(),
            kind: "outbound",
            limit: Limit::MaxQuota,
            value: 1000,
            setting: "id=1/max_quota=1000/account=@.".into(),
        }
    }

    #[test]
    fn headers_cannot_be_added_by_a_user_name() {
        let message = notice().message(&NotificationSettings::default());
        let (head, text) = message.split_once("\n\n").unwrap();
        assert!(head.lines().all(|line| !line.starts_with("Bcc")));
        assert!(head.contains(", max_quota=1000 bytes\n"));
        assert!(text.contains("- Limit: 1000 bytes\n- Detailed setting: id=1/max_quota=1000/account=@.\n"));
    }

    #[tokio::test]
    async fn notices_reach_the_mail_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sendmail");
        let output = folder.path().join("mail");
        let script = format!("#!/bin/sh\n{{ echo \"$@\"; cat; }} > {}\n", output.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = NotificationSettings { sendmail: program, ..NotificationSettings::default() };
        let (notifier, task) = Notifier::halves(&settings);
        notifier.send(notice());
        drop(notifier);
        task.run().await;
        let mail = std::fs::read_to_string(output).unwrap();
        assert!(
            mail.starts_with("-f no-reply@localhost.localdomain -- root\nFrom: No Reply <no-reply@"),
            "{mail}"
        );
        assert!(mail.contains("- User: alice@example.comBcc: everybody@example.com\n"));
    }

    #[tokio::test]
    async fn a_full_queue_blocks_nobody() {
        let (notifier, _task) = Notifier::halves(&NotificationSettings::default());
        (0..QUEUE + 5).for_each(|_| notifier.send(notice()));
        let silent = NotificationSettings { recipients: Vec::new(), ..NotificationSettings::default() };
        Notifier::start(&silent).send(notice());
    }
}
