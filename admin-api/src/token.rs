//! The tokens of the mailing-list API.
//!
//! A token is compared by its SHA-256, with every configured one and without stopping early, so that neither its
//! length nor the place of the first wrong character shows in the time an answer takes.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use outrider_core::random::Random;
use subtle::{Choice, ConstantTimeEq};

/// The file below the state directory that holds the token made up when none is configured.
pub(crate) const FILE_NAME: &str = "api-auth-token";

/// The tokens that are let in.
#[derive(Clone)]
pub(crate) struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// Takes the tokens themselves; empty ones let nobody in.
    pub(crate) fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self(tokens.into_iter().filter(|token| !token.is_empty()).map(fingerprint).collect())
    }

    /// Whether `token` is one of them.
    pub(crate) fn contains(&self, token: &[u8]) -> bool {
        let sent = fingerprint_bytes(token);
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&sent));
        found.into()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tokens({})", self.0.len())
    }
}

fn fingerprint(token: &str) -> [u8; 32] {
    fingerprint_bytes(token.as_bytes())
}

fn fingerprint_bytes(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

/// Reads the token in the state directory, or makes one up and stores it there, readable for the owner only.
pub(crate) fn load_or_create(state: &Path, random: &dyn Random) -> io::Result<String> {
    let path = state.join(FILE_NAME);
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match created {
        Ok(mut file) => {
            let mut bytes = [0; 32];
            random.fill(&mut bytes);
            let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            file.write_all(format!("{token}\n").as_bytes())?;
            file.sync_all()?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::other("others may read the token; chmod 600 or remove it"));
    }
    let mut text = String::new();
    (&mut file).take(4096).read_to_string(&mut text)?;
    let token = text.trim();
    if token.len() < 32 {
        return Err(io::Error::other("holds no token of at least 32 characters; remove it to get a new one"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::random::SeededRandom;

    #[test]
    fn only_configured_tokens_are_let_in() {
        let tokens = Tokens::new(["0123456789abcdef0123456789abcdef", "second", ""]);
        for (token, expected) in [
            ("0123456789abcdef0123456789abcdef", true),
            ("second", true),
            ("", false),
            ("Second", false),
            ("second ", false),
            ("secon", false),
        ] {
            assert_eq!(tokens.contains(token.as_bytes()), expected, "{token:?}");
        }
        assert!(!Tokens::new([]).contains(b""));
    }

    #[test]
    fn a_made_up_token_is_private_and_stays() {
        let state = tempfile::tempdir().unwrap();
        let first = load_or_create(state.path(), &SeededRandom::new(1)).unwrap();
        let second = load_or_create(state.path(), &SeededRandom::new(2)).unwrap();
        assert_eq!((first.len(), &first), (64, &second));
        let path = state.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_or_create(state.path(), &SeededRandom::new(3)).is_err());
    }
}
