//! The address of a database in one line.

use std::net::Ipv6Addr;

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
        let server = if host.starts_with('/') {
            let name = if scheme == "mysql" { "socket" } else { "host" };
            let path: Vec<String> = host.split('/').map(encoded).collect();
            parameters.push(format!("{name}={}", path.join("/")));
            "127.0.0.1".to_owned()
        } else {
            let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
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
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use outrider_core::sql::DbUrl;

    use super::*;

    #[test]
    fn addresses_can_be_read_back() {
        let place = |host, port, password, verified_tls| Place {
            scheme: "postgresql",
            host,
            port,
            user: "a@b:c",
            password,
            database: "vmail",
            verified_tls,
        };
        for (place, expected) in [
            (place("127.0.0.1", Some("5432"), "", false), "postgresql://a@b:c@127.0.0.1:5432/vmail"),
            (place("::1", None, "/p@:/?#%w&\"", false), "postgresql://a@b:c:<hidden>@[::1]:5432/vmail"),
            (place("db.example.com", None, "", true), "postgresql://a@b:c@db.example.com:5432/vmail"),
            (place("/run/pg sql", Some("1"), "%41", true), "postgresql://a@b:c:<hidden>@/run/pg sql/vmail"),
            (place("a/b?c", None, "", false), "postgresql://a@b:c@a/b?c:5432/vmail"),
        ] {
            let url: DbUrl = place.url().parse().unwrap_or_else(|error| panic!("{}: {error}", place.url()));
            assert_eq!(url.to_string(), expected);
            assert_eq!(place.url().contains("ssl-mode=verify-full"), place.verified_tls);
        }
    }
}
