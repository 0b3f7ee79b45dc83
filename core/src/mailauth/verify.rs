//! DKIM verification.
//!
//! The header is parsed first, then the body passes once, in pieces of any size, through as many hashers as the
//! signatures need, and at the end the keys are fetched, all at the same time. The words of an outcome are those
//! Amavisd writes into Authentication-Results; [`Policy`] says whether weak signatures count.

use super::canonical::{BodyHash, BodyHashKind, BodyHasher};
use super::key::{Algorithm, PublicKey, RecordError};
use super::signature::{Malformed, Signature};
use crate::codec::header::{self, Field};
use crate::dns::{DnsError, Resolver};
use std::fmt;

/// Signatures of one message that are verified, from the top; further ones are ignored.
pub const MAX_SIGNATURES: usize = 10;

/// What counts as valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// RSA keys below this many bits do not pass.
    pub minimum_key_bits: u32,
    /// `rsa-sha1` may pass.
    pub sha1: bool,
    /// A signature whose `l=` leaves octets of the body uncovered may pass.
    pub partial_body: bool,
}

impl Policy {
    /// RFC 8301: no SHA-1, no key below 1024 bits; no text appended below what was signed.
    pub const STRICT: Policy = Policy { minimum_key_bits: 1024, sha1: false, partial_body: false };
    /// What Amavisd lets pass: everything that verifies.
    pub const AMAVISD: Policy = Policy { minimum_key_bits: 0, sha1: true, partial_body: true };
}

/// Result word of RFC 8601 section 2.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The signature is good.
    Pass,
    /// The message was changed, or the signature has expired.
    Fail,
    /// The signature could not be checked.
    Neutral,
    /// Good, but not by our policy.
    Policy,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Neutral => "neutral",
            Verdict::Policy => "policy",
        })
    }
}

/// What became of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result word.
    pub verdict: Verdict,
    /// Why it is not a plain pass, in words.
    pub reason: Option<String>,
    /// `d=`, lower case, if it could be read.
    pub domain: Option<String>,
    /// `s=`
    pub selector: Option<String>,
    /// `i=`, or `@` and the domain.
    pub identity: Option<String>,
    /// Size of the key, if one was obtained.
    pub key_bits: Option<u32>,
    /// First eight characters of `b=`.
    pub mark: String,
}

impl Outcome {
    /// True for a valid signature.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }

    /// True for a valid signature by the author of the mail: its identity is the author's address, or its domain.
    pub fn is_by(&self, author: &str) -> bool {
        let (Some(identity), true) = (&self.identity, self.passed()) else { return false };
        let (Some((local, domain)), Some((author_local, author_domain))) =
            (identity.rsplit_once('@'), author.rsplit_once('@'))
        else {
            return false;
        };
        domain.eq_ignore_ascii_case(author_domain) && (local.is_empty() || local == author_local)
    }
}

/// Verifies the signatures of one message.
#[derive(Debug)]
pub struct Verifier<'h> {
    fields: Vec<Field<'h>>,
    signatures: Vec<(Field<'h>, Result<Signature, Malformed>)>,
    hashers: Vec<BodyHasher>,
}

impl<'h> Verifier<'h> {
    /// Reads the header section. `None` when the message carries no signature.
    pub fn new(header: &'h [u8]) -> Option<Verifier<'h>> {
        let fields: Vec<Field<'h>> = header::fields(header).collect();
        let signatures: Vec<_> = fields
            .iter()
            .filter(|field| field.is("DKIM-Signature"))
            .take(MAX_SIGNATURES)
            .map(|field| (*field, Signature::parse(field.value())))
            .collect();
        if signatures.is_empty() {
            return None;
        }
        let mut kinds: Vec<BodyHashKind> = Vec::new();
        for (_, signature) in &signatures {
            if let Ok(signature) = signature
                && !kinds.contains(&signature.body)
            {
                kinds.push(signature.body);
            }
        }
        Some(Verifier { fields, signatures, hashers: kinds.into_iter().map(BodyHasher::new).collect() })
    }

    /// Takes the next piece of the body.
    pub fn body(&mut self, piece: &[u8]) {
        self.hashers.iter_mut().for_each(|hasher| hasher.update(piece));
    }

    /// Fetches the keys and decides. `now` is in seconds since 1970. One outcome for each signature, from the top.
    pub async fn finish(self, resolver: &dyn Resolver, policy: &Policy, now: u64) -> Vec<Outcome> {
        let names: Vec<Option<String>> =
            self.signatures.iter().map(|(_, s)| s.as_ref().ok().map(Signature::key_name)).collect();
        let lookups = names.iter().map(async |name| match name {
            Some(name) => resolver.txt(name).await,
            None => Err(DnsError::BadName),
        });
        let records = futures_util::future::join_all(lookups).await;
        let hashes: Vec<(BodyHashKind, BodyHash)> =
            self.hashers.into_iter().map(|hasher| (hasher.kind(), hasher.finish())).collect();
        let decide =
            |((own, signature), record): (&(Field<'_>, _), Result<Vec<Vec<u8>>, DnsError>)| match signature {
                Ok(signature) => check(signature, own, &self.fields, &hashes, record, policy, now),
                Err(malformed) => refuse(malformed),
            };
        self.signatures.iter().zip(records).map(decide).collect()
    }
}

fn refuse(malformed: &Malformed) -> Outcome {
    Outcome {
        verdict: Verdict::Neutral,
        reason: Some(format!("invalid ({})", malformed.reason)),
        domain: malformed.domain.clone(),
        selector: None,
        identity: None,
        key_bits: None,
        mark: malformed.mark.clone(),
    }
}

fn check(
    signature: &Signature,
    own: &Field<'_>,
    fields: &[Field<'_>],
    hashes: &[(BodyHashKind, BodyHash)],
    record: Result<Vec<Vec<u8>>, DnsError>,
    policy: &Policy,
    now: u64,
) -> Outcome {
    let outcome = |verdict, reason: Option<&str>, key_bits| Outcome {
        verdict,
        reason: reason.map(str::to_owned),
        domain: Some(signature.domain.clone()),
        selector: Some(signature.selector.clone()),
        identity: Some(signature.identity.clone()),
        key_bits,
        mark: signature.mark.clone(),
    };
    let key = match public_key(record) {
        Ok(key) => key,
        Err(reason) => {
            return outcome(Verdict::Neutral, Some(&format!("invalid (public key: {reason})")), None);
        }
    };
    let bits = Some(key.bits());
    if !key.fits(signature.algorithm) {
        return outcome(Verdict::Neutral, Some("invalid (public key: does not fit the signature)"), bits);
    }
    if key.strict_identity && signature.identity_domain() != signature.domain {
        return outcome(
            Verdict::Neutral,
            Some("invalid (public key: identity in a sub domain not allowed)"),
            bits,
        );
    }
    let Some((_, body)) = hashes.iter().find(|(kind, _)| *kind == signature.body) else {
        return outcome(Verdict::Neutral, Some("invalid (body not hashed)"), bits);
    };
    let short = signature.body.length.is_some_and(|length| length > body.total);
    if short || body.digest != signature.body_hash {
        return outcome(Verdict::Fail, Some("fail (body has been altered)"), bits);
    }
    if !key.verify(signature.algorithm, &signature.signed_text(fields, own), &signature.value) {
        return outcome(Verdict::Fail, Some("fail (message has been altered)"), bits);
    }
    if signature.expires_at.is_some_and(|expires| expires < now) {
        return outcome(Verdict::Fail, Some("good, but expired"), bits);
    }
    if signature.algorithm == Algorithm::RsaSha1 && !policy.sha1 {
        return outcome(Verdict::Policy, Some("good, but rsa-sha1 is not accepted"), bits);
    }
    if signature.algorithm != Algorithm::Ed25519Sha256 && key.bits() < policy.minimum_key_bits {
        return outcome(Verdict::Policy, Some("good, but the key is too short"), bits);
    }
    if signature.body.length.is_some_and(|length| length < body.total) && !policy.partial_body {
        return outcome(Verdict::Policy, Some("good, but covers only a part of the body"), bits);
    }
    outcome(Verdict::Pass, None, bits)
}

/// The first record that is a key record; the error in Amavisd's words.
fn public_key(record: Result<Vec<Vec<u8>>, DnsError>) -> Result<PublicKey, String> {
    let records = match record {
        Ok(records) => records,
        Err(DnsError::ServerFailure) => return Err("DNS error: SERVFAIL".to_owned()),
        Err(DnsError::Timeout) => return Err("DNS error: query timed out".to_owned()),
        Err(_) => return Err("not available".to_owned()),
    };
    let mut parsed = records.iter().map(|record| PublicKey::parse(record));
    let first = parsed.next().unwrap_or(Err(RecordError::InvalidData));
    // Other TXT records at the name (a domain verification token, say) must not hide the key.
    match first {
        Err(RecordError::InvalidData) => {
            parsed.find(|key| *key != Err(RecordError::InvalidData)).unwrap_or(first)
        }
        decided => decided,
    }
    .map_err(|error| error.to_string())
}
