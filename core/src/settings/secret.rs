//! Secrets kept in files of their own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::bounded_file;

/// Bytes: private keys fit.
const LONGEST: u64 = 64 * 1024;

/// Reads a secret from `path`, or from the systemd credential of that name when it has no `/`.
///
/// The error says what is wrong with the file and never quotes it. A file that any user of the machine may read or
/// write is refused: such a secret is known to everybody already.
pub(crate) fn read(path: &str) -> Result<String, String> {
    let path = locate(path)?;
    let shown = path.display();
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read the secret in {shown}: {error}");
    let (bytes, about) = bounded_file::read(&path, LONGEST).map_err(|error| unreadable(&error))?;
    if about.mode() & 0o006 != 0 {
        return Err(format!(
            "the secret in {shown} may be read or written by everybody: run chmod o-rwx {shown}"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error.utf8_error()))?;
    // An editor ends the last line; the line end is no part of the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err(format!("the secret in {shown} is empty")),
        text => Ok(text.to_owned()),
    }
}

fn locate(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    if path.is_empty() || path.contains('/') {
        return Err(format!("file:{path} is neither an absolute path nor the name of a credential"));
    }
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(Path::new(&directory).join(path)),
        None => Err(format!("file:{path} names a credential, but $CREDENTIALS_DIRECTORY is not set")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_is_read_without_its_line_end_and_refused_when_open_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "open sesame\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(read(name).unwrap(), "open sesame");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = read(name).unwrap_err();
        assert!(error.contains("chmod o-rwx") && !error.contains("sesame"), "{error}");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "\n").unwrap();
        assert!(read(name).unwrap_err().contains("is empty"));
        std::fs::write(&path, "x".repeat(65 * 1024)).unwrap();
        assert!(read(name).unwrap_err().contains("longer"));
        assert!(read("relative/path").is_err());
        assert!(read("/nonexistent/secret").unwrap_err().contains("/nonexistent/secret"));
    }
}
