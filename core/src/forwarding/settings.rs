//! Settings of rewriting, the same for all who rewrite.

use crate::directory::{AccountSource, LdapSettings};
use crate::settings::{Findings, Interval, Secret};
use crate::sql::{DatabaseSettings, DbUrl};
use crate::srs::{self, MAX_HASH_LENGTH};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Octets of a local part that every receiver takes (RFC 5321 section 4.5.3.1.1).
pub(super) const LONGEST_LOCAL_PART: usize = 64;

crate::settings! {
    /// The Sender Rewriting Scheme; give all programs of a mail system the same secrets and the same domain.
    pub struct SrsSettings {
        /// The domain of rewritten addresses; it needs MX and SPF records and must be a destination of this
        /// server. The full name of the host if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub srs_domain: Option<String> = None,
        /// The name of this host: senders of this domain are left alone. The full name of the host if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub myhostname: Option<String> = None,
        /// Secrets: the first signs, all verify. To rotate, put a new one first and keep the old one for 22
        /// days. Without any of `secrets`, `iredapd_settings` and `secrets_file` one is made at the first
        /// start and kept in the state directory as srs.secret.
        pub secrets: Vec<Secret> = Vec::new(),
        /// iRedAPD's settings.py, whose srs_secrets come after those of `secrets`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub iredapd_settings: Option<PathBuf> = None,
        /// A file with one secret a line, as PostSRSd has it; its secrets come last.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub secrets_file: Option<PathBuf> = None,
        /// The character after SRS0 and SRS1 in addresses we make: "=", "+" or "-". All are understood.
        pub separator: Separator = Separator::Equals,
        /// Characters of the hash in addresses we make, 4 to 20.
        pub hash_length: usize = 4,
        /// Fewest characters of a hash that is believed, 4 to hash_length.
        pub hash_minimum: usize = 4,
        /// The alphabet of the hash in addresses we make: "base64" (iRedAPD, PostSRSd up to 2.2.5) or
        /// "base64url" (later PostSRSd; safe with recipient_delimiter = +). Both are understood.
        pub hash_alphabet: HashAlphabet = HashAlphabet::Base64,
        /// How old an address may be to be reversed; whole days count.
        pub validity: Interval = Interval::seconds(21 * 86_400),
        /// Longest local part we make, in bytes; senders that would need more are left alone, or get a token with
        /// original_envelope = "database-if-long". 0 is no limit.
        pub max_local_part: usize = 0,
        /// Where the original sender stands: "embedded" in the rewritten address; "database": a token in the address and
        /// the sender in envelope_database, as with PostSRSd 2; "database-if-long": a token only where the local part would
        /// exceed max_local_part (64 bytes if that is 0). Addresses of all kinds are reversed with any of them.
        pub original_envelope: OriginalEnvelope = OriginalEnvelope::Embedded,
        /// The database of senders behind tokens: "sqlite:/file" (PostSRSd 2's file too), "mysql://..." or
        /// "postgresql://..." with table srs_envelope, for several hosts (`outrider srs table` prints the statement
        /// that makes it). Not set: envelopes.db in the state directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub envelope_database: Option<DbUrl> = None,
        /// A file that holds the password for envelope_database.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub envelope_database_password_file: Option<PathBuf> = None,
        /// Most senders kept in envelope_database; new ones beyond it count as a failure of the database.
        pub envelope_database_limit: u64 = 1_000_000,
        /// Which senders are rewritten: "rfc5321" (every unquoted address at a domain of two labels or more)
        /// or "iredapd" (those that iRedAPD rewrites).
        pub address_check: AddressCheck = AddressCheck::Rfc5321,
        /// Reverse addresses of srs_domain only. The older programs reverse those of any domain.
        pub reverse_only_srs_domain: bool = false,
        /// Rewrite senders of local domains, of srs_domain and of myhostname too.
        pub always_rewrite: bool = false,
        /// Leave senders alone that are valid SRS addresses of ours at whatever domain, as PostSRSd 1 does,
        /// instead of wrapping them once more.
        pub keep_own_addresses: bool = false,
        /// Local domains, whose senders are left alone: "example.com", or ".example.com" for those below it.
        pub domains: Vec<String> = Vec::new(),
        /// A file with one local domain a line, as PostSRSd 2 has it, or a Postfix map whose keys are domains. It is read
        /// again every `refresh`; while it cannot be read the domains of the last time count.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub domains_file: Option<PathBuf> = None,
        /// Where the accounts are: "sql" (database vmail) or "ldap" (section ldap).
        pub accounts: AccountSource = AccountSource::Sql,
        /// Take the active domains of the accounts, alias domains included, as local.
        pub directory_domains: bool = true,
        /// More domains whose senders are left alone; `exclude_style` says what an entry means.
        pub exclude: Vec<String> = Vec::new(),
        /// What entries of `exclude` mean: "iredapd" (the domain and all below it), "postsrsd1" or
        /// "postsrsd2" (the domain itself, or those below it if the entry begins with a dot).
        pub exclude_style: ExcludeStyle = ExcludeStyle::Iredapd,
        /// Take the entries of table srs_exclude_domains of database `iredapd` as exclusions too.
        pub exclude_table: bool = true,
        /// How often the domains are read from the databases; they are kept in memory in between, and while
        /// a database is down.
        pub refresh: Interval = Interval::seconds(60),
        /// The answer while local domains could not be read since the start, or where a token cannot be kept: "pass"
        /// (not found: the sender stays as it is; a short one is embedded instead) or "defer" (temporary error). A token
        /// that cannot be looked up is a temporary error with both: its bounce would be lost otherwise.
        pub on_failure: OnFailure = OnFailure::Pass,
        /// Where the domains are read from. Not set: embedded databases, if another daemon has made them in the state directory.
        pub database: DatabaseSettings = DatabaseSettings::default(),
        /// The LDAP tree of accounts, for accounts = "ldap".
        pub ldap: LdapSettings = LdapSettings::default(),
    }
}

/// Setting `separator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Separator {
    /// `SRS0=`
    #[serde(rename = "=")]
    Equals,
    /// `SRS0+`
    #[serde(rename = "+")]
    Plus,
    /// `SRS0-`
    #[serde(rename = "-")]
    Dash,
}

/// Setting `hash_alphabet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlphabet {
    /// With `+` and `/`.
    Base64,
    /// With `-` and `_`.
    Base64url,
}

/// Setting `address_check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressCheck {
    /// Every unquoted address at a domain of two labels or more.
    Rfc5321,
    /// What iRedAPD takes for an address.
    Iredapd,
}

/// Setting `exclude_style`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExcludeStyle {
    /// An entry covers the domain and all below it.
    Iredapd,
    /// The domain itself, or those below it.
    Postsrsd1,
    /// The domain itself, or those below it.
    Postsrsd2,
}

/// Setting `on_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Not found: the address stays as it is.
    Pass,
    /// Temporary error: Postfix tries again later.
    Defer,
}

/// Setting `original_envelope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginalEnvelope {
    /// The sender stands in the rewritten address.
    Embedded,
    /// A token stands in the address, the sender in a database.
    Database,
    /// A token where the sender would make the address too long.
    DatabaseIfLong,
}

impl SrsSettings {
    /// How addresses are made and checked, for rewritten addresses at `domain`.
    pub fn srs_options(&self, domain: &str) -> srs::Options {
        srs::Options {
            domain: domain.to_owned(),
            separator: match self.separator {
                Separator::Equals => srs::Separator::Equals,
                Separator::Plus => srs::Separator::Plus,
                Separator::Dash => srs::Separator::Dash,
            },
            hash_length: self.hash_length,
            hash_minimum: self.hash_minimum,
            alphabet: match self.hash_alphabet {
                HashAlphabet::Base64 => srs::Alphabet::Standard,
                HashAlphabet::Base64url => srs::Alphabet::UrlSafe,
            },
            validity_days: i64::try_from(self.validity.duration().as_secs() / 86_400).unwrap_or(i64::MAX),
            max_local_part: self.max_local_part,
            only_own_domain: self.reverse_only_srs_domain,
        }
    }

    /// What entries of `exclude` mean.
    pub fn list_style(&self) -> srs::ListStyle {
        match self.exclude_style {
            ExcludeStyle::Iredapd => srs::ListStyle::Iredapd,
            ExcludeStyle::Postsrsd1 => srs::ListStyle::Postsrsd1,
            ExcludeStyle::Postsrsd2 => srs::ListStyle::Postsrsd2,
        }
    }

    /// The longest local part with the sender in it, in bytes, where a token stands in for longer ones; `None` without
    /// tokens.
    pub(super) fn token_beyond(&self) -> Option<usize> {
        match (self.original_envelope, self.max_local_part) {
            (OriginalEnvelope::Embedded, _) => None,
            (OriginalEnvelope::Database, _) => Some(0),
            (OriginalEnvelope::DatabaseIfLong, 0) => Some(LONGEST_LOCAL_PART),
            (OriginalEnvelope::DatabaseIfLong, most) => Some(most),
        }
    }

    /// Reports what cannot work; `section` is the name of the section these settings stand in, empty at the top.
    pub fn check(&self, section: &str, findings: &mut Findings) {
        let name = |key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        for (key, value) in [("srs_domain", &self.srs_domain), ("myhostname", &self.myhostname)] {
            if let Some(host) = value
                && !is_host_name(host)
            {
                findings.error(
                    name(key),
                    format!("{host:?} is not a domain of two labels or more"),
                    "write a name such as \"mail.example.com\"",
                );
            }
        }
        // Four characters are 21 bits against forgery when case is ignored; fewer are a lottery.
        if !(4..=20).contains(&self.hash_length) {
            findings.error(name("hash_length"), "must be between 4 and 20", "the default is 4");
        }
        if self.hash_minimum < 4 || self.hash_minimum > self.hash_length.min(MAX_HASH_LENGTH) {
            findings.error(name("hash_minimum"), "must be between 4 and hash_length", "the default is 4");
        }
        let day = 86_400;
        if !(day..=1000 * day).contains(&self.validity.duration().as_secs()) {
            findings.error(name("validity"), "must be between 1 and 1000 days", "the default is \"21d\"");
        }
        if self.refresh.duration().is_zero() {
            findings.error(name("refresh"), "must be longer than nothing", "the default is \"60s\"");
        }
        if self.max_local_part > 0 && self.max_local_part < 32 {
            findings.error(
                name("max_local_part"),
                "leaves no room for an address",
                "RFC 5321 has 64; 0 is no limit",
            );
        }
        self.database.check(&name("database"), findings);
        if self.directory_domains && self.accounts == AccountSource::Ldap {
            self.ldap.check(&name("ldap"), findings);
        }
        if self.original_envelope != OriginalEnvelope::Embedded && (1..64).contains(&self.max_local_part) {
            findings.error(name("max_local_part"), "leaves no room for a token", "use 64, or 0 for no limit");
        }
        if self.envelope_database.as_ref().is_some_and(|url| url.database().is_empty()) {
            findings.error(name("envelope_database"), "the URL names no database", "append its name");
        }
        if let (Some(file), None) = (&self.envelope_database_password_file, &self.envelope_database) {
            findings.warning(
                name("envelope_database_password_file"),
                format!("{} is not used: envelope_database is not set", file.display()),
                "set envelope_database",
            );
        }
        for (number, secret) in self.secrets.iter().enumerate() {
            if secret.is_empty() {
                findings.error(name("secrets"), format!("secret {} is empty", number + 1), "remove it");
            }
        }
    }
}

impl From<AddressCheck> for srs::AddressCheck {
    fn from(check: AddressCheck) -> Self {
        match check {
            AddressCheck::Rfc5321 => srs::AddressCheck::Rfc5321,
            AddressCheck::Iredapd => srs::AddressCheck::Iredapd,
        }
    }
}

/// At least two labels of letters, digits, hyphens and underscores.
pub(super) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.contains('.') && name.len() <= 253 && name.split('.').all(label)
}
