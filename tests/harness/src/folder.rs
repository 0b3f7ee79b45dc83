//! A temporary folder that other accounts (postfix, mysql, the mail user) can walk through.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder directly below `/tmp` with a short name, removed on drop.
///
/// Short, because the path of a UNIX socket may not exceed 107 bytes and Postfix and Dovecot put theirs three levels down; world-readable,
/// because Postfix, MariaDB and PostgreSQL work in it under their own accounts. `OUTRIDER_TEST_KEEP=1` keeps it for a look afterwards.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// Makes `/tmp/otr-LABEL-XXXXXXXX` with mode 0755. The name is in lower case, because Dovecot is told (as on an iRedMail server) to lower the
    /// home folders it reads from SQL.
    pub fn new(label: &str) -> Result<Self> {
        loop {
            let path =
                PathBuf::from(format!("/tmp/otr-{label}-{:08x}", RandomState::new().hash_one(label) as u32));
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                    return Ok(Self { path, keep: std::env::var_os("OUTRIDER_TEST_KEEP").is_some() });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
            }
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a sub-folder (and those above it) with mode 0755 and returns its path.
    pub fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Writes a world-readable file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

/// Makes a file readable for its owner alone: daemons refuse keys that everybody may read.
pub fn keep_private(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("mode of {}", file.display()))
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept {}", self.path.display());
            return;
        }
        // A process that is just ending may still write into it: try twice, and leave the rest to the system's cleaning of /tmp.
        if fs::remove_dir_all(&self.path).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_removed_with_its_content() {
        let folder = Folder::new("self").unwrap();
        folder.sub("a/b").unwrap();
        let file = folder.write("a/b/c", "text").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
