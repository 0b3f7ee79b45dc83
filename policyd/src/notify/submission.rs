//! A notice through a submission service (RFC 6409): STARTTLS, login, one message.
//!
//! What the certificate must be depends on the address that was reached, not on a name: a name may lead anywhere. Nothing
//! is sent in clear when STARTTLS is wanted and not offered. A refused recipient costs the others nothing. The library
//! does the dialogue; what the server says is bounded here, and the caller bounds the time.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use outrider_core::settings::Secret;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bounded::Bounded;
use crate::settings::{NotificationSettings, smtp_address};

/// Bytes read from the server at most, certificates included.
const MOST_READ: u64 = 256 * 1024;
/// How long the server may take over QUIT, which decides nothing any more.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a notice did not get through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum SubmissionError {
    /// The server was not reached.
    #[error("connecting to {server}: {error}")]
    Connect {
        /// `name:port`.
        server: String,
        /// Why.
        error: io::Error,
    },
    /// The file `smtp_ca_file` is of no use.
    #[error("notification.smtp_ca_file {}: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A sender or recipient is no address. Settings with such a one are refused at the start.
    #[error("{0:?} is no address that SMTP can carry")]
    Address(String),
    /// The server refused something, or broke the dialogue.
    #[error("{step} at {server}: {error}")]
    Dialogue {
        /// The command, or what it is for.
        step: &'static str,
        /// `name:port`.
        server: String,
        /// The server's words, or what is wrong with them.
        error: SmtpError,
    },
    /// The message has characters beyond ASCII, and the server does not offer 8BITMIME (RFC 6152).
    #[error("{0} does not take text beyond ASCII (8BITMIME)")]
    AsciiOnly(String),
}

/// Whose certificates are good.
#[derive(Debug, PartialEq, Eq)]
enum Trust<'a> {
    /// Anybody's, for any name.
    Anybody,
    /// Those of the system's authorities, for the name.
    System,
    /// Those of the authorities in a PEM file and of no others, for the name.
    File(&'a Path),
}

impl Trust<'_> {
    fn new(settings: &NotificationSettings, peer: IpAddr) -> Trust<'_> {
        match &settings.smtp_ca_file {
            Some(file) => Trust::File(file),
            None if peer.to_canonical().is_loopback() => Trust::Anybody,
            None => Trust::System,
        }
    }

    /// Reads the authorities from disk, so that a renewed file counts from the next notice on.
    fn parameters(&self, name: &str) -> Result<TlsParameters, SubmissionError> {
        let builder = TlsParameters::builder(name.to_owned());
        let (builder, path) = match self {
            Trust::Anybody => {
                let builder = builder.certificate_store(CertificateStore::None);
                (builder.dangerous_accept_invalid_certs(true).dangerous_accept_invalid_hostnames(true), None)
            }
            Trust::System => (builder, None),
            Trust::File(path) => {
                let authorities = authorities(path)?;
                let builder = builder.certificate_store(CertificateStore::None);
                (builder.add_root_certificate(authorities), Some(path))
            }
        };
        builder.build_rustls().map_err(|error| match path {
            Some(path) => unusable(path, error.to_string()),
            None => SubmissionError::Dialogue { step: "preparing TLS", server: name.to_owned(), error },
        })
    }
}

fn unusable(path: &Path, reason: String) -> SubmissionError {
    SubmissionError::Authorities { path: path.to_owned(), reason }
}

fn authorities(path: &Path) -> Result<Certificate, SubmissionError> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, error.to_string()))?;
    // The library takes a file without any for an empty list, and then blames the server.
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(unusable(path, "holds no certificate in PEM form".to_owned()));
    }
    Certificate::from_pem(&pem).map_err(|error| unusable(path, error.to_string()))
}

/// Logs in and hands the message over; done when the server has taken it for at least one recipient.
pub(super) async fn send(
    settings: &NotificationSettings,
    password: &Secret,
    message: &str,
) -> Result<(), SubmissionError> {
    let server = format!("{}:{}", settings.smtp_server, settings.smtp_port);
    let address = |text: &String| smtp_address(text).ok_or_else(|| SubmissionError::Address(text.clone()));
    let sender = address(&settings.sender)?;
    let recipients = settings.recipients.iter().map(address).collect::<Result<Vec<_>, _>>()?;
    let unreachable = |error| SubmissionError::Connect { server: server.clone(), error };
    let failed = |step| {
        let server = server.clone();
        move |error| SubmissionError::Dialogue { step, server, error }
    };

    let stream =
        TcpStream::connect((settings.smtp_server.as_str(), settings.smtp_port)).await.map_err(unreachable)?;
    let peer = stream.peer_addr().map_err(unreachable)?.ip();
    // An address literal: it is always known and always true (RFC 5321, 4.1.4).
    let own_name = match stream.local_addr().map_err(unreachable)?.ip() {
        IpAddr::V4(ip) => ClientId::Ipv4(ip),
        IpAddr::V6(ip) => ClientId::Ipv6(ip),
    };
    let stream = Box::new(Bounded::new(stream, MOST_READ).map_err(unreachable)?);
    let mut connection =
        AsyncSmtpConnection::connect_with_transport(stream, &own_name).await.map_err(failed("greeting"))?;
    if settings.smtp_starttls {
        let tls = Trust::new(settings, peer).parameters(&settings.smtp_server)?;
        // After a failure the connection is in no state to be used, not even for QUIT.
        connection.starttls(tls, &own_name).await.map_err(failed("STARTTLS"))?;
    }
    let credentials = Credentials::new(settings.sender.clone(), password.expose().to_owned());
    let outcome = match connection.auth(DEFAULT_MECHANISMS, &credentials).await {
        Ok(_) => {
            let message = complete(message, sender.domain(), Timestamp::now());
            transfer(&mut connection, &server, sender, recipients, &message).await
        }
        Err(error) => Err(failed("login")(error)),
    };
    // The mail is the server's by now, or refused; how it says good-bye changes neither.
    let _ = timeout(FAREWELL, connection.abort()).await;
    outcome
}

/// The message with the line ends of the wire, and with the fields of the originator that the program `sendmail` adds by
/// itself (RFC 5322, 3.6) and a submission service need not.
fn complete(message: &str, domain: &str, now: Timestamp) -> String {
    let zoned = now.to_zoned(TimeZone::UTC);
    // Cannot fail for a year of four digits.
    let date = rfc2822::to_string(&zoned).map(|date| format!("Date: {date}\n")).unwrap_or_default();
    let id = format!("{:x}.{}@{domain}", now.as_nanosecond(), std::process::id());
    format!("{date}Message-ID: <{id}>\n{}", message.trim_end()).replace('\n', "\r\n")
}

async fn transfer(
    connection: &mut AsyncSmtpConnection,
    server: &str,
    sender: Address,
    recipients: Vec<Address>,
    message: &str,
) -> Result<(), SubmissionError> {
    let failed = |step| move |error| SubmissionError::Dialogue { step, server: server.to_owned(), error };
    let mut parameters = Vec::new();
    if !message.is_ascii() {
        if !connection.server_info().supports_feature(Extension::EightBitMime) {
            return Err(SubmissionError::AsciiOnly(server.to_owned()));
        }
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    connection.command(Mail::new(Some(sender), parameters)).await.map_err(failed("MAIL"))?;
    let (mut taken, mut refused) = (0, None);
    for recipient in recipients {
        match connection.command(Rcpt::new(recipient.clone(), Vec::new())).await {
            Ok(_) => taken += 1,
            Err(error) if error.status().is_some() => {
                tracing::warn!(%recipient, %error, "a recipient of throttle notices is refused");
                refused = Some(error);
            }
            Err(error) => return Err(failed("RCPT")(error)),
        }
    }
    if let Some(error) = refused.filter(|_| taken == 0) {
        return Err(failed("RCPT")(error));
    }
    connection.command(Data).await.map_err(failed("DATA"))?;
    connection.message(message.as_bytes()).await.map_err(failed("end of data"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_loopback_address_may_have_any_certificate() {
        let own = NotificationSettings { smtp_ca_file: Some("ca.pem".into()), ..Default::default() };
        let default = NotificationSettings::default();
        for (peer, expected) in [
            ("127.0.0.1", Trust::Anybody),
            ("127.9.9.9", Trust::Anybody),
            ("::1", Trust::Anybody),
            ("::ffff:127.0.0.1", Trust::Anybody),
            ("192.0.2.1", Trust::System),
            ("10.0.0.1", Trust::System),
            ("2001:db8::1", Trust::System),
            ("::ffff:192.0.2.1", Trust::System),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(Trust::new(&default, peer), expected, "{peer}");
            assert_eq!(Trust::new(&own, peer), Trust::File(Path::new("ca.pem")), "{peer}");
        }
    }

    #[test]
    fn a_file_of_authorities_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let reason = |path: &Path| Trust::File(path).parameters("localhost").err().unwrap().to_string();
        assert!(reason(&path).contains("ca.pem: No such file"), "{}", reason(&path));
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert!(reason(&path).contains("ca.pem: holds no certificate"), "{}", reason(&path));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(reason(&path).contains("ca.pem: "), "{}", reason(&path));
    }

    #[test]
    fn the_message_has_a_date_a_name_and_the_line_ends_of_the_wire() {
        let now = Timestamp::from_second(1_742_040_000).unwrap();
        let message = complete("From: a@example.com\nTo: b\n\n- User: c\n", "example.com", now);
        let (head, text) = message.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("Date: Sat, 15 Mar 2025 12:00:00 +0000\r\nMessage-ID: <"), "{head}");
        assert!(head.contains("@example.com>\r\nFrom: a@example.com\r\nTo: b"), "{head}");
        assert_eq!(text, "- User: c");
        assert!(!message.replace("\r\n", "").contains(['\r', '\n']));
        let later = complete("\n", "example.com", now.saturating_add(Duration::from_nanos(1)).unwrap());
        assert_ne!(message.lines().nth(1), later.lines().nth(1));
    }

    /// What no real server does on demand: it offers no encryption but a login, or never ends its greeting.
    async fn peer(endless: bool) -> (NotificationSettings, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = NotificationSettings {
            smtp_server: "127.0.0.1".into(),
            smtp_port: listener.local_addr().unwrap().port(),
            recipients: vec!["root@example.com".into()],
            ..Default::default()
        };
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if endless {
                for _ in 0..16_384 {
                    if stream.write_all(&[b'2'; 4096]).await.is_err() {
                        return "hung up".to_owned();
                    }
                }
                return "64 MiB".to_owned();
            }
            let (reader, mut writer) = stream.split();
            let mut reader = BufReader::new(reader);
            let mut heard = String::new();
            writer.write_all(b"220 peer\r\n").await.unwrap();
            reader.read_line(&mut heard).await.unwrap();
            writer.write_all(b"250-peer\r\n250 AUTH PLAIN LOGIN\r\n").await.unwrap();
            let _ = reader.read_line(&mut heard).await;
            heard
        });
        (settings, heard)
    }

    #[tokio::test]
    async fn without_starttls_nothing_secret_is_said() {
        let (settings, heard) = peer(false).await;
        let error = send(&settings, &Secret::new("Kanarienvogel"), "\n").await.unwrap_err().to_string();
        assert!(error.starts_with("STARTTLS at 127.0.0.1:"), "{error}");
        assert_eq!(heard.await.unwrap(), "EHLO [127.0.0.1]\r\n");
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up() {
        let (settings, heard) = peer(true).await;
        let error = send(&settings, &Secret::new("Kanarienvogel"), "\n").await.unwrap_err().to_string();
        assert!(error.starts_with("greeting at 127.0.0.1:"), "{error}");
        assert_eq!(heard.await.unwrap(), "hung up");
    }
}
