//! mlmmj lists in a spool of their own, as the administration panel makes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{User, chown};

use crate::folder::Folder;
use crate::store::Store;

/// The account that owns the lists; Debian's package brings none, and any unprivileged one will do.
pub const ACCOUNT: &str = "nobody";

/// The folders of a list.
const FOLDERS: [&str; 15] = [
    "archive",
    "bounce",
    "control",
    "digesters.d",
    "incoming",
    "moderation",
    "nomailsubs.d",
    "queue",
    "queue/discarded",
    "requeue",
    "subconf",
    "subscribers.d",
    "text",
    "unsubconf",
    "",
];

/// A spool folder with lists in it.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
}

impl Spool {
    /// An empty spool.
    pub fn new() -> Result<Self> {
        let folder = Folder::new("ml")?;
        give_away(folder.path())?;
        Ok(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a list whose posts leave through `smtp_port`, with its rows in the database.
    pub fn create(
        &self,
        store: &dyn Store,
        address: &str,
        subscribers: &[&str],
        smtp_port: u16,
    ) -> Result<()> {
        let (local, domain) =
            address.split_once('@').with_context(|| format!("{address} is not an address"))?;
        let list = self.folder.path().join(domain).join(local);
        for name in FOLDERS {
            fs::create_dir_all(list.join(name))?;
        }
        let write = |name: &str, text: String| {
            fs::write(list.join(name), text).with_context(|| format!("writing {name}"))
        };
        write("index", String::new())?;
        write("control/listaddress", format!("{address}\n"))?;
        write("control/owner", format!("postmaster@{domain}\n"))?;
        write("control/relayhost", "127.0.0.1\n".to_owned())?;
        write("control/smtpport", format!("{smtp_port}\n"))?;
        write(
            "control/customheaders",
            format!("Precedence: bulk\nList-Id: <{local}.{domain}>\nList-Post: <mailto:{address}>\n"),
        )?;
        for subscriber in subscribers {
            // One file for each first letter.
            let file = list.join("subscribers.d").join(&subscriber[..1]);
            let known = fs::read_to_string(&file).unwrap_or_default();
            fs::write(file, format!("{known}{subscriber}\n"))?;
        }
        for text in fs::read_dir("/usr/share/mlmmj/text.skel/en").context("mlmmj is not installed")?.flatten()
        {
            fs::copy(text.path(), list.join("text").join(text.file_name()))?;
        }
        give_away(&self.folder.path().join(domain))?;
        store.execute(
            "vmail",
            &format!(
                "INSERT INTO maillists (address, domain, transport, mlid) VALUES \
                 ('{address}', '{domain}', 'mlmmj:{domain}/{local}', '{local}'); \
                 INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_maillist) VALUES \
                 ('{address}', '{address}', '{domain}', '{domain}', 1)"
            ),
        )
    }

    /// The posts in the archive of a list.
    pub fn archived(&self, address: &str) -> usize {
        let (local, domain) = address.split_once('@').unwrap_or((address, ""));
        fs::read_dir(self.folder.path().join(domain).join(local).join("archive")).map_or(0, Iterator::count)
    }
}

/// Hands a folder and everything in it to the lists' account.
fn give_away(path: &Path) -> Result<()> {
    let account = User::from_name(ACCOUNT)?.with_context(|| format!("account {ACCOUNT} is missing"))?;
    let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        chown(&path, Some(account.uid), Some(account.gid))?;
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
        }
    }
    Ok(())
}
