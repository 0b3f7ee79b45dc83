//! Asking the list service (mlmmjadmin's interface, port 7790) who is subscribed to a mailing list.
//!
//! `GET {endpoint}/{list}/has_subscriber/{login}` with the token in a header; the JSON member `_success` tells. One
//! connection a question, two seconds for everything, at most 64 KiB of answer. Failures are logged and mean "not
//! subscribed": the service is optional. Behind `https://` the server has to show a certificate for its name, signed by an
//! authority of the system or of `list_api_ca_file`.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use outrider_core::net::{AuthoritiesError, client_trusting};
use outrider_core::settings::{HttpUrl, Secret};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::settings::SenderLoginSettings;

const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST: usize = 64 * 1024;
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// Where and how to ask.
pub struct ListApi {
    url: HttpUrl,
    /// For `https://`: the name that the certificate must have, and whom to trust.
    tls: Option<(ServerName<'static>, TlsConnector)>,
    header: String,
    token: Secret,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ListApi {
    /// The service of the settings; `None` unless both address and token are set.
    ///
    /// # Errors
    /// For `https://`, if there is no authority to trust.
    pub fn from_settings(settings: &SenderLoginSettings) -> Result<Option<ListApi>, AuthoritiesError> {
        let url = settings.list_api.as_deref().and_then(|text| text.parse::<HttpUrl>().ok());
        let token = settings.list_api_token.clone().filter(|token| !token.expose().is_empty());
        let (Some(url), Some(token)) = (url, token) else { return Ok(None) };
        let tls = match ServerName::try_from(url.host().to_owned()) {
            _ if !url.is_encrypted() => None,
            Ok(name) => {
                let client = client_trusting(settings.list_api_ca_file.as_deref())?;
                Some((name, TlsConnector::from(Arc::new(client))))
            }
            // A name that no certificate can have.
            Err(_) => return Ok(None),
        };
        Ok(Some(ListApi { url, tls, header: settings.list_api_token_header.clone(), token }))
    }

    /// Whether `login` is subscribed to `list`.
    pub async fn has_subscriber(&self, list: &str, login: &str) -> bool {
        let answer = timeout(PATIENCE, self.ask(list, login)).await.unwrap_or(Err(ApiError::Timeout));
        answer.unwrap_or_else(|error| {
            tracing::warn!(server = self.url.authority(), %error, "cannot ask the list service");
            false
        })
    }

    async fn ask(&self, list: &str, login: &str) -> Result<bool, ApiError> {
        let stream =
            TcpStream::connect((self.url.host(), self.url.port())).await.map_err(ApiError::Connect)?;
        match &self.tls {
            None => self.ask_over(stream, list, login).await,
            Some((name, tls)) => {
                let stream = tls.connect(name.clone(), stream).await.map_err(ApiError::Connect)?;
                self.ask_over(stream, list, login).await
            }
        }
    }

    async fn ask_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        list: &str,
        login: &str,
    ) -> Result<bool, ApiError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let encode = |text| utf8_percent_encode(text, KEPT).to_string();
        let base = self.url.path().trim_end_matches('/');
        let request = Request::get(format!("{base}/{}/has_subscriber/{}", encode(list), encode(login)))
            .header("host", self.url.authority())
            .header(&self.header, self.token.expose())
            .body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(ApiError::Body)?;
            let json: serde_json::Value = serde_json::from_slice(&body.to_bytes())?;
            Ok(json.get("_success").and_then(serde_json::Value::as_bool).unwrap_or(false))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // Many servers end TLS by closing the connection, which is an error here; what came before it counts.
            ended = connection => match (exchange.await, ended) {
                (Ok(answer), _) => Ok(answer),
                (Err(_), Err(error)) => Err(error.into()),
                (Err(error), Ok(())) => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use outrider_tests::authority::Authority;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A service that gives one answer and hands back the request.
    async fn service(answer: &'static str) -> (SenderLoginSettings, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = SenderLoginSettings {
            list_api: Some(format!("http://{}/api/", listener.local_addr().unwrap())),
            list_api_token: Some(Secret::new("sesame")),
            ..SenderLoginSettings::default()
        };
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            answered(stream, answer).await.unwrap()
        });
        (settings, task)
    }

    async fn answered<S: AsyncRead + AsyncWrite + Unpin>(
        mut stream: S,
        answer: &str,
    ) -> std::io::Result<String> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await?);
        }
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(reply.as_bytes()).await?;
        stream.flush().await?;
        Ok(String::from_utf8_lossy(&request).into_owned())
    }

    /// The same with a certificate for 127.0.0.1, for any number of clients; how many of them got as far as a request.
    async fn encrypted_service(authority: &Authority) -> (u16, Arc<AtomicUsize>) {
        let certificates = CertificateDer::pem_file_iter(authority.certificate()).unwrap();
        let certificates = certificates.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(authority.key()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                if answered(stream, "{\"_success\": true}").await.is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        (port, asked)
    }

    #[tokio::test]
    async fn over_tls_only_a_server_with_the_right_certificate_is_told_the_token() {
        let (ours, other) = (Authority::new("root").unwrap(), Authority::new("root").unwrap());
        let (port, asked) = encrypted_service(&ours).await;
        for (host, ca_file, expected) in [
            ("127.0.0.1", Some(ours.ca()), true),
            // It is not for this name.
            ("localhost", Some(ours.ca()), false),
            ("127.0.0.1", Some(other.ca()), false),
            // The authorities of the system.
            ("127.0.0.1", None, false),
        ] {
            let settings = SenderLoginSettings {
                list_api: Some(format!("https://{host}:{port}/api")),
                list_api_token: Some(Secret::new("sesame")),
                list_api_ca_file: ca_file.clone(),
                ..SenderLoginSettings::default()
            };
            // A machine without authorities of its own trusts nobody either.
            let Ok(api) = ListApi::from_settings(&settings) else {
                assert!(ca_file.is_none());
                continue;
            };
            let subscribed = api.unwrap().has_subscriber("list@example.com", "a@example.com").await;
            assert_eq!(subscribed, expected, "{host} {ca_file:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let settings = SenderLoginSettings {
            list_api: Some("https://127.0.0.1/api".into()),
            list_api_token: Some(Secret::new("sesame")),
            list_api_ca_file: Some("/nonexistent/ca.pem".into()),
            ..SenderLoginSettings::default()
        };
        assert!(ListApi::from_settings(&settings).is_err());
    }

    #[tokio::test]
    async fn subscribers_are_known_by_the_service() {
        for (answer, expected) in [
            ("{\"_success\": true}", true),
            ("{\"_success\": false, \"_msg\": \"NO\"}", false),
            ("<html>", false),
        ] {
            let (settings, task) = service(answer).await;
            let api = ListApi::from_settings(&settings).unwrap().unwrap();
            assert_eq!(
                api.has_subscriber("list@example.com", "a/b?c@example.com").await,
                expected,
                "{answer}"
            );
            let request = task.await.unwrap().to_lowercase();
            assert!(
                request
                    .starts_with("get /api/list@example.com/has_subscriber/a%2fb%3fc@example.com http/1.1")
            );
            assert!(request.contains("x-mlmmjadmin-api-auth-token: sesame"));
        }
    }

    #[tokio::test]
    async fn without_address_token_or_service_nobody_is() {
        let mut settings = SenderLoginSettings::default();
        assert!(ListApi::from_settings(&settings).unwrap().is_none());
        settings.list_api = Some("http://127.0.0.1:1/api".into());
        assert!(ListApi::from_settings(&settings).unwrap().is_none());
        settings.list_api_token = Some(Secret::new("sesame"));
        let api = ListApi::from_settings(&settings).unwrap().unwrap();
        assert!(!api.has_subscriber("list@example.com", "a@example.com").await);
    }
}
