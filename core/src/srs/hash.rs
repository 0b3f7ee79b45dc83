//! Secrets, and the hash that proves that an address was made with one of them.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Characters of a whole hash: 20 bytes in base64 without padding.
pub const MAX_HASH_LENGTH: usize = 27;

/// Which two characters complete letters and digits to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alphabet {
    /// `+` and `/`: Mail::SRS, libsrs2, PostSRSd up to 2.2.5, iRedAPD.
    #[default]
    Standard,
    /// `-` and `_`: PostSRSd 2.2.6 and later. Survives `recipient_delimiter = +`.
    UrlSafe,
}

/// Outcome of [`Secrets::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Valid,
    Invalid,
    TooShort,
    NoSecret,
}

/// The secrets in use; the first one signs, all of them verify. To rotate, put the new one first and keep
/// the old one for as long as addresses are valid.
#[derive(Clone, Default)]
pub struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// Secrets as raw bytes, used as they are: the MD5 hex string of an old installation stays text. Empty
    /// ones are left out.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let key = |secret: S| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_ref());
        Secrets(secrets.into_iter().filter(|s| !s.as_ref().is_empty()).map(key).collect())
    }

    /// The secrets in the text of a file as PostSRSd reads it: one a line, blanks kept, line ends and
    /// empty lines dropped.
    pub fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        let bare = |line: &'_ [u8]| line.iter().copied().filter(|b| *b != b'\r').collect::<Vec<u8>>();
        text.split(|b| *b == b'\n').map(bare).filter(|line| !line.is_empty()).collect()
    }

    /// These secrets followed by those of `other`.
    #[must_use]
    pub fn and(mut self, other: Secrets) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there is none: nothing can be signed or verified.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of secrets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The first `length` characters of the hash over `data`; `None` without a secret.
    pub(super) fn sign(&self, data: &[&str], length: usize, alphabet: Alphabet) -> Option<String> {
        let tag = hmac::sign(self.0.first()?, &lower(data));
        let mut hash = match alphabet {
            Alphabet::Standard => BASE64_STANDARD_NO_PAD.encode(tag),
            Alphabet::UrlSafe => BASE64_URL_SAFE_NO_PAD.encode(tag),
        };
        hash.truncate(length.clamp(1, MAX_HASH_LENGTH));
        Some(hash)
    }

    /// The number, counted from 0, of the secret with which a hash was made. For an administrator's question: it takes a
    /// different time for each.
    pub(super) fn position(&self, data: &[&str], hash: &str, minimum: usize) -> Option<usize> {
        let alone = |key: &hmac::Key| Secrets(vec![key.clone()]).verify(data, hash, minimum);
        self.0.iter().position(|key| alone(key) == Verdict::Valid)
    }

    /// Whether `hash` is the beginning, at least `minimum` characters long, of the hash over `data` with one
    /// of the secrets. Letter case is ignored, as mail servers on the way may change it, and both alphabets
    /// count. The time taken depends on the lengths and the number of secrets only.
    pub(super) fn verify(&self, data: &[&str], hash: &str, minimum: usize) -> Verdict {
        let data = lower(data);
        let given = fold(hash.as_bytes());
        let mut valid = Choice::from(0);
        for key in &self.0 {
            let mut expected = [0; MAX_HASH_LENGTH];
            if BASE64_STANDARD_NO_PAD.encode_slice(hmac::sign(key, &data), &mut expected).is_err() {
                continue; // Cannot happen: twenty bytes exactly fill the buffer.
            }
            let mut expected = fold(&expected);
            expected.iter_mut().skip(hash.len()).for_each(|b| *b = 0);
            valid |= expected.ct_eq(&given);
        }
        if self.0.is_empty() {
            Verdict::NoSecret
        } else if hash.len() < minimum.max(1) {
            Verdict::TooShort
        } else if hash.len() <= MAX_HASH_LENGTH && bool::from(valid) {
            Verdict::Valid
        } else {
            Verdict::Invalid
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} hidden)", self.0.len())
    }
}

/// The fields in ASCII lower case, one after the other.
fn lower(data: &[&str]) -> Vec<u8> {
    let mut all = Vec::with_capacity(data.iter().map(|part| part.len()).sum());
    data.iter().for_each(|part| all.extend(part.bytes().map(|b| b.to_ascii_lowercase())));
    all
}

/// The first characters of a hash without regard to case and alphabet, padded with zeros. Arithmetic instead
/// of branches, as the bytes may be those of the hash to be guessed.
fn fold(hash: &[u8]) -> [u8; MAX_HASH_LENGTH] {
    let mut folded = [0; MAX_HASH_LENGTH];
    for (to, from) in folded.iter_mut().zip(hash) {
        let upper = u8::from(from.wrapping_sub(b'A') < 26);
        let (dash, low_line) = (u8::from(*from == b'-'), u8::from(*from == b'_'));
        *to = (from | (upper << 5)) - dash * (b'-' - b'+') - low_line * (b'_' - b'/');
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[&str] = &["WC", "Gmail.com", "USER"];

    #[test]
    fn signing() {
        let secrets = Secrets::new(["secretOne", "secretOld"]);
        let sign = |length, alphabet| secrets.sign(DATA, length, alphabet).unwrap();
        assert_eq!(sign(4, Alphabet::Standard), "lnpB");
        assert_eq!(sign(99, Alphabet::Standard), "lnpBdt1IyqjtySs37H8rsEyPgs8");
        assert_eq!(sign(0, Alphabet::Standard), "l");
        let pair = ["WC", "example.org", "u10"];
        assert_eq!(secrets.sign(&pair, 4, Alphabet::Standard).unwrap(), "aZ+0");
        assert_eq!(secrets.sign(&pair, 4, Alphabet::UrlSafe).unwrap(), "aZ-0");
        assert_eq!(Secrets::default().sign(DATA, 4, Alphabet::Standard), None);
    }

    #[test]
    fn verifying() {
        let secrets = Secrets::new(["secretOne", "secretOld"]);
        let table = [
            ("lnpB", Verdict::Valid),
            ("LNPB", Verdict::Valid),
            ("lnpBd", Verdict::Valid),
            ("lnpBdt1IyqjtySs37H8rsEyPgs8", Verdict::Valid),
            ("lnpBdt1IyqjtySs37H8rsEyPgs8=", Verdict::Invalid),
            ("lnpBdt1IyqjtySs37H8rsEyPgs8a", Verdict::Invalid),
            ("O7sc", Verdict::Valid),
            ("lnpC", Verdict::Invalid),
            ("lnpBzzzz", Verdict::Invalid),
            ("lnp", Verdict::TooShort),
            ("", Verdict::TooShort),
            ("lnp\0", Verdict::Invalid),
            ("\u{fc}\u{fc}", Verdict::Invalid),
        ];
        for (hash, expected) in table {
            assert_eq!(secrets.verify(DATA, hash, 4), expected, "{hash}");
        }
        assert_eq!(Secrets::default().verify(DATA, "lnpB", 4), Verdict::NoSecret);
        assert_eq!(secrets.verify(DATA, "", 0), Verdict::TooShort);
    }

    #[test]
    fn both_alphabets_are_understood() {
        let secrets = Secrets::new(["secretOne"]);
        for (hash, local) in [("aZ+0", "u10"), ("aZ-0", "u10"), ("O/59", "u11"), ("O_59", "u11")] {
            assert_eq!(secrets.verify(&["WC", "example.org", local], hash, 4), Verdict::Valid, "{hash}");
        }
    }

    #[test]
    fn a_file_of_secrets() {
        let file = Secrets::new(Secrets::lines(b"secretOne\r\n\nsecretOld\n"));
        assert_eq!(file.len(), 2);
        assert_eq!(file.verify(DATA, "lnpB", 4), Verdict::Valid);
        assert_eq!(file.verify(DATA, "O7sc", 4), Verdict::Valid);
        assert_eq!(Secrets::new(Secrets::lines(b" secretOne\n")).verify(DATA, "lnpB", 4), Verdict::Invalid);
        assert!(Secrets::lines(b"\r\n\n").is_empty());
        assert_eq!(format!("{file:?}"), "Secrets(2 hidden)");
    }

    /// The bytes compared are always all of them, so the position of the first difference cannot show; what
    /// is left to check is that nothing returns early: every secret is tried although the first one fits.
    #[test]
    fn the_order_of_secrets_does_not_matter() {
        for secrets in [["a", "secretOne"], ["secretOne", "a"]] {
            assert_eq!(Secrets::new(secrets).verify(DATA, "lnpB", 4), Verdict::Valid);
        }
    }
}
