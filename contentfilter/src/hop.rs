//! The address of a next hop, written as Amavisd writes it: `smtp:[127.0.0.1]:10025`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where mail is handed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NextHop {
    text: String,
    /// How to reach it.
    pub target: Target,
}

/// The two ways to reach a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Host (an address, or a name looked up at each connect) and port.
    Tcp(String, u16),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl NextHop {
    /// SMTP on a port of 127.0.0.1.
    pub fn local(port: u16) -> NextHop {
        NextHop {
            text: format!("smtp:[127.0.0.1]:{port}"),
            target: Target::Tcp("127.0.0.1".to_owned(), port),
        }
    }
}

impl FromStr for NextHop {
    type Err = String;

    fn from_str(text: &str) -> Result<NextHop, String> {
        let wrong = || {
            format!(
                "{text:?} is no next hop: write \"smtp:[127.0.0.1]:10025\", \"smtp:[::1]:10025\" or \"smtp:/socket\""
            )
        };
        let address = text.strip_prefix("smtp:").ok_or_else(wrong)?;
        if address.starts_with('/') {
            let target = Target::Unix(PathBuf::from(address));
            return Ok(NextHop { text: text.to_owned(), target });
        }
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let named = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-.".contains(&octet))
        };
        if bare.parse::<IpAddr>().is_err() && !named(bare) {
            return Err(wrong());
        }
        Ok(NextHop { text: text.to_owned(), target: Target::Tcp(bare.to_owned(), port) })
    }
}

impl TryFrom<String> for NextHop {
    type Error = String;

    fn try_from(text: String) -> Result<NextHop, String> {
        text.parse()
    }
}

impl From<NextHop> for String {
    fn from(hop: NextHop) -> String {
        hop.text
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let tcp = |host: &str, port| Some(Target::Tcp(host.to_owned(), port));
        let table = [
            ("smtp:[127.0.0.1]:10025", tcp("127.0.0.1", 10025)),
            ("smtp:127.0.0.1:10025", tcp("127.0.0.1", 10025)),
            ("smtp:[::1]:10025", tcp("::1", 10025)),
            ("smtp:mx.example.com:25", tcp("mx.example.com", 25)),
            ("smtp:/run/next.sock", Some(Target::Unix("/run/next.sock".into()))),
            ("lmtp:[127.0.0.1]:24", None),
            ("smtp:[127.0.0.1]", None),
            ("smtp:[127.0.0.1]:0", None),
            ("smtp:[a b]:25", None),
            ("", None),
        ];
        for (text, expected) in table {
            let hop = text.parse::<NextHop>();
            assert_eq!(hop.as_ref().ok().map(|hop| hop.target.clone()), expected, "{text}");
            assert!(hop.is_err() || hop.is_ok_and(|hop| hop.to_string() == text));
        }
    }
}
