//! Where the secrets come from: settings, iRedAPD's settings, a file as PostSRSd has it, or one made at the first start.

use super::settings::SrsSettings;
use crate::bounded_file;
use crate::daemon::{Environment, StartError};
use crate::python::Module;
use crate::srs::Secrets;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The name of the file in the state directory for the secret made at the first start.
pub const GENERATED: &str = "srs.secret";
/// Bytes: secret files are a few lines.
const LONGEST: u64 = 64 * 1024;

/// All secrets of the settings, in their order. Without any, the generated one, which is made if there is none yet.
pub(super) fn load(settings: &SrsSettings, env: &Environment) -> Result<Secrets, StartError> {
    let mut secrets = configured(settings)?;
    if secrets.is_empty() {
        let path = env.state_directory.join(GENERATED);
        secrets = Secrets::new(generated(&path, env)?);
        if secrets.is_empty() {
            return Err(StartError::Settings(format!("{} is empty: remove it", path.display())));
        }
    }
    Ok(secrets)
}

/// The secrets that somebody wrote down; none if nobody did.
fn configured(settings: &SrsSettings) -> Result<Secrets, StartError> {
    let mut secrets = Secrets::new(settings.secrets.iter().map(|secret| secret.expose()));
    if let Some(path) = &settings.iredapd_settings {
        let text = read(path)?;
        let list = Module::read(&String::from_utf8_lossy(&text), |_| None)
            .texts("srs_secrets")
            .map_err(|reason| StartError::Settings(format!("{}: {reason}", path.display())))?;
        // An empty list is how iRedAPD is told to leave SRS alone, not how it is told to sign with nothing.
        if list.is_empty() {
            return Err(StartError::Settings(format!("{}: srs_secrets is empty", path.display())));
        }
        secrets = secrets.and(Secrets::new(list));
    }
    if let Some(path) = &settings.secrets_file {
        secrets = secrets.and(Secrets::new(secrets_in(path)?));
        if secrets.is_empty() {
            return Err(StartError::Settings(format!("secrets_file {} holds no secret", path.display())));
        }
    }
    Ok(secrets)
}

fn generated(path: &Path, env: &Environment) -> Result<Vec<Vec<u8>>, StartError> {
    match create(path, env) {
        Ok(()) => {
            tracing::warn!(
                event = "secret made",
                file = %path.display(),
                reason = "no secret is configured; keep this file, and copy it to other servers of the domain"
            );
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StartError::File(path.to_path_buf(), error)),
    }
    secrets_in(path)
}

/// Writes a fresh secret under a temporary name first, so that a crash never leaves an empty file behind.
fn create(path: &Path, env: &Environment) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut bytes = [0; 32];
    env.random.fill(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all());
    // A hard link never replaces a file that another process made in the meantime.
    let placed = written.and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    placed
}

/// The secrets in a file of `secrets_file`, or in the one made at the first start: one a line.
///
/// # Errors
/// The file cannot be read, is too long, or others may read it.
pub fn secrets_in(path: &Path) -> Result<Vec<Vec<u8>>, StartError> {
    Ok(Secrets::lines(&read(path)?))
}

/// Reads a file of secrets, which others must not be able to read.
fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    let (text, about) =
        bounded_file::read(path, LONGEST).map_err(|error| StartError::File(path.to_path_buf(), error))?;
    if about.mode() & 0o006 != 0 {
        let reason = "may be read or written by everybody: run chmod o-rwx on it";
        return Err(StartError::Settings(format!("{}: {reason}", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;
    use crate::srs::{AddressCheck, Sender, Srs};
    use std::os::unix::fs::PermissionsExt;

    fn signature(secrets: Secrets) -> String {
        let srs = Srs::new(SrsSettings::default().srs_options("srs.example.net"), secrets);
        let sender = Sender::parse("user@gmail.com", AddressCheck::Rfc5321).unwrap();
        srs.forward(&sender, 1_742_040_000).unwrap()
    }

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let env = Environment::system("srsd", folder.path().to_path_buf());
        let first = signature(load(&SrsSettings::default(), &env).unwrap());
        let path = folder.path().join(GENERATED);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        assert_eq!(signature(load(&SrsSettings::default(), &env).unwrap()), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let other = tempfile::tempdir().unwrap();
        let env = Environment::system("srsd", other.path().to_path_buf());
        assert_ne!(signature(load(&SrsSettings::default(), &env).unwrap()), first);
    }

    #[test]
    fn configured_secrets_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let env = Environment::system("srsd", folder.path().to_path_buf());
        let path = folder.path().join("postsrsd.secret");
        fs::write(&path, "secretOld\r\n\n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let mut settings = SrsSettings { secrets_file: Some(path.clone()), ..SrsSettings::default() };
        assert!(signature(load(&settings, &env).unwrap()).starts_with("SRS0=O7sc="));
        settings.secrets = vec![Secret::new("secretOne")];
        let both = load(&settings, &env).unwrap();
        assert_eq!(both.len(), 2);
        assert!(signature(both).starts_with("SRS0=lnpB="));
        assert!(!folder.path().join(GENERATED).exists());

        fs::write(&path, "\n").unwrap();
        settings.secrets.clear();
        assert!(load(&settings, &env).unwrap_err().to_string().contains("no secret"));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(load(&settings, &env).unwrap_err().to_string().contains("everybody"));
        fs::remove_file(&path).unwrap();
        assert!(load(&settings, &env).is_err());
    }

    #[test]
    fn secrets_of_iredapd_are_read_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let env = Environment::system("srsd", folder.path().to_path_buf());
        let path = folder.path().join("settings.py");
        let settings = SrsSettings { iredapd_settings: Some(path.clone()), ..SrsSettings::default() };
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        };
        write("# iRedAPD\nsrs_domain = 'srs.example.net'\nsrs_secrets = ['secretOne', \"secretOld\"]\n");
        let secrets = load(&settings, &env).unwrap();
        assert_eq!(secrets.len(), 2);
        assert!(signature(secrets).starts_with("SRS0=lnpB="));
        for text in [
            "srs_secrets = []\n",
            "srs_domain = ''\n",
            "srs_secrets = [x]\n",
            "srs_secrets = ['secretOne']\nfrom local import *\n",
        ] {
            fs::remove_file(&path).unwrap();
            write(text);
            let error = load(&settings, &env).unwrap_err().to_string();
            assert!(error.contains("srs_secrets"), "{error}");
        }
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_an_error() {
        let env = Environment::system("srsd", "/nonexistent/state".into());
        assert!(matches!(load(&SrsSettings::default(), &env), Err(StartError::File(..))));
    }
}
