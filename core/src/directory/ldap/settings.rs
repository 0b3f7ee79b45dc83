//! Where an LDAP tree of accounts is, and how it is asked.

use crate::settings::{Findings, Interval, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

crate::settings! {
    /// The LDAP tree of accounts, for accounts = "ldap".
    pub struct LdapSettings {
        /// The server: "ldap://host:389", "ldaps://host:636" or "ldapi://%2Frun%2Fslapd%2Fldapi".
        pub uri: LdapUri = LdapUri::local(),
        /// The entry below which the domains are, such as "o=domains,dc=example,dc=com".
        pub base_dn: String = String::new(),
        /// The account that searches, such as "cn=vmail,dc=example,dc=com"; empty for none.
        pub bind_dn: String = String::new(),
        /// Its password, or "file:/path".
        pub bind_password: Secret = Secret::default(),
        /// Whether an ldap:// connection is encrypted (STARTTLS) before anything is said on it.
        pub starttls: bool = false,
        /// Whether the server's certificate must be valid and for its name. Without this anybody on the way can
        /// read the password.
        pub verify_certificate: bool = true,
        /// The authorities that may sign the server's certificate, as a PEM file; those of the system if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ca_file: Option<PathBuf> = None,
        /// Connections to the server; each carries any number of searches at a time.
        pub connections: usize = 2,
        /// The longest wait for a connection, encryption and login included.
        pub connect_timeout: Interval = Interval::seconds(2),
        /// The longest wait for the answer to one search.
        pub search_timeout: Interval = Interval::seconds(3),
        /// Entries that one search may find; more is a failure.
        pub size_limit: usize = 10_000,
    }
}

impl LdapSettings {
    /// Reports what cannot work; `section` is the name of the section these settings stand in.
    pub fn check(&self, section: &str, findings: &mut Findings) {
        let key = |name: &str| format!("{section}.{name}");
        if self.base_dn.trim().is_empty() {
            findings.error(key("base_dn"), "is not set", "write such as \"o=domains,dc=example,dc=com\"");
        }
        if self.bind_dn.is_empty() != self.bind_password.is_empty() {
            // A name without a password is an anonymous login that looks like a successful one (RFC 4513, 5.1.2).
            findings.error(
                key("bind_password"),
                "bind_dn and bind_password go together",
                "set both, or none for anonymous searches",
            );
        }
        if self.starttls && self.uri.scheme != Scheme::Ldap {
            findings.error(key("starttls"), "is for ldap:// only", "ldaps:// is encrypted anyway");
        }
        if self.is_encrypted() && self.uri.host().contains(':') {
            findings.error(key("uri"), "no certificate is for an IPv6 address", "write the server's name");
        }
        if !self.verify_certificate && self.is_encrypted() {
            findings.warning(
                key("verify_certificate"),
                "the server is not asked who it is",
                "set ca_file to the authority that signed its certificate",
            );
        }
        if !self.is_encrypted() && !self.bind_password.is_empty() && !self.uri.is_local() {
            findings.warning(
                key("uri"),
                "the password goes over the network for everybody to read",
                "use starttls = true or ldaps://",
            );
        }
        for (name, limit) in
            [("connect_timeout", self.connect_timeout), ("search_timeout", self.search_timeout)]
        {
            if limit.duration().is_zero() {
                findings.error(key(name), "no server answers in no time", "use \"3s\"");
            }
        }
        if self.connections == 0 || self.connections > 64 {
            findings.error(key("connections"), "must be 1 to 64", "two or three are enough");
        }
        if self.size_limit == 0 || i32::try_from(self.size_limit).is_err() {
            findings.error(key("size_limit"), "must be 1 to 2147483647", "use 10000");
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.starttls || self.uri.scheme == Scheme::Ldaps
    }
}

/// Kind of an [`LdapUri`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Ldap,
    Ldaps,
    Ldapi,
}

/// The address of an LDAP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUri {
    pub(super) scheme: Scheme,
    /// Host name or address without brackets, or the path of a socket.
    host: String,
    port: u16,
}

impl LdapUri {
    fn local() -> LdapUri {
        LdapUri { scheme: Scheme::Ldap, host: "127.0.0.1".to_owned(), port: 389 }
    }

    /// Host name or address without brackets, or the path of a socket.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn is_local(&self) -> bool {
        let loopback = || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.scheme == Scheme::Ldapi || self.host == "localhost" || loopback()
    }
}

impl FromStr for LdapUri {
    type Err = String;

    fn from_str(text: &str) -> Result<LdapUri, String> {
        let wrong = |why: &str| Err(format!("{text:?} is no LDAP address: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("write \"ldap://host\", \"ldaps://host\" or \"ldapi://%2Fpath\"");
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => (Scheme::Ldap, 389),
            "ldaps" => (Scheme::Ldaps, 636),
            "ldapi" => {
                let path = rest.replace("%2F", "/").replace("%2f", "/");
                if !path.starts_with('/') || path.contains(['%', '\0']) || path.len() > 107 {
                    return wrong("a socket is an absolute path of at most 107 bytes, / written as %2F");
                }
                return Ok(LdapUri { scheme: Scheme::Ldapi, host: path, port: 0 });
            }
            other => return wrong(&format!("unknown scheme {other:?}")),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, Ok(port)),
            Some((address, rest)) => (address, rest.trim_start_matches(':').parse()),
            None => match rest.split_once(':') {
                Some((host, digits)) => (host, digits.parse()),
                None => (rest, Ok(port)),
            },
        };
        let Ok(port) = port else { return wrong("the port is no number") };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return wrong("a host name or address is wanted, without user, path and parameters");
        }
        Ok(LdapUri { scheme, host: host.to_owned(), port })
    }
}

impl fmt::Display for LdapUri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LdapUri { host, port, .. } = self;
        match self.scheme {
            Scheme::Ldapi => write!(out, "ldapi://{}", host.replace('/', "%2F")),
            scheme => {
                let name = if scheme == Scheme::Ldap { "ldap" } else { "ldaps" };
                if host.contains(':') {
                    write!(out, "{name}://[{host}]:{port}")
                } else {
                    write!(out, "{name}://{host}:{port}")
                }
            }
        }
    }
}

impl Serialize for LdapUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LdapUri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LdapUri, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, printed) in [
            ("ldap://127.0.0.1", "ldap://127.0.0.1:389"),
            ("LDAP://ldap.example.com:1389/", "ldap://ldap.example.com:1389"),
            ("ldaps://ldap.example.com", "ldaps://ldap.example.com:636"),
            ("ldap://[::1]:390", "ldap://[::1]:390"),
            ("ldap://[::1]", "ldap://[::1]:389"),
            ("ldapi://%2frun%2Fslapd%2Fldapi", "ldapi://%2Frun%2Fslapd%2Fldapi"),
        ] {
            let uri: LdapUri = text.parse().unwrap();
            assert_eq!(uri.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<LdapUri>().unwrap(), uri);
        }
        for text in [
            "",
            "127.0.0.1",
            "http://host",
            "ldap://",
            "ldap://host:port",
            "ldap://user@host",
            "ldap://host/dc=example",
            "ldap://host?x",
            "ldap://[::1",
            "ldapi://run",
            "ldapi://",
        ] {
            assert!(text.parse::<LdapUri>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        let fine = LdapSettings { base_dn: "o=domains".into(), ..LdapSettings::default() };
        let cases = [
            (fine.clone(), ""),
            (LdapSettings::default(), "base_dn"),
            (LdapSettings { bind_dn: "cn=vmail".into(), ..fine.clone() }, "bind_password"),
            (LdapSettings { bind_password: Secret::new("x"), ..fine.clone() }, "bind_password"),
            (LdapSettings { starttls: true, uri: "ldaps://h".parse().unwrap(), ..fine.clone() }, "starttls"),
            (LdapSettings { uri: "ldaps://[::1]".parse().unwrap(), ..fine.clone() }, "uri"),
            (LdapSettings { connections: 0, ..fine.clone() }, "connections"),
            (LdapSettings { size_limit: 0, ..fine.clone() }, "size_limit"),
            (LdapSettings { search_timeout: Interval::seconds(0), ..fine.clone() }, "search_timeout"),
        ];
        for (settings, key) in cases {
            let mut findings = Findings::new();
            settings.check("ldap", &mut findings);
            let text = findings.to_string();
            assert_eq!(findings.is_fatal(), !key.is_empty(), "{text}");
            assert!(text.contains(key) && !text.contains("cn=vmail"), "{text}");
        }
        let mut findings = Findings::new();
        LdapSettings {
            uri: "ldap://ldap.example.com".parse().unwrap(),
            bind_dn: "cn=vmail".into(),
            bind_password: Secret::new("Kanarienvogel"),
            ..fine
        }
        .check("ldap", &mut findings);
        let text = findings.to_string();
        assert!(!findings.is_fatal() && text.contains("starttls") && !text.contains("Kanarien"), "{text}");
    }
}
