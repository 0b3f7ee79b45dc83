//! The sections of the single rules, and what belongs to them.

use std::net::IpAddr;
use std::path::PathBuf;

use hyper::header::HeaderName;
use outrider_core::settings::{Findings, HttpUrl, HttpUrlError, Interval, Secret};
use serde::{Deserialize, Serialize};

use super::Settings;

const DAY: u64 = 86_400;

outrider_core::settings! {
    /// How SPF records are looked up. Only the addresses they list count; this is not an SPF evaluation.
    pub struct SpfSettings {
        /// DNS questions for one sender domain.
        pub max_queries: u32 = 20,
        /// How long a request waits for them, and never longer than four fifths of limits.request_timeout, which is less as
        /// a rule. The look-up goes on in the background, for the client's next try.
        pub timeout: Interval = Interval::seconds(30),
        /// How long the result is used again; "0s" keeps nothing.
        pub lifetime: Interval = Interval::seconds(300),
        /// How many results are kept.
        pub entries: usize = 10_000,
        /// Domains not known yet that one client network (/24, /64) may make us look up in a minute. Beyond that greylisting
        /// takes a client for one that is not listed, and a sender that only SPF could prove has to come again. 0: any
        /// number.
        pub lookups_per_minute: u32 = 600,
    }
}

outrider_core::settings! {
    /// The table smtp_sessions: one row for each refusal at RCPT and for each message.
    pub struct SessionLogSettings {
        /// Whether rows are written.
        pub enabled: bool = true,
        /// How long rows are kept.
        pub keep: Interval = Interval::seconds(7 * DAY),
        /// Leave out messages that passed without any rule's opinion.
        pub skip_dunno: bool = false,
        /// Leave out greylisted requests.
        pub skip_greylisting: bool = false,
        /// Leave out whitelisted requests.
        pub skip_whitelisted: bool = false,
        /// Rows that may wait for the database; more are dropped and counted. A change needs a restart.
        pub queue: usize = 10_000,
    }
}

outrider_core::settings! {
    /// Who may send with which sender address.
    pub struct SenderLoginSettings {
        /// Refuse senders of local domains without a login.
        pub check_forged_sender: bool = true,
        /// Local senders that need no login: addresses, domains, or "user@*".
        pub allowed_forged_senders: Vec<String> = Vec::new(),
        /// Accept a local sender without login from a client that the domain's SPF record lists.
        pub check_spf: bool = true,
        /// Logins that may use other senders: an address or a domain may use any sender, "@domain" and "@." (all)
        /// may use senders of their own domain.
        pub allowed_logins: Vec<String> = Vec::new(),
        /// Allow alias addresses of the user and of alias domains.
        pub allow_aliases: bool = true,
        /// Allow members of a mail alias or mailing list to send as the list.
        pub allow_list_members: bool = false,
        /// The list service that knows the members of mailing lists, such as "http://127.0.0.1:7790/api". The certificate of
        /// an https address is verified.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub list_api: Option<String> = None,
        /// The only authorities that may have signed its certificate, as a PEM file; those of the system without.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub list_api_ca_file: Option<PathBuf> = None,
        /// The token for it; without one it is not asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub list_api_token: Option<Secret> = None,
        /// The HTTP header that carries the token.
        pub list_api_token_header: String = "X-MLMMJADMIN-API-AUTH-TOKEN".to_owned(),
    }
}

/// Which clients count as one when they come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GreylistingKey {
    /// Each address for itself, as in iRedAPD.
    Address,
    /// Those of one organisation.
    Organization,
}

outrider_core::settings! {
    /// Unknown senders are asked to come again.
    pub struct GreylistingSettings {
        /// The text behind "451 4.7.1".
        pub message: String = "Intentional policy rejection, please try again later".to_owned(),
        /// Record everything, refuse nothing.
        pub training: bool = false,
        /// How long a new sender is refused.
        pub block: Interval = Interval::seconds(15 * 60),
        /// How long a client that passed is remembered.
        pub passed_lifetime: Interval = Interval::seconds(30 * DAY),
        /// How long a client that has not come again is remembered.
        pub unpassed_lifetime: Interval = Interval::seconds(DAY),
        /// Let clients pass that the sender domain's SPF record lists.
        pub bypass_spf: bool = true,
        /// Which clients count as one when they come again: "address" (each for itself) or "organization", for providers
        /// that try again from another machine: those listed by the sender domain's SPF record, else those with verified
        /// names in one registered domain, else those of one /24 or /64. Rows of the latter say so in the column
        /// client_address; iRedAPD ignores them.
        pub key: GreylistingKey = GreylistingKey::Address,
        /// Take senders that differ only in numbers in front of the @ for the same one.
        pub fold_sender_digits: bool = false,
        /// First contacts of one client network (/24, /64) that are remembered in a minute; more are put off without. 0: any
        /// number.
        pub new_contacts_per_minute: u32 = 1000,
        /// Rows of greylisting_tracking that the hourly removal leaves; beyond that the oldest go that have not passed. 0:
        /// any number.
        pub most_contacts: u64 = 10_000_000,
    }
}

outrider_core::settings! {
    /// Limits of the table throttle.
    pub struct ThrottleSettings {
        /// No limits for trusted clients.
        pub bypass_mynetworks: bool = false,
        /// No inbound limits for authenticated senders.
        pub bypass_local_recipient: bool = true,
        /// No limits between addresses of one domain.
        pub bypass_same_domain: bool = true,
    }
}

outrider_core::settings! {
    /// White- and blacklists.
    pub struct WblistSettings {
        /// Do not look at the outbound lists.
        pub bypass_outgoing: bool = false,
        /// Accept mail of blacklisted senders and throw it away, instead of refusing it.
        pub discard: bool = false,
    }
}

outrider_core::settings! {
    /// Users whose password is too old may not send.
    pub struct ChangePasswordSettings {
        /// The age from which a password is too old.
        pub after: Interval = Interval::seconds(90 * DAY),
        /// The text behind "REJECT".
        pub message: String =
            "Password expired or never changed, please change your password in webmail before sending email".to_owned(),
        /// Addresses and domains that are exempt.
        pub never_expire: Vec<String> = Vec::new(),
    }
}

outrider_core::settings! {
    /// The reputation of client addresses at senderscore.org.
    pub struct SenderscoreSettings {
        /// Clients with this score or less are refused; scores are 0 to 100, and -1 refuses nobody.
        pub reject_score: i64 = 30,
        /// How long a score is kept in the database.
        pub keep: Interval = Interval::seconds(2 * DAY),
    }
}

/// For whom an outbound recipient is whitelisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhitelistAccount {
    /// For the user who wrote to it.
    User,
    /// For the user's whole domain.
    Domain,
    /// For everybody.
    Global,
}

/// What of an outbound recipient is whitelisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhitelistSender {
    /// The address.
    User,
    /// Its domain.
    Domain,
}

outrider_core::settings! {
    /// Whom our users write to may answer without being greylisted.
    pub struct WhitelistOutboundSettings {
        /// Whitelist the recipient for the user, or with `domain_for_everybody` its domain for all.
        pub for_greylisting: bool = true,
        /// With `for_greylisting`: enter the domain into greylisting_whitelist_domains.
        pub domain_for_everybody: bool = false,
        /// Also enter a plain whitelist row, as `account` and `sender` say.
        pub without_spf: bool = false,
        /// For whom the plain row counts: "user", "domain" or "global".
        pub account: WhitelistAccount = WhitelistAccount::User,
        /// What the plain row whitelists: "user" (the recipient's address) or "domain".
        pub sender: WhitelistSender = WhitelistSender::User,
    }
}

outrider_core::settings! {
    /// Mail to the administrator when a limit is exceeded.
    pub struct NotificationSettings {
        /// Who gets it; nobody if empty. Through SMTP these must be whole addresses, not names such as "root".
        pub recipients: Vec<String> = vec!["root".to_owned()],
        /// The program that sends it as long as there is no smtp_password. Postfix' own is set-group-ID, which a unit
        /// with NoNewPrivileges (the packaged one) does not let work: set smtp_password there.
        pub sendmail: PathBuf = PathBuf::from("/usr/sbin/sendmail"),
        /// The sender's address, and the login at the submission service.
        pub sender: String = "no-reply@localhost.localdomain".to_owned(),
        /// The sender's name.
        pub sender_name: String = "No Reply".to_owned(),
        /// The submission service, used when smtp_password is set.
        pub smtp_server: String = "localhost".to_owned(),
        /// Its port. The first words are in clear and STARTTLS follows; a port for TLS from the first byte (465) is none.
        pub smtp_port: u16 = 587,
        /// Log in and send behind STARTTLS only. The certificate must be for smtp_server and signed by an authority of
        /// the system; without smtp_ca_file any will do at a loopback address, for what is sent there stays on this
        /// machine and such servers often have a certificate of their own making.
        pub smtp_starttls: bool = true,
        /// The password that belongs to the login `sender`, or "file:/PATH" with it; without one the program sendmail
        /// is used.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub smtp_password: Option<Secret> = None,
        /// The only authorities that may sign the server's certificate, as a PEM file. It is then verified at loopback
        /// addresses as well.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub smtp_ca_file: Option<PathBuf> = None,
    }
}

impl NotificationSettings {
    /// The password for the submission service, if mail goes there: server, port, login and password must all be set.
    pub fn submission(&self) -> Option<&Secret> {
        let complete = !self.smtp_server.is_empty() && self.smtp_port != 0 && !self.sender.is_empty();
        self.smtp_password.as_ref().filter(|password| complete && !password.is_empty())
    }

    fn check(&self, findings: &mut Findings) {
        if self.submission().is_none() || self.recipients.is_empty() {
            return;
        }
        if smtp_address(&self.sender).is_none() {
            let reason = format!("{:?} is no address that SMTP can carry", self.sender);
            let way_out = "write a login such as \"no-reply@example.com\", with smtp_password for it";
            findings.error("notification.sender", reason, way_out);
        }
        for recipient in self.recipients.iter().filter(|name| smtp_address(name).is_none()) {
            let reason = format!("{recipient:?} is no address that SMTP can carry");
            let way_out =
                "write \"postmaster@example.com\", or leave out smtp_password to use the program sendmail";
            findings.error("notification.recipients", reason, way_out);
        }
        if self.smtp_starttls && self.smtp_port == 465 {
            let reason = "this port is for TLS from the first byte, which is not spoken here";
            findings.warning("notification.smtp_port", reason, "write 587, where STARTTLS is offered");
        }
        let local = self.smtp_server.eq_ignore_ascii_case("localhost")
            || self.smtp_server.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        if !self.smtp_starttls && !local {
            let reason = "the password goes over the network for everybody to read";
            findings.warning("notification.smtp_starttls", reason, "write smtp_starttls = true");
        }
    }
}

/// An address as it can stand in MAIL FROM and RCPT TO. Those that would need SMTPUTF8 (RFC 6531) are none.
pub(crate) fn smtp_address(text: &str) -> Option<lettre::Address> {
    text.is_ascii().then(|| text.parse().ok()).flatten()
}

outrider_core::settings! {
    /// Removal of rows that have had their time: triplets, counters, scores, session rows.
    pub struct CleanupSettings {
        /// How often; "0s" leaves it to a cron job with "outrider cleanup".
        pub interval: Interval = Interval::seconds(3600),
        /// How many rows one statement goes through; between two of them others have their turn.
        pub batch: u32 = 1000,
    }
}

outrider_core::settings! {
    /// Domains whose mail servers are never greylisted (table greylisting_whitelist_domains).
    pub struct WhitelistDomainSettings {
        /// How often the addresses of their mail servers are looked up; "0s" leaves it to a cron job with
        /// "outrider greylist refresh-spf".
        pub refresh: Interval = Interval::seconds(3600),
    }
}

/// What a line of 512 octets has room for behind codes, and with what Postfix adds.
const LONGEST_MESSAGE: usize = 400;

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    for (key, text) in [
        ("greylisting.message", &settings.greylisting.message),
        ("force_change_password.message", &settings.force_change_password.message),
    ] {
        if text.chars().any(char::is_control) {
            findings.error(key, "must be one line", "it is shown to the sender");
        } else if text.is_empty() || text.len() > LONGEST_MESSAGE {
            let reason = format!("is shown to the sender and should have 1 to {LONGEST_MESSAGE} octets");
            findings.warning(key, reason, "an SMTP reply has room for no more (RFC 5321 section 4.5.3.1.5)");
        }
    }
    if settings.greylisting.block >= settings.greylisting.unpassed_lifetime {
        let reason = "a new sender is forgotten before it may come again";
        findings.warning("greylisting.block", reason, "make it shorter than greylisting.unpassed_lifetime");
    }
    let header = &settings.reject_sender_login_mismatch.list_api_token_header;
    if HeaderName::try_from(header).is_err() {
        let key = "reject_sender_login_mismatch.list_api_token_header";
        findings.error(key, "is no name of an HTTP header", "the default is X-MLMMJADMIN-API-AUTH-TOKEN");
    }
    if !(-1..=100).contains(&settings.senderscore.reject_score) {
        findings.error("senderscore.reject_score", "must be between -1 and 100", "the default is 30");
    }
    if settings.spf.entries == 0 || settings.session_log.queue == 0 {
        let key = if settings.spf.entries == 0 { "spf.entries" } else { "session_log.queue" };
        findings.error(key, "must be at least 1", "");
    }
    if !(10..=100_000).contains(&settings.cleanup.batch) {
        let reason = "smaller steps never end, larger ones hold others up";
        findings.error("cleanup.batch", reason, "write a number from 10 to 100000; the default is 1000");
    }
    settings.notification.check(findings);
    let login = &settings.reject_sender_login_mismatch;
    let list_api = login.list_api.as_deref().unwrap_or_default();
    let read = list_api.parse::<HttpUrl>();
    if login.list_api_ca_file.is_some() && !read.as_ref().is_ok_and(HttpUrl::is_encrypted) {
        let reason = "is for an https:// address in list_api only";
        findings.warning("reject_sender_login_mismatch.list_api_ca_file", reason, "");
    }
    if !list_api.is_empty()
        && let Err(why) = read
    {
        let reason = match why {
            HttpUrlError::Login => "holds a login, but the token belongs into list_api_token".to_owned(),
            why => why.to_string(),
        };
        // It is not shown: with a login in it a secret would be.
        let way_out = "write \"http://127.0.0.1:7790/api\"";
        findings.error("reject_sender_login_mismatch.list_api", reason, way_out);
    }
    if login.list_api_token.is_some() && login.list_api.is_none() {
        let reason = "there is a token but no address to send it to";
        findings.warning("reject_sender_login_mismatch.list_api", reason, "add list_api");
    }
}
