//! Settings of srsd: `/etc/outrider/srsd.toml`.

use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::settings::{
    DaemonSettings, Documented, Findings, FrameSettings, Interval, LimitSettings, ListenAddress,
    ListenerSpec, LogSettings, MetricsSettings, ProcessSettings, Secret, SectionDoc,
};
use outrider_core::sql::DatabaseSettings;
use outrider_core::srs::{self, MAX_HASH_LENGTH};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

outrider_core::settings! {
    /// Sender Rewriting Scheme for Postfix' canonical maps. An empty file serves an iRedMail server.
    pub struct Settings {
        /// Where Postfix looks up envelope senders (sender_canonical_maps), by tcp: or socketmap:.
        pub listen_forward: Vec<ListenAddress> = vec![ListenAddress::local(7778)],
        /// Where Postfix looks up envelope recipients (recipient_canonical_maps), by tcp: or socketmap:.
        pub listen_reverse: Vec<ListenAddress> = vec![ListenAddress::local(7779)],
        /// The domain of rewritten addresses; it needs MX and SPF records and must be a destination of this
        /// server. The full name of the host if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub srs_domain: Option<String> = None,
        /// The name of this host: senders of this domain are left alone. The full name of the host if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub myhostname: Option<String> = None,
        /// Secrets: the first signs, all verify. To rotate, put a new one first and keep the old one for 22
        /// days. With neither `secrets` nor `secrets_file` one is made at the first start and kept in the
        /// state directory as srs.secret.
        pub secrets: Vec<Secret> = Vec::new(),
        /// A file with one secret a line, as PostSRSd has it; its secrets come after those of `secrets`.
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
        /// Longest local part we make, in bytes; longer senders are left alone. 0 is no limit.
        pub max_local_part: usize = 0,
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
        /// A file with one local domain a line, as PostSRSd 2 has it.
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
        /// The answer while local domains could not be read since the start: "pass" (not found: the
        /// sender stays as it is) or "defer" (temporary error).
        pub on_failure: OnFailure = OnFailure::Pass,
        /// Where the domains are read from.
        pub database: DatabaseSettings = DatabaseSettings::default(),
        /// The LDAP tree of accounts, for accounts = "ldap".
        pub ldap: LdapSettings = LdapSettings::default(),
        /// What is logged, in which form and where to.
        pub log: LogSettings = LogSettings::default(),
        /// Where metrics and health answers are served.
        pub metrics: MetricsSettings = MetricsSettings::default(),
        /// The account and the resources of the process.
        pub process: ProcessSettings = ProcessSettings::default(),
        /// Bounds on what clients may use.
        pub limits: LimitSettings = LimitSettings {
            request_timeout: Interval::seconds(2),
            ..LimitSettings::default()
        },
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

impl Settings {
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
}

impl From<AddressCheck> for srs::AddressCheck {
    fn from(check: AddressCheck) -> Self {
        match check {
            AddressCheck::Rfc5321 => srs::AddressCheck::Rfc5321,
            AddressCheck::Iredapd => srs::AddressCheck::Iredapd,
        }
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        let specs = |role, addresses: &[ListenAddress]| {
            let spec = |address: &ListenAddress| ListenerSpec { role, address: address.clone() };
            addresses.iter().map(spec).collect::<Vec<_>>()
        };
        [specs(crate::FORWARD, &self.listen_forward), specs(crate::REVERSE, &self.listen_reverse)].concat()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        for (key, value) in [("srs_domain", &self.srs_domain), ("myhostname", &self.myhostname)] {
            if let Some(name) = value
                && !is_host_name(name)
            {
                findings.error(
                    key,
                    format!("{name:?} is not a domain of two labels or more"),
                    "write a name such as \"mail.example.com\"",
                );
            }
        }
        // Four characters are 21 bits against forgery when case is ignored; fewer are a lottery.
        if !(4..=20).contains(&self.hash_length) {
            findings.error("hash_length", "must be between 4 and 20", "the default is 4");
        }
        if self.hash_minimum < 4 || self.hash_minimum > self.hash_length.min(MAX_HASH_LENGTH) {
            findings.error("hash_minimum", "must be between 4 and hash_length", "the default is 4");
        }
        let day = 86_400;
        if !(day..=1000 * day).contains(&self.validity.duration().as_secs()) {
            findings.error("validity", "must be between 1 and 1000 days", "the default is \"21d\"");
        }
        if self.refresh.duration().is_zero() {
            findings.error("refresh", "must be longer than nothing", "the default is \"60s\"");
        }
        if self.max_local_part > 0 && self.max_local_part < 32 {
            findings.error(
                "max_local_part",
                "leaves no room for an address",
                "RFC 5321 has 64; 0 is no limit",
            );
        }
        self.database.check("database", findings);
        if self.directory_domains {
            self.accounts.check(&self.ldap, findings);
        }
        for (number, secret) in self.secrets.iter().enumerate() {
            if secret.is_empty() {
                findings.error("secrets", format!("secret {} is empty", number + 1), "remove it");
            }
        }
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}

/// At least two labels of letters, digits, hyphens and underscores.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.contains('.') && name.len() <= 253 && name.split('.').all(label)
}
