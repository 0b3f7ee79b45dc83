//! Database URLs.
//!
//! `mysql://user:password@host:port/name` (also `mariadb:`), `postgresql://...` (also `postgres:`, `pgsql:`),
//! `sqlite:///folder/file.db`. User, password and name may be percent-encoded. Parameters:
//!
//! | parameter | meaning |
//! |---|---|
//! | `socket=PATH`, `unix_socket=PATH` | MySQL UNIX socket |
//! | `host=FOLDER`, `socket=FOLDER` | PostgreSQL UNIX socket (the folder it lies in) |
//! | `ssl-mode=`, `sslmode=` | `disable`; `prefer` (default: TLS if offered, unverified); `require`, `verify-full`, `verify-identity`: TLS with certificate and name verified; `verify-ca`: certificate only; `unverified`: TLS without verification |
//! | `ssl-ca=PATH`, `sslrootcert=PATH` | certificates to trust beside the built-in ones (PEM) |
//! | `ssl-cert=PATH`, `ssl-key=PATH` | client certificate and key (PEM) |
//!
//! Unknown parameters are refused. The password never appears in `Debug`, `Display` or serialised settings.

use super::{DbError, Engine};
use crate::bounded_file;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes of a password file.
const LONGEST_PASSWORD: u64 = 64 * 1024;

/// How much of TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; nothing is verified.
    Prefer,
    /// Always, without verification.
    Unverified,
    /// Always, certificate verified but not the name in it.
    VerifyCa,
    /// Always, certificate and name verified.
    VerifyFull,
}

/// A parsed database URL.
#[derive(Clone, PartialEq, Eq)]
pub struct DbUrl {
    pub(crate) engine: Engine,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) socket: Option<PathBuf>,
    /// Name of the database; for SQLite the path of the file.
    pub(crate) database: String,
    pub(crate) tls: TlsMode,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

impl DbUrl {
    /// The URL of an SQLite file.
    pub fn sqlite(file: &Path) -> DbUrl {
        DbUrl { database: file.to_string_lossy().into_owned(), ..DbUrl::empty(Engine::Sqlite) }
    }

    /// Which server it names.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The name of the database, or the path of the SQLite file.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Takes the password from a file; line ends at its end do not belong to it.
    ///
    /// # Errors
    /// [`DbError::Unusable`] when the file cannot be read.
    pub fn read_password(&mut self, file: &Path) -> Result<(), DbError> {
        let unusable =
            |why: &dyn fmt::Display| DbError::Unusable(format!("password file {}: {why}", file.display()));
        let (bytes, _) = bounded_file::read(file, LONGEST_PASSWORD).map_err(|error| unusable(&error))?;
        let text = str::from_utf8(&bytes).map_err(|error| unusable(&error))?;
        self.password = text.trim_end_matches(['\r', '\n']).to_owned();
        Ok(())
    }

    fn empty(engine: Engine) -> DbUrl {
        let (user, port) = match engine {
            Engine::MySql => ("root", 3306),
            Engine::Postgres => ("postgres", 5432),
            Engine::Sqlite => ("", 0),
        };
        DbUrl {
            engine,
            user: user.to_owned(),
            password: String::new(),
            host: "127.0.0.1".to_owned(),
            port,
            socket: None,
            database: String::new(),
            tls: TlsMode::Prefer,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
        }
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), DbError> {
        match (name, self.engine) {
            ("socket" | "unix_socket", Engine::MySql) => self.socket = Some(value.into()),
            ("host" | "socket", Engine::Postgres) if value.starts_with('/') => {
                self.socket = Some(value.into())
            }
            ("host", Engine::Postgres) => self.host = value,
            ("ssl-mode" | "sslmode" | "ssl_mode", _) => self.tls = tls_mode(&value)?,
            ("ssl-ca" | "sslrootcert" | "ssl_ca", _) => self.tls_ca = Some(value.into()),
            ("ssl-cert" | "sslcert" | "ssl_cert", _) => self.tls_certificate = Some(value.into()),
            ("ssl-key" | "sslkey" | "ssl_key", _) => self.tls_key = Some(value.into()),
            _ => return unusable(format!("unknown parameter {name:?} in a database URL")),
        }
        Ok(())
    }

    /// Where it leads, without user, password and parameters: for log lines and errors.
    pub(crate) fn place(&self) -> String {
        let scheme = self.engine.scheme();
        match (&self.socket, self.engine) {
            (_, Engine::Sqlite) => format!("{scheme}://{}", self.database),
            (Some(socket), _) => format!("{scheme}://{}/{}", socket.display(), self.database),
            (None, _) if self.host.contains(':') => {
                format!("{scheme}://[{}]:{}/{}", self.host, self.port, self.database)
            }
            (None, _) => format!("{scheme}://{}:{}/{}", self.host, self.port, self.database),
        }
    }
}

impl FromStr for DbUrl {
    type Err = DbError;

    fn from_str(text: &str) -> Result<DbUrl, DbError> {
        // Errors never quote the URL: it may hold a password.
        let Some((scheme, rest)) = text.split_once("://") else {
            return unusable("a database URL begins with mysql://, postgresql:// or sqlite://");
        };
        let engine = match scheme.to_ascii_lowercase().as_str() {
            "mysql" | "mariadb" => Engine::MySql,
            "postgresql" | "postgres" | "pgsql" => Engine::Postgres,
            "sqlite" => Engine::Sqlite,
            other => return unusable(format!("unknown kind of database {other:?} in a URL")),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = DbUrl::empty(engine);
        if engine == Engine::Sqlite {
            url.database = decode(rest)?;
            if !parameters.is_empty() {
                return unusable("an SQLite URL takes no parameters");
            }
            if !url.database.starts_with('/') {
                return unusable("an SQLite URL names an absolute path: sqlite:///var/lib/...");
            }
            return Ok(url);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        url.database = decode(path.trim_end_matches('/'))?;
        // A raw `@` in the password is a common slip; the last one ends it.
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        if !user.is_empty() {
            url.user = decode(user)?;
        }
        url.password = decode(password)?;
        set_place(&mut url, place)?;
        for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.parameter(name, decode(value)?)?;
        }
        Ok(url)
    }
}

fn set_place(url: &mut DbUrl, place: &str) -> Result<(), DbError> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').unwrap_or("")),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    if !port.is_empty() {
        url.port =
            port.parse().map_err(|_| DbError::Unusable("the port of a database URL is no number".into()))?;
    }
    let host = decode(host)?;
    if host.starts_with('/') {
        url.socket = Some(host.into());
    } else if !host.is_empty() {
        url.host = host;
    }
    Ok(())
}

fn tls_mode(value: &str) -> Result<TlsMode, DbError> {
    Ok(match value.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" => TlsMode::Disable,
        "prefer" | "preferred" | "allow" => TlsMode::Prefer,
        "unverified" => TlsMode::Unverified,
        "verify-ca" => TlsMode::VerifyCa,
        "require" | "required" | "verify-full" | "verify-identity" => TlsMode::VerifyFull,
        _ => return unusable(format!("unknown ssl-mode {value:?} in a database URL")),
    })
}

/// Undoes percent-encoding. A `%` that begins no pair of hexadecimal digits stands for itself.
fn decode(text: &str) -> Result<String, DbError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).or_else(|_| unusable("a database URL is not UTF-8 when decoded"))
}

fn unusable<T>(reason: impl Into<String>) -> Result<T, DbError> {
    Err(DbError::Unusable(reason.into()))
}

impl fmt::Display for DbUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.engine == Engine::Sqlite {
            return out.write_str(&self.place());
        }
        let hidden = if self.password.is_empty() { "" } else { ":<hidden>" };
        let place = self.place();
        let place = place.split_once("://").map_or(place.as_str(), |(_, place)| place);
        write!(out, "{}://{}{hidden}@{place}", self.engine.scheme(), self.user)
    }
}

impl fmt::Debug for DbUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DbUrl({self})")
    }
}

impl Serialize for DbUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DbUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DbUrl, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_and_where_they_lead() {
        let cases = [
            (
                "mysql://vmail:s%40cret@db.example:3307/vmail",
                "mysql://db.example:3307/vmail",
                "vmail",
                "s@cret",
            ),
            ("mariadb://u@127.0.0.1/vmail?socket=/run/my.sock", "mysql:///run/my.sock/vmail", "u", ""),
            ("postgres://u:p@w@[::1]:5433/amavisd", "postgresql://[::1]:5433/amavisd", "u", "p@w"),
            ("postgresql://u@/vmail?host=/run/pg", "postgresql:///run/pg/vmail", "u", ""),
            ("postgresql://u@%2Frun%2Fpg/vmail", "postgresql:///run/pg/vmail", "u", ""),
            ("postgresql:///vmail", "postgresql://127.0.0.1:5432/vmail", "postgres", ""),
            ("mysql://u:100%@h/d/", "mysql://h:3306/d", "u", "100%"),
            ("sqlite:///var/lib/x/vmail.db", "sqlite:///var/lib/x/vmail.db", "", ""),
        ];
        for (text, place, user, password) in cases {
            let url: DbUrl = text.parse().expect(text);
            assert_eq!((url.place().as_str(), &*url.user, &*url.password), (place, user, password), "{text}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_being_quoted() {
        for text in [
            "vmail",
            "oracle://u:geheim@h/d",
            "mysql://u:geheim@h:port/d",
            "mysql://u:geheim@h/d?sslmode=maybe",
            "mysql://u:geheim@h/d?colour=red",
            "mysql://u:geheim%ff@h/d",
            "sqlite://relative.db",
        ] {
            let error = text.parse::<DbUrl>().expect_err(text).to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let url: DbUrl = "mysql://vmail:geheim@h/d".parse().expect("a URL");
        let shown = format!("{url} {url:?} {}", serde_json::to_string(&url).expect("JSON"));
        assert!(!shown.contains("geheim") && shown.contains("<hidden>"), "{shown}");
    }

    #[test]
    fn tls_that_is_asked_for_is_verified() {
        for (mode, expected) in [
            ("", TlsMode::Prefer),
            ("?sslmode=require", TlsMode::VerifyFull),
            ("?ssl-mode=VERIFY_IDENTITY", TlsMode::VerifyFull),
            ("?sslmode=unverified", TlsMode::Unverified),
        ] {
            let url: DbUrl = format!("postgresql://u@h/d{mode}").parse().expect(mode);
            assert_eq!(url.tls, expected, "{mode}");
        }
    }

    #[test]
    fn a_password_file_loses_its_line_end() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "pass word \r\n").expect("written");
        let mut url: DbUrl = "mysql://vmail@h/d".parse().expect("a URL");
        url.read_password(file.path()).expect("read");
        assert_eq!(url.password, "pass word ");
        assert!(url.read_password(Path::new("/nonexistent/file")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}", scheme in "mysql|postgresql|sqlite") {
            let _ = text.parse::<DbUrl>();
            let _ = format!("{scheme}://{text}").parse::<DbUrl>();
        }
    }
}
