//! The spool: one directory a domain, in it one directory a list.
//!
//! A new list is built completely in a hidden directory and appears by one rename, and it vanishes by one rename;
//! nobody ever sees half a list. Whoever changes a list holds the lock of its directory, whoever makes or removes
//! one holds the lock of the domain's directory. What a crash left behind of a list that was being made or removed is
//! swept by the next one that holds the lock. A list on its way to the archive has a hidden name of another form, which
//! is never swept: until its copy is complete it is the only one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::ListAddress;
use super::directory::{Directory, TEMPORARY_PREFIX};
use super::profile::{self, Change};

/// How long a request waits for another one that works on the same list.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Largest template file, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// Directories of a new list, parents first.
const DIRECTORIES: &[&str] = &[
    "archive",
    "bounce",
    "control",
    "digesters.d",
    "incoming",
    "moderation",
    "nomailsubs.d",
    "queue",
    "requeue",
    "subconf",
    "subscribers.d",
    "text",
    "unsubconf",
];

/// Why something in the spool cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SpoolError {
    /// There is no directory for this list.
    #[error("no such list")]
    NoSuchList,
    /// An address that cannot be a directory.
    #[error("the address cannot be a directory name")]
    BadAddress,
    /// The directory of templates, or its sub-directory `en`, is missing.
    #[error("no template directory {0}")]
    NoTemplates(PathBuf),
    /// The file system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, SpoolError>;

/// Names what was being done when the system refused.
pub(crate) trait While<T> {
    fn while_doing(self, what: &'static str) -> Result<T>;
}

impl<T> While<T> for io::Result<T> {
    fn while_doing(self, what: &'static str) -> Result<T> {
        self.map_err(|source| SpoolError::Io { what, source })
    }
}

/// Where the texts of a new list come from.
#[derive(Debug, Clone)]
pub(crate) enum Templates {
    /// A directory named in the settings; it has to hold `en`.
    Required(PathBuf),
    /// The usual place; without it mlmmj uses its built-in texts.
    IfPresent(PathBuf),
}

/// The directories the list API works in.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    /// Lists in use.
    pub(crate) root: PathBuf,
    /// Removed lists; `None` keeps them beside the others.
    pub(crate) archive: Option<PathBuf>,
    /// Texts of new lists.
    pub(crate) templates: Templates,
}

/// A list that is built but not visible yet. Dropping it removes what was built.
#[derive(Debug)]
pub(crate) struct Prepared {
    domain: Directory,
    hidden: Option<String>,
    name: String,
}

/// What [`Spool::prepare`] found or made.
#[derive(Debug)]
pub(crate) enum Creation {
    /// A new list, to be published.
    New(Prepared),
    /// The directory was there; the values were applied to it.
    Existed,
}

fn names(list: &ListAddress) -> Result<(&str, &str)> {
    list.spool_names().ok_or(SpoolError::BadAddress)
}

impl Spool {
    fn open_root(&self) -> Result<Directory> {
        Directory::open_root(&self.root).while_doing("opening the spool")
    }

    /// The path of a list, for programs that want one.
    pub(crate) fn path_of(&self, list: &ListAddress) -> Result<PathBuf> {
        let (domain, name) = names(list)?;
        Ok(self.root.join(domain).join(name))
    }

    /// Opens the directory of a list for reading; `None` if there is none.
    pub(crate) fn open(&self, list: &ListAddress) -> Result<Option<Directory>> {
        let Ok((domain, name)) = names(list) else { return Ok(None) };
        let Some(domain) = self.open_root()?.open(domain).while_doing("opening the domain")? else {
            return Ok(None);
        };
        domain.open(name).while_doing("opening the list")
    }

    /// Opens and locks the directory of a list for changes; the lock ends when the directory is dropped.
    pub(crate) fn lock(&self, list: &ListAddress) -> Result<Option<Directory>> {
        loop {
            let Some(directory) = self.open(list)? else { return Ok(None) };
            directory.lock(LOCK_PATIENCE).while_doing("locking the list")?;
            // Removed, or removed and made anew, while we waited.
            match self.open(list)? {
                Some(current) if current.is_same(&directory).while_doing("checking the lock")? => {
                    sweep(&directory, |entry| entry.starts_with(TEMPORARY_PREFIX))
                        .while_doing("removing left-over files")?;
                    return Ok(Some(directory));
                }
                _ => {}
            }
        }
    }

    /// Builds a new list out of sight, or applies `changes` to the directory that is there already.
    pub(crate) fn prepare(&self, list: &ListAddress, changes: &[Change]) -> Result<Creation> {
        let (domain_name, name) = names(list)?;
        let templates = self.open_templates()?;
        let domain = self.open_root()?.open_or_create(domain_name).while_doing("making the domain")?;
        domain.lock(LOCK_PATIENCE).while_doing("locking the domain")?;
        if domain.exists(name).while_doing("looking for the list")? {
            let directory = self.lock(list)?.ok_or(SpoolError::NoSuchList)?;
            complete(&directory, templates.as_ref()).while_doing("completing the list")?;
            self.apply(&directory, changes)?;
            return Ok(Creation::Existed);
        }
        let left = |entry: &str| is_swept(entry, name);
        sweep(&domain, left).while_doing("removing what a crash left")?;
        let hidden = swept_name(name);
        let prepared = Prepared { domain, hidden: Some(hidden.clone()), name: name.to_owned() };
        let directory = prepared.domain.create(&hidden).while_doing("making the list")?;
        complete(&directory, templates.as_ref()).while_doing("filling the list")?;
        self.apply(&directory, changes)?;
        directory.sync().while_doing("filling the list")?;
        Ok(Creation::New(prepared))
    }

    fn open_templates(&self) -> Result<Option<Directory>> {
        let (path, required) = match &self.templates {
            Templates::Required(path) => (path, true),
            Templates::IfPresent(path) => (path, false),
        };
        let missing = || SpoolError::NoTemplates(path.join("en"));
        match Directory::open_root(&path.join("en")) {
            Ok(directory) => Ok(Some(directory)),
            Err(_) if required => Err(missing()),
            Err(_) => Ok(None),
        }
    }

    /// Makes `changes` in a directory whose lock the caller holds.
    pub(crate) fn apply(&self, directory: &Directory, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let control = directory.open_or_create("control").while_doing("opening the settings")?;
        profile::apply(&control, directory, changes).while_doing("writing the settings")
    }

    /// Removes the directory of a list for good. Nothing happens if there is none.
    pub(crate) fn remove(&self, list: &ListAddress) -> Result<()> {
        let Some((domain, hidden)) = self.hide(list, swept_name)? else { return Ok(()) };
        domain.remove_tree(&hidden).while_doing("removing the list")?;
        domain.sync().while_doing("removing the list")
    }

    /// Moves the directory of a list to the archive under a name that ends in `stamp`, and tells where it is now;
    /// `None` if there was no directory.
    pub(crate) fn archive(&self, list: &ListAddress, stamp: &str) -> Result<Option<PathBuf>> {
        let (domain_name, name) = names(list)?;
        let Some((domain, hidden)) = self.hide(list, archiving_name)? else { return Ok(None) };
        let moved = self.move_to_archive(&domain, &hidden, (domain_name, name), &format!("{name}-{stamp}"));
        if moved.is_err() {
            // The list is as it was, so that the call can be repeated.
            let _ = domain.move_new(&hidden, &domain, name);
        }
        moved.map(Some)
    }

    fn move_to_archive(
        &self,
        from: &Directory,
        hidden: &str,
        (domain_name, list): (&str, &str),
        wanted: &str,
    ) -> Result<PathBuf> {
        const WHAT: &str = "archiving the list";
        let root = self.archive.as_deref().unwrap_or(&self.root);
        let archive = open_or_create_root(root).while_doing(WHAT)?;
        let target = archive.open_or_create(domain_name).while_doing(WHAT)?;
        // Removed, made and removed again within one second.
        for attempt in 0..10 {
            let name = if attempt == 0 { wanted.to_owned() } else { format!("{wanted}-{attempt}") };
            let path = root.join(domain_name).join(&name);
            match from.move_new(hidden, &target, &name) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    copy_over(from, hidden, &target, &name).while_doing(WHAT)?;
                    discard(from, hidden, list);
                    return Ok(path);
                }
                Err(error) => return Err(error).while_doing(WHAT),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists)).while_doing(WHAT)
    }

    /// Gives the directory of a list a hidden name in its domain, once nobody works on it any more.
    fn hide(&self, list: &ListAddress, hidden: fn(&str) -> String) -> Result<Option<(Directory, String)>> {
        const WHAT: &str = "removing the list";
        let Ok((domain_name, name)) = names(list) else { return Ok(None) };
        let Some(domain) = self.open_root()?.open(domain_name).while_doing(WHAT)? else { return Ok(None) };
        domain.lock(LOCK_PATIENCE).while_doing("locking the domain")?;
        let Some(directory) = self.lock(list)? else { return Ok(None) };
        let hidden = hidden(name);
        domain.move_new(name, &domain, &hidden).while_doing(WHAT)?;
        drop(directory);
        Ok(Some((domain, hidden)))
    }

    /// The lists of one domain, or of all, from the directories. Hidden and archived ones are left out.
    pub(crate) fn lists(&self, domain: Option<&str>) -> Result<Vec<ListAddress>> {
        const WHAT: &str = "reading the spool";
        let root = self.open_root()?;
        let domains = match domain {
            Some(domain) => vec![domain.to_owned()],
            None => root.directory_names().while_doing(WHAT)?,
        };
        let mut lists = Vec::new();
        for domain in domains.iter().filter(|name| !name.starts_with('.')) {
            let Some(directory) = root.open(domain).while_doing(WHAT)? else { continue };
            for name in directory.directory_names().while_doing(WHAT)? {
                if let Some(address) = ListAddress::parse(&format!("{name}@{domain}"))
                    && address.local() == name
                    && !is_archived(&directory, &name, &address).while_doing(WHAT)?
                {
                    lists.push(address);
                }
            }
        }
        Ok(lists)
    }
}

/// A directory beside the lists whose `listaddress` names another list is one that was removed and kept.
fn is_archived(domain: &Directory, name: &str, address: &ListAddress) -> io::Result<bool> {
    let Some((_, stamp)) = name.rsplit_once('-') else { return Ok(false) };
    if stamp.is_empty() || !stamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(false);
    }
    let Some(list) = domain.open(name)? else { return Ok(true) };
    let Some(control) = list.open("control")? else { return Ok(true) };
    let primary = profile::read_text(&control, "listaddress")?;
    Ok(primary.is_none_or(|text| text.lines().next().unwrap_or("").trim().to_lowercase() != address.as_str()))
}

/// Adds the directories, the index and the texts that are missing.
fn complete(list: &Directory, templates: Option<&Directory>) -> io::Result<()> {
    for name in DIRECTORIES {
        list.open_or_create(name)?;
    }
    list.open_or_create("queue")?.open_or_create("discarded")?;
    if !list.exists("index")? {
        list.write_new("index", b"")?;
    }
    let Some(templates) = templates else { return Ok(()) };
    let texts = list.open_or_create("text")?;
    for name in templates.names()? {
        // A template directory may hold links and sub-directories; only regular files are texts.
        if !texts.exists(&name)?
            && let Ok(Some(text)) = templates.read(&name, MAX_TEMPLATE)
        {
            texts.write_new(&name, &text)?;
        }
    }
    Ok(())
}

/// A hidden name for a list that is not there yet or no longer, and that may be swept.
fn swept_name(list: &str) -> String {
    format!(".{list}.{}", uuid::Uuid::new_v4().simple())
}

/// Whether `entry` is a [`swept_name`] of the list.
fn is_swept(entry: &str, list: &str) -> bool {
    let rest = entry.strip_prefix('.').and_then(|entry| entry.strip_prefix(list));
    rest.and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A hidden name for a list on its way to the archive. The list's own name stands at the end, so that this is no
/// [`swept_name`] of a list called `archive` or `archive.NAME`.
fn archiving_name(list: &str) -> String {
    format!(".archive.{}.{list}", uuid::Uuid::new_v4().simple())
}

/// Removes the entries that are `left` over; the caller holds the lock that every maker of such names holds.
fn sweep(directory: &Directory, left: impl Fn(&str) -> bool) -> io::Result<()> {
    let directories = directory.directory_names()?;
    for name in directory.names()?.iter().filter(|name| left(name)) {
        if directories.contains(name) {
            directory.remove_tree(name)?;
        } else {
            directory.remove(name)?;
        }
    }
    Ok(())
}

fn copy_over(from: &Directory, hidden: &str, target: &Directory, name: &str) -> io::Result<()> {
    let temporary = super::directory::temporary_name();
    let Some(source) = from.open(hidden)? else { return Err(io::ErrorKind::NotFound.into()) };
    let copied = target
        .create(&temporary)
        .and_then(|copy| source.copy_tree(&copy))
        .and_then(|()| target.move_new(&temporary, target, name));
    if let Err(error) = copied {
        let _ = target.remove_tree(&temporary);
        return Err(error);
    }
    Ok(())
}

/// Removes what was copied to the archive. The archive is complete by now, so a failure is no reason to undo anything:
/// what stays is half a list, to be swept when one of this name is made again.
fn discard(domain: &Directory, hidden: &str, list: &str) {
    let name = swept_name(list);
    let removed = domain.move_new(hidden, domain, &name).and_then(|()| domain.remove_tree(&name));
    if let Err(error) = removed {
        tracing::warn!(event = "archived list not removed", list, error = %error);
    }
}

fn open_or_create_root(path: &Path) -> io::Result<Directory> {
    match Directory::open_root(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            Directory::open_root(path)
        }
        opened => opened,
    }
}

impl Prepared {
    /// Makes the list visible.
    pub(crate) fn publish(mut self) -> Result<()> {
        let Some(hidden) = self.hidden.take() else { return Ok(()) };
        let published = self.domain.move_new(&hidden, &self.domain, &self.name);
        if published.is_err() {
            self.hidden = Some(hidden);
        }
        published.while_doing("publishing the list")
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(hidden) = self.hidden.take() {
            // Hidden names are swept by the next creation, so nothing is lost if this fails.
            let _ = self.domain.remove_tree(&hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parameters::Parameters;
    use std::os::unix::fs::symlink;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        std::fs::create_dir_all(folder.path().join("skel/en")).unwrap();
        std::fs::write(folder.path().join("skel/en/help"), "Subject: help\n").unwrap();
        let spool = Spool {
            root: folder.path().join("spool"),
            archive: Some(folder.path().join("archive")),
            templates: Templates::Required(folder.path().join("skel")),
        };
        (folder, spool)
    }

    fn address(text: &str) -> ListAddress {
        ListAddress::parse(text).unwrap()
    }

    fn create(spool: &Spool, list: &str) {
        let list = address(list);
        match spool.prepare(&list, &profile::create(&list, &Parameters::default())).unwrap() {
            Creation::New(prepared) => prepared.publish().unwrap(),
            Creation::Existed => panic!("existed"),
        }
    }

    #[test]
    fn a_list_appears_complete_or_not_at_all() {
        let (folder, spool) = spool();
        let list = address("list@example.com");
        let changes = profile::create(&list, &Parameters::default());
        let Creation::New(prepared) = spool.prepare(&list, &changes).unwrap() else { panic!("existed") };
        assert!(spool.open(&list).unwrap().is_none());
        assert_eq!(spool.lists(None).unwrap(), []);
        drop(prepared);
        assert_eq!(std::fs::read_dir(folder.path().join("spool/example.com")).unwrap().count(), 0);
        create(&spool, "list@example.com");
        let root = folder.path().join("spool/example.com/list");
        for entry in ["queue/discarded", "subscribers.d", "control/listaddress", "index", "text/help"] {
            assert!(root.join(entry).exists(), "{entry}");
        }
        assert_eq!(spool.lists(None).unwrap(), [list]);
    }

    #[test]
    fn what_a_crash_left_is_swept() {
        let (folder, spool) = spool();
        let domain = folder.path().join("spool/example.com");
        let left = domain.join(swept_name("list"));
        std::fs::create_dir_all(left.join("control")).unwrap();
        let others =
            [swept_name("other"), swept_name("list.x"), archiving_name("list"), ".list.mine".to_owned()];
        for other in &others {
            std::fs::create_dir(domain.join(other)).unwrap();
        }
        create(&spool, "list@example.com");
        assert!(!left.exists());
        assert!(others.iter().all(|other| domain.join(other).exists()));
        assert!(
            !is_swept(&archiving_name("list"), "archive") && !is_swept(&archiving_name("x"), "archive.x")
        );
        std::fs::write(domain.join("list/.outrider-1"), "half").unwrap();
        spool.lock(&address("list@example.com")).unwrap().unwrap();
        assert!(!domain.join("list/.outrider-1").exists());
    }

    #[test]
    fn archiving_keeps_the_directory_itself() {
        let (folder, spool) = spool();
        create(&spool, "list@example.com");
        let list = address("list@example.com");
        let path = spool.archive(&list, "20250315000000").unwrap().unwrap();
        assert_eq!(path, folder.path().join("archive/example.com/list-20250315000000"));
        assert!(path.join("control/listaddress").exists());
        assert_eq!(spool.archive(&list, "20250315000000").unwrap(), None);
        create(&spool, "list@example.com");
        let again = spool.archive(&list, "20250315000000").unwrap().unwrap();
        assert_eq!(again, folder.path().join("archive/example.com/list-20250315000000-1"));
    }

    #[test]
    fn what_cannot_be_removed_after_its_copy_does_not_come_back() {
        let (folder, _spool) = spool();
        let path = folder.path().join("domain");
        std::fs::create_dir_all(path.join(".archive.1.list/control")).unwrap();
        std::fs::create_dir(folder.path().join("target")).unwrap();
        let domain = Directory::open_root(&path).unwrap();
        let target = Directory::open_root(&folder.path().join("target")).unwrap();
        copy_over(&domain, ".archive.1.list", &target, "list-1").unwrap();
        assert!(target.open("list-1").unwrap().unwrap().exists("control").unwrap());
        // Nested deeper than anything that is removed.
        std::fs::create_dir_all(path.join(".archive.1.list").join("d/".repeat(40))).unwrap();
        discard(&domain, ".archive.1.list", "list");
        let left = domain.names().unwrap();
        assert!(left.len() == 1 && is_swept(&left[0], "list"), "{left:?}");
    }

    #[test]
    fn archived_lists_beside_the_others_are_no_lists() {
        let (_folder, mut spool) = spool();
        spool.archive = None;
        create(&spool, "list@example.com");
        create(&spool, "team-2025@example.com");
        spool.archive(&address("list@example.com"), "20250315000000").unwrap().unwrap();
        assert_eq!(spool.lists(Some("example.com")).unwrap(), [address("team-2025@example.com")]);
    }

    #[test]
    fn removal_is_complete_and_may_be_repeated() {
        let (folder, spool) = spool();
        create(&spool, "list@example.com");
        for _ in 0..2 {
            spool.remove(&address("list@example.com")).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path().join("spool/example.com")).unwrap().count(), 0);
    }

    #[test]
    fn planted_links_are_refused_everywhere() {
        let (folder, spool) = spool();
        let outside = folder.path().join("outside");
        std::fs::create_dir_all(outside.join("list/control")).unwrap();
        std::fs::write(outside.join("list/control/owner"), "keep\n").unwrap();
        symlink(&outside, folder.path().join("spool/linked.example")).unwrap();
        std::fs::create_dir(folder.path().join("spool/example.com")).unwrap();
        symlink(outside.join("list"), folder.path().join("spool/example.com/list")).unwrap();
        for list in ["list@linked.example", "list@example.com"] {
            let list = address(list);
            let changes = profile::create(&list, &Parameters::default());
            assert!(spool.open(&list).is_err(), "{list}");
            assert!(spool.lock(&list).is_err(), "{list}");
            assert!(spool.prepare(&list, &changes).is_err(), "{list}");
            assert!(spool.remove(&list).is_err(), "{list}");
            assert!(spool.archive(&list, "1").is_err(), "{list}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("list/control/owner")).unwrap(), "keep\n");
        assert_eq!(std::fs::read_dir(outside.join("list/control")).unwrap().count(), 1);
    }

    #[test]
    fn the_template_directory_named_in_the_settings_has_to_exist() {
        let (folder, mut spool) = spool();
        let list = address("list@example.com");
        spool.templates = Templates::Required(folder.path().join("missing"));
        assert!(matches!(spool.prepare(&list, &[]), Err(SpoolError::NoTemplates(_))));
        spool.templates = Templates::IfPresent(folder.path().join("missing"));
        assert!(matches!(spool.prepare(&list, &[]), Ok(Creation::New(_))));
    }

    #[test]
    fn two_creators_at_once_make_one_list() {
        let (_folder, spool) = spool();
        let made = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let list = address("list@example.com");
                        let changes = profile::create(&list, &Parameters::default());
                        match spool.prepare(&list, &changes).unwrap() {
                            Creation::New(prepared) => {
                                prepared.publish().unwrap();
                                1
                            }
                            Creation::Existed => 0,
                        }
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum::<i32>()
        });
        assert_eq!(made, 1);
    }
}
