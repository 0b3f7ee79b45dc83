//! A directory held by its descriptor, and what is done to the entries below it.
//!
//! Everything the list API does to the spool goes through this type: each step names one entry of one open
//! directory, no step follows a symbolic link, and a name that is not a plain entry name is refused. So a path
//! built from an address cannot leave the spool, whatever the address and whatever somebody planted there.
//!
//! A file is never changed in place: the new content is written beside it, synchronised and renamed over the old
//! one, because mlmmj may open any file at any moment. All calls block; use them on the blocking pool.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, RenameFlags, fcntl, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Permissions of every directory below the spool.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
/// Permissions of every file below the spool.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o600);
/// Names of temporary files and directories start with this; mlmmj never looks at them.
pub(crate) const TEMPORARY_PREFIX: &str = ".outrider-";
/// Directories nested deeper than this are not ours; a list has three levels.
const MAX_DEPTH: usize = 16;
/// How long to wait for mlmmj, which holds the lock of a file while it writes one line.
const RECORD_LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
}

/// Refuses everything that is not the plain name of one directory entry.
fn entry_name(name: &str) -> io::Result<&str> {
    let plain = !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= 255
        && !name.bytes().any(|byte| byte == b'/' || byte == 0);
    if plain { Ok(name) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name")) }
}

/// A fresh name for something temporary.
pub(crate) fn temporary_name() -> String {
    format!("{TEMPORARY_PREFIX}{}", uuid::Uuid::new_v4().simple())
}

impl Directory {
    /// Opens the directory an administrator named in the settings; this path may contain links.
    pub(crate) fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::from(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// Opens the directory `name` below this one; `None` if there is no such entry.
    ///
    /// # Errors
    /// A link or a file of that name is an error, not "missing".
    pub(crate) fn open(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.file, entry_name(name)?, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self::from(fd))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory `name`, making it first where it is missing.
    pub(crate) fn open_or_create(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.file, entry_name(name)?, DIRECTORY_MODE) {
            Ok(()) => self.sync()?,
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.open(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Makes the directory `name`, which must not exist yet, and opens it.
    pub(crate) fn create(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.file, entry_name(name)?, DIRECTORY_MODE)?;
        self.open(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Whether there is an entry `name`, of whatever kind.
    pub(crate) fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.stat(name)?.is_some())
    }

    fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        match fstatat(&self.file, entry_name(name)?, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the regular file `name` of at most `limit` bytes; `None` if it does not exist.
    pub(crate) fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK: a planted FIFO must not hang the reader; it is refused below.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.file, entry_name(name)?, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut content = Vec::new();
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file too large"));
        }
        Ok(Some(content))
    }

    /// Puts `content` into the file `name` in one step. The temporary file is made in `scratch`, a directory of
    /// the same file system, because mlmmj takes every file of a subscriber directory for a list of subscribers.
    pub(crate) fn replace(&self, scratch: &Self, name: &str, content: &[u8]) -> io::Result<()> {
        entry_name(name)?;
        let temporary = temporary_name();
        let written = scratch
            .write_new(&temporary, content)
            .and_then(|()| Ok(renameat(&scratch.file, temporary.as_str(), &self.file, name)?));
        if let Err(error) = written {
            let _ = scratch.remove(&temporary);
            return Err(error);
        }
        self.sync()
    }

    /// Writes the file `name`, which must not exist yet, and synchronises it.
    pub(crate) fn write_new(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.file, entry_name(name)?, flags, FILE_MODE)?);
        file.write_all(content)?;
        file.sync_all()
    }

    /// Removes the file `name`; a missing one is no error. A link is removed itself, never what it points to.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match unlinkat(&self.file, entry_name(name)?, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames the entry `name` to `new_name` in `target`, which must not have such an entry yet.
    pub(crate) fn move_new(&self, name: &str, target: &Self, new_name: &str) -> io::Result<()> {
        let flags = RenameFlags::RENAME_NOREPLACE;
        renameat2(&self.file, entry_name(name)?, &target.file, entry_name(new_name)?, flags)?;
        target.sync()?;
        self.sync()
    }

    /// The names of all entries, sorted. Names that are not UTF-8 are left out: no address maps to them.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self.entries()?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The names of all directories (not of links to directories), sorted.
    pub(crate) fn directory_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, kind) in self.entries()? {
            if self.kind_of(&name, kind)? == Kind::Directory {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn entries(&self) -> io::Result<Vec<(String, Option<Type>)>> {
        // A second descriptor, because reading moves the position of the one it reads from.
        let again =
            openat(&self.file, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::from_fd(again)?.iter() {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                entries.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }

    /// What `name` is. Some file systems do not tell while reading the directory.
    fn kind_of(&self, name: &str, told: Option<Type>) -> io::Result<Kind> {
        Ok(match told {
            Some(Type::Directory) => Kind::Directory,
            Some(Type::File) => Kind::File,
            Some(_) => Kind::Other,
            None => self.stat(name)?.map_or(Kind::Other, |stat| {
                match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFDIR => Kind::Directory,
                    SFlag::S_IFREG => Kind::File,
                    _ => Kind::Other,
                }
            }),
        })
    }

    /// Removes the directory `name` with everything below it; links below it are removed, not followed.
    pub(crate) fn remove_tree(&self, name: &str) -> io::Result<()> {
        self.remove_tree_below(name, 0)
    }

    fn remove_tree_below(&self, name: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories nested too deeply"));
        }
        let Some(directory) = self.open(name)? else { return Ok(()) };
        for (entry, kind) in directory.entries()? {
            if directory.kind_of(&entry, kind)? == Kind::Directory {
                directory.remove_tree_below(&entry, depth + 1)?;
            } else {
                directory.remove(&entry)?;
            }
        }
        match unlinkat(&self.file, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies the directories and regular files of `self` into `target`; anything else is left out.
    pub(crate) fn copy_tree(&self, target: &Self) -> io::Result<()> {
        self.copy_tree_below(target, 0)
    }

    fn copy_tree_below(&self, target: &Self, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories nested too deeply"));
        }
        for (name, kind) in self.entries()? {
            match self.kind_of(&name, kind)? {
                Kind::Directory => {
                    if let Some(directory) = self.open(&name)? {
                        directory.copy_tree_below(&target.create(&name)?, depth + 1)?;
                    }
                }
                Kind::File => self.copy_file(&name, target)?,
                Kind::Other => {}
            }
        }
        target.sync()
    }

    fn copy_file(&self, name: &str, target: &Self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mut source = File::from(openat(&self.file, entry_name(name)?, flags, Mode::empty())?);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut copy = File::from(openat(&target.file, name, flags, FILE_MODE)?);
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()
    }

    /// Takes the exclusive lock of this directory, which is released when the value is dropped. It holds against
    /// other tasks of this process and against other processes alike.
    ///
    /// # Errors
    /// `TimedOut` if somebody else keeps it longer than `patience`.
    pub(crate) fn lock(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "somebody else holds the lock"));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Takes the record lock that mlmmj takes before it appends to `name`; `None` if there is no such file. Dropping
    /// the file releases it.
    ///
    /// # Errors
    /// `TimedOut` if mlmmj keeps it longer than a few seconds; `InvalidInput` if it is no regular file.
    pub(crate) fn lock_record(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let deadline = Instant::now() + RECORD_LOCK_PATIENCE;
        loop {
            let file = match openat(&self.file, entry_name(name)?, flags, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let whole = nix::libc::flock {
                l_type: nix::libc::F_WRLCK as nix::libc::c_short,
                l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            let locked = match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
                Ok(_) => true,
                Err(Errno::EAGAIN | Errno::EACCES) => false,
                Err(error) => return Err(error.into()),
            };
            // Whoever held it may have put another file in its place; then the lock is on the wrong one.
            let current = self.stat(name)?.map(|stat| stat.st_ino);
            if locked && current == Some(fstat(&file)?.st_ino) {
                return Ok(Some(file));
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "mlmmj holds the lock"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether both are the same directory on disk. After waiting for a lock this tells whether the directory is
    /// still the one its name leads to.
    pub(crate) fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (one, two) = (fstat(&self.file)?, fstat(&other.file)?);
        Ok(one.st_dev == two.st_dev && one.st_ino == two.st_ino)
    }

    /// Makes renames and removals in this directory survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl From<OwnedFd> for Directory {
    fn from(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open_root(folder.path()).unwrap();
        (folder, directory)
    }

    #[test]
    fn names_that_are_not_plain_are_refused() {
        let (_folder, root) = root();
        for name in ["", ".", "..", "a/b", "/etc", "a\0b", &"x".repeat(256)] {
            assert!(root.open(name).is_err(), "{name:?}");
            assert!(root.create(name).is_err(), "{name:?}");
            assert!(root.read(name, 10).is_err(), "{name:?}");
            assert!(root.remove(name).is_err(), "{name:?}");
            assert!(root.replace(&root, name, b"x").is_err(), "{name:?}");
        }
    }

    #[test]
    fn planted_links_are_neither_followed_nor_written_through() {
        let (folder, root) = root();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), folder.path().join("domain")).unwrap();
        symlink(outside.path().join("secret"), folder.path().join("owner")).unwrap();
        assert!(root.open("domain").is_err());
        assert!(root.read("owner", 100).is_err());
        assert!(root.remove_tree("domain").is_err());
        root.replace(&root, "owner", b"new\n").unwrap();
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        assert_eq!(root.read("owner", 100).unwrap().unwrap(), b"new\n");
    }

    #[test]
    fn removing_and_copying_a_tree_leaves_the_targets_of_links_alone() {
        let (folder, root) = root();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("keep"), "keep").unwrap();
        let list = root.create("list").unwrap();
        list.create("control").unwrap().write_new("owner", b"o\n").unwrap();
        symlink(outside.path(), folder.path().join("list/link")).unwrap();
        let copy = root.create("copy").unwrap();
        list.copy_tree(&copy).unwrap();
        assert_eq!(copy.names().unwrap(), ["control"]);
        root.remove_tree("list").unwrap();
        assert!(!root.exists("list").unwrap());
        assert!(outside.path().join("keep").exists());
    }

    #[test]
    fn modes_are_private_and_no_temporary_file_stays() {
        let (folder, root) = root();
        let list = root.create("list").unwrap();
        list.replace(&root, "index", b"").unwrap();
        let mode =
            |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("list"), mode("list/index")), (0o700, 0o600));
        assert_eq!(root.names().unwrap(), ["list"]);
    }

    #[test]
    fn a_lock_excludes_a_second_holder_until_it_is_dropped() {
        let (_folder, root) = root();
        root.create("list").unwrap();
        let first = root.open("list").unwrap().unwrap();
        let second = root.open("list").unwrap().unwrap();
        first.lock(Duration::ZERO).unwrap();
        assert_eq!(second.lock(Duration::from_millis(20)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(first);
        second.lock(Duration::ZERO).unwrap();
    }
}
