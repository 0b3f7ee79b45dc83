//! Settings of quota-status: `/etc/outrider/quota-status.toml`. Names and meanings are those of Dovecot where it
//! has the same setting.

use outrider_core::directory::{AccountSource, LdapSettings};
use outrider_core::settings::{
    DaemonSettings, Documented, Findings, FrameSettings, Interval, LimitSettings, ListenAddress,
    ListenerSpec, LogSettings, MetricsSettings, ProcessSettings, Secret, SectionDoc, Size,
};
use outrider_core::sql::DatabaseSettings;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

mod doveadm_url;

pub use doveadm_url::DoveadmUrl;

outrider_core::settings! {
    /// Refuses mail to full mailboxes while it is still in the SMTP dialogue. An empty file serves an iRedMail server.
    pub struct Settings {
        /// Where Postfix asks (check_policy_service inet:127.0.0.1:12340). docker-mailserver: port 65265.
        pub listen: Vec<ListenAddress> = vec![ListenAddress::local(12340)],
        /// The answer when the message fits. "OK" would end Postfix' restriction list with permit.
        pub quota_status_success: String = "DUNNO".to_owned(),
        /// The answer when there is no such user.
        pub quota_status_nouser: String = "DUNNO".to_owned(),
        /// The answer when the message does not fit.
        pub quota_status_overquota: String = "552 5.2.2 Mailbox is full".to_owned(),
        /// The answer when the message would not even fit into the empty mailbox; as quota_status_overquota if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_status_toolarge: Option<String> = None,
        /// What a message may exceed the limit by, while the mailbox is not full yet: "10%" of the limit, or a size
        /// such as "10M". "0" switches it off.
        pub quota_grace: Grace = Grace::Percent(10),
        /// Largest message for any mailbox, unlimited ones included; 0 is no such bound.
        pub quota_max_mail_size: Size = Size(0),
        /// Characters of which the first in a local part begins an extension that is cut off.
        pub recipient_delimiter: String = "+".to_owned(),
        /// Characters that a user name may have; mail to others counts as for an unknown user. Empty: all.
        pub auth_username_chars: String =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890.-_@".to_owned(),
        /// Follow alias domains, aliases, forwardings and catch-all addresses to the mailboxes behind them. Mail is
        /// refused when every local mailbox is full and no remote address is among them. Dovecot does not do this.
        pub resolve_aliases: bool = false,
        /// Answer at END-OF-MESSAGE as well (smtpd_end_of_data_restrictions), where Postfix knows the true size of the
        /// message; mail with several recipients passes there. Dovecot does not do this.
        pub check_end_of_message: bool = false,
        /// Refuse mail too when the mailboxes of the domain together use what the domain may (`domain.maxquota`). Only
        /// with accounts = "sql" and usage = "sql". Dovecot does not do this.
        pub domain_quota: bool = false,
        /// Where the usage of a mailbox is read: "sql" (table used_quota), "maildirsize" (the file in the mailbox, which
        /// this daemon must be allowed to read) or "doveadm" (Dovecot's HTTP interface, section doveadm).
        pub usage: UsageSource = UsageSource::Sql,
        /// The longest wait for usage that is not in the database.
        pub usage_timeout: Interval = Interval::seconds(2),
        /// Dovecot's HTTP interface, for usage = "doveadm".
        pub doveadm: DoveadmSettings = DoveadmSettings::default(),
        /// The answer when the accounts or the usage of a mailbox cannot be read: "defer" (DEFER_IF_PERMIT Temporary
        /// internal error, or Internal quota calculation error for the usage) or "pass" (DUNNO).
        pub on_failure: OnFailure = OnFailure::Defer,
        /// The longest wait for the accounts before on_failure applies.
        pub lookup_timeout: Interval = Interval::seconds(3),
        /// How long unknown users, and users far from their limit, are remembered; "0s" switches this off.
        pub cache_life: Interval = Interval::seconds(3),
        /// Users remembered at most.
        pub cache_size: usize = 10_000,
        /// Where the accounts are: "sql" (database vmail) or "ldap" (section ldap, and usage in database iredadmin).
        pub accounts: AccountSource = AccountSource::Sql,
        /// The LDAP tree of accounts, for accounts = "ldap".
        pub ldap: LdapSettings = LdapSettings::default(),
        /// The databases; only `vmail` is used, with accounts = "ldap" only `iredadmin`.
        pub database: DatabaseSettings = DatabaseSettings::default(),
        /// What is logged, in which form and where to.
        pub log: LogSettings = LogSettings::default(),
        /// Where metrics and health answers are served.
        pub metrics: MetricsSettings = MetricsSettings::default(),
        /// The account and the resources of the process.
        pub process: ProcessSettings = ProcessSettings::default(),
        /// Bounds on what clients may use.
        pub limits: LimitSettings = LimitSettings::default(),
    }
}

outrider_core::settings! {
    /// Dovecot's HTTP interface, for usage = "doveadm".
    pub struct DoveadmSettings {
        /// Its address, such as "http://127.0.0.1:8080/doveadm/v1"; http only on this machine.
        pub url: DoveadmUrl = DoveadmUrl::local(),
        /// The key, as doveadm_api_key in Dovecot, or "file:/path".
        pub api_key: Secret = Secret::default(),
        /// The authorities that may sign the certificate of an https address, as a PEM file; those of the system if not
        /// set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ca_file: Option<PathBuf> = None,
    }
}

/// Setting `usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// Table `used_quota`, as Dovecot's dict and quota_clone write it.
    Sql,
    /// The file of Dovecot's maildir quota.
    Maildirsize,
    /// Dovecot's HTTP interface.
    Doveadm,
}

/// Setting `on_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// DUNNO: an over-full mailbox rather than deferred mail.
    Pass,
    /// DEFER_IF_PERMIT, as Dovecot.
    Defer,
}

/// Setting `quota_grace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Of the limit, rounded down to a byte.
    Percent(u32),
    /// Whatever the limit.
    Bytes(u64),
}

impl FromStr for Grace {
    type Err = String;

    fn from_str(text: &str) -> Result<Grace, String> {
        if let Some(number) = text.trim().strip_suffix('%') {
            let percent = number.trim().parse().ok().filter(|percent| *percent <= 1000);
            return percent
                .map(Grace::Percent)
                .ok_or_else(|| format!("{text:?} is no percentage up to 1000%"));
        }
        text.parse::<Size>().map(|size| Grace::Bytes(size.0))
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grace::Percent(percent) => write!(out, "{percent}%"),
            Grace::Bytes(bytes) => Size(*bytes).fmt(out),
        }
    }
}

impl Serialize for Grace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Grace, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Grace;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a percentage such as \"10%\" or a size such as \"10M\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Grace, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Grace, E> {
                let wrong = serde::de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map(Grace::Bytes).map_err(|_| E::invalid_value(wrong, &self))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        self.listen
            .iter()
            .map(|address| ListenerSpec { role: crate::QUOTA, address: address.clone() })
            .collect()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        self.database.check("database", findings);
        self.accounts.check(&self.ldap, findings);
        if self.accounts == AccountSource::Ldap
            && self.usage == UsageSource::Sql
            && self.database.iredadmin.is_none()
        {
            findings.error(
                "database.iredadmin",
                "is not set: an LDAP tree does not say how full a mailbox is",
                "name the database with table used_quota",
            );
        }
        self.check_usage(findings);
        let answers = [
            ("quota_status_success", Some(&self.quota_status_success)),
            ("quota_status_nouser", Some(&self.quota_status_nouser)),
            ("quota_status_overquota", Some(&self.quota_status_overquota)),
            ("quota_status_toolarge", self.quota_status_toolarge.as_ref()),
        ];
        for (key, answer) in answers {
            match answer {
                Some(text) if text.trim().is_empty() => {
                    findings.error(key, "an empty answer is none", "write \"DUNNO\" for no opinion");
                }
                Some(text) if text.chars().any(char::is_control) => {
                    findings.error(key, "an answer is one line of printable text", "");
                }
                _ => {}
            }
        }
        for (key, answer) in &answers[..2] {
            if answer.is_some_and(|text| text.eq_ignore_ascii_case("OK")) {
                findings.warning(
                    *key,
                    "OK ends Postfix' restriction list with permit",
                    "write \"DUNNO\" unless this restriction is the last one on purpose",
                );
            }
        }
        for (key, limit) in [
            ("lookup_timeout", self.lookup_timeout),
            ("usage_timeout", self.usage_timeout),
            ("limits.request_timeout", self.limits.request_timeout),
        ] {
            if limit.duration().is_zero() {
                findings.error(key, "no database answers in no time", "use \"3s\"");
            }
        }
        if self.lookup_timeout > self.limits.request_timeout {
            findings.warning(
                "lookup_timeout",
                "is longer than limits.request_timeout, which then ends the wait",
                "keep it below",
            );
        }
        if self.cache_size == 0 {
            findings.error(
                "cache_size",
                "must be at least 1",
                "to switch the cache off, use cache_life = \"0s\"",
            );
        }
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}

impl Settings {
    fn check_usage(&self, findings: &mut Findings) {
        if self.domain_quota && (self.accounts, self.usage) != (AccountSource::Sql, UsageSource::Sql) {
            findings.error(
                "domain_quota",
                "only the tables of database vmail know what a domain may use and does",
                "leave it out, or set accounts and usage to \"sql\"",
            );
        }
        if self.usage != UsageSource::Sql && self.usage_timeout >= self.lookup_timeout {
            findings.warning(
                "usage_timeout",
                "is not shorter than lookup_timeout, which then ends the wait",
                "keep it below",
            );
        }
        if self.usage == UsageSource::Doveadm {
            self.doveadm.check("doveadm", findings);
        }
    }
}

impl DoveadmSettings {
    fn check(&self, section: &str, findings: &mut Findings) {
        let key = |name: &str| format!("{section}.{name}");
        if self.api_key.is_empty() {
            findings.error(
                key("api_key"),
                "is not set: Dovecot answers nobody without it",
                "write \"file:/etc/outrider/doveadm.key\", with the key of doveadm_api_key in that file",
            );
        }
        if !self.api_key.expose().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            findings.error(key("api_key"), "a key is one line of printable ASCII", "");
        }
        if !self.url.is_encrypted() && !self.url.is_loopback() {
            findings.error(
                key("url"),
                "the key would go over the network for everybody to read",
                "use https:// (ssl = yes in Dovecot's inet_listener http), or an address of this machine",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces() {
        for (text, grace, printed) in [
            ("10%", Grace::Percent(10), "10%"),
            ("0%", Grace::Percent(0), "0%"),
            (" 5 %", Grace::Percent(5), "5%"),
            ("10M", Grace::Bytes(10 << 20), "10MiB"),
            ("0", Grace::Bytes(0), "0"),
        ] {
            assert_eq!(text.parse(), Ok(grace), "{text}");
            assert_eq!(grace.to_string(), printed);
        }
        for text in ["", "%", "-1%", "1001%", "ten", "-5"] {
            assert!(text.parse::<Grace>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_defaults_pass_their_checks() {
        let mut findings = Findings::new();
        Settings::default().check(&mut findings);
        assert!(findings.is_empty(), "{findings}");
        let wrong = Settings {
            quota_status_success: "OK".into(),
            quota_status_nouser: String::new(),
            quota_status_overquota: "552 a\nb".into(),
            ..Settings::default()
        };
        wrong.check(&mut findings);
        assert_eq!(findings.iter().count(), 3, "{findings}");
    }

    #[test]
    fn sources_of_usage_that_cannot_work_are_told() {
        let doveadm = |url: &str, key: &str| Settings {
            usage: UsageSource::Doveadm,
            doveadm: DoveadmSettings {
                url: url.parse().unwrap(),
                api_key: Secret::new(key),
                ..DoveadmSettings::default()
            },
            ..Settings::default()
        };
        let ldap = |usage| Settings {
            accounts: AccountSource::Ldap,
            ldap: LdapSettings { base_dn: "o=domains".into(), ..LdapSettings::default() },
            usage,
            ..Settings::default()
        };
        for (settings, key) in [
            (doveadm("http://127.0.0.1:8080", "k"), ""),
            (doveadm("http://localhost:8080", "k"), ""),
            (doveadm("https://imap.example.com", "k"), ""),
            (doveadm("http://imap.example.com", "k"), "doveadm.url"),
            (doveadm("http://127.0.0.1", ""), "doveadm.api_key"),
            (doveadm("http://127.0.0.1", "a\nb"), "doveadm.api_key"),
            (Settings { domain_quota: true, ..Settings::default() }, ""),
            (
                Settings { domain_quota: true, usage: UsageSource::Maildirsize, ..Settings::default() },
                "domain_quota",
            ),
            (ldap(UsageSource::Sql), "database.iredadmin"),
            (ldap(UsageSource::Maildirsize), ""),
        ] {
            let mut findings = Findings::new();
            settings.check(&mut findings);
            let text = findings.to_string();
            assert_eq!(findings.is_fatal(), !key.is_empty(), "{text}");
            assert!(text.contains(key) && !text.contains("a\nb"), "{text}");
        }
    }
}
