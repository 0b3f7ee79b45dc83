//! The address of Dovecot's HTTP interface.

use hyper::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// `http://host:port/path` or `https://host:port/path`; the path is `/doveadm/v1` if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoveadmUrl {
    encrypted: bool,
    /// Host name or address without brackets.
    host: String,
    port: u16,
    path: String,
}

impl DoveadmUrl {
    pub(super) fn local() -> DoveadmUrl {
        DoveadmUrl {
            encrypted: false,
            host: "127.0.0.1".to_owned(),
            port: 8080,
            path: "/doveadm/v1".to_owned(),
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Host name or address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`, as field Host wants it.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for DoveadmUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<DoveadmUrl, String> {
        let wrong = |why: &str| format!("{text:?} is no address of doveadm: {why}");
        let uri: Uri = text.parse().map_err(|_| wrong("write \"http://127.0.0.1:8080/doveadm/v1\""))?;
        let (encrypted, usual_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong("it begins with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("the key belongs into api_key"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        // Behind the bracket of an IPv6 address, or anywhere in another one, a colon begins the port.
        let port_given = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        if port_given && uri.port_u16().is_none() {
            return Err(wrong("the port is no number up to 65535"));
        }
        let path = match uri.path() {
            "" | "/" => "/doveadm/v1",
            path => path,
        };
        let port = uri.port_u16().unwrap_or(usual_port);
        Ok(DoveadmUrl { encrypted, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for DoveadmUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Serialize for DoveadmUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DoveadmUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DoveadmUrl, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, printed, loopback) in [
            ("http://127.0.0.1:8080/doveadm/v1", "http://127.0.0.1:8080/doveadm/v1", true),
            ("http://localhost:8080", "http://localhost:8080/doveadm/v1", true),
            ("http://[::1]:8080/", "http://[::1]:8080/doveadm/v1", true),
            ("https://imap.example.com", "https://imap.example.com:443/doveadm/v1", false),
            ("http://imap.example.com/x", "http://imap.example.com:80/x", false),
        ] {
            let url: DoveadmUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.is_loopback()), (printed, loopback), "{text}");
            assert_eq!(printed.parse::<DoveadmUrl>().unwrap(), url);
        }
        for text in [
            "",
            "127.0.0.1:8080",
            "ftp://host",
            "http://",
            "http://key@host/",
            "/doveadm/v1",
            "http://a b",
            "http://h:99999/",
        ] {
            assert!(text.parse::<DoveadmUrl>().is_err(), "{text}");
        }
    }
}
