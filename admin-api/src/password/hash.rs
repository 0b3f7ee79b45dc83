//! Making what is stored for a new password.

use outrider_core::random::Random;
use serde::{Deserialize, Serialize};
use sha_crypt::{Algorithm, CustomizedPasswordHasher, Params, ShaCrypt};

use super::digest::{Kind, encode_base64, encode_hex};
use super::legacy;

/// Work factor of bcrypt: about 50 ms.
const BCRYPT_COST: u32 = 10;
/// The number crypt(3) and Dovecot take when nothing is said.
const SHA_CRYPT_ROUNDS: u32 = 5_000;

/// The scheme of new passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DefaultScheme {
    /// `{SSHA512}`: salted SHA-512, what iRedMail sets up.
    #[default]
    Ssha512,
    /// `{SSHA}`: salted SHA-1, for OpenLDAP binds.
    Ssha,
    /// `{CRYPT}$2b$`: bcrypt.
    Bcrypt,
    /// `{SHA512-CRYPT}$6$`.
    #[serde(rename = "SHA512-CRYPT")]
    Sha512Crypt,
    /// `{CRYPT}$1$`: MD5-crypt, for very old systems.
    #[serde(rename = "MD5")]
    Md5Crypt,
    /// 32 hexadecimal digits without a prefix.
    #[serde(rename = "PLAIN-MD5")]
    PlainMd5,
    /// `{CRAM-MD5}`, for clients that log in by challenge and response.
    #[serde(rename = "CRAM-MD5")]
    CramMd5,
    /// `{NTLM}`.
    Ntlm,
    /// `{PLAIN}`: the password itself.
    Plain,
}

/// What is stored for `password` under `scheme`; blanks at both ends of the password are cut. Takes up to some
/// tenths of a second: use it through [`Vault`](super::Vault).
pub(crate) fn hash(scheme: DefaultScheme, password: &str, random: &dyn Random) -> String {
    let password = password.trim();
    let bytes = password.as_bytes();
    let salted = |kind: Kind| {
        let mut salt = [0; 8];
        random.fill(&mut salt);
        encode_base64(&[kind.of(bytes, &salt), salt.to_vec()].concat())
    };
    match scheme {
        DefaultScheme::Ssha512 => format!("{{SSHA512}}{}", salted(Kind::Sha512)),
        DefaultScheme::Ssha => format!("{{SSHA}}{}", salted(Kind::Sha1)),
        DefaultScheme::Bcrypt => {
            let mut salt = [0; 16];
            random.fill(&mut salt);
            match bcrypt::hash_with_salt(bytes, BCRYPT_COST, salt) {
                // bcrypt uses the first 72 bytes only; a longer password keeps all its strength in SSHA512.
                Ok(parts) if bytes.len() <= 72 && !bytes.contains(&0) => {
                    format!("{{CRYPT}}{}", parts.format_for_version(bcrypt::Version::TwoB))
                }
                _ => format!("{{SSHA512}}{}", salted(Kind::Sha512)),
            }
        }
        DefaultScheme::Sha512Crypt => sha512_crypt(bytes, random).map_or_else(
            || format!("{{SSHA512}}{}", salted(Kind::Sha512)),
            |text| format!("{{SHA512-CRYPT}}{text}"),
        ),
        DefaultScheme::Md5Crypt => {
            let mut salt = [0; 4];
            random.fill(&mut salt);
            let salt = encode_hex(&salt);
            format!("{{CRYPT}}$1${salt}${}", legacy::md5_crypt(bytes, salt.as_bytes()))
        }
        DefaultScheme::PlainMd5 => encode_hex(&Kind::Md5.of(bytes, b"")),
        DefaultScheme::CramMd5 => format!("{{CRAM-MD5}}{}", legacy::cram_md5(bytes)),
        DefaultScheme::Ntlm => format!("{{NTLM}}{}", legacy::ntlm(password)),
        DefaultScheme::Plain => format!("{{PLAIN}}{password}"),
    }
}

fn sha512_crypt(password: &[u8], random: &dyn Random) -> Option<String> {
    let mut salt = [0; 12];
    random.fill(&mut salt);
    let params = Params::new(SHA_CRYPT_ROUNDS).ok()?;
    let hasher = ShaCrypt::new(Algorithm::Sha512Crypt, params);
    let hash = hasher.hash_password_customized(password, &salt, None, None, params).ok()?;
    Some(hash.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::scheme::{is_known, verify};
    use super::*;
    use outrider_core::random::SeededRandom;

    #[test]
    fn what_is_made_verifies() {
        let random = SeededRandom::new(1);
        for scheme in [
            DefaultScheme::Ssha512,
            DefaultScheme::Ssha,
            DefaultScheme::Bcrypt,
            DefaultScheme::Sha512Crypt,
            DefaultScheme::Md5Crypt,
            DefaultScheme::PlainMd5,
            DefaultScheme::CramMd5,
            DefaultScheme::Ntlm,
            DefaultScheme::Plain,
        ] {
            // bcrypt is slow without optimisation; the others are tried with odd passwords too.
            let odd = [" blanks around ", "größe#1A", &"long".repeat(30)];
            let slow = scheme == DefaultScheme::Bcrypt;
            for password in ["Us3r#Secret!"].iter().chain(odd.iter().filter(|_| !slow)) {
                let stored = hash(scheme, password, &random);
                assert!(is_known(&stored), "{stored}");
                assert!(verify(&stored, password), "{stored} for {password:?}");
                assert!(!verify(&stored, "nope"), "{stored}");
                assert!(stored.len() <= 255, "fits the column: {stored}");
            }
        }
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let random = SeededRandom::new(1);
        for scheme in [DefaultScheme::Ssha512, DefaultScheme::Bcrypt, DefaultScheme::Sha512Crypt] {
            assert_ne!(hash(scheme, "x", &random), hash(scheme, "x", &random), "{scheme:?}");
        }
    }
}
