//! The subscribers of a list: three directories, one for each way of getting posts, and in each of them one file
//! for each first character of the addresses, one address a line.
//!
//! mlmmj reads and writes the same files. It locks a file (POSIX record lock) while it appends to it; the same
//! lock is taken here before reading, so that an address it is just adding is not lost. Writers of this process
//! and of other processes of ours are kept apart by the lock of the list directory, which the caller holds.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::address::ListAddress;
use super::directory::Directory;

/// Largest subscriber file that is read: about two million addresses with the same first character.
const MAX_SUBSCRIBER_FILE: u64 = 64 << 20;

/// How a subscriber gets the posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// Each post.
    Normal,
    /// Nothing, but may post.
    Nomail,
    /// A collection now and then.
    Digest,
}

impl Subscription {
    /// In the order in which they are looked at.
    pub(crate) const ALL: [Self; 3] = [Self::Normal, Self::Nomail, Self::Digest];

    /// The subscription a request names; anything unknown means normal.
    pub(crate) fn parse(name: Option<&str>) -> Self {
        match name {
            Some("digest") => Self::Digest,
            Some("nomail") => Self::Nomail,
            _ => Self::Normal,
        }
    }

    /// The name in requests and answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Nomail => "nomail",
            Self::Digest => "digest",
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Normal => "subscribers.d",
            Self::Nomail => "nomailsubs.d",
            Self::Digest => "digesters.d",
        }
    }
}

/// All subscribers with their subscription, in the order of [`Subscription::ALL`].
pub(crate) fn all(list: &Directory) -> io::Result<Vec<(String, Subscription)>> {
    let mut subscribers = Vec::new();
    for subscription in Subscription::ALL {
        let Some(directory) = list.open(subscription.directory())? else { continue };
        for file in directory.names()? {
            let addresses = read(&directory, &file)?.unwrap_or_default();
            subscribers.extend(addresses.into_iter().map(|address| (address, subscription)));
        }
    }
    Ok(subscribers)
}

/// The first subscription that `address` has.
pub(crate) fn find(list: &Directory, address: &ListAddress) -> io::Result<Option<Subscription>> {
    Ok(subscriptions(list, address)?.first().copied())
}

/// All subscriptions that `address` has, in the order of [`Subscription::ALL`].
pub(crate) fn subscriptions(list: &Directory, address: &ListAddress) -> io::Result<Vec<Subscription>> {
    let mut found = Vec::new();
    for subscription in Subscription::ALL {
        if let Some(directory) = list.open(subscription.directory())?
            && let Some(addresses) = read(&directory, address.subscriber_file())?
            && addresses.iter().any(|known| known.to_lowercase() == address.as_str())
        {
            found.push(subscription);
        }
    }
    Ok(found)
}

/// Adds the addresses; those that are there already stay as they are. When this returns they are on disk.
pub(crate) fn add(list: &Directory, addresses: &[ListAddress], subscription: Subscription) -> io::Result<()> {
    let directory = list.open_or_create(subscription.directory())?;
    for (file, addresses) in by_file(addresses) {
        edit(list, &directory, file, |known| {
            // Thousands are added to thousands at once.
            let mut there: HashSet<String> = known.iter().map(|entry| entry.to_lowercase()).collect();
            for address in &addresses {
                if there.insert(address.to_string()) {
                    known.push(address.to_string());
                }
            }
        })?;
    }
    Ok(())
}

/// Removes the addresses from all three directories.
pub(crate) fn remove(list: &Directory, addresses: &[ListAddress]) -> io::Result<()> {
    for subscription in Subscription::ALL {
        let Some(directory) = list.open(subscription.directory())? else { continue };
        for (file, addresses) in by_file(addresses) {
            let gone: HashSet<&str> = addresses.iter().map(|address| address.as_str()).collect();
            edit(list, &directory, file, |known| {
                known.retain(|entry| !gone.contains(entry.to_lowercase().as_str()));
            })?;
        }
    }
    Ok(())
}

/// Removes everybody.
pub(crate) fn remove_all(list: &Directory) -> io::Result<()> {
    for subscription in Subscription::ALL {
        let Some(directory) = list.open(subscription.directory())? else { continue };
        for file in directory.names()? {
            directory.remove(&file)?;
        }
        directory.sync()?;
    }
    Ok(())
}

fn by_file(addresses: &[ListAddress]) -> BTreeMap<&str, Vec<&ListAddress>> {
    let mut files: BTreeMap<&str, Vec<&ListAddress>> = BTreeMap::new();
    for address in addresses {
        files.entry(address.subscriber_file()).or_default().push(address);
    }
    files
}

/// Reads a file, lets `change` work on its addresses and puts the result in its place, if it differs.
fn edit(
    list: &Directory,
    directory: &Directory,
    file: &str,
    change: impl FnOnce(&mut Vec<String>),
) -> io::Result<()> {
    let lock = directory.lock_record(file)?;
    let before = read(directory, file)?;
    let mut addresses = before.clone().unwrap_or_default();
    change(&mut addresses);
    if addresses.is_empty() {
        if before.is_some() && directory.remove(file)? {
            directory.sync()?;
        }
    } else if before.as_ref() != Some(&addresses) {
        directory.replace(list, file, (addresses.join("\n") + "\n").as_bytes())?;
    }
    drop(lock);
    Ok(())
}

/// The addresses of one file, in their order; `None` if there is no such file.
fn read(directory: &Directory, file: &str) -> io::Result<Option<Vec<String>>> {
    let Some(bytes) = directory.read(file, MAX_SUBSCRIBER_FILE)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlmmj::address::parse_addresses;

    fn list() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open_root(folder.path()).unwrap();
        for name in ["subscribers.d", "digesters.d", "nomailsubs.d"] {
            directory.create(name).unwrap();
        }
        (folder, directory)
    }

    fn one(address: &str) -> ListAddress {
        ListAddress::parse(address).unwrap()
    }

    #[test]
    fn adding_finding_and_removing() {
        let (folder, list) = list();
        add(
            &list,
            &parse_addresses("u1@x.example,#c@x.example,u2@x.example,u1@x.example"),
            Subscription::Normal,
        )
        .unwrap();
        add(&list, &parse_addresses("u1@x.example"), Subscription::Digest).unwrap();
        let file = |path: &str| std::fs::read_to_string(folder.path().join(path)).ok();
        assert_eq!(file("subscribers.d/u").unwrap(), "u1@x.example\nu2@x.example\n");
        assert_eq!(file("subscribers.d/#").unwrap(), "#c@x.example\n");
        assert_eq!(find(&list, &one("U1@X.example")).unwrap(), Some(Subscription::Normal));
        assert_eq!(all(&list).unwrap().len(), 4);
        remove(&list, &parse_addresses("u1@x.example,nobody@x.example")).unwrap();
        assert_eq!(
            (file("subscribers.d/u").unwrap().as_str(), file("digesters.d/u")),
            ("u2@x.example\n", None)
        );
        remove_all(&list).unwrap();
        assert_eq!(all(&list).unwrap(), []);
    }

    #[test]
    fn twenty_thousand_subscribers_come_and_go_at_once() {
        let (_folder, list) = list();
        let many: Vec<_> = (0..20_000).map(|number| one(&format!("u{number}@x.example"))).collect();
        for _ in 0..2 {
            add(&list, &many, Subscription::Normal).unwrap();
            assert_eq!(all(&list).unwrap().len(), many.len());
        }
        remove(&list, &many[1..]).unwrap();
        assert_eq!(all(&list).unwrap(), [("u0@x.example".to_owned(), Subscription::Normal)]);
    }

    #[test]
    fn what_mlmmj_wrote_is_understood() {
        let (folder, list) = list();
        std::fs::write(folder.path().join("nomailsubs.d/u"), "Upper@X.example\n\n u@x.example \n").unwrap();
        assert_eq!(find(&list, &one("upper@x.example")).unwrap(), Some(Subscription::Nomail));
        add(&list, &parse_addresses("upper@x.example"), Subscription::Nomail).unwrap();
        remove(&list, &parse_addresses("upper@x.example,u@x.example")).unwrap();
        assert_eq!(all(&list).unwrap(), []);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        let (folder, list) = list();
        std::fs::write(folder.path().join("subscribers.d/u"), b"\xff\xfe@x.example\n").unwrap();
        assert_eq!(all(&list).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(add(&list, &parse_addresses("u@x.example"), Subscription::Normal).is_err());
    }

    #[test]
    fn hundreds_of_concurrent_additions_are_all_kept() {
        let (folder, _list) = list();
        let path = folder.path().to_owned();
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let path = path.clone();
                scope.spawn(move || {
                    for number in 0..25 {
                        let list = Directory::open_root(&path).unwrap();
                        list.lock(std::time::Duration::from_secs(60)).unwrap();
                        let address = one(&format!("u{worker}-{number}@x.example"));
                        add(&list, &[address], Subscription::Normal).unwrap();
                    }
                });
            }
        });
        let list = Directory::open_root(&path).unwrap();
        assert_eq!(all(&list).unwrap().len(), 200);
    }
}
