//! Asking the list service (mlmmjadmin's interface, port 7790) who is subscribed to a mailing list.
//!
//! `GET {endpoint}/{list}/has_subscriber/{login}` with the token in a header; the JSON member `_success` tells. One
//! connection a question, two seconds for everything, at most 64 KiB of answer. Failures are logged and mean "not
//! subscribed": the service is optional.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use outrider_core::settings::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::SenderLoginSettings;

const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST: usize = 64 * 1024;
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// Where and how to ask.
pub struct ListApi {
    authority: String,
    path: String,
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
    pub fn from_settings(settings: &SenderLoginSettings) -> Option<ListApi> {
        let endpoint = settings.list_api.as_deref()?.strip_prefix("http://")?;
        let token = settings.list_api_token.clone()?;
        let (authority, path) = endpoint.split_at(endpoint.find('/').unwrap_or(endpoint.len()));
        if authority.is_empty() || token.expose().is_empty() {
            return None;
        }
        Some(ListApi {
            authority: authority.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
            header: settings.list_api_token_header.clone(),
            token,
        })
    }

    /// Whether `login` is subscribed to `list`.
    pub async fn has_subscriber(&self, list: &str, login: &str) -> bool {
        let answer = timeout(PATIENCE, self.ask(list, login)).await.unwrap_or(Err(ApiError::Timeout));
        answer.unwrap_or_else(|error| {
            tracing::warn!(server = %self.authority, %error, "cannot ask the list service");
            false
        })
    }

    async fn ask(&self, list: &str, login: &str) -> Result<bool, ApiError> {
        let has_port = self.authority.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        let address = if has_port { self.authority.clone() } else { format!("{}:80", self.authority) };
        let stream = TcpStream::connect(address).await.map_err(ApiError::Connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let encode = |text| utf8_percent_encode(text, KEPT).to_string();
        let request =
            Request::get(format!("{}/{}/has_subscriber/{}", self.path, encode(list), encode(login)))
                .header("host", &self.authority)
                .header(&self.header, self.token.expose())
                .body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(ApiError::Body)?;
            let json: serde_json::Value = serde_json::from_slice(&body.to_bytes())?;
            Ok(json.get("_success").and_then(serde_json::Value::as_bool).unwrap_or(false))
        };
        tokio::select! {
            answer = exchange => answer,
            Err(error) = connection => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
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
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (settings, task)
    }

    #[tokio::test]
    async fn subscribers_are_known_by_the_service() {
        for (answer, expected) in [
            ("{\"_success\": true}", true),
            ("{\"_success\": false, \"_msg\": \"NO\"}", false),
            ("<html>", false),
        ] {
            let (settings, task) = service(answer).await;
            let api = ListApi::from_settings(&settings).unwrap();
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
        assert!(ListApi::from_settings(&settings).is_none());
        settings.list_api = Some("http://127.0.0.1:1/api".into());
        assert!(ListApi::from_settings(&settings).is_none());
        settings.list_api_token = Some(Secret::new("sesame"));
        let api = ListApi::from_settings(&settings).unwrap();
        assert!(!api.has_subscriber("list@example.com", "a@example.com").await);
    }
}
