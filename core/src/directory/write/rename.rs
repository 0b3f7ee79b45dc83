//! Changing the address of a user or an alias everywhere. The directory of the mails stays where it is.

use super::{AccountError, Accounts, Result, domain_of, found, is_taken, taken};
use crate::sql::{Stmt, Transaction, Value};

const USER: Stmt = Stmt::same("SELECT username FROM mailbox WHERE username = ?");
const ALIAS: Stmt = Stmt::same("SELECT address FROM alias WHERE address = ?");

/// New address, its domain, old address.
const RENAME_IN_DOMAIN: &[Stmt] = &[
    Stmt::same("UPDATE mailbox SET username = ?, domain = ? WHERE username = ?"),
    Stmt::same("UPDATE forwardings SET address = ?, domain = ? WHERE address = ?"),
    Stmt::same("UPDATE forwardings SET forwarding = ?, dest_domain = ? WHERE forwarding = ?"),
    Stmt::same("UPDATE moderators SET moderator = ?, dest_domain = ? WHERE moderator = ?"),
    Stmt::same("UPDATE maillist_owners SET owner = ?, dest_domain = ? WHERE owner = ?"),
    Stmt::same("UPDATE sender_bcc_user SET username = ?, domain = ? WHERE username = ?"),
    Stmt::same("UPDATE recipient_bcc_user SET username = ?, domain = ? WHERE username = ?"),
    Stmt::same("UPDATE used_quota SET username = ?, domain = ? WHERE username = ?"),
    Stmt::same("UPDATE last_login SET username = ?, domain = ? WHERE username = ?"),
];
/// New address, old address.
const RENAME: &[Stmt] = &[
    Stmt::same("UPDATE sender_bcc_user SET bcc_address = ? WHERE bcc_address = ?"),
    Stmt::same("UPDATE recipient_bcc_user SET bcc_address = ? WHERE bcc_address = ?"),
    Stmt::same("UPDATE sender_bcc_domain SET bcc_address = ? WHERE bcc_address = ?"),
    Stmt::same("UPDATE recipient_bcc_domain SET bcc_address = ? WHERE bcc_address = ?"),
    Stmt::same("UPDATE domain_admins SET username = ? WHERE username = ?"),
    Stmt::same("UPDATE sender_relayhost SET account = ? WHERE account = ?"),
    Stmt::same("UPDATE share_folder SET from_user = ? WHERE from_user = ?"),
    Stmt::same("UPDATE share_folder SET to_user = ? WHERE to_user = ?"),
    Stmt::same("UPDATE anyone_shares SET from_user = ? WHERE from_user = ?"),
];
/// The tables an alias is in: new address, its domain, old address.
const RENAME_ALIAS: &[Stmt] = &[
    Stmt::same("UPDATE alias SET address = ?, domain = ? WHERE address = ?"),
    Stmt::same("UPDATE forwardings SET address = ?, domain = ? WHERE address = ?"),
    Stmt::same("UPDATE forwardings SET forwarding = ?, dest_domain = ? WHERE forwarding = ?"),
    Stmt::same("UPDATE moderators SET address = ?, domain = ? WHERE address = ?"),
];

impl Accounts {
    /// Gives a mail user another address in the same domain.
    ///
    /// # Errors
    /// `NoSuchAccount`, `AlreadyExists`.
    pub async fn rename_user(&self, old: &str, new: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        check(&mut tx, &USER, old, new).await?;
        rename(&mut tx, RENAME_IN_DOMAIN, old, new).await?;
        for stmt in RENAME {
            tx.execute(stmt, &[new.into(), old.into()]).await.map_err(taken)?;
        }
        tx.commit().await?;
        self.rename_traces(old, new).await;
        Ok(())
    }

    /// Gives an alias another address in the same domain.
    ///
    /// # Errors
    /// `NoSuchAccount`, `AlreadyExists`.
    pub async fn rename_alias(&self, old: &str, new: &str) -> Result<()> {
        let mut tx = self.vmail.begin().await?;
        check(&mut tx, &ALIAS, old, new).await?;
        rename(&mut tx, RENAME_ALIAS, old, new).await?;
        Ok(tx.commit().await?)
    }
}

async fn check(tx: &mut Transaction, exists: &Stmt, old: &str, new: &str) -> Result<()> {
    if !found(tx, exists, &[old.into()]).await? {
        return Err(AccountError::NoSuchAccount);
    }
    if is_taken(tx, new).await? { Err(AccountError::AlreadyExists) } else { Ok(()) }
}

async fn rename(tx: &mut Transaction, stmts: &[Stmt], old: &str, new: &str) -> Result<()> {
    for stmt in stmts {
        let args: [Value; 3] = [new.into(), domain_of(new).into(), old.into()];
        tx.execute(stmt, &args).await.map_err(taken)?;
    }
    Ok(())
}
