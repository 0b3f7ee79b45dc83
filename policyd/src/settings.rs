//! Settings of `/etc/outrider/policyd.toml`.
//!
//! An empty file gives the rules an iRedMail server enables, on the embedded database. Each rule has a section of its
//! name; what several rules read stands at the top. The names of iRedAPD's settings are in [`iredapd`].

mod counters;
mod forward;
pub mod iredapd;
mod rules;

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_core::address::{self, Reading};
use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::dns::DnsSettings;
use outrider_core::network::NetworkList;
use outrider_core::settings::{
    DaemonSettings, Documented, Findings, FrameSettings, Interval, LimitSettings, ListenAddress,
    ListenerSpec, LogSettings, MetricsSettings, ProcessSettings, SectionDoc,
};
use outrider_core::sql::DatabaseSettings;
use serde::{Deserialize, Serialize};

pub use counters::{CounterSettings, CounterStore, ValkeyUrl};
pub use forward::{ForwardMap, ForwardSettings, ProtocolState};
pub(crate) use rules::smtp_address;
pub use rules::{
    ChangePasswordSettings, CleanupSettings, GreylistingKey, GreylistingSettings, NotificationSettings,
    SenderLoginSettings, SenderscoreSettings, SessionLogSettings, SpfSettings, ThrottleSettings,
    WblistSettings, WhitelistAccount, WhitelistDomainSettings, WhitelistOutboundSettings, WhitelistSender,
};

use crate::plugin::Plugin;

/// What is answered when something that a decision needs is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The rule has no opinion and the next one is asked: mail passes.
    Pass,
    /// The client is asked to come again.
    Defer,
}

/// What is done about a sender, recipient or login that iRedAPD takes for no address (an apostrophe is enough).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvalidAddress {
    /// No rule is asked and mail passes, as with iRedAPD up to 6.1.
    Pass,
    /// Mail is refused, as with iRedAPD 6.2.
    Reject,
    /// The rules are asked all the same, and lists and limits of its domain hold.
    Check,
}

outrider_core::settings! {
    /// What happens while a database does not answer, or when an answer takes too long.
    pub struct OnFailureSettings {
        /// The accounts database: "pass" or "defer" (451, the client comes again).
        pub vmail: OnFailure = OnFailure::Pass,
        /// The database of white- and blacklists.
        pub amavisd: OnFailure = OnFailure::Pass,
        /// The database of greylisting, throttling and the like.
        pub iredapd: OnFailure = OnFailure::Pass,
        /// The server of counters.store = "valkey".
        pub valkey: OnFailure = OnFailure::Pass,
        /// A request that was not decided within limits.request_timeout.
        pub deadline: OnFailure = OnFailure::Pass,
    }
}

outrider_core::settings! {
    /// What is kept in memory between requests. SIGHUP empties it.
    pub struct CacheSettings {
        /// How long a row read from a database may be used again; "0s" keeps nothing. At most 10s, so that a change
        /// made in the administration panel works soon.
        pub lifetime: Interval = Interval::seconds(5),
        /// How many entries each cache holds.
        pub entries: usize = 20_000,
        /// How long old rows may be used while their database is away.
        pub stale: Interval = Interval::seconds(3600),
    }
}

outrider_core::settings! {
    /// The policy service for Postfix.
    pub struct Settings {
        /// Where Postfix asks.
        pub listen: Vec<ListenAddress> = vec![ListenAddress::Tcp(([127, 0, 0, 1], 7777).into())],
        /// Where the accounts are: "sql" (database vmail) or "ldap" (section ldap).
        pub accounts: AccountSource = AccountSource::Sql,
        /// The rules to ask. Each has a priority; those with the same are asked in this order. Those whose names begin with
        /// sql_ or ldap_ are asked when the accounts are there.
        pub plugins: Vec<String> = iredmail_rules(),
        /// Priorities that replace the built-in ones, such as { amavisd_wblist = 99 }; larger is asked first.
        pub plugin_priorities: BTreeMap<String, i64> = BTreeMap::new(),
        /// Clients that are trusted: addresses, IPv4 addresses with "*", networks in CIDR notation.
        /// 127.0.0.1 and ::1 always are.
        pub mynetworks: Vec<String> = Vec::new(),
        /// What separates an address extension from the user's name.
        pub recipient_delimiters: Vec<String> = vec!["+".to_owned()],
        /// Whether "*" may stand in place of any octets of an IPv4 address in white- and blacklists, limits and mynetworks,
        /// not only of the last or the third one.
        pub all_wildcard_addresses: bool = false,
        /// What happens to mail with an address that iRedAPD takes for invalid, such as o'brien@example.com: "pass" without
        /// asking a rule, "reject", or "check" as any other.
        pub invalid_address: InvalidAddress = InvalidAddress::Pass,
        /// The name of this host, which counts as a local domain. The full name of the host if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub myhostname: Option<String> = None,
        /// The domain under which senders are rewritten (SRS); its addresses are not looked up in SPF records.
        pub srs_domain: String = String::new(),
        /// Reactions to failures.
        pub on_failure: OnFailureSettings = OnFailureSettings::default(),
        /// Memory between requests.
        pub cache: CacheSettings = CacheSettings::default(),
        /// Look-ups of SPF records.
        pub spf: SpfSettings = SpfSettings::default(),
        /// The table smtp_sessions.
        pub session_log: SessionLogSettings = SessionLogSettings::default(),
        /// The rule of that name.
        pub reject_sender_login_mismatch: SenderLoginSettings = SenderLoginSettings::default(),
        /// The rule of that name.
        pub greylisting: GreylistingSettings = GreylistingSettings::default(),
        /// The rule of that name.
        pub throttle: ThrottleSettings = ThrottleSettings::default(),
        /// The rules amavisd_wblist and wblist_rdns.
        pub wblist: WblistSettings = WblistSettings::default(),
        /// The rules sql_force_change_password and ldap_force_change_password.
        pub force_change_password: ChangePasswordSettings = ChangePasswordSettings::default(),
        /// The rule of that name.
        pub senderscore: SenderscoreSettings = SenderscoreSettings::default(),
        /// The rule of that name.
        pub whitelist_outbound_recipient: WhitelistOutboundSettings = WhitelistOutboundSettings::default(),
        /// Mail to the administrator about exceeded limits.
        pub notification: NotificationSettings = NotificationSettings::default(),
        /// Other policy servers, asked as steps of the chain: a section [forward.NAME] for each, with a name for log and
        /// metrics. Its keys: address ("127.0.0.1:10040" or "unix:/path"), the only one that is needed; priority (0; among
        /// those of the rules, larger is asked first, equal ones after the rules); states (["RCPT"]; also "CONNECT", "HELO",
        /// "EHLO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"); timeout ("2s"; for the whole question, at most four
        /// fifths of limits.request_timeout); on_failure ("pass"; "defer" asks the client to come again); max_connections
        /// (20; each carries one question at a time).
        pub forward: ForwardMap = ForwardMap::new(),
        /// Where throttle counters and greylisting triplets are kept.
        pub counters: CounterSettings = CounterSettings::default(),
        /// Removal of old rows.
        pub cleanup: CleanupSettings = CleanupSettings::default(),
        /// Addresses of the domains whose mail servers are never greylisted.
        pub whitelist_domains: WhitelistDomainSettings = WhitelistDomainSettings::default(),
        /// The databases.
        pub database: DatabaseSettings = DatabaseSettings::default(),
        /// The LDAP tree of accounts, for accounts = "ldap".
        pub ldap: LdapSettings = LdapSettings::default(),
        /// Name servers.
        pub dns: DnsSettings = DnsSettings::default(),
        /// The log.
        pub log: LogSettings = LogSettings::default(),
        /// Metrics and health.
        pub metrics: MetricsSettings = MetricsSettings::default(),
        /// The process.
        pub process: ProcessSettings = ProcessSettings::default(),
        /// Bounds.
        pub limits: LimitSettings = LimitSettings::default(),
    }
}

/// The longest time for which a change in a database may go unnoticed.
const LONGEST_LIFETIME: Interval = Interval::seconds(10);

impl Settings {
    /// The part of a request's deadline in which other servers may be waited for.
    pub(crate) fn outside_budget(&self) -> Duration {
        self.limits.request_timeout.duration() * 4 / 5
    }

    /// What the rules take for an address.
    pub fn reading(&self) -> Reading {
        match self.invalid_address {
            InvalidAddress::Check => Reading::Rfc5321,
            InvalidAddress::Pass | InvalidAddress::Reject => Reading::Iredapd,
        }
    }

    /// The address without its extension.
    pub fn without_extension(&self, address: &str) -> String {
        address::without_extension(address, &self.recipient_delimiters, self.reading()).into_owned()
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        self.listen.iter().map(|address| ListenerSpec { role: "policy", address: address.clone() }).collect()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn describe() -> SectionDoc {
        Settings::document()
    }

    fn check(&self, findings: &mut Findings) {
        check_plugins(self, findings);
        for entry in NetworkList::new(&self.mynetworks).ignored() {
            let reason =
                format!("{entry:?} is no address and no network without host bits, it matches nobody");
            findings.warning("mynetworks", reason, "write it as 192.0.2.0/24");
        }
        if self.recipient_delimiters.iter().any(|text| text.is_empty() || text.contains('@')) {
            findings.error("recipient_delimiters", "a delimiter is empty or holds an @", "write [\"+\"]");
        }
        if self.cache.lifetime > LONGEST_LIFETIME {
            let reason = "changes made in the administration panel would work too late";
            findings.error("cache.lifetime", reason, "write \"10s\" or less");
        }
        if self.cache.entries == 0 {
            findings.error("cache.entries", "must be at least 1", "write lifetime = \"0s\" to keep nothing");
        }
        self.database.check("database", findings);
        self.accounts.check(&self.ldap, findings);
        self.dns.check("dns", findings);
        self.counters.check(findings);
        forward::check(self, findings);
        rules::check(self, findings);
    }
}

fn iredmail_rules() -> Vec<String> {
    Plugin::all().filter(|plugin| plugin.is_in_iredmail()).map(|plugin| plugin.name().to_owned()).collect()
}

fn check_plugins(settings: &Settings, findings: &mut Findings) {
    for name in &settings.plugins {
        // The default names rules for either kind of accounts.
        let elsewhere = Plugin::by_name(name).is_some_and(|plugin| {
            !plugin.is_in_iredmail() && plugin.accounts().is_some_and(|source| source != settings.accounts)
        });
        if elsewhere {
            let reason = format!("{name:?} is about accounts that are kept elsewhere; it is left out");
            findings.warning("plugins", reason, "see the setting accounts");
        }
        if Plugin::by_name(name).is_none() {
            let reason = format!("there is no rule {name:?}; it is left out");
            let known: Vec<&str> = Plugin::all().map(Plugin::name).collect();
            let known = known.join(", ");
            let fix = format!("known are {known}; a policy server of your own is asked by [forward.NAME]");
            findings.warning("plugins", reason, fix);
        }
    }
    for name in settings.plugin_priorities.keys() {
        if !settings.plugins.contains(name) {
            let reason = format!("{name:?} is not among the plugins, its priority has no effect");
            findings.warning("plugin_priorities", reason, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_core::settings::Secret;

    use super::*;

    #[test]
    fn an_empty_file_is_the_iredmail_set() {
        let settings = Settings::default();
        let mut findings = Findings::new();
        settings.check(&mut findings);
        assert!(findings.is_empty(), "{findings}");
        assert_eq!(settings.plugins.len(), 9);
        assert!(settings.plugins.contains(&"greylisting".to_owned()));
        assert_eq!(settings.listeners()[0].role, "policy");
    }

    #[test]
    fn the_packaged_example_is_good() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/policyd.toml");
        let loaded = outrider_core::settings::load::<Settings>(Some(file.as_ref()), "policyd").unwrap();
        let mut findings = Findings::new();
        loaded.settings.check(&mut findings);
        assert!(findings.is_empty(), "{findings}");
        assert!(loaded.settings.throttle.bypass_mynetworks);
    }

    #[test]
    fn notices_through_smtp_need_whole_addresses_and_should_be_encrypted() {
        type Change = fn(&mut NotificationSettings);
        let cases: [(Change, &[&str]); 12] = [
            (|_| {}, &[]),
            (
                |s| s.recipients = vec!["root".into(), "a@example.com".into()],
                &["error notification.recipients"],
            ),
            (|s| s.recipients.push("b@example.com\r\nDATA".into()), &["error notification.recipients"]),
            (|s| s.recipients.push("b\u{e4}r@example.com".into()), &["error notification.recipients"]),
            (|s| s.recipients.push("root@localhost".into()), &[]),
            (|s| s.recipients.clear(), &[]),
            (|s| s.sender = "postmaster".into(), &["error notification.sender"]),
            (|s| s.smtp_port = 465, &["warning notification.smtp_port"]),
            (|s| s.smtp_starttls = false, &["warning notification.smtp_starttls"]),
            (|s| (s.smtp_starttls, s.smtp_server) = (false, "127.0.0.1".into()), &[]),
            // Then the program sendmail is used, which knows "root".
            (|s| (s.smtp_password, s.recipients) = (None, vec!["root".into()]), &[]),
            (|s| (s.smtp_server, s.recipients) = (String::new(), vec!["root".into()]), &[]),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            let mut settings = Settings::default();
            let notification = &mut settings.notification;
            notification.recipients = vec!["postmaster@example.com".into()];
            notification.smtp_server = "mail.example.com".into();
            notification.smtp_password = Some(Secret::new("Kanarienvogel"));
            change(notification);
            let mut findings = Findings::new();
            settings.check(&mut findings);
            let found: Vec<String> = findings
                .iter()
                .map(|found| format!("{} {}", format!("{:?}", found.severity).to_lowercase(), found.key))
                .collect();
            assert_eq!(found, expected, "case {number}");
            assert!(!format!("{findings} {settings:?}").contains("Kanarienvogel"));
        }
    }

    #[test]
    fn findings_name_the_key() {
        type Change = fn(&mut Settings);
        let cases: [(Change, &str, bool); 11] = [
            (|s| s.accounts = AccountSource::Ldap, "ldap.base_dn", true),
            (|s| s.plugins.push("ldap_force_change_password".into()), "plugins", false),
            (|s| s.plugins.push("no_such_plugin".into()), "plugins", false),
            (|s| s.plugin_priorities.extend([("senderscore".into(), 5)]), "plugin_priorities", false),
            (|s| s.mynetworks.push("192.0.2.1/24".into()), "mynetworks", false),
            (|s| s.recipient_delimiters.push(String::new()), "recipient_delimiters", true),
            (|s| s.cache.lifetime = Interval::seconds(60), "cache.lifetime", true),
            (|s| s.cleanup.batch = 1, "cleanup.batch", true),
            (|s| s.cache.entries = 0, "cache.entries", true),
            (|s| s.greylisting.message = "two\nlines".into(), "greylisting.message", true),
            (|s| drop(s.forward.insert("x".into(), ForwardSettings::default())), "forward.x.address", true),
        ];
        for (change, key, fatal) in cases {
            let mut settings = Settings::default();
            change(&mut settings);
            let mut findings = Findings::new();
            settings.check(&mut findings);
            assert_eq!(findings.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), [key]);
            assert_eq!(findings.is_fatal(), fatal, "{key}");
        }
    }
}
