//! Subscriptions that the subscriber has to confirm: `mlmmj-sub -C` writes a pending confirmation and mails the
//! question. The only place of this daemon that starts a program.
//!
//! No shell is involved, the environment is empty, and the arguments are an absolute path and a checked address.
//! The call succeeds when the pending confirmation is on disk; the mail itself may take longer than anybody waits
//! for an answer, so a program that is still sending is left to finish, watched by a task that reaps it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::ListApi;
use super::address::ListAddress;
use super::failure::Failure;
use super::spool::{self, SpoolError, While};
use super::subscriber::Subscription;

/// Where mlmmj-sub is looked for if the settings do not say.
const USUAL_PLACES: &[&str] = &["/usr/bin/mlmmj-sub", "/usr/local/bin/mlmmj-sub"];
/// A program that takes longer than this is ended; it sends one mail.
const LONGEST_RUN: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How confirmations are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The path from the settings, if there is one.
    pub(crate) path: Option<PathBuf>,
    /// How long to wait for the pending confirmation.
    pub(crate) timeout: Duration,
}

impl Program {
    fn find(&self) -> Option<PathBuf> {
        match &self.path {
            Some(path) => Some(path.clone()),
            None => USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.exists()),
        }
    }

    fn start(
        &self,
        list: &Path,
        address: &ListAddress,
        subscription: Subscription,
    ) -> Result<Child, Failure> {
        let program = self.find().ok_or(Failure::SUB_COMMAND_NOT_FOUND)?;
        let mut command = Command::new(&program);
        command.arg("-C").arg("-L").arg(list);
        match subscription {
            Subscription::Normal => {}
            Subscription::Digest => drop(command.arg("-d")),
            Subscription::Nomail => drop(command.arg("-n")),
        }
        command.arg("-a").arg(address.as_str());
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| {
            tracing::error!(event = "mlmmj-sub failed", path = %program.display(), reason = %error);
            match error.kind() {
                std::io::ErrorKind::NotFound => Failure::SUB_COMMAND_NOT_FOUND,
                _ => Failure::SUB_COMMAND_FAILED,
            }
        })
    }
}

impl ListApi {
    /// Asks each address to confirm; a question that is still open is replaced.
    pub(super) async fn ask_to_confirm(
        &self,
        list: ListAddress,
        addresses: &[ListAddress],
        subscription: Subscription,
    ) -> Result<(), Failure> {
        for address in addresses {
            let (of_list, of_address) = (list.clone(), address.clone());
            let path = self
                .files(move |spool| {
                    drop_pending(&spool.lock(&of_list)?.ok_or(SpoolError::NoSuchList)?, &of_address)?;
                    spool.path_of(&of_list)
                })
                .await?;
            // The lock is released: mlmmj-sub works on the same files.
            let child = self.confirm.start(&path, address, subscription)?;
            self.wait_for_pending(&list, address, child).await?;
        }
        Ok(())
    }

    async fn wait_for_pending(
        &self,
        list: &ListAddress,
        address: &ListAddress,
        mut child: Child,
    ) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + self.confirm.timeout;
        loop {
            let ended = child.try_wait().map_err(|error| Failure::fault(&error))?;
            let (of_list, of_address) = (list.clone(), address.clone());
            let pending = self.files(move |spool| {
                let directory = spool.open(&of_list)?.ok_or(SpoolError::NoSuchList)?;
                Ok(!pending(&directory, &of_address)?.is_empty())
            });
            if pending.await? {
                if ended.is_none() {
                    tokio::spawn(reap(child));
                }
                return Ok(());
            }
            if let Some(status) = ended {
                tracing::error!(event = "mlmmj-sub failed", list = %list, reason = %status);
                return Err(Failure::SUB_COMMAND_FAILED);
            }
            if tokio::time::Instant::now() >= deadline {
                tracing::error!(event = "mlmmj-sub failed", list = %list, reason = "no confirmation in time");
                tokio::spawn(reap(child));
                return Err(Failure::SUB_COMMAND_FAILED);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

async fn reap(mut child: Child) {
    if tokio::time::timeout(LONGEST_RUN, child.wait()).await.is_err() {
        tracing::warn!(event = "mlmmj-sub ended", reason = "took too long");
        let _ = child.kill().await;
    }
}

/// The files of open questions to `address`: 16 random characters, a hyphen, the address with `=` for `@`.
fn pending(list: &super::directory::Directory, address: &ListAddress) -> spool::Result<Vec<String>> {
    const WHAT: &str = "reading pending confirmations";
    let Some(directory) = list.open("subconf").while_doing(WHAT)? else { return Ok(Vec::new()) };
    let suffix = format!("-{}", address.as_str().replace('@', "="));
    let mut names = directory.names().while_doing(WHAT)?;
    names.retain(|name| name.len() == 16 + suffix.len() && name.ends_with(&suffix));
    Ok(names)
}

fn drop_pending(list: &super::directory::Directory, address: &ListAddress) -> spool::Result<()> {
    const WHAT: &str = "removing pending confirmations";
    let names = pending(list, address)?;
    if let Some(directory) = list.open("subconf").while_doing(WHAT)? {
        for name in names {
            directory.remove(&name).while_doing(WHAT)?;
        }
    }
    Ok(())
}
