//! The address of Dovecot's HTTP interface.

use outrider_core::settings::{HttpUrl, HttpUrlError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

const USUAL_PATH: &str = "/doveadm/v1";

/// `http://host:port/path` or `https://host:port/path`; the path is `/doveadm/v1` if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoveadmUrl(HttpUrl);

impl DoveadmUrl {
    pub(super) fn local() -> DoveadmUrl {
        DoveadmUrl(HttpUrl::local(8080).with_usual_path(USUAL_PATH))
    }
}

impl Deref for DoveadmUrl {
    type Target = HttpUrl;

    fn deref(&self) -> &HttpUrl {
        &self.0
    }
}

impl FromStr for DoveadmUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<DoveadmUrl, String> {
        let url = text.parse::<HttpUrl>().map_err(|why| {
            let why = match why {
                HttpUrlError::Malformed => "write \"http://127.0.0.1:8080/doveadm/v1\"",
                HttpUrlError::Scheme => "it begins with http:// or https://",
                HttpUrlError::Host => "it names no host",
                HttpUrlError::Login => "the key belongs into api_key",
                HttpUrlError::Port => "the port is no number up to 65535",
            };
            format!("{text:?} is no address of doveadm: {why}")
        })?;
        Ok(DoveadmUrl(url.with_usual_path(USUAL_PATH)))
    }
}

impl fmt::Display for DoveadmUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
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
