//! Typed values of settings files: intervals, sizes, secrets and listen addresses.
//!
//! Each type is parsed while the file is read, so that a wrong value is reported with its line and nothing is a
//! bare string that somebody parses later. Every type prints itself in the form in which it can be written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A span of time: `"30s"`, `"5m"`, `"1h"`, `"3d"`, `"2w"`, `"250ms"`; a bare integer means seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(pub Duration);

impl Interval {
    /// An interval of whole seconds.
    pub const fn seconds(seconds: u64) -> Interval {
        Interval(Duration::from_secs(seconds))
    }

    /// The same span for tokio and the standard library.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

const INTERVAL_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Interval, String> {
        let (number, unit) = split_number(text);
        let scale = match unit {
            "" => Some(1000),
            unit => INTERVAL_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale),
        };
        let millis = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
        // A thousand years: beyond that additions to a clock could overflow.
        match millis {
            Some(millis) if millis <= 31_556_952_000_000 => Ok(Interval(Duration::from_millis(millis))),
            _ => {
                Err(format!("{text:?} is no time: write a number with ms, s, m, h, d or w, such as \"30s\""))
            }
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return out.write_str("0s");
        }
        // The largest unit that divides it, but "7d" rather than "1w": fewer people read weeks in settings.
        let unit =
            INTERVAL_UNITS[..5].iter().rev().find(|(_, scale)| millis.is_multiple_of(u128::from(*scale)));
        let (name, scale) = unit.copied().unwrap_or(("ms", 1));
        write!(out, "{}{name}", millis / u128::from(scale))
    }
}

/// A number of bytes: `"50MiB"`, `"500k"`, `"1GB"`; a bare integer means bytes.
///
/// `k`, `M`, `G` and `KiB`, `MiB`, `GiB` are powers of 1024, as mail software counts; `KB`, `MB`, `GB` are
/// powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// The number of bytes, cut to what the machine can address.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, unit) = split_number(text);
        let unit = unit.to_ascii_lowercase();
        let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        scale
            .and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale))
            .filter(|bytes| *bytes <= i64::MAX as u64)
            .map(Size)
            .ok_or_else(|| {
                format!("{text:?} is no size: write a number with KiB, MiB or GiB, such as \"50MiB\"")
            })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 != 0 && self.0.is_multiple_of(scale) {
                return write!(out, "{}{unit}", self.0 / scale);
            }
        }
        write!(out, "{}", self.0)
    }
}

/// Splits `"30 s"` into `"30"` and `"s"`.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Where a daemon listens: `"127.0.0.1:7777"`, `"[::1]:0"` (any free port) or `"unix:/run/outrider/policyd.sock"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IPv4 or IPv6 address and a port.
    Tcp(SocketAddr),
    /// The path of a UNIX stream socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// A port of 127.0.0.1.
    pub const fn local(port: u16) -> ListenAddress {
        ListenAddress::Tcp(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port))
    }

    /// Whether only programs of this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // 108 bytes with the final NUL is what sockaddr_un holds on Linux.
            return match path {
                path if !path.starts_with('/') => {
                    Err(format!("{text:?}: the path of a UNIX socket starts with /"))
                }
                path if path.len() > 107 || path.contains('\0') => {
                    Err(format!("{text:?}: the path of a UNIX socket has at most 107 bytes"))
                }
                path => Ok(ListenAddress::Unix(PathBuf::from(path))),
            };
        }
        text.parse().map(ListenAddress::Tcp).map_err(|_| {
            format!(
                "{text:?} is no listen address: write \"127.0.0.1:7777\", \"[::1]:7777\" or \"unix:/path\""
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(out),
            ListenAddress::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// A password, token or key: never printed, neither by `Debug` nor by `--show-config`.
///
/// In a settings file it is the text itself or `"file:/path"`, whose content (without the final line end) is read
/// when the settings are loaded. `file:` with a name without `/` means a systemd credential
/// (`$CREDENTIALS_DIRECTORY`). A file that others may read is refused.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    text: String,
}

impl Secret {
    /// A secret given by the program itself, for example in a test.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret { text: text.into() }
    }

    /// The secret itself. Do not log it, do not put it into an error.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Secret, String> {
        match text.strip_prefix("file:") {
            None => Ok(Secret { text: text.to_owned() }),
            Some(path) => super::secret::read(path).map(|text| Secret { text }),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<hidden>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.text.is_empty() { "" } else { "<hidden>" })
    }
}

/// Reads a value from a string, or from an integer that is taken as its digits.
struct TextVisitor<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            .and_then(|number| number.to_string().parse().map_err(E::custom))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! text_value {
    ($type:ty, $method:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.$method(TextVisitor::<$type>($expecting, std::marker::PhantomData))
            }
        }
    };
}

text_value!(Interval, deserialize_any, "a time such as \"30s\", \"5m\" or \"1h\"");
text_value!(Size, deserialize_any, "a size such as \"50MiB\" or a number of bytes");
text_value!(ListenAddress, deserialize_str, "an address such as \"127.0.0.1:7777\" or \"unix:/path\"");

/// The name under which a [`Secret`] asks for its value: the loader recognises secrets by it.
pub(super) const SECRET_NAME: &str = "outrider::Secret";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_newtype_struct(SECRET_NAME, SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string or \"file:/path\"")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_str(SecretVisitor)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

serialize_as_text!(Interval, Size, ListenAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("310", 310_000, "310s"),
            ("1h", 3_600_000, "1h"),
            ("3d", 259_200_000, "3d"),
            ("2w", 1_209_600_000, "14d"),
            ("1500ms", 1500, "1500ms"),
            ("10 s", 10_000, "10s"),
            ("0", 0, "0s"),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!(interval.0.as_millis(), millis, "{text}");
            assert_eq!(interval.to_string(), printed);
            assert_eq!(printed.parse::<Interval>().unwrap(), interval);
        }
        for text in ["", "s", "5x", "-1s", "1.5h", "99999999999999d", "5 m s"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("50MiB", 52_428_800, "50MiB"),
            ("500k", 512_000, "500KiB"),
            ("1 GB", 1_000_000_000, "1000000000"),
            ("0", 0, "0"),
            ("1025", 1025, "1025"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(printed.parse::<Size>().unwrap(), size);
        }
        for text in ["", "MiB", "5 apples", "-1", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn listen_addresses() {
        for (text, loopback) in [
            ("127.0.0.1:7777", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/run/outrider/policyd.sock", true),
            ("0.0.0.0:7777", false),
            ("[::]:7777", false),
            ("192.0.2.1:25", false),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.is_loopback()), (text, loopback));
        }
        for text in ["7777", "localhost:7777", "unix:relative", "127.0.0.1", "127.0.0.1:70000", ""] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<ListenAddress>().is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let secret: Secret = "open sesame".parse().unwrap();
        assert_eq!(secret.expose(), "open sesame");
        assert_eq!(format!("{secret:?}"), "<hidden>");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<hidden>\"");
    }
}
