//! Sample accounts, written with plain SQL so that a test shows which rows it depends on.

use anyhow::Result;

use crate::dovecot::NODE;
use crate::store::Store;

/// The password of every sample user.
pub const PASSWORD: &str = "correct horse";

/// Adds accounts to the vmail database.
#[derive(Debug)]
pub struct Accounts<'a> {
    store: &'a dyn Store,
    /// The `storagebasedirectory` of new mailboxes.
    storage: String,
}

impl<'a> Accounts<'a> {
    /// Accounts whose mail lies below `storage`.
    pub fn new(store: &'a dyn Store, storage: &str) -> Self {
        Self { store, storage: storage.to_owned() }
    }

    /// A hosted domain whose mail goes to Dovecot by LMTP.
    pub fn domain(&self, domain: &str) -> Result<()> {
        self.store.execute(
            "vmail",
            &format!(
                "INSERT INTO domain (domain, transport, settings) VALUES \
                 ('{domain}', 'lmtp:unix:private/dovecot-lmtp', 'default_user_quota:1024;')"
            ),
        )
    }

    /// Another name for a hosted domain.
    pub fn alias_domain(&self, alias: &str, target: &str) -> Result<()> {
        self.store.execute(
            "vmail",
            &format!("INSERT INTO alias_domain (alias_domain, target_domain) VALUES ('{alias}', '{target}')"),
        )
    }

    /// A mailbox with a quota in MB (0: none) and the row that delivers to it.
    pub fn user(&self, address: &str, quota: u32) -> Result<()> {
        let (local, domain) = parts(address)?;
        self.store.execute(
            "vmail",
            &format!(
                "INSERT INTO mailbox (username, password, storagebasedirectory, storagenode, maildir, quota, domain) VALUES \
                 ('{address}', '{{PLAIN}}{PASSWORD}', '{}', '{NODE}', '{domain}/{local}/', {quota}, '{domain}')",
                self.storage
            ),
        )?;
        self.forwarding(address, address, "is_forwarding")
    }

    /// Lets `address` deliver to `target` as well. `kind` is the flag that is set: `is_forwarding`, `is_alias`, `is_list`, `is_maillist`.
    pub fn forwarding(&self, address: &str, target: &str, kind: &str) -> Result<()> {
        let (_, domain) = parts(address)?;
        let (_, target_domain) = parts(target)?;
        self.store.execute(
            "vmail",
            &format!(
                "INSERT INTO forwardings (address, forwarding, domain, dest_domain, {kind}) VALUES \
                 ('{address}', '{target}', '{domain}', '{target_domain}', 1)"
            ),
        )
    }

    /// Removes a delivery, for example that of a user to the own mailbox.
    pub fn remove_forwarding(&self, address: &str, target: &str) -> Result<()> {
        self.store.execute(
            "vmail",
            &format!("DELETE FROM forwardings WHERE address = '{address}' AND forwarding = '{target}'"),
        )
    }

    /// Says how many bytes a mailbox holds.
    pub fn used_quota(&self, address: &str, bytes: u64) -> Result<()> {
        let (_, domain) = parts(address)?;
        self.store.execute(
            "vmail",
            &format!(
                "DELETE FROM used_quota WHERE username = '{address}'; \
                 INSERT INTO used_quota (username, bytes, messages, domain) VALUES ('{address}', {bytes}, 1, '{domain}')"
            ),
        )
    }
}

fn parts(address: &str) -> Result<(&str, &str)> {
    address.split_once('@').ok_or_else(|| anyhow::anyhow!("{address} is not an address"))
}
