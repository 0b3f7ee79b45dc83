//! The settings of the daemon, `/etc/outrider/admin-api.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use outrider_core::daemon::{DaemonSettings, Findings, FrameSettings, ListenerSpec};
use outrider_core::settings::{
    Documented, Interval, LimitSettings, ListenAddress, LogSettings, MetricsSettings, ProcessSettings,
    Secret, SectionDoc, Size,
};
use outrider_core::sql::DatabaseSettings;
use serde::{Deserialize, Serialize};

use crate::iredadmin::client::ClientList;
use crate::password::DefaultScheme;

/// Where the rows of mailing lists are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In files only; somebody else writes the database, or there is none.
    None,
    /// In the vmail database as well.
    Sql,
}

outrider_core::settings! {
    /// Administration of mailing lists and accounts by HTTP.
    pub struct Settings {
        /// Where the mailing-list API (mlmmjadmin's) listens.
        pub listen_lists: Vec<ListenAddress> = vec![ListenAddress::Tcp(([127, 0, 0, 1], 7790).into())],
        /// Where the account API (iRedAdmin's) listens.
        pub listen_accounts: Vec<ListenAddress> = vec![ListenAddress::Tcp(([127, 0, 0, 1], 7791).into())],
        /// What is logged, in which form and where to.
        pub log: LogSettings = LogSettings::default(),
        /// Where Prometheus metrics and health answers are served.
        pub metrics: MetricsSettings = MetricsSettings::default(),
        /// The account and the resources of the process.
        pub process: ProcessSettings = ProcessSettings::default(),
        /// Bounds on what clients may use.
        pub limits: LimitSettings = LimitSettings::default(),
        /// The databases.
        pub database: DatabaseSettings = DatabaseSettings::default(),
        /// Bounds of HTTP requests.
        pub http: HttpSettings = HttpSettings::default(),
        /// The mailing-list API.
        pub lists: ListSettings = ListSettings::default(),
        /// The account API.
        pub accounts: AccountSettings = AccountSettings::default(),
    }
}

outrider_core::settings! {
    /// Bounds of HTTP requests.
    pub struct HttpSettings {
        /// The largest body of a request to the account API.
        pub max_body: Size = Size(1 << 20),
        /// The largest body of a request to the mailing-list API: 100 000 subscribers are posted at once.
        pub max_list_body: Size = Size(16 << 20),
        /// The largest head of a request: request line and header fields together.
        pub max_head: Size = Size(16 << 10),
        /// The largest number of header fields.
        pub max_headers: usize = 64,
        /// The time to send the head; also how long a connection may rest between requests.
        pub head_timeout: Interval = Interval::seconds(10),
        /// The time to send the body.
        pub body_timeout: Interval = Interval::seconds(30),
        /// The time to wait for an answer; the work goes on afterwards.
        pub request_timeout: Interval = Interval::seconds(60),
    }
}

outrider_core::settings! {
    /// The mailing-list API on `listen_lists`.
    pub struct ListSettings {
        /// Where lists are kept besides the spool: "none", or "sql" for the vmail database.
        pub backend: Backend = Backend::None,
        /// The tokens that clients may send. None: one is made up and kept in the file api-auth-token of the state
        /// directory, readable for the owner only.
        pub api_auth_tokens: Vec<Secret> = Vec::new(),
        /// The header field that carries the token; "-" and "_" in it are the same.
        pub token_header: String = "X-MLMMJADMIN-API-AUTH-TOKEN".to_owned(),
        /// Whether only `accepted_clients` may connect.
        pub restrict_access: bool = false,
        /// The addresses of clients with restrict_access = true.
        pub accepted_clients: Vec<IpAddr> = Vec::new(),
        /// The directory of the lists, mlmmj's spool, as iRedMail's "/var/vmail/mlmmj". It has to exist and to belong to
        /// the account of this daemon. Not set: mlmmj below the state directory, created when missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub spool_directory: Option<PathBuf> = None,
        /// Where removed lists go, as iRedMail's "/var/vmail/mlmmj-archive"; "" keeps them beside the lists. Not set:
        /// mlmmj-archive below the state directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub archive_directory: Option<PathBuf> = None,
        /// The directory with the texts of new lists, in its sub-directory en. If it is set, it has to exist when a
        /// list is created. Not set: "/usr/share/mlmmj/text.skel" where it exists; mlmmj has texts of its own.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub template_directory: Option<PathBuf> = None,
        /// The transport of lists in Postfix' master.cf, the first part of maillists.transport.
        pub transport: String = "mlmmj".to_owned(),
        /// The program that asks subscribers to confirm; looked for in /usr/bin and /usr/local/bin if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subscribe_command: Option<PathBuf> = None,
        /// How long to wait for a pending confirmation to appear.
        pub subscribe_timeout: Interval = Interval::seconds(20),
        /// Parameters of new lists where the request says nothing, such as { smtp_port = "10027" }.
        pub default_profile: BTreeMap<String, String> = BTreeMap::new(),
        /// Parameters that each creation and each update sets, whatever was sent.
        pub forced_profile: BTreeMap<String, String> = BTreeMap::new(),
        /// Whether a request to create or change a list is refused when it holds an unknown parameter.
        pub strict_parameters: bool = false,
    }
}

outrider_core::settings! {
    /// The account API on `listen_accounts`.
    pub struct AccountSettings {
        /// Whether the API is served; otherwise each of its paths is answered 404. The same switch as in iRedAdmin.
        pub enable_restful_api: bool = false,
        /// The prefix under which a proxy shows the application; its paths are served with and without it.
        pub base_path: String = "/iredadmin".to_owned(),
        /// Clients that may use the API: addresses, networks "192.0.2.0/24", ranges "192.0.2.1-9", prefixes "192.0.2".
        /// Empty for no restriction.
        pub restful_api_clients: Vec<String> = Vec::new(),
        /// Clients from which administrators may log in, in the same forms; empty for no restriction.
        pub admin_login_ip_list: Vec<String> = Vec::new(),
        /// Clients from which global administrators may log in, in the same forms; empty for no restriction.
        pub global_admin_ip_list: Vec<String> = Vec::new(),
        /// Proxies in front, in the same forms: their X-Forwarded-For names the client, their X-Forwarded-Proto says
        /// whether it came by TLS.
        pub trusted_proxies: Vec<String> = vec!["127.0.0.1".to_owned(), "::1".to_owned()],
        /// A session ends when it is not used for this long.
        pub session_timeout: Interval = Interval::seconds(1800),
        /// Whether a session goes on when the client's address changes.
        pub session_ignore_change_ip: bool = false,
        /// Failed logins of one account from one client within login_window, after which logins are refused.
        pub login_failures: u32 = 10,
        /// The time in which failed logins are counted.
        pub login_window: Interval = Interval::seconds(900),
        /// Computations of passwords at once; each takes a processor for some tenths of a second.
        pub password_workers: usize = 2,
        /// The scheme of new passwords: "SSHA512", "BCRYPT", "SHA512-CRYPT", "SSHA", "MD5", "PLAIN-MD5", "CRAM-MD5",
        /// "NTLM" or "PLAIN".
        pub default_password_scheme: DefaultScheme = DefaultScheme::Ssha512,
        /// Whether a new password needs a letter.
        pub password_has_letter: bool = true,
        /// Whether a new password needs an upper-case letter.
        pub password_has_uppercase: bool = true,
        /// Whether a new password needs a digit.
        pub password_has_number: bool = true,
        /// Whether a new password needs a special character.
        pub password_has_special_char: bool = true,
        /// The least length of new passwords where the domain sets none.
        pub min_password_length: u32 = 8,
        /// The greatest length of new passwords where the domain sets none; 0 for no limit.
        pub max_password_length: u32 = 0,
        /// The directory of all mailboxes; its last part is the storage node.
        pub storage_base_directory: String = "/var/vmail/vmail1".to_owned(),
        /// Whether directories of single characters spread the users of a domain.
        pub maildir_hashed: bool = true,
        /// Whether the path of a mailbox begins with the domain.
        pub maildir_prepend_domain: bool = true,
        /// Whether the path of a mailbox ends in the time of its creation.
        pub maildir_append_timestamp: bool = true,
        /// Whether directories of single characters spread the domains.
        pub maildir_domain_hashed: bool = false,
        /// The format of new mailboxes: "maildir", "mdbox" or "sdbox".
        pub mailbox_format: String = "maildir".to_owned(),
        /// The folder of new mailboxes.
        pub mailbox_folder: String = "Maildir".to_owned(),
        /// The transport of new domains.
        pub default_mta_transport: String = "dovecot".to_owned(),
        /// Whether further addresses of a user may be below any hosted domain instead of the user's own.
        pub user_alias_cross_all_domains: bool = false,
        /// Columns that answers never show.
        pub api_hidden_user_profiles: Vec<String> = vec!["password".to_owned(), "userPassword".to_owned()],
    }
}

/// The role of sockets that speak the mailing-list API.
pub(crate) const LISTS: &str = "lists";
/// The role of sockets that speak the account API.
pub(crate) const ACCOUNTS: &str = "accounts";

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        let spec = |role, address: &ListenAddress| ListenerSpec { role, address: address.clone() };
        let lists = self.listen_lists.iter().map(|address| spec(LISTS, address));
        lists.chain(self.listen_accounts.iter().map(|address| spec(ACCOUNTS, address))).collect()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        self.database.check("database", findings);
        self.lists.check(findings);
        self.accounts.check(findings);
        if self.http.max_headers == 0 || self.http.max_headers > 1000 {
            findings.error("http.max_headers", "must be between 1 and 1000", "64 is plenty");
        }
        if self.http.max_head.0 < 8192 {
            findings.error("http.max_head", "must be at least 8 KiB", "use \"16KiB\"");
        }
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}

impl ListSettings {
    fn check(&self, findings: &mut Findings) {
        for token in &self.api_auth_tokens {
            if token.is_empty() {
                let fix = "remove it; without any token one is made up in the state directory";
                findings.error("lists.api_auth_tokens", "an empty token would let everybody in", fix);
            } else if token.expose().len() < 16 {
                findings.warning("lists.api_auth_tokens", "a token is short", "use 32 random characters");
            } else if token.expose().bytes().any(|byte| !byte.is_ascii_graphic()) {
                let reason = "a token holds characters that no HTTP client can send";
                findings.error("lists.api_auth_tokens", reason, "use ASCII letters and digits");
            }
        }
        let name = hyper::header::HeaderName::from_bytes(self.token_header.as_bytes());
        if name.is_err() {
            findings.error("lists.token_header", "is no name of a header field", "");
        }
        if self.restrict_access && self.accepted_clients.is_empty() {
            let fix = "name the clients or set restrict_access = false";
            findings.error("lists.accepted_clients", "nobody could connect", fix);
        }
        let paths = [
            ("lists.spool_directory", &self.spool_directory),
            ("lists.template_directory", &self.template_directory),
            ("lists.subscribe_command", &self.subscribe_command),
            ("lists.archive_directory", &self.archive_directory),
        ];
        for (key, path) in paths {
            let Some(path) = path else { continue };
            let beside_lists = key == "lists.archive_directory" && path.as_os_str().is_empty();
            if !path.is_absolute() && !beside_lists {
                findings.error(key, format!("{} is no absolute path", path.display()), "start it with /");
            }
        }
        for (key, profile) in
            [("lists.default_profile", &self.default_profile), ("lists.forced_profile", &self.forced_profile)]
        {
            for name in profile.keys() {
                if !crate::mlmmj::is_parameter(name) {
                    findings.error(key, format!("{name} is no parameter of a list"), "see the manual page");
                }
            }
        }
    }
}

impl AccountSettings {
    fn check(&self, findings: &mut Findings) {
        for (key, list) in [
            ("accounts.restful_api_clients", &self.restful_api_clients),
            ("accounts.admin_login_ip_list", &self.admin_login_ip_list),
            ("accounts.global_admin_ip_list", &self.global_admin_ip_list),
            ("accounts.trusted_proxies", &self.trusted_proxies),
        ] {
            if let Err(entry) = ClientList::parse(list) {
                let fix = "use \"192.0.2.1\", \"192.0.2.0/24\", \"192.0.2.1-9\" or \"192.0.2\"";
                findings.error(key, format!("{entry:?} names no clients"), fix);
            }
        }
        let base = &self.base_path;
        if !base.is_empty() && (!base.starts_with('/') || base.ends_with('/')) {
            findings.error(
                "accounts.base_path",
                "must begin with / and not end with it",
                "use \"/iredadmin\"",
            );
        }
        if !self.storage_base_directory.starts_with('/') {
            let fix = "use \"/var/vmail/vmail1\"";
            findings.error("accounts.storage_base_directory", "must be an absolute path", fix);
        }
        if !["maildir", "mdbox", "sdbox"].contains(&self.mailbox_format.as_str()) {
            findings.error("accounts.mailbox_format", "must be maildir, mdbox or sdbox", "use \"maildir\"");
        }
        if self.session_timeout.duration().is_zero() {
            findings.error("accounts.session_timeout", "nobody could stay logged in", "use \"30m\"");
        }
        if self.login_failures == 0 {
            findings.error("accounts.login_failures", "nobody could log in", "use 10");
        }
        if self.default_password_scheme == DefaultScheme::Plain {
            let fix = "use \"SSHA512\"";
            findings.warning("accounts.default_password_scheme", "passwords are stored as they are", fix);
        }
    }
}
