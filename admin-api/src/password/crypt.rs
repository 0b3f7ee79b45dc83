//! The schemes of crypt(3) and their successors: MD5-crypt, SHA-crypt, bcrypt, Argon2 and PBKDF2.
//!
//! The cost of a check is set by the stored value, so a hostile row could ask for hours of work; costs beyond what
//! anybody uses are refused instead.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::pbkdf2;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

use super::digest::{decode_base64, decode_hex};
use super::legacy::md5_crypt;

const MAX_BCRYPT_COST: u32 = 16;
const MAX_SHA_ROUNDS: u32 = 5_000_000;
const MAX_ARGON_MEMORY_KIB: u32 = 1 << 20;
const MAX_ARGON_PASSES: u32 = 64;
const MAX_PBKDF2_ROUNDS: u32 = 5_000_000;

// What is stored from now on is dearer than any usual value only by little; above are the bounds for what is there.
const STORED_BCRYPT_COST: u32 = 14;
const STORED_SHA_ROUNDS: u32 = 500_000;
/// Memory in KiB times passes: 256 MiB four times.
const STORED_ARGON_WORK: u64 = (256 << 10) * 4;
const STORED_PBKDF2_ROUNDS: u32 = 500_000;

/// Whether a value below the scheme `name` costs no more to check than may be asked for by a hash that is set now.
pub(super) fn is_affordable(name: &str, value: &str) -> bool {
    let mut fields = value.split('$').skip(1);
    let at_most =
        |text: Option<&str>, most| text.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n <= most);
    if name == "PBKDF2" {
        return at_most(fields.nth(2), STORED_PBKDF2_ROUNDS);
    }
    match fields.next() {
        Some("2a" | "2b" | "2y") => at_most(fields.next(), STORED_BCRYPT_COST),
        Some("5" | "6") => match fields.next().and_then(|field| field.strip_prefix("rounds=")) {
            Some(rounds) => at_most(Some(rounds), STORED_SHA_ROUNDS),
            None => true,
        },
        Some("argon2id" | "argon2i" | "argon2d") => {
            // Named twice, the last value is the one that counts; the largest is the safe one.
            let largest = |name: &str| {
                let pairs = value.split(['$', ',']).filter_map(|pair| pair.split_once('='));
                pairs
                    .filter(|(key, _)| *key == name)
                    .map(|(_, n)| n.parse::<u32>().ok())
                    .max_by_key(|n| n.unwrap_or(u32::MAX))
            };
            matches!((largest("m"), largest("t")), (Some(Some(memory)), Some(Some(passes)))
                if u64::from(memory) * u64::from(passes) <= STORED_ARGON_WORK)
        }
        _ => true,
    }
}

/// Checks a value that begins with `$`.
pub(super) fn verify(stored: &str, password: &str) -> bool {
    let mut fields = stored.split('$').skip(1);
    match fields.next() {
        Some("1") => verify_md5(stored, password),
        Some("2a" | "2b" | "2y") => {
            let cost = fields.next().and_then(|cost| cost.parse::<u32>().ok());
            cost.is_some_and(|cost| cost <= MAX_BCRYPT_COST)
                && bcrypt::verify(password, stored).unwrap_or(false)
        }
        Some("5" | "6") => {
            let rounds = fields.next().and_then(|field| field.strip_prefix("rounds="));
            let bounded = rounds.is_none_or(|n| n.parse::<u32>().is_ok_and(|n| n <= MAX_SHA_ROUNDS));
            bounded && ShaCrypt::default().verify_password(password.as_bytes(), stored).is_ok()
        }
        Some("argon2id" | "argon2i" | "argon2d") => verify_argon2(stored, password).unwrap_or(false),
        _ => false,
    }
}

fn verify_md5(stored: &str, password: &str) -> bool {
    let mut fields = stored.split('$').skip(2);
    let (Some(salt), Some(expected), None) = (fields.next(), fields.next(), fields.next()) else {
        return false;
    };
    let computed = md5_crypt(password.as_bytes(), salt.as_bytes());
    computed.as_bytes().ct_eq(expected.as_bytes()).into()
}

/// `$argon2id$v=19$m=65536,t=3,p=4$SALT$HASH`; the version may be missing (16).
fn verify_argon2(stored: &str, password: &str) -> Option<bool> {
    let mut fields = stored.split('$').skip(1).peekable();
    let algorithm = fields.next()?.parse::<Algorithm>().ok()?;
    let version = match fields.next_if(|field| field.starts_with("v=")) {
        Some("v=19") => Version::V0x13,
        Some("v=16") | None => Version::V0x10,
        Some(_) => return None,
    };
    let (mut memory, mut passes, mut lanes) = (None, None, None);
    for pair in fields.next()?.split(',') {
        let (name, value) = pair.split_once('=')?;
        let value = value.parse::<u32>().ok();
        match name {
            "m" => memory = value,
            "t" => passes = value,
            "p" => lanes = value,
            _ => return None,
        }
    }
    let (salt, expected) = (decode_base64(fields.next()?)?, decode_base64(fields.next()?)?);
    if fields.next().is_some()
        || memory? > MAX_ARGON_MEMORY_KIB
        || passes? > MAX_ARGON_PASSES
        || !(4..=256).contains(&expected.len())
    {
        return None;
    }
    let params = Params::new(memory?, passes?, lanes?, Some(expected.len())).ok()?;
    let mut computed = vec![0; expected.len()];
    Argon2::new(algorithm, version, params)
        .hash_password_into(password.as_bytes(), &salt, &mut computed)
        .ok()?;
    Some(computed.ct_eq(&expected).into())
}

/// `$1$SALT$ROUNDS$HEX` as Dovecot writes it: PBKDF2-HMAC-SHA1 with the salt taken as text.
pub(super) fn verify_pbkdf2(stored: &str, password: &str) -> bool {
    let mut fields = stored.split('$').skip(1);
    let (Some("1"), Some(salt), Some(rounds), Some(expected), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let rounds = rounds.parse::<u32>().ok().filter(|rounds| *rounds <= MAX_PBKDF2_ROUNDS);
    let (Some(rounds), Some(expected)) = (rounds.and_then(NonZeroU32::new), decode_hex(expected)) else {
        return false;
    };
    expected.len() == 20
        && pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt.as_bytes(), password.as_bytes(), &expected)
            .is_ok()
}
