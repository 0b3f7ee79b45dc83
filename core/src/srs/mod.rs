//! The Sender Rewriting Scheme: real envelope senders in, addresses of our own domain out, and back.
//!
//! ```text
//! SRS0 S HASH = TS = HOST = LOCAL @ SRSDOMAIN        first hop
//! SRS1 S HASH = HOST1 = OPAQUE @ SRSDOMAIN           second and later hops
//! ```
//!
//! `S` is one of `=`, `+`, `-`. HASH is the beginning of base64(HMAC-SHA1) over the other fields in ASCII
//! lower case, TS the day in two base32 characters. The addresses are those of Mail::SRS, libsrs2,
//! PostSRSd 1 and 2 and iRedAPD: what one of them made, this engine reverses, and the other way round.
//!
//! The engine is pure: it opens nothing and is told the time. Which domains are left alone is decided by
//! the caller ([`DomainList`] holds the three spellings of such lists), which texts are sent is the wire's
//! business ([`ReverseError`]'s `Display` is what PostSRSd 2 says).
//!
//! A sender that is too long for that can stand in a database, and a [`Token`] in the address.
//!
//! Security: four hash characters compared without case are about 21 bits, so shorter ones are refused
//! ([`Options::hash_minimum`]), all given characters must match, and the comparison takes the same time
//! whatever they are. An SRS1 address carries no time stamp and works as long as its secret.

mod address;
mod domain_list;
mod hash;
mod timestamp;
mod token;

pub use address::{AddressCheck, NotRewritable, Sender};
pub use domain_list::{DomainList, ListStyle};
pub use hash::{Alphabet, MAX_HASH_LENGTH, Secrets};
pub use token::Token;

use address::{Fields, Malformed};
use hash::Verdict;

/// The character after `SRS0` and `SRS1` in addresses we make. All three are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// `=`, the usual one.
    #[default]
    Equals,
    /// `+`.
    Plus,
    /// `-`.
    Dash,
}

impl Separator {
    fn as_str(self) -> &'static str {
        match self {
            Separator::Equals => "=",
            Separator::Plus => "+",
            Separator::Dash => "-",
        }
    }
}

/// How addresses are made and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Domain of the addresses we make.
    pub domain: String,
    /// First separator of the addresses we make.
    pub separator: Separator,
    /// Characters of the hash in the addresses we make.
    pub hash_length: usize,
    /// Fewest characters of a hash that is believed.
    pub hash_minimum: usize,
    /// Alphabet of the hash in the addresses we make; both are understood.
    pub alphabet: Alphabet,
    /// Age in days up to which an address is reversed.
    pub validity_days: i64,
    /// Longest local part we make, in bytes; 0 is no limit. RFC 5321 allows 64, but most receivers take
    /// more, as all makers of SRS addresses go beyond it.
    pub max_local_part: usize,
    /// Reverse only addresses of [`Options::domain`]. The programs of old ignore the domain, as servers
    /// have many names.
    pub only_own_domain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            domain: String::new(),
            separator: Separator::Equals,
            hash_length: 4,
            hash_minimum: 4,
            alphabet: Alphabet::Standard,
            validity_days: 21,
            max_local_part: 0,
            only_own_domain: false,
        }
    }
}

/// Why a sender was not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// There is no secret to sign with.
    #[error("no SRS secret is configured")]
    NoSecret,
    /// The local part would be longer than [`Options::max_local_part`].
    #[error("the rewritten local part would be too long")]
    TooLong,
}

/// Why an address was not reversed. The texts are those of PostSRSd 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReverseError {
    /// The local part does not begin with `SRS0` or `SRS1` and a separator, or is no such address in
    /// another way.
    #[error("Not an SRS address.")]
    NotSrs,
    /// Nothing behind the separator.
    #[error("No hash in SRS{0} address.")]
    NoHash(u8),
    /// No time stamp field.
    #[error("No timestamp in SRS0 address.")]
    NoTimestamp,
    /// No host field.
    #[error("No host in SRS{0} address.")]
    NoHost(u8),
    /// No field with the local part.
    #[error("No user in SRS{0} address.")]
    NoUser(u8),
    /// A character of the time stamp is not base32.
    #[error("Bad base32 character in timestamp.")]
    BadTimestamp,
    /// The time stamp is in the future, too old, or not of two characters.
    #[error("Time stamp out of date.")]
    Expired,
    /// The hash has fewer characters than [`Options::hash_minimum`].
    #[error("Hash too short in SRS address.")]
    HashTooShort,
    /// The hash fits none of the secrets.
    #[error("Hash invalid in SRS address.")]
    HashInvalid,
    /// There is no secret to check with.
    #[error("No SRS secret is configured.")]
    NoSecret,
}

/// An address in its original form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversed {
    /// The address.
    pub address: String,
    /// Whether it came out of an SRS1 address. Such an address never expires and its host was chosen by a
    /// sender, hence the caller logs it.
    pub srs1: bool,
}

/// The parts of an SRS address, believed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Whether it is an SRS1 address, which has no time stamp.
    pub srs1: bool,
    /// Domain of the sender, or of the forwarder before us.
    pub host: String,
    /// Local part of the sender, or what that forwarder has to make sense of.
    pub rest: String,
    /// Days since it was made, 0 to 1023; `None` without a readable time stamp. A future one shows as very old.
    pub age_days: Option<i64>,
    /// Which secret its hash was made with, counted from 0; `None` if with none of ours.
    pub secret: Option<usize>,
}

impl Reversed {
    /// The token that the address carried in place of a sender.
    pub fn token(&self) -> Option<Token> {
        if self.srs1 { None } else { Token::of_key(&self.address) }
    }
}

/// The engine: options and secrets.
#[derive(Debug, Clone)]
pub struct Srs {
    options: Options,
    secrets: Secrets,
}

impl Srs {
    /// An engine that signs with the first of `secrets` and verifies with all of them.
    pub fn new(options: Options, secrets: Secrets) -> Self {
        Srs { options, secrets }
    }

    /// The options given to [`Srs::new`].
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Rewrites a sender, at `now` in seconds since 1970.
    ///
    /// An SRS0 address of another forwarder becomes an SRS1 address pointing to it, an SRS1 address keeps
    /// its target and gets a new hash, everything else, malformed SRS1 addresses included, becomes SRS0.
    pub fn forward(&self, sender: &Sender<'_>, now: i64) -> Result<String, ForwardError> {
        let (local, domain) = (sender.local(), sender.domain());
        if let Ok(fields @ Fields::Srs1 { host, opaque, .. }) = Fields::parse(local)
            && fields.complete()
        {
            return self.srs1(host, opaque);
        }
        // Whatever follows the tag and its separator, the forwarder before us has to make sense of it.
        if let Some(opaque) = address::srs0_opaque(local) {
            return self.srs1(domain, opaque);
        }
        self.srs0(local, domain, now)
    }

    /// The address that carries a token in place of a sender: an ordinary SRS0 address that says where to look.
    pub fn forward_token(&self, token: &Token, now: i64) -> Result<String, ForwardError> {
        self.srs0(token.as_str(), token::HOST, now)
    }

    fn srs0(&self, local: &str, domain: &str, now: i64) -> Result<String, ForwardError> {
        let stamp = timestamp::encode(now);
        let hash = self.sign(&[&stamp, domain, local])?;
        self.assemble(&["SRS0", self.options.separator.as_str(), &hash, "=", &stamp, "=", domain, "=", local])
    }

    fn srs1(&self, host: &str, opaque: &str) -> Result<String, ForwardError> {
        let hash = self.sign(&[host, opaque])?;
        self.assemble(&["SRS1", self.options.separator.as_str(), &hash, "=", host, "=", opaque])
    }

    fn sign(&self, data: &[&str]) -> Result<String, ForwardError> {
        let Options { hash_length, alphabet, .. } = self.options;
        self.secrets.sign(data, hash_length, alphabet).ok_or(ForwardError::NoSecret)
    }

    fn assemble(&self, local: &[&str]) -> Result<String, ForwardError> {
        let length: usize = local.iter().map(|part| part.len()).sum();
        if self.options.max_local_part > 0 && length > self.options.max_local_part {
            return Err(ForwardError::TooLong);
        }
        let mut address = String::with_capacity(length + 1 + self.options.domain.len());
        local.iter().for_each(|part| address.push_str(part));
        address.push('@');
        address.push_str(&self.options.domain);
        Ok(address)
    }

    /// Gives back what [`Srs::forward`], or one of its relatives with one of our secrets, was given, at
    /// `now` in seconds since 1970. Nested SRS addresses are taken apart by one level only.
    pub fn reverse(&self, address: &str, now: i64) -> Result<Reversed, ReverseError> {
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        if self.options.only_own_domain && !same_domain(domain, &self.options.domain) {
            return Err(ReverseError::NotSrs);
        }
        let fields = Fields::parse(local).map_err(|malformed| match malformed {
            Malformed::NotSrs => ReverseError::NotSrs,
            Malformed::NoHash(kind) => ReverseError::NoHash(kind),
            Malformed::NoTimestamp => ReverseError::NoTimestamp,
            Malformed::NoHost(kind) => ReverseError::NoHost(kind),
            Malformed::NoUser(kind) => ReverseError::NoUser(kind),
        })?;
        // The hash is computed whatever else is wrong, so that the time taken says nothing.
        match fields {
            Fields::Srs0 { hash, stamp, host, local } => {
                let verdict = self.verify(hash, &[stamp, host, local]);
                self.check_age(stamp, now)?;
                verdict?;
                if host.is_empty() || local.is_empty() {
                    return Err(ReverseError::NotSrs);
                }
                Ok(Reversed { address: format!("{local}@{host}"), srs1: false })
            }
            Fields::Srs1 { hash, host, opaque } => {
                let verdict = self.verify(hash, &[host, opaque]);
                if host.is_empty() || !address::begins_with_separator(opaque) {
                    return Err(ReverseError::NotSrs);
                }
                verdict?;
                Ok(Reversed { address: format!("SRS0{opaque}@{host}"), srs1: true })
            }
        }
    }

    /// Takes an SRS address apart for an administrator, at `now` in seconds since 1970; `None` if it is none.
    pub fn inspect(&self, address: &str, now: i64) -> Option<Inspection> {
        let (local, _) = address.rsplit_once('@').unwrap_or((address, ""));
        let minimum = self.options.hash_minimum;
        Some(match Fields::parse(local).ok()? {
            Fields::Srs0 { hash, stamp, host, local } => Inspection {
                srs1: false,
                host: host.to_owned(),
                rest: local.to_owned(),
                age_days: timestamp::age(stamp, now).ok(),
                secret: self.secrets.position(&[stamp, host, local], hash, minimum),
            },
            Fields::Srs1 { hash, host, opaque } => Inspection {
                srs1: true,
                host: host.to_owned(),
                rest: opaque.to_owned(),
                age_days: None,
                secret: self.secrets.position(&[host, opaque], hash, minimum),
            },
        })
    }

    fn verify(&self, hash: &str, data: &[&str]) -> Result<(), ReverseError> {
        match self.secrets.verify(data, hash, self.options.hash_minimum) {
            Verdict::Valid => Ok(()),
            Verdict::Invalid => Err(ReverseError::HashInvalid),
            Verdict::TooShort => Err(ReverseError::HashTooShort),
            Verdict::NoSecret => Err(ReverseError::NoSecret),
        }
    }

    fn check_age(&self, stamp: &str, now: i64) -> Result<(), ReverseError> {
        match timestamp::age(stamp, now) {
            Ok(days) if days <= self.options.validity_days => Ok(()),
            Ok(_) | Err(timestamp::BadTimestamp::Length) => Err(ReverseError::Expired),
            Err(timestamp::BadTimestamp::Character) => Err(ReverseError::BadTimestamp),
        }
    }
}

/// Whether an address has all the parts of an SRS address, none of them empty; says nothing about its hash.
/// iRedAPD and PostSRSd answer differently to addresses that do not.
pub fn is_srs_address(address: &str) -> bool {
    let (local, _) = address.rsplit_once('@').unwrap_or((address, ""));
    Fields::parse(local).is_ok_and(|fields| fields.complete())
}

/// Whether [`Srs::forward`] makes an SRS1 address of a sender, who was rewritten by another forwarder before.
pub fn is_second_hop(sender: &Sender<'_>) -> bool {
    address::srs0_opaque(sender.local()).is_some()
        || matches!(Fields::parse(sender.local()), Ok(fields @ Fields::Srs1 { .. }) if fields.complete())
}

/// Whether two domains are the same, without regard to ASCII case and a dot at the end.
pub fn same_domain(a: &str, b: &str) -> bool {
    let bare = |domain| str::strip_suffix(domain, ".").unwrap_or(domain);
    bare(a).eq_ignore_ascii_case(bare(b))
}

#[cfg(test)]
mod tests;
