//! The address of the list service.

use std::str::FromStr;

use hyper::Uri;

/// `http://host:port/path` or `https://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(super) encrypted: bool,
    /// Host name or address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as given, as field Host wants them.
    pub(super) authority: String,
    /// Without a slash at its end.
    pub(super) path: String,
}

/// What is wrong with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("is no http:// or https:// address")]
    Scheme,
    #[error("names no host")]
    Host,
    #[error("has a port that is none")]
    Port,
    #[error("holds a login, but the token belongs into list_api_token")]
    Login,
}

impl Endpoint {
    /// Whether TLS is spoken.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::Scheme)?;
        let (encrypted, usual_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(EndpointError::Scheme),
        };
        let authority = uri.authority().ok_or(EndpointError::Host)?.as_str();
        if authority.contains('@') {
            return Err(EndpointError::Login);
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(EndpointError::Host);
        }
        // Behind the bracket of an IPv6 address, or anywhere in another one, a colon begins the port.
        let names_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        if names_port && uri.port_u16().is_none() {
            return Err(EndpointError::Port);
        }
        Ok(Endpoint {
            encrypted,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(usual_port),
            authority: authority.to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_service() {
        for (text, expected) in [
            ("http://127.0.0.1:7790/api", Ok((false, "127.0.0.1", 7790, "127.0.0.1:7790", "/api"))),
            (
                "https://lists.example.com/api/",
                Ok((true, "lists.example.com", 443, "lists.example.com", "/api")),
            ),
            ("http://lists.example.com", Ok((false, "lists.example.com", 80, "lists.example.com", ""))),
            ("https://[2001:db8::1]:8443/", Ok((true, "2001:db8::1", 8443, "[2001:db8::1]:8443", ""))),
            ("ftp://lists.example.com", Err(EndpointError::Scheme)),
            ("lists.example.com/api", Err(EndpointError::Scheme)),
            ("/api", Err(EndpointError::Scheme)),
            ("", Err(EndpointError::Scheme)),
            ("http://a b", Err(EndpointError::Scheme)),
            ("http://token@lists.example.com", Err(EndpointError::Login)),
            ("http://lists.example.com:99999", Err(EndpointError::Port)),
        ] {
            let read = text.parse::<Endpoint>();
            let read = read.as_ref().map(|one| {
                (one.encrypted, one.host.as_str(), one.port, one.authority.as_str(), one.path.as_str())
            });
            assert_eq!(read.map_err(|error| *error), expected, "{text}");
        }
    }
}
