//! Giving up root, for daemons that are started by root without a service manager.
//!
//! Order: sockets are bound and secrets read, then [`Account::become_it`]: `setgroups`, `setgid`, `setuid`, and a check
//! that there is no way back. It happens before the runtime starts threads.

use std::io;
use std::path::Path;

use nix::unistd::{self, Gid, Group, Uid, User};

use crate::settings::ProcessSettings;

/// Why the daemon cannot run as the account that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("user {0:?} of process.user does not exist")]
    NoUser(String),
    /// There is no such group.
    #[error("group {0:?} of the section process does not exist")]
    NoGroup(String),
    /// Only root can become another user.
    #[error("cannot become user {0:?}: not started by root")]
    NotRoot(String),
    /// The operating system refused one of the steps.
    #[error("cannot give up privileges ({0}): {1}")]
    Refused(&'static str, #[source] io::Error),
    /// The process could still become root.
    #[error("privileges were not given up: {0}")]
    NotDropped(&'static str),
}

impl PrivilegeError {
    /// The exit status (conventions: 77, 78).
    pub fn exit_code(&self) -> u8 {
        match self {
            PrivilegeError::NoUser(_) | PrivilegeError::NoGroup(_) => 78,
            _ => 77,
        }
    }
}

/// The identity to run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Account {
    /// The account that the settings name, `None` if they name none.
    pub fn from_settings(process: &ProcessSettings) -> Result<Option<Account>, PrivilegeError> {
        let Some(name) = &process.user else { return Ok(None) };
        let user =
            User::from_name(name).ok().flatten().ok_or_else(|| PrivilegeError::NoUser(name.clone()))?;
        let group = match &process.group {
            Some(group) => group_id(group)?,
            None => user.gid,
        };
        let mut groups = vec![group];
        for extra in &process.supplementary_groups {
            let extra = group_id(extra)?;
            if !groups.contains(&extra) {
                groups.push(extra);
            }
        }
        Ok(Some(Account { name: name.clone(), user: user.uid, group, groups }))
    }

    /// The account that a daemon's folder belongs to, for a command that root gives in its place; `None` if that is root
    /// or nobody, or the folder does not exist.
    pub fn owner_of(folder: &Path) -> Option<Account> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(folder).ok()?;
        let owner =
            User::from_uid(Uid::from_raw(meta.uid())).ok().flatten().filter(|user| !user.uid.is_root())?;
        Some(Account { name: owner.name, user: owner.uid, group: owner.gid, groups: vec![owner.gid] })
    }

    /// Gives a file or folder to the account, so that it is still ours afterwards.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        Ok(unistd::chown(path, Some(self.user), Some(self.group))?)
    }

    /// Becomes the account for good. Does nothing if the process runs as that user already.
    pub fn become_it(&self) -> Result<(), PrivilegeError> {
        if unistd::geteuid() == self.user && unistd::getuid() == self.user {
            return Ok(());
        }
        if !unistd::geteuid().is_root() {
            return Err(PrivilegeError::NotRoot(self.name.clone()));
        }
        let refused = |step| move |error: nix::Error| PrivilegeError::Refused(step, error.into());
        unistd::setgroups(&self.groups).map_err(refused("setgroups"))?;
        unistd::setgid(self.group).map_err(refused("setgid"))?;
        unistd::setuid(self.user).map_err(refused("setuid"))?;
        self.verify()
    }

    /// Looks whether every identity of the process is the wanted one and tries to get the old one back.
    fn verify(&self) -> Result<(), PrivilegeError> {
        let users =
            unistd::getresuid().map_err(|error| PrivilegeError::Refused("getresuid", error.into()))?;
        if [users.real, users.effective, users.saved] != [self.user; 3] {
            return Err(PrivilegeError::NotDropped("another user id is left"));
        }
        let groups =
            unistd::getresgid().map_err(|error| PrivilegeError::Refused("getresgid", error.into()))?;
        if [groups.real, groups.effective, groups.saved] != [self.group; 3] {
            return Err(PrivilegeError::NotDropped("another group id is left"));
        }
        let extra =
            unistd::getgroups().map_err(|error| PrivilegeError::Refused("getgroups", error.into()))?;
        if extra.iter().any(|group| !self.groups.contains(group)) {
            return Err(PrivilegeError::NotDropped("another supplementary group is left"));
        }
        if !self.user.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(PrivilegeError::NotDropped("root can be had back"));
        }
        Ok(())
    }
}

fn group_id(name: &str) -> Result<Gid, PrivilegeError> {
    let group = Group::from_name(name).ok().flatten();
    group.map(|group| group.gid).ok_or_else(|| PrivilegeError::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(user: &str, group: Option<&str>) -> ProcessSettings {
        ProcessSettings {
            user: Some(user.to_owned()),
            group: group.map(str::to_owned),
            ..ProcessSettings::default()
        }
    }

    #[test]
    fn names_are_looked_up() {
        assert_eq!(Account::from_settings(&ProcessSettings::default()).unwrap(), None);
        let root = Account::from_settings(&process("root", None)).unwrap().unwrap();
        assert_eq!((root.user, root.group, root.groups.len()), (Uid::from_raw(0), Gid::from_raw(0), 1));
        let missing = Account::from_settings(&process("no-such-user-here", None)).unwrap_err();
        assert_eq!(missing.exit_code(), 78);
        let missing = Account::from_settings(&process("root", Some("no-such-group-here"))).unwrap_err();
        assert!(missing.to_string().contains("no-such-group-here"));
    }
}
