//! Schemes that are one digest, with or without salt: the digest stands first, the salt after it.

use aws_lc_rs::digest::{self, Algorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use md5::Digest as _;
use subtle::ConstantTimeEq;

/// The digest of such a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 1321, 16 bytes.
    Md5,
    /// FIPS 180, 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 64 bytes.
    Sha512,
}

impl Kind {
    fn algorithm(self) -> Option<&'static Algorithm> {
        match self {
            Self::Md5 => None,
            Self::Sha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => Some(&digest::SHA256),
            Self::Sha512 => Some(&digest::SHA512),
        }
    }

    fn length(self) -> usize {
        self.algorithm().map_or(16, Algorithm::output_len)
    }

    /// The digest of both pieces, one after the other.
    pub(super) fn of(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        let Some(algorithm) = self.algorithm() else {
            return md5::Md5::new().chain_update(password).chain_update(salt).finalize().to_vec();
        };
        let mut context = digest::Context::new(algorithm);
        context.update(password);
        context.update(salt);
        context.finish().as_ref().to_vec()
    }
}

/// How the bytes of a stored value are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Hexadecimal where the length fits an unsalted digest, base64 otherwise, as Dovecot guesses.
    Guess,
    /// `{SCHEME.hex}`.
    Hex,
    /// `{SCHEME.b64}`.
    Base64,
}

/// Checks `password` against the encoded digest. `salted` says whether a salt follows the digest.
pub(super) fn verify(kind: Kind, salted: bool, encoding: Encoding, stored: &str, password: &[u8]) -> bool {
    let hexadecimal = match encoding {
        Encoding::Hex => true,
        Encoding::Base64 => false,
        Encoding::Guess => !salted && stored.len() == 2 * kind.length(),
    };
    let decoded = if hexadecimal { decode_hex(stored) } else { decode_base64(stored) };
    let Some(decoded) = decoded else { return false };
    if decoded.len() < kind.length() || (!salted && decoded.len() != kind.length()) {
        return false;
    }
    let (expected, salt) = decoded.split_at(kind.length());
    kind.of(password, salt).ct_eq(expected).into()
}

/// Base64 with or without padding.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

/// Hexadecimal digits of either case.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Lower-case hexadecimal digits.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64 with padding.
pub(super) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
