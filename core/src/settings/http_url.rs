//! The address of an HTTP service that a daemon asks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// `http://host:port/path` or `https://host:port/path`. A login has no place in it: it would be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    encrypted: bool,
    host: String,
    port: u16,
    path: String,
}

/// What is wrong with a text that is to be an [`HttpUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// It is no URL at all.
    #[error("is no http:// or https:// address")]
    Malformed,
    /// It is one of another kind, or none that is whole.
    #[error("is no http:// or https:// address")]
    Scheme,
    /// There is nobody to ask.
    #[error("names no host")]
    Host,
    /// The port is no number up to 65535.
    #[error("has a port that is none")]
    Port,
    /// There is a user or a password in it.
    #[error("holds a login")]
    Login,
}

impl HttpUrl {
    /// A service on this machine.
    pub fn local(port: u16) -> HttpUrl {
        HttpUrl { encrypted: false, host: "127.0.0.1".to_owned(), port, path: "/".to_owned() }
    }

    /// The same, with this path if it has none.
    #[must_use]
    pub fn with_usual_path(mut self, path: &str) -> HttpUrl {
        if self.path == "/" {
            path.clone_into(&mut self.path);
        }
        self
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the service is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Host name or address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 or 443 where none is given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `/` where none is given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// As field Host wants it (RFC 9110 section 7.2): without the port that is usual.
    pub fn authority(&self) -> String {
        if self.port == usual_port(self.encrypted) { self.bracketed() } else { self.host_and_port() }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

fn usual_port(encrypted: bool) -> u16 {
    if encrypted { 443 } else { 80 }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<HttpUrl, HttpUrlError> {
        let uri: Uri = text.parse().map_err(|_| HttpUrlError::Malformed)?;
        let encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(HttpUrlError::Scheme),
        };
        let authority = uri.authority().ok_or(HttpUrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(HttpUrlError::Login);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(HttpUrlError::Host);
        }
        // Behind the bracket of an IPv6 address, or anywhere in another one, a colon begins the port.
        let names_port = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        if names_port && uri.port_u16().is_none() {
            return Err(HttpUrlError::Port);
        }
        let port = uri.port_u16().unwrap_or(usual_port(encrypted));
        Ok(HttpUrl { encrypted, host: host.to_owned(), port, path: uri.path().to_owned() })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.host_and_port(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services() {
        for (text, expected) in [
            ("http://127.0.0.1:7790/api", Ok((false, "127.0.0.1", 7790, "127.0.0.1:7790", "/api"))),
            (
                "https://lists.example.com/api/",
                Ok((true, "lists.example.com", 443, "lists.example.com", "/api/")),
            ),
            ("http://lists.example.com", Ok((false, "lists.example.com", 80, "lists.example.com", "/"))),
            ("https://[2001:db8::1]:8443/", Ok((true, "2001:db8::1", 8443, "[2001:db8::1]:8443", "/"))),
            ("ftp://lists.example.com", Err(HttpUrlError::Scheme)),
            ("lists.example.com/api", Err(HttpUrlError::Malformed)),
            ("/api", Err(HttpUrlError::Scheme)),
            ("", Err(HttpUrlError::Malformed)),
            ("http://a b", Err(HttpUrlError::Malformed)),
            ("http://token@lists.example.com", Err(HttpUrlError::Login)),
            ("http://lists.example.com:99999", Err(HttpUrlError::Port)),
        ] {
            let read = text.parse::<HttpUrl>();
            let read = read
                .as_ref()
                .map(|url| (url.is_encrypted(), url.host(), url.port(), url.authority(), url.path()));
            let expected = expected.map(|(encrypted, host, port, authority, path)| {
                (encrypted, host, port, authority.to_owned(), path)
            });
            assert_eq!(read.map_err(|error| *error), expected, "{text}");
        }
    }
}
