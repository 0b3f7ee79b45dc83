//! The file `maildirsize` of a Maildir++ folder.
//!
//! ```text
//! 1073741824S,1000C        the limits with which it was made; not looked at, the accounts say the limit
//! 2048 1                   bytes and messages to be summed: those counted, then one line a change
//! -1024 -1
//! ```
//!
//! Dovecot appends lines and makes the file anew, counting, when it has grown to about 5 KiB or a sum gets out of order.
//! A line is written with one call, so a last line without its end is one that is just being written: it is left out.
//!
//! Bounds: 64 KiB, a regular file, no symbolic link (the folder belongs to an account that is not ours), sixteen files at
//! a time, so that a file server that hangs cannot eat all threads.

use outrider_core::bounded_file;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

const LONGEST: u64 = 64 * 1024;
const AT_ONCE: usize = 16;

/// Reads such files.
pub(crate) struct Maildirsize {
    places: Arc<Semaphore>,
}

impl Default for Maildirsize {
    fn default() -> Self {
        Maildirsize { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Maildirsize {
    /// The bytes used below the Maildir++ folder; `None` when no such file is there, as before the first delivery.
    pub(crate) async fn read(&self, folder: &str) -> Result<Option<i64>, String> {
        let path = file_in(folder)?;
        let place = self.places.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let reading = tokio::task::spawn_blocking(move || {
            let read = read(&path);
            // Not before the thread is free again, even if nobody waits for it any more.
            drop(place);
            read
        });
        reading.await.map_err(|error| error.to_string())?
    }
}

fn file_in(folder: &str) -> Result<PathBuf, String> {
    let path = Path::new(folder).join("maildirsize");
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain && !folder.contains('\0') {
        Ok(path)
    } else {
        Err("the folder of the mailbox is no absolute path".to_owned())
    }
}

fn read(path: &Path) -> Result<Option<i64>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    // Without O_NONBLOCK the opening of a FIFO waits for somebody who writes.
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let (text, _) = bounded_file::content(file, LONGEST).map_err(|error| failed(&error))?;
    sum(&text).map(Some).map_err(|why| failed(&why))
}

/// The sum of the first numbers of all lines but the first one, never below 0.
fn sum(text: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not text".to_owned())?;
    let Some((whole, _unfinished)) = text.rsplit_once('\n') else {
        return Err("no complete first line".to_owned());
    };
    let mut lines = whole.split('\n');
    let limits = lines.next().unwrap_or_default();
    if !is_limits(limits.trim_end()) {
        return Err(format!("the first line {limits:?} does not name limits"));
    }
    let mut sum = 0_i128;
    for (number, line) in lines.enumerate() {
        let mut words = line.split_ascii_whitespace();
        let (Some(bytes), Some(Ok(_)), None) = (
            words.next().and_then(|word| word.parse::<i64>().ok()),
            words.next().map(str::parse::<i64>),
            words.next(),
        ) else {
            return Err(format!("line {} is not two numbers", number + 2));
        };
        // No sum of the numbers of 64 KiB leaves 128 bits.
        sum += i128::from(bytes);
    }
    Ok(i64::try_from(sum.max(0)).unwrap_or(i64::MAX))
}

/// `NUMBER` and `S` (bytes) or `C` (messages), several with commas between them; nothing at all without a limit.
fn is_limits(line: &str) -> bool {
    line.is_empty()
        || line.split(',').all(|limit| {
            let digits = limit.strip_suffix('S').or_else(|| limit.strip_suffix('C'));
            digits
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files() {
        for (text, expected) in [
            ("1048576S\n2048 1\n", Ok(2048)),
            ("1048576S,1000C\n2048 1\n-1024 -1\n", Ok(1024)),
            ("1000C,1048576S\n  2048    1\n", Ok(2048)),
            ("\n10 1\n", Ok(10)),
            ("1S\n", Ok(0)),
            ("1S\n5 1\n-9 -1\n", Ok(0)),
            ("1S\n5 1\n12345", Ok(5)),
            ("1S\n9223372036854775807 1\n9223372036854775807 1\n", Ok(i64::MAX)),
            ("1S\n9223372036854775808 1\n", Err("line 2")),
            ("1S\n5 1\n\n", Err("line 3")),
            ("1S\n5\n", Err("line 2")),
            ("1S\n5 1 1\n", Err("line 2")),
            ("5 1\n", Err("first line")),
            ("S\n5 1\n", Err("first line")),
            ("1S", Err("first line")),
            ("", Err("first line")),
        ] {
            let read = sum(text.as_bytes());
            match expected {
                Ok(bytes) => assert_eq!(read, Ok(bytes), "{text:?}"),
                Err(part) => {
                    assert!(read.as_ref().is_err_and(|why| why.contains(part)), "{text:?}: {read:?}")
                }
            }
        }
        assert!(sum(b"1S\n\xFF 1\n").is_err());
    }

    #[tokio::test]
    async fn only_plain_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let file = folder.path().join("maildirsize");
        let reader = Maildirsize::default();
        assert_eq!(reader.read(place).await, Ok(None));
        assert_eq!(reader.read(&format!("{place}/no/such/folder")).await, Ok(None));
        std::fs::write(&file, "1S\n7 1\n").unwrap();
        assert_eq!(reader.read(place).await, Ok(Some(7)));
        std::fs::write(&file, format!("1S\n{}", "1 1\n".repeat(20_000))).unwrap();
        assert!(reader.read(place).await.unwrap_err().contains("longer"));
        // A good file, but not one of this folder.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(folder.path().join("elsewhere"), "1S\n7 1\n").unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &file).unwrap();
        assert!(reader.read(place).await.is_err());
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reader.read(place).await.unwrap_err().contains("regular"));
        for folder in ["relative/Maildir", "", "/var/vmail/../../etc", "/a\0b"] {
            assert!(reader.read(folder).await.is_err(), "{folder:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(bytes) = sum(&text) {
                prop_assert!(bytes >= 0);
            }
        }
    }
}
