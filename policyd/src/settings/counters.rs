//! Where the hot counters are kept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use outrider_core::settings::{Findings, Interval, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The store of throttle counters and greylisting triplets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CounterStore {
    /// The tables throttle_tracking and greylisting_tracking of the database iredapd.
    Sql,
    /// A Valkey or Redis server.
    Valkey,
}

outrider_core::settings! {
    /// Where throttle counters and greylisting triplets are kept. Limits, settings and white lists stay in the
    /// database iredapd.
    pub struct CounterSettings {
        /// "sql" (the database iredapd) or "valkey" (a Valkey or Redis server; for several hosts with more mail than
        /// the database should carry). Neither is copied to the other: after a change all counters begin anew.
        pub store: CounterStore = CounterStore::Sql,
        /// The server: "redis://host:6379/0", "rediss://host:6379/0" (TLS) or "unix:///path?db=0" (a socket).
        pub url: ValkeyUrl = ValkeyUrl::local(),
        /// The account on the server; empty for the default one.
        pub user: String = String::new(),
        /// Its password, or "file:/path".
        pub password: Secret = Secret::default(),
        /// The authorities that may sign the certificate of a rediss:// server, as a PEM file; those of the system if
        /// not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ca_file: Option<PathBuf> = None,
        /// What the names of all keys begin with; hosts that share their counters have the same.
        pub prefix: String = "outrider:".to_owned(),
        /// The longest wait for a connection, encryption and login included.
        pub connect_timeout: Interval = Interval::seconds(2),
        /// The longest wait for one answer.
        pub response_timeout: Interval = Interval::seconds(1),
    }
}

impl CounterSettings {
    /// Reports what cannot work.
    pub fn check(&self, findings: &mut Findings) {
        if self.store == CounterStore::Sql {
            return;
        }
        if !self.user.is_empty() && self.password.is_empty() {
            findings.error("counters.password", "an account without a password", "set both, or none");
        }
        if self.prefix.len() > 64 || !self.prefix.bytes().all(|b| b.is_ascii_graphic() && b != b'{') {
            let reason = "must be at most 64 letters, digits and signs without { and blanks";
            findings.error("counters.prefix", reason, "write \"outrider:\"");
        }
        for (name, limit) in
            [("connect_timeout", self.connect_timeout), ("response_timeout", self.response_timeout)]
        {
            if limit.duration().is_zero() {
                findings.error(format!("counters.{name}"), "no server answers in no time", "use \"2s\"");
            }
        }
        if self.ca_file.is_some() && !self.url.is_encrypted() {
            findings.warning("counters.ca_file", "is for rediss:// only", "");
        }
        if !self.url.is_encrypted() && !self.url.is_local() && !self.password.is_empty() {
            findings.warning(
                "counters.url",
                "the password goes over the network for everybody to read",
                "use rediss:// (TLS)",
            );
        }
    }
}

/// The address of a Valkey or Redis server, without user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValkeyUrl(String);

impl ValkeyUrl {
    fn local() -> ValkeyUrl {
        ValkeyUrl("redis://127.0.0.1:6379/0".to_owned())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.starts_with("rediss://") || self.0.starts_with("valkeys://")
    }

    fn is_local(&self) -> bool {
        let Some((scheme, rest)) = self.0.split_once("://") else { return false };
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        scheme.contains("unix") || host == "localhost" || loopback
    }
}

impl FromStr for ValkeyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ValkeyUrl, String> {
        // The text is not quoted: somebody may have written a password into it.
        let wrong = |why: &str| Err(format!("no address of a Valkey or Redis server: {why}"));
        let Some(url) = redis::parse_redis_url(text) else {
            return wrong("write \"redis://host:6379/0\", \"rediss://host:6379/0\" or \"unix:///path\"");
        };
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return wrong("user and password have settings of their own");
        }
        let socket = url.scheme().contains("unix");
        // Words such as "insecure" behind a # switch off what must stay on.
        let asks = url.query_pairs().any(|(name, _)| !socket || name != "db");
        if url.fragment().is_some() || asks {
            return wrong("no parameters are wanted, but for ?db=N of a socket");
        }
        if !socket && url.host_str().unwrap_or_default().is_empty() {
            return wrong("there is no host in it");
        }
        match redis::IntoConnectionInfo::into_connection_info(url) {
            Ok(_) => Ok(ValkeyUrl(text.to_owned())),
            Err(error) => wrong(&error.to_string()),
        }
    }
}

impl fmt::Display for ValkeyUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for ValkeyUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ValkeyUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ValkeyUrl, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, encrypted, local) in [
            ("redis://127.0.0.1:6379/0", false, true),
            ("redis://localhost", false, true),
            ("redis://[::1]:7000/3", false, true),
            ("valkey://counters.example.com:6379", false, false),
            ("rediss://counters.example.com/1", true, false),
            ("unix:///run/valkey/valkey.sock?db=2", false, true),
        ] {
            let url: ValkeyUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.is_encrypted(), url.is_local()), (encrypted, local), "{text}");
            assert_eq!(url.to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:6379",
            "http://host",
            "redis://",
            "redis://host:port",
            "redis://host/nine",
            "redis://:Kanarienvogel@host",
            "redis://user@host",
            "rediss://host/#insecure",
            "redis://host?protocol=resp3",
            "unix:///path?db=0&pass=Kanarienvogel",
        ] {
            let error = text.parse::<ValkeyUrl>().expect_err(text);
            assert!(!error.contains("Kanarienvogel"), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        let fine = || CounterSettings { store: CounterStore::Valkey, ..CounterSettings::default() };
        let far = || "redis://counters.example.com".parse().unwrap();
        let cases = [
            (CounterSettings { prefix: "{".into(), ..CounterSettings::default() }, None),
            (fine(), None),
            (CounterSettings { user: "policyd".into(), ..fine() }, Some("counters.password")),
            (CounterSettings { prefix: "a b".into(), ..fine() }, Some("counters.prefix")),
            (CounterSettings { prefix: "{a}".into(), ..fine() }, Some("counters.prefix")),
            (
                CounterSettings { response_timeout: Interval::seconds(0), ..fine() },
                Some("counters.response_timeout"),
            ),
            (CounterSettings { ca_file: Some("/ca.pem".into()), ..fine() }, Some("counters.ca_file")),
            (
                CounterSettings { url: far(), password: Secret::new("Kanarienvogel"), ..fine() },
                Some("counters.url"),
            ),
        ];
        for (settings, key) in cases {
            let mut findings = Findings::new();
            settings.check(&mut findings);
            assert_eq!(findings.iter().map(|one| one.key.as_str()).next(), key, "{findings}");
            assert!(!findings.to_string().contains("Kanarienvogel"));
        }
    }
}
