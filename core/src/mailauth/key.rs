//! Keys: private ones from PEM files, public ones from DNS records (RFC 6376 section 3.6, RFC 8463).

use super::canonical::Hash;
use super::tag::TagList;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use rsa::pkcs8::EncodePublicKey;
use rsa::pkcs8::der::asn1::{BitStringRef, UintRef};
use rsa::pkcs8::der::{Decode, Reader, SliceReader};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;

/// Largest RSA key that is verified, in bits. Larger ones cost more time than a message is worth.
pub const MAX_RSA_BITS: u32 = 8192;
/// Smallest RSA key the main crypto library signs with, in bits.
const LIBRARY_RSA_BITS: usize = 2048;
/// Smallest RSA key that is verified at all, in bits; what lies below is no key but a puzzle.
const MIN_RSA_BITS: u32 = 384;

/// DER prefix of a SHA-256 and of a SHA-1 value in a PKCS #1 v1.5 signature (RFC 8017 section 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0, 0x04,
    0x20,
];
const SHA1_PREFIX: [u8; 15] =
    [0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];

/// Published keys come with and without padding, and with stray bits at the end.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No private key in PEM form.
    #[error("no private key in PEM form")]
    NotPem,
    /// A key, but of a kind that DKIM does not know.
    #[error("neither an RSA nor an Ed25519 key")]
    Unsupported,
    /// An RSA key that does not hold together, or of a size that nobody can verify.
    #[error("unusable RSA key: {0}")]
    Rsa(String),
    /// The crypto library refused to sign.
    #[error("signing failed")]
    Signing,
}

/// Signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `rsa-sha1`, verified only where old behaviour is asked for (RFC 8301).
    RsaSha1,
    /// `rsa-sha256`.
    RsaSha256,
    /// `ed25519-sha256` (RFC 8463).
    Ed25519Sha256,
}

impl Algorithm {
    /// Reads the value of an `a=` tag.
    pub fn parse(text: &str) -> Option<Algorithm> {
        match text.to_ascii_lowercase().as_str() {
            "rsa-sha1" => Some(Algorithm::RsaSha1),
            "rsa-sha256" => Some(Algorithm::RsaSha256),
            "ed25519-sha256" => Some(Algorithm::Ed25519Sha256),
            _ => None,
        }
    }

    /// Its hash.
    pub fn hash(self) -> Hash {
        match self {
            Algorithm::RsaSha1 => Hash::Sha1,
            Algorithm::RsaSha256 | Algorithm::Ed25519Sha256 => Hash::Sha256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::RsaSha1 => "rsa-sha1",
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        })
    }
}

/// A private key. `Debug` shows kind and size only.
pub enum PrivateKey {
    /// RSA of 2048 bits and more.
    Rsa(Box<RsaKeyPair>),
    /// RSA below 2048 bits, as many an Amavisd installation still has.
    ShortRsa(Box<RsaPrivateKey>),
    /// Ed25519.
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    /// Reads a PEM file: `RSA PRIVATE KEY`, or `PRIVATE KEY` (PKCS #8) with an RSA or Ed25519 key.
    pub fn from_pem(pem: &[u8]) -> Result<PrivateKey, KeyError> {
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)? {
            PrivateKeyDer::Pkcs1(der) => {
                let key = rsa::pkcs1::DecodeRsaPrivateKey::from_pkcs1_der(der.secret_pkcs1_der());
                PrivateKey::rsa(key.map_err(|error| KeyError::Rsa(error.to_string())), || {
                    RsaKeyPair::from_der(der.secret_pkcs1_der())
                })
            }
            PrivateKeyDer::Pkcs8(der) => {
                if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()) {
                    return Ok(PrivateKey::Ed25519(Box::new(pair)));
                }
                let key = rsa::pkcs8::DecodePrivateKey::from_pkcs8_der(der.secret_pkcs8_der());
                PrivateKey::rsa(key.map_err(|_| KeyError::Unsupported), || {
                    RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
                })
            }
            _ => Err(KeyError::Unsupported),
        }
    }

    /// An Ed25519 key from its 32 octets of seed.
    pub fn from_ed25519_seed(seed: &[u8]) -> Result<PrivateKey, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Unsupported)?;
        Ok(PrivateKey::Ed25519(Box::new(pair)))
    }

    fn rsa<E: fmt::Display>(
        parsed: Result<RsaPrivateKey, KeyError>,
        library: impl FnOnce() -> Result<RsaKeyPair, E>,
    ) -> Result<PrivateKey, KeyError> {
        let key = parsed?;
        let bits = key.n().bits();
        if bits < 512 {
            return Err(KeyError::Rsa(format!("{bits} bits are too few")));
        }
        if bits >= LIBRARY_RSA_BITS {
            let pair = library().map_err(|error| KeyError::Rsa(error.to_string()))?;
            return Ok(PrivateKey::Rsa(Box::new(pair)));
        }
        Ok(PrivateKey::ShortRsa(Box::new(key)))
    }

    /// Size in bits.
    pub fn bits(&self) -> usize {
        match self {
            PrivateKey::Rsa(pair) => pair.public_modulus_len() * 8,
            PrivateKey::ShortRsa(key) => key.n().bits(),
            PrivateKey::Ed25519(_) => 256,
        }
    }

    /// The algorithm this key signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            PrivateKey::Rsa(_) | PrivateKey::ShortRsa(_) => Algorithm::RsaSha256,
            PrivateKey::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Signs the canonical header text.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            PrivateKey::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut out)
                    .map_err(|_| KeyError::Signing)?;
                Ok(out)
            }
            PrivateKey::ShortRsa(key) => {
                let hashed = digest::digest(&digest::SHA256, text);
                let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: SHA256_PREFIX.into() };
                // Blinding keeps the time it takes from telling anything about the key.
                key.sign_with_rng(&mut LibraryRandom, scheme, hashed.as_ref()).map_err(|_| KeyError::Signing)
            }
            // RFC 8463 section 3: the hash of the header is what Ed25519 signs.
            PrivateKey::Ed25519(pair) => {
                Ok(pair.sign(digest::digest(&digest::SHA256, text).as_ref()).as_ref().to_vec())
            }
        }
    }

    /// The TXT record to publish, `v=DKIM1; p=...` (with `k=ed25519` where needed).
    pub fn record(&self) -> Result<String, KeyError> {
        let der: Vec<u8> = match self {
            PrivateKey::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyError::Signing)?;
                der.as_ref().to_vec()
            }
            PrivateKey::ShortRsa(key) => {
                let der = key.to_public_key().to_public_key_der();
                der.map_err(|error| KeyError::Rsa(error.to_string()))?.into_vec()
            }
            PrivateKey::Ed25519(pair) => {
                return Ok(format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(pair.public_key().as_ref())));
            }
        };
        Ok(format!("v=DKIM1; p={}", STANDARD.encode(der)))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, {} bits)", self.algorithm(), self.bits())
    }
}

/// The crypto library's random numbers in the form the `rsa` crate wants.
struct LibraryRandom;

impl rsa::rand_core::RngCore for LibraryRandom {
    fn next_u32(&mut self) -> u32 {
        rsa::rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rsa::rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        rand::fill(out).expect("the system's random source does not fail once the process runs");
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for LibraryRandom {}

/// Why a published key is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record is no key record, or its key cannot be read.
    #[error("invalid data")]
    InvalidData,
    /// `p=` is empty: the owner has withdrawn the key.
    #[error("revoked")]
    Revoked,
    /// The record is for another hash, service or kind of key than the signature asks for.
    #[error("does not fit the signature")]
    Unfit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8>, bits: u32 },
    Ed25519([u8; 32]),
}

/// A key record from DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    material: Material,
    hashes: Option<Vec<String>>,
    /// `t=s`: the identity's domain must be the signing domain itself.
    pub strict_identity: bool,
    /// `t=y`: the owner is only trying.
    pub testing: bool,
}

impl PublicKey {
    /// Parses the text of a TXT record.
    pub fn parse(record: &[u8]) -> Result<PublicKey, RecordError> {
        let tags = TagList::parse(record).map_err(|_| RecordError::InvalidData)?;
        match tags.get("v") {
            Some(version) if version != "DKIM1" || tags.first() != Some("v") => {
                return Err(RecordError::InvalidData);
            }
            _ => {}
        }
        let encoded = tags.dense("p").ok_or(RecordError::InvalidData)?;
        if encoded.is_empty() {
            return Err(RecordError::Revoked);
        }
        if let Some(services) = tags.dense("s")
            && !services.split(':').any(|service| service == "*" || service.eq_ignore_ascii_case("email"))
        {
            return Err(RecordError::Unfit);
        }
        let data = LENIENT.decode(encoded).map_err(|_| RecordError::InvalidData)?;
        let material = match tags.get("k").unwrap_or("rsa").to_ascii_lowercase().as_str() {
            "rsa" => rsa_material(&data).ok_or(RecordError::InvalidData)?,
            "ed25519" => Material::Ed25519(data.try_into().map_err(|_| RecordError::InvalidData)?),
            _ => return Err(RecordError::InvalidData),
        };
        let flags = tags.dense("t").unwrap_or_default();
        let flag = |name: &str| flags.split(':').any(|flag| flag == name);
        let hashes = tags.dense("h").map(|list| list.split(':').map(str::to_ascii_lowercase).collect());
        Ok(PublicKey { material, hashes, strict_identity: flag("s"), testing: flag("y") })
    }

    /// Size in bits.
    pub fn bits(&self) -> u32 {
        match &self.material {
            Material::Rsa { bits, .. } => *bits,
            Material::Ed25519(_) => 256,
        }
    }

    /// True when this key may verify a signature of that algorithm at all.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, Algorithm::RsaSha1 | Algorithm::RsaSha256),
            Material::Ed25519(_) => algorithm == Algorithm::Ed25519Sha256,
        };
        let name = match algorithm.hash() {
            Hash::Sha1 => "sha1",
            Hash::Sha256 => "sha256",
        };
        kind && self.hashes.as_ref().is_none_or(|hashes| hashes.iter().any(|hash| hash == name))
    }

    /// Checks a signature of the canonical header text.
    pub fn verify(&self, algorithm: Algorithm, text: &[u8], signed: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Ed25519(key), Algorithm::Ed25519Sha256) => {
                let hashed = digest::digest(&digest::SHA256, text);
                let key = signature::UnparsedPublicKey::new(&signature::ED25519, key);
                key.verify(hashed.as_ref(), signed).is_ok()
            }
            (Material::Rsa { modulus, exponent, bits }, Algorithm::RsaSha1 | Algorithm::RsaSha256) => {
                if *bits < 1024 {
                    return verify_short(modulus, exponent, algorithm.hash(), text, signed);
                }
                let parameters = match algorithm.hash() {
                    Hash::Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, text, signed).is_ok()
            }
            _ => false,
        }
    }
}

/// Keys below 1024 bits, which the main crypto library does not touch.
fn verify_short(modulus: &[u8], exponent: &[u8], hash: Hash, text: &[u8], signed: &[u8]) -> bool {
    let key = RsaPublicKey::new_unchecked(BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent));
    let scheme = match hash {
        Hash::Sha1 => Pkcs1v15Sign { hash_len: Some(20), prefix: SHA1_PREFIX.into() },
        Hash::Sha256 => Pkcs1v15Sign { hash_len: Some(32), prefix: SHA256_PREFIX.into() },
    };
    let hashed = digest::digest(hash.algorithm(), text);
    key.verify(scheme, hashed.as_ref(), signed).is_ok()
}

/// Reads `SubjectPublicKeyInfo` (what everybody publishes) or a bare `RSAPublicKey` (what the RFC says).
fn rsa_material(der: &[u8]) -> Option<Material> {
    let bare = rsa::pkcs8::SubjectPublicKeyInfoRef::try_from(der).ok().and_then(|info| {
        let bits: BitStringRef<'_> = info.subject_public_key;
        bits.as_bytes()
    });
    let (modulus, exponent) = rsa_components(bare.unwrap_or(der))?;
    let bits = u32::try_from(modulus.len()).ok()? * 8 - modulus.first()?.leading_zeros();
    let odd = |number: &[u8]| number.last().is_some_and(|octet| octet & 1 == 1);
    // An even modulus, exponent 1 or a huge exponent is no RSA key; some libraries loop or "verify" with them.
    let sane = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits)
        && odd(&modulus)
        && odd(&exponent)
        && exponent != [1]
        && exponent.len() <= 5;
    sane.then_some(Material::Rsa { modulus, exponent, bits })
}

/// `SEQUENCE { modulus INTEGER, exponent INTEGER }`
fn rsa_components(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = SliceReader::new(der).ok()?;
    let header = rsa::pkcs8::der::Header::decode(&mut reader).ok()?;
    let read = |reader: &mut rsa::pkcs8::der::NestedReader<'_, SliceReader<'_>>| {
        let modulus = UintRef::decode(reader)?.as_bytes().to_vec();
        let exponent = UintRef::decode(reader)?.as_bytes().to_vec();
        Ok((modulus, exponent))
    };
    (header.tag == rsa::pkcs8::der::Tag::Sequence)
        .then(|| reader.read_nested(header.length, read).ok())
        .flatten()
}
