//! Dovecot's own figures, over its HTTP interface (`service doveadm { inet_listener http { ... } }`, `doveadm_api_key`).
//!
//! ```text
//! C: POST /doveadm/v1        Authorization: X-Dovecot-API BASE64-OF-KEY
//! C: [["quotaGet",{"user":"u@d.example"},"q"]]
//! S: [["doveadmResponse",[{"root":"user","type":"STORAGE","value":"1","limit":"1024","percent":"0"},...],"q"]]
//! S: [["error",{"type":"exitCode","exitCode":67},"q"]]
//! ```
//!
//! Figures are KiB, rounded up, so usage may come out up to 1023 bytes too high. With several quota roots the first one
//! counts, which is that of setting `quota`. Dovecot closes the connection behind each answer, so each question has its own.
//!
//! Bounds: 64 KiB of answer, eight requests at a time; the caller has the deadline.

use crate::settings::{DoveadmSettings, DoveadmUrl};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use outrider_core::net::client_trusting;
use outrider_core::sql::DbError;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

const AT_ONCE: usize = 8;
const LONGEST: usize = 64 * 1024;
/// What Dovecot ends with when it does not know a user (EX_NOUSER of `sysexits.h`).
const NO_USER: i64 = 67;

type Connection = SendRequest<Full<Bytes>>;

/// A client of one Dovecot.
pub(crate) struct Doveadm {
    url: DoveadmUrl,
    authorization: HeaderValue,
    tls: Option<TlsConnector>,
    places: Semaphore,
}

impl Doveadm {
    /// Connects when something is asked.
    ///
    /// # Errors
    /// [`DbError::Unusable`] for authorities that cannot be used.
    pub(crate) fn new(settings: &DoveadmSettings) -> Result<Doveadm, DbError> {
        let key = BASE64_STANDARD.encode(settings.api_key.expose());
        let mut authorization = HeaderValue::from_str(&format!("X-Dovecot-API {key}"))
            .map_err(|error| DbError::Unusable(format!("doveadm.api_key: {error}")))?;
        authorization.set_sensitive(true);
        let tls = match settings.url.is_encrypted() {
            true => Some(TlsConnector::from(Arc::new(client_trusting(settings.ca_file.as_deref())?))),
            false => None,
        };
        Ok(Doveadm { url: settings.url.clone(), authorization, tls, places: Semaphore::new(AT_ONCE) })
    }

    /// The bytes that a user uses; `None` when Dovecot keeps no count for him.
    pub(crate) async fn used(&self, username: &str) -> Result<Option<i64>, String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let body = serde_json::json!([["quotaGet", { "user": username }, "q"]]).to_string();
        let asked = async { self.ask(self.connect().await?, Bytes::from(body)).await };
        let (status, answer) = asked.await.map_err(|error: String| format!("{}: {error}", self.url))?;
        understand(status, &answer)
    }

    async fn ask(&self, mut connection: Connection, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.path())
            .header(HOST, self.url.host_and_port())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok((status, body.map_err(|error| format!("reading the answer: {error}"))?.to_bytes()))
    }

    async fn connect(&self) -> Result<Connection, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await.map_err(|e| text(&e))?;
        stream.set_nodelay(true).map_err(|e| text(&e))?;
        // Each connection is worked by a task that ends with it.
        macro_rules! over {
            ($stream:expr) => {{
                let (sender, connection) =
                    http1::handshake(TokioIo::new($stream)).await.map_err(|e| text(&e))?;
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "connection to doveadm ended");
                    }
                });
                Ok(sender)
            }};
        }
        match &self.tls {
            None => over!(stream),
            Some(tls) => {
                let name = ServerName::try_from(self.url.host().to_owned()).map_err(|e| text(&e))?;
                over!(tls.connect(name, stream).await.map_err(|e| text(&e))?)
            }
        }
    }
}

/// What an answer says about usage.
fn understand(status: StatusCode, body: &[u8]) -> Result<Option<i64>, String> {
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(format!("doveadm answers {status}: is doveadm.api_key that of doveadm_api_key?"));
        }
        _ => return Err(format!("doveadm answers {status}")),
    }
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("doveadm's answer is no JSON: {error}"))?;
    let first = &answer[0];
    match first[0].as_str() {
        Some("doveadmResponse") => {}
        Some("error") if first[1]["exitCode"].as_i64() == Some(NO_USER) => {
            return Err("Dovecot knows no such user".to_owned());
        }
        Some("error") => return Err(format!("doveadm answers {}", first[1])),
        _ => return Err("doveadm's answer is not one to quotaGet".to_owned()),
    }
    let roots = first[1].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(storage) = roots.iter().find(|root| root["type"] == "STORAGE") else { return Ok(None) };
    let value = &storage["value"];
    let kilobytes = value.as_str().and_then(|text| text.parse::<i64>().ok()).or_else(|| value.as_i64());
    match kilobytes {
        Some(kilobytes) => Ok(Some(kilobytes.max(0).saturating_mul(1024))),
        None => Err(format!("doveadm's answer has no usage but {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let storage = r#"{"root":"user","type":"STORAGE","value":"3","limit":"1024","percent":"0"}"#;
        let message = r#"{"root":"user","type":"MESSAGE","value":"9","limit":"-","percent":"0"}"#;
        let second = r#"{"root":"shared","type":"STORAGE","value":"70","limit":"-","percent":"0"}"#;
        let response = |roots: &str| format!(r#"[["doveadmResponse",[{roots}],"q"]]"#);
        for (body, expected) in [
            (response(&format!("{storage},{message},{second}")), Ok(Some(3072))),
            (response(&format!("{message},{storage}")), Ok(Some(3072))),
            (response(""), Ok(None)),
            (response(r#"{"type":"STORAGE","value":5}"#), Ok(Some(5120))),
            (response(r#"{"type":"STORAGE","value":"-5"}"#), Ok(Some(0))),
            (response(r#"{"type":"STORAGE","value":"9223372036854775807"}"#), Ok(Some(i64::MAX))),
            (response(r#"{"type":"STORAGE","value":"x"}"#), Err("no usage")),
            (r#"[["error",{"type":"exitCode","exitCode":67},"q"]]"#.to_owned(), Err("no such user")),
            (r#"[["error",{"type":"exitCode","exitCode":75},"q"]]"#.to_owned(), Err("75")),
            ("[]".to_owned(), Err("not one to quotaGet")),
            ("{}".to_owned(), Err("not one to quotaGet")),
            ("<html>".to_owned(), Err("no JSON")),
        ] {
            let got = understand(StatusCode::OK, body.as_bytes());
            match expected {
                Ok(used) => assert_eq!(got, Ok(used), "{body}"),
                Err(part) => assert!(got.as_ref().is_err_and(|why| why.contains(part)), "{body}: {got:?}"),
            }
        }
        assert!(understand(StatusCode::UNAUTHORIZED, b"").unwrap_err().contains("api_key"));
        assert!(understand(StatusCode::INTERNAL_SERVER_ERROR, b"").is_err());
    }
}
