//! Settings of srsd: `/etc/outrider/srsd.toml`.

use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::forwarding::{
    AddressCheck, ExcludeStyle, HashAlphabet, OnFailure, OriginalEnvelope, Separator, SrsSettings,
};
use outrider_core::settings::{
    DaemonSettings, Documented, Findings, FrameSettings, Interval, LimitSettings, ListenAddress,
    ListenerSpec, LogSettings, MetricsSettings, ProcessSettings, Secret, SectionDoc,
};
use outrider_core::sql::{DatabaseSettings, DbUrl};
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

impl Settings {
    /// What they say about rewriting.
    pub fn srs(&self) -> SrsSettings {
        SrsSettings {
            srs_domain: self.srs_domain.clone(),
            myhostname: self.myhostname.clone(),
            secrets: self.secrets.clone(),
            iredapd_settings: self.iredapd_settings.clone(),
            secrets_file: self.secrets_file.clone(),
            separator: self.separator,
            hash_length: self.hash_length,
            hash_minimum: self.hash_minimum,
            hash_alphabet: self.hash_alphabet,
            validity: self.validity,
            max_local_part: self.max_local_part,
            original_envelope: self.original_envelope,
            envelope_database: self.envelope_database.clone(),
            envelope_database_password_file: self.envelope_database_password_file.clone(),
            envelope_database_limit: self.envelope_database_limit,
            address_check: self.address_check,
            reverse_only_srs_domain: self.reverse_only_srs_domain,
            always_rewrite: self.always_rewrite,
            keep_own_addresses: self.keep_own_addresses,
            domains: self.domains.clone(),
            domains_file: self.domains_file.clone(),
            accounts: self.accounts,
            directory_domains: self.directory_domains,
            exclude: self.exclude.clone(),
            exclude_style: self.exclude_style,
            exclude_table: self.exclude_table,
            refresh: self.refresh,
            on_failure: self.on_failure,
            database: self.database.clone(),
            ldap: self.ldap.clone(),
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
        self.srs().check("", findings);
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}
