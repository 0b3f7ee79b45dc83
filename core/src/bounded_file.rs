//! Files that an administrator names, read up to a bound.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The content of a regular file of at most `longest` bytes, and what the system says about it.
///
/// The path may be a mistake: a pipe would be waited for, a device may never end, and a log does not fit into memory.
///
/// # Errors
/// Those of the system, and one that says which of the two the file is not; none names it. So for both functions here.
pub fn read(path: &Path, longest: u64) -> Result<(Vec<u8>, Metadata)> {
    // Opening a pipe that nobody writes to does not wait then; for a regular file it means nothing.
    content(OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?, longest)
}

/// The same of a file that is open.
pub fn content(file: File, longest: u64) -> Result<(Vec<u8>, Metadata)> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Error::other("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(Error::other(format!("is longer than {} KiB", longest / 1024)));
    }
    Ok((bytes, about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn only_what_is_a_file_and_short_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("short"), [b'a'; 1024]).unwrap();
        std::fs::write(path("long"), [b'a'; 1025]).unwrap();
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        let said =
            |path: &Path| read(path, 1024).map(|(bytes, _)| bytes.len()).map_err(|error| error.to_string());
        assert_eq!(said(&path("short")), Ok(1024));
        assert_eq!(said(&path("long")), Err("is longer than 1 KiB".to_owned()));
        for other in [&path("pipe"), folder.path(), Path::new("/dev/zero")] {
            assert_eq!(said(other), Err("is not a regular file".to_owned()), "{}", other.display());
        }
        assert!(said(&path("none")).is_err());
    }
}
