//! The end of a mail user, with everything the tables of accounts hold about the address.

use super::trace::Whose;
use super::{AccountError, Accounts, Result, found};
use crate::sql::{Stmt, Value};

const EXISTS: Stmt = Stmt::same("SELECT username FROM mailbox WHERE username = ?");
const RECORD: Stmt = Stmt::per_engine(
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, CONCAT(m.storagebasedirectory, '/', m.storagenode, '/', m.maildir), \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, ? \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.username = ?",
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, m.storagebasedirectory || '/' || m.storagenode || '/' || m.maildir, \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, CAST(? AS date) \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.username = ?",
    "INSERT INTO deleted_mailboxes (username, domain, maildir, bytes, messages, admin, delete_date) \
     SELECT m.username, m.domain, m.storagebasedirectory || '/' || m.storagenode || '/' || m.maildir, \
     COALESCE(q.bytes, 0), COALESCE(q.messages, 0), ?, ? \
     FROM mailbox m LEFT JOIN used_quota q ON q.username = m.username WHERE m.username = ?",
);
/// One table and column each; the address is bound once.
const DELETES: &[Stmt] = &[
    Stmt::same("DELETE FROM mailbox WHERE username = ?"),
    Stmt::same("DELETE FROM domain_admins WHERE username = ?"),
    Stmt::same("DELETE FROM recipient_bcc_user WHERE username = ?"),
    Stmt::same("DELETE FROM recipient_bcc_user WHERE bcc_address = ?"),
    Stmt::same("DELETE FROM sender_bcc_user WHERE username = ?"),
    Stmt::same("DELETE FROM sender_bcc_user WHERE bcc_address = ?"),
    Stmt::same("DELETE FROM recipient_bcc_domain WHERE bcc_address = ?"),
    Stmt::same("DELETE FROM sender_bcc_domain WHERE bcc_address = ?"),
    Stmt::same("DELETE FROM used_quota WHERE username = ?"),
    Stmt::same("DELETE FROM last_login WHERE username = ?"),
    Stmt::same("DELETE FROM forwardings WHERE address = ?"),
    Stmt::same("DELETE FROM forwardings WHERE forwarding = ?"),
    Stmt::same("DELETE FROM moderators WHERE moderator = ?"),
    Stmt::same("DELETE FROM maillist_owners WHERE owner = ?"),
    Stmt::same("DELETE FROM sender_relayhost WHERE account = ?"),
    Stmt::same("DELETE FROM share_folder WHERE from_user = ?"),
    Stmt::same("DELETE FROM share_folder WHERE to_user = ?"),
    Stmt::same("DELETE FROM anyone_shares WHERE from_user = ?"),
];

/// Who forwards to a user that goes; without a row of their own those mailboxes would fall to the catch-all.
const FORWARDERS: Stmt = Stmt::same(
    "SELECT DISTINCT address FROM forwardings WHERE forwarding = ? AND address <> ? AND is_forwarding = 1",
);
const STILL_DELIVERED: Stmt =
    Stmt::same("SELECT id FROM forwardings WHERE address = ? AND is_forwarding = 1");
const DELIVER_TO_SELF: Stmt = Stmt::same(
    "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_forwarding, active) \
     SELECT username, username, domain, domain, 1, active FROM mailbox WHERE username = ?",
);

impl Accounts {
    /// Removes a mail user. The mailbox is noted in `deleted_mailboxes`, to be removed from disk on `delete_date`
    /// (`YYYY-MM-DD`; `None`: never).
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub async fn delete_user(&self, username: &str, admin: &str, delete_date: Option<&str>) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        if !found(&mut tx, &EXISTS, &[username.into()]).await? {
            return Err(AccountError::NoSuchAccount);
        }
        let date = delete_date.map_or(Value::Null, Value::time);
        tx.execute(&RECORD, &[admin.into(), date, username.into()]).await?;
        let forwarders = super::column(&mut tx, &FORWARDERS, &[username.into(), username.into()]).await?;
        for stmt in DELETES {
            tx.execute(stmt, &[username.into()]).await?;
        }
        for forwarder in &forwarders {
            if !found(&mut tx, &STILL_DELIVERED, &[forwarder.into()]).await? {
                tx.execute(&DELIVER_TO_SELF, &[forwarder.into()]).await?;
            }
        }
        tx.commit().await?;
        self.remove_traces(Whose::User(username)).await;
        Ok(())
    }
}
