//! The address of a database in one line.

use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands for itself in every part of a URL (RFC 3986 section 2.3).
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A database on a server of MySQL (`mysql`) or PostgreSQL (`postgresql`).
pub(super) struct Place<'a> {
    pub(super) scheme: &'static str,
    /// A name, an address, or the path of a socket.
    pub(super) host: &'a str,
    pub(super) port: Option<&'a str>,
    pub(super) user: &'a str,
    /// Empty if it does not belong into the URL.
    pub(super) password: &'a str,
    pub(super) database: &'a str,
    /// Whether the connection has to be encrypted, with a server that proves who it is.
    pub(super) verified_tls: bool,
}

impl Place<'_> {
    pub(super) fn url(&self) -> String {
        let Place { scheme, host, .. } = *self;
        let password = match self.password {
            "" => String::new(),
            password => format!(":{}", encoded(password)),
        };
        let mut parameters = Vec::new();
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        let server = if host.starts_with('/') {
            let name = if scheme == "mysql" { "socket" } else { "host" };
            let path: Vec<String> = host.split('/').map(encoded).collect();
            parameters.push(format!("{name}={}", path.join("/")));
            // A socket of PostgreSQL has the port in its name, one of MySQL is the file itself.
            format!("127.0.0.1{}", if scheme == "mysql" { "" } else { port.as_str() })
        } else {
            let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
            let host = if is_ipv6 { format!("[{host}]") } else { encoded(host) };
            format!("{host}{port}")
        };
        if self.verified_tls {
            parameters.push("ssl-mode=verify-full".to_owned());
        }
        let begin = if parameters.is_empty() { "" } else { "?" };
        format!(
            "{scheme}://{}{password}@{server}/{}{begin}{}",
            encoded(self.user),
            encoded(self.database),
            parameters.join("&")
        )
    }
}

/// A part of a URL.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use outrider_core::sql::DbUrl;

    use super::*;

    #[test]
    fn addresses_can_be_read_back() {
        let place = |scheme, host, port, password, verified_tls| Place {
            scheme,
            host,
            port,
            user: "a@b:c",
            password,
            database: "vmail",
            verified_tls,
        };
        let (mysql, postgresql) = ("mysql", "postgresql");
        for (place, written, shown) in [
            (
                place(postgresql, "127.0.0.1", Some("5432"), "", false),
                "postgresql://a%40b%3Ac@127.0.0.1:5432/vmail",
                "postgresql://a@b:c@127.0.0.1:5432/vmail",
            ),
            (
                place(postgresql, "::1", None, "/p@:/?#%w&\"", false),
                "postgresql://a%40b%3Ac:%2Fp%40%3A%2F%3F%23%25w%26%22@[::1]/vmail",
                "postgresql://a@b:c:<hidden>@[::1]:5432/vmail",
            ),
            (
                place(postgresql, "db.example.com", None, "", true),
                "postgresql://a%40b%3Ac@db.example.com/vmail?ssl-mode=verify-full",
                "postgresql://a@b:c@db.example.com:5432/vmail",
            ),
            (
                place(postgresql, "/run/pg sql", Some("5433"), "%41", true),
                "postgresql://a%40b%3Ac:%2541@127.0.0.1:5433/vmail?host=/run/pg%20sql&ssl-mode=verify-full",
                "postgresql://a@b:c:<hidden>@/run/pg sql/vmail",
            ),
            (
                place(postgresql, "/run/postgresql", None, "", false),
                "postgresql://a%40b%3Ac@127.0.0.1/vmail?host=/run/postgresql",
                "postgresql://a@b:c@/run/postgresql/vmail",
            ),
            (
                place(mysql, "/run/mysqld/mysqld.sock", Some("3306"), "", false),
                "mysql://a%40b%3Ac@127.0.0.1/vmail?socket=/run/mysqld/mysqld.sock",
                "mysql://a@b:c@/run/mysqld/mysqld.sock/vmail",
            ),
            (
                place(postgresql, "a/b?c", None, "", false),
                "postgresql://a%40b%3Ac@a%2Fb%3Fc/vmail",
                "postgresql://a@b:c@a/b?c:5432/vmail",
            ),
        ] {
            assert_eq!(place.url(), written);
            let url: DbUrl = written.parse().unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(url.to_string(), shown);
        }
    }
}
