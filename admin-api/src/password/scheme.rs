//! Which scheme a stored value has, and the check itself.

use subtle::ConstantTimeEq;

use super::digest::{self, Encoding, Kind};
use super::{MAX_PASSWORD, crypt, legacy};

/// Names that may stand in braces before a stored value.
const SCHEMES: &[&str] = &[
    "CRYPT",
    "BLF-CRYPT",
    "BCRYPT",
    "MD5-CRYPT",
    "SHA256-CRYPT",
    "SHA512-CRYPT",
    "ARGON2I",
    "ARGON2ID",
    "PBKDF2",
    "SHA",
    "SHA1",
    "SSHA",
    "SHA256",
    "SSHA256",
    "SHA512",
    "SSHA512",
    "MD5",
    "PLAIN-MD5",
    "LDAP-MD5",
    "SMD5",
    "CRAM-MD5",
    "NTLM",
    "PLAIN",
    "CLEAR",
    "CLEARTEXT",
];

/// Splits `{SCHEME}value` or `{SCHEME.encoding}value`.
fn split(stored: &str) -> Option<(String, Encoding, &str)> {
    let (name, value) = stored.strip_prefix('{')?.split_once('}')?;
    let (name, encoding) = match name.split_once('.') {
        None => (name, Encoding::Guess),
        Some((name, encoding)) if encoding.eq_ignore_ascii_case("hex") => (name, Encoding::Hex),
        Some((name, "b64" | "B64" | "base64" | "BASE64")) => (name, Encoding::Base64),
        Some(_) => return None,
    };
    Some((name.to_ascii_uppercase(), encoding, value))
}

/// Whether `hash` is a value that [`verify`] can check at a reasonable cost, so that it may be stored as it is.
pub(crate) fn is_known(hash: &str) -> bool {
    if hash.len() > 255 || hash.chars().any(char::is_control) {
        return false;
    }
    match split(hash) {
        Some((name, _, value)) => {
            SCHEMES.contains(&name.as_str()) && !value.is_empty() && crypt::is_affordable(&name, value)
        }
        None => is_bare(hash),
    }
}

/// The two forms that are hashes without a prefix.
fn is_bare(stored: &str) -> bool {
    stored.starts_with("$1$") || (stored.len() == 32 && stored.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether `password` is the one that `stored` was made of. Takes as long as the stored value asks for, up to some
/// tenths of a second: use it through [`Vault`](super::Vault).
pub(crate) fn verify(stored: &str, password: &str) -> bool {
    if stored.is_empty() || password.is_empty() || password.len() > MAX_PASSWORD {
        return false;
    }
    // crypt(3) and HMAC padding end at or swallow a NUL; no client means one.
    if password.contains('\0') {
        return false;
    }
    // Blanks at both ends are cut before hashing; other programs that set passwords may have kept them.
    let trimmed = password.trim();
    verify_exactly(stored, password)
        || (!trimmed.is_empty() && trimmed != password && verify_exactly(stored, trimmed))
}

fn verify_exactly(stored: &str, password: &str) -> bool {
    let Some((name, encoding, value)) = split(stored) else {
        return match stored {
            bare if bare.starts_with("$1$") => crypt::verify(bare, password),
            bare if is_bare(bare) => {
                digest::verify(Kind::Md5, false, Encoding::Hex, bare, password.as_bytes())
            }
            _ => false,
        };
    };
    let bytes = password.as_bytes();
    let hashed = |kind, salted| digest::verify(kind, salted, encoding, value, bytes);
    let same = |computed: String| computed.as_bytes().ct_eq(value.to_ascii_lowercase().as_bytes()).into();
    match name.as_str() {
        "CRYPT" | "BLF-CRYPT" | "BCRYPT" | "MD5-CRYPT" | "SHA256-CRYPT" | "SHA512-CRYPT" | "ARGON2I"
        | "ARGON2ID" => crypt::verify(value, password),
        "MD5" if value.starts_with("$1$") => crypt::verify(value, password),
        "PBKDF2" => crypt::verify_pbkdf2(value, password),
        "SHA" | "SHA1" => hashed(Kind::Sha1, false),
        "SSHA" => hashed(Kind::Sha1, true),
        "SHA256" => hashed(Kind::Sha256, false),
        "SSHA256" => hashed(Kind::Sha256, true),
        "SHA512" => hashed(Kind::Sha512, false),
        "SSHA512" => hashed(Kind::Sha512, true),
        "PLAIN-MD5" | "LDAP-MD5" | "MD5" => hashed(Kind::Md5, false),
        "SMD5" => hashed(Kind::Md5, true),
        "CRAM-MD5" => same(legacy::cram_md5(bytes)),
        "NTLM" => same(legacy::ntlm(password)),
        "PLAIN" | "CLEAR" | "CLEARTEXT" => value.as_bytes().ct_eq(bytes).into(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values made by doveadm, openssl and the authors of the schemes.
    const STORED: &[(&str, &str)] = &[
        (
            "Adm1n#Secret",
            "{SHA512}Xj5yZrBrYVJJ3gBZ0C9pWGSXDBN6rzWISCAIBv3nSVhjO71Zpdmll81CZUfxSdjg2U0W3RvRePpoRc9EQ1t7WQ==",
        ),
        (
            "Adm1n#Secret",
            "{SSHA512}hq7rOwOyXjz7IIU4OJOST+74xjRu3uRW4nD69O0FmVX+iCQkwlEgq0BY07y6BQjsC48r5N60g+xBdpR6WFBsH2NvbmZvcm1T",
        ),
        ("Adm1n#Secret", "{PLAIN-MD5}5d97dc33f322358295f722730fdd7106"),
        ("Adm1n#Secret", "5d97dc33f322358295f722730fdd7106"),
        ("Adm1n#Secret", "{PLAIN}Adm1n#Secret"),
        ("Adm1n#Secret", "{cleartext}Adm1n#Secret"),
        ("Adm1n#Secret", "{CRAM-MD5}8731ae6e9147de281bf657ef8faa581e2d1296fefbb2e86e5841e277d744c5b0"),
        ("Adm1n#Secret", "{PBKDF2}$1$Kb6C6Cd.thXbZQO0$5000$1c2cd86e082f869aadf2c97701edbe868921cf50"),
        ("Adm1n#Secret", "{BLF-CRYPT}$2y$05$lEj7DXNxrEzBp4.66UkVx.9.HEZd5qmKNrm43UbvjfV/T9sZ4y/kS"),
        ("Adm1n#Secret", "{CRYPT}$2b$05$lEj7DXNxrEzBp4.66UkVx.9.HEZd5qmKNrm43UbvjfV/T9sZ4y/kS"),
        ("Adm1n#Secret", "{SSHA}5k+Nv0kG6EZMzCcEXB3qSHxm1gPpz5Ai"),
        ("Adm1n#Secret", "{SSHA256}yLlrbfcnSgAcHkvlox+VgFcAwvJ9PCeyj6ZtVxnHP2jwx++K"),
        ("Adm1n#Secret", "{SMD5}LXVx62ffaFhRdRkLTRBNbL8r0M8="),
        ("Adm1n#Secret", "{LDAP-MD5}XZfcM/MiNYKV9yJzD91xBg=="),
        ("Adm1n#Secret", "{SHA256}/Jt/n2X5SooOT6Bs8oSkfoJeeTqAVcdVEt/fWxs8OYY="),
        (
            "Adm1n#Secret",
            "{SHA512-CRYPT}$6$CG0a9/goxbjXsCbX$jTKPBX56s8runxp0zx9UkI21GAgv6X6ToA8SWGFfIj//OUSsniVb4WzRwIXkmEhI7llbT87858Ps0dI46NsVN0",
        ),
        ("Adm1n#Secret", "{MD5-CRYPT}$1$kOwf3DTP$KAnMYVLColHzQubfbJ/nD."),
        ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
        ("password", "{SHA1.hex}5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8"),
        ("password", "{NTLM}8846F7EAEE8FB117AD06BDD830B7586C"),
        (
            "password",
            "{ARGON2ID}$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        ),
        (
            "password",
            "{ARGON2I}$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8",
        ),
        ("0.s0.l33t", "$1$deadbeef$0Huu6KHrKLVWfqa4WljDE0"),
        ("0.s0.l33t", "{CRYPT}$1$deadbeef$0Huu6KHrKLVWfqa4WljDE0"),
        ("0.s0.l33t", "{MD5}$1$deadbeef$0Huu6KHrKLVWfqa4WljDE0"),
        ("Hello world!", "{SHA256-CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (
            "Hello world!",
            "{CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
    ];

    #[test]
    fn every_scheme_takes_its_password_and_no_other() {
        for (password, stored) in STORED {
            assert!(is_known(stored), "{stored} is a known form");
            assert!(verify(stored, password), "{stored}");
            assert!(verify(stored, &format!(" {password} ")), "{stored} with blanks around");
            for wrong in ["", "nope", stored, &password.to_uppercase(), &format!("{password}\0")] {
                assert!(!verify(stored, wrong), "{stored}: {wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_no_scheme_matches_nothing() {
        for stored in [
            "",
            "secret",
            "{}secret",
            "{FOO}secret",
            "{PLAIN",
            "{CRYPT}!",
            "{CRYPT}*",
            "{CRYPT}secret",
            "{CRYPT}$9$x$y",
            "{SSHA512}not base64!",
            "{SSHA512}c2hvcnQ=",
            "{SHA512.rot13}abcd",
            "$6$saltstring$bare",
            "$2y$05$bare",
            "{PBKDF2}$1$salt$99999999999$00",
            "{ARGON2ID}$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$AAAAAAAA",
            "{CRYPT}$2y$31$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e",
        ] {
            for password in ["secret", "!", "*", "", stored] {
                assert!(!verify(stored, password), "{stored:?} {password:?}");
            }
        }
    }

    #[test]
    fn overlong_passwords_are_not_even_looked_at() {
        let long = "x".repeat(MAX_PASSWORD + 1);
        assert!(!verify(&format!("{{PLAIN}}{long}"), &long));
        assert!(verify(&format!("{{PLAIN}}{}", &long[1..]), &long[1..]));
    }

    #[test]
    fn hashes_that_may_be_stored() {
        for (hash, known) in [
            ("{SSHA512}abc", true),
            ("{ssha}abc", true),
            ("$1$a$b", true),
            ("{FOO}bar", false),
            ("{SSHA512}", false),
            ("plain", false),
            ("{SSHA}a\nb", false),
            ("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$AAAA", true),
            ("{ARGON2ID}$argon2id$v=19$m=262144,t=4,p=1$c2FsdA$AAAA", true),
            ("{ARGON2ID}$argon2id$v=19$m=262144,t=5,p=1$c2FsdA$AAAA", false),
            ("{ARGON2I}$argon2i$m=4294967295,t=4294967295,p=1$c2FsdA$AAAA", false),
            ("{CRYPT}$argon2id$v=19$m=1048576,t=64,p=1$c2FsdA$AAAA", false),
            ("{ARGON2ID}$argon2id$v=19$m=many,t=1,p=1$c2FsdA$AAAA", false),
            ("{ARGON2ID}$argon2id$v=19$m=8,m=1048576,t=1,t=64,p=1$c2FsdA$AAAA", false),
            ("{BLF-CRYPT}$2y$14$x", true),
            ("{BLF-CRYPT}$2y$15$x", false),
            ("{CRYPT}$2b$16$x", false),
            ("{SHA512-CRYPT}$6$saltstring$x", true),
            ("{SHA512-CRYPT}$6$rounds=500000$salt$x", true),
            ("{SHA256-CRYPT}$5$rounds=500001$salt$x", false),
            ("{MD5}$1$salt$x", true),
            ("{PBKDF2}$1$salt$5000$00", true),
            ("{PBKDF2}$1$salt$5000000$00", false),
        ] {
            assert_eq!(is_known(hash), known, "{hash:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(stored in "(\\{[A-Z0-9.-]{0,12}\\})?\\PC{0,60}", password in "\\PC{0,20}") {
            let _ = (verify(&stored, &password), is_known(&stored));
        }
    }
}
