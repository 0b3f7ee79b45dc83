//! The life of one connection and of each request on it.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrider_core::daemon::{Connection, Shutdown};
use outrider_core::metrics::Metrics;

use super::{Answer, Parameters};

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Number of header fields of a request.
    pub(crate) headers: usize,
    /// Bytes of request line and header fields together.
    pub(crate) head: usize,
    /// Bytes of a body.
    pub(crate) body: usize,
    /// Time to send the head; also how long a connection may rest between requests.
    pub(crate) head_timeout: Duration,
    /// Time to send the body.
    pub(crate) body_timeout: Duration,
    /// Time to answer. The work goes on afterwards; only the client no longer waits.
    pub(crate) request_timeout: Duration,
}

/// Everything about a request but its body.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method; HEAD is passed on as GET.
    pub(crate) method: Method,
    /// The path, percent-decoded once.
    pub(crate) path: String,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The address the connection comes from; `None` on a UNIX socket.
    pub(crate) peer: Option<IpAddr>,
    query: Option<String>,
}

/// What is served on a connection.
pub(crate) trait Site: Send + Sync + 'static {
    /// What admission found out about the request: route, account and so on.
    type Admitted: Send + 'static;

    /// The name in metrics and log lines.
    fn name(&self) -> &'static str;

    /// Decides from the head alone whether the request is served; otherwise gives the answer.
    fn admit(&self, head: &Head) -> impl Future<Output = Result<Self::Admitted, Answer>> + Send;

    /// Serves an admitted request.
    fn answer(
        self: Arc<Self>,
        admitted: Self::Admitted,
        parameters: Parameters,
    ) -> impl Future<Output = Answer> + Send;
}

/// Serves the requests of one connection until the client closes it, a bound is hit or `shutdown` asks.
pub(crate) async fn serve<S: Site>(
    site: Arc<S>,
    connection: Connection,
    shutdown: Shutdown,
    bounds: Bounds,
    metrics: Arc<Metrics>,
) {
    let peer = connection.peer.ip();
    let service = hyper::service::service_fn(move |request| {
        let (site, metrics) = (site.clone(), metrics.clone());
        async move { Ok::<_, Infallible>(respond(site, request, peer, bounds, &metrics).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head.max(8192))
        .half_close(false)
        .serve_connection(TokioIo::new(connection.stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.wait() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = "connection ended", reason = %error);
    }
}

async fn respond<S: Site>(
    site: Arc<S>,
    request: hyper::Request<Incoming>,
    peer: Option<IpAddr>,
    bounds: Bounds,
    metrics: &Arc<Metrics>,
) -> Response<Full<Bytes>> {
    let inflight = metrics.inflight();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = request_id(request.headers());
    let name = site.name();
    let (answer, close) = handle(site, request, peer, bounds, metrics).await;
    let result = if answer.status == StatusCode::OK && answer.result == "ok" { "ok" } else { "refused" };
    metrics.request(name, result, inflight.elapsed());
    tracing::info!(
        event = "request",
        api = name,
        request_id = %id,
        client = %peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
        method = %method,
        path = %path,
        code = answer.status.as_u16(),
        reason = %answer.result,
        elapsed_ms = inflight.elapsed().as_millis() as u64,
    );
    into_response(answer, &id, close)
}

/// The answer, and whether the connection has to end because the framing of the request is in doubt.
async fn handle<S: Site>(
    site: Arc<S>,
    request: hyper::Request<Incoming>,
    peer: Option<IpAddr>,
    bounds: Bounds,
    metrics: &Arc<Metrics>,
) -> (Answer, bool) {
    let (parts, body) = request.into_parts();
    let head = match head(parts, peer) {
        Ok(head) => head,
        Err(answer) => return (answer, true),
    };
    let admitted = match site.admit(&head).await {
        Ok(admitted) => admitted,
        // The body is taken off the connection so that the client gets to read the answer, but it is not kept.
        Err(answer) => return (answer, discard(body, bounds).await.is_err()),
    };
    let body = match collect(body, bounds).await {
        Ok(body) => body,
        Err(answer) => return (answer, true),
    };
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let parameters = match Parameters::decode(head.query.as_deref(), content_type, &body) {
        Ok(parameters) => parameters,
        Err(error) => return (Answer::bad_request(&error.to_string()), false),
    };
    let span = tracing::Span::current();
    let work = tokio::spawn(tracing::Instrument::instrument(site.answer(admitted, parameters), span));
    match tokio::time::timeout(bounds.request_timeout, work).await {
        Ok(Ok(answer)) => (answer, false),
        Ok(Err(error)) => {
            if error.is_panic() {
                metrics.panic();
                tracing::error!(event = "request failed", reason = "program fault");
            }
            (Answer::internal_error(), true)
        }
        Err(_) => {
            metrics.timeout("request");
            (Answer::page(StatusCode::SERVICE_UNAVAILABLE, "still working, try again later"), true)
        }
    }
}

/// Checks the form of a request and takes it apart.
fn head(parts: hyper::http::request::Parts, peer: Option<IpAddr>) -> Result<Head, Answer> {
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Answer::bad_request("a body needs Content-Length"));
    }
    if parts.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Answer::bad_request("more than one Host"));
    }
    if parts.uri.authority().is_some() || !parts.uri.path().starts_with('/') {
        return Err(Answer::bad_request("the request target has to be a path"));
    }
    let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8();
    let Some(path) = path.ok().filter(|path| !path.chars().any(char::is_control)) else {
        return Err(Answer::bad_request("malformed path"));
    };
    Ok(Head {
        method: if parts.method == Method::HEAD { Method::GET } else { parts.method },
        path: path.into_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        peer,
    })
}

async fn collect(body: Incoming, bounds: Bounds) -> Result<Bytes, Answer> {
    let collected = Limited::new(body, bounds.body).collect();
    match tokio::time::timeout(bounds.body_timeout, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Answer::page(StatusCode::PAYLOAD_TOO_LARGE, "body too large"))
        }
        Ok(Err(_)) => Err(Answer::bad_request("incomplete body")),
        Err(_) => Err(Answer::page(StatusCode::REQUEST_TIMEOUT, "body came too slowly")),
    }
}

async fn discard(body: Incoming, bounds: Bounds) -> Result<(), ()> {
    let mut body = Limited::new(body, bounds.body);
    let drained = async {
        while let Some(frame) = body.frame().await {
            frame.map_err(drop)?;
        }
        Ok(())
    };
    tokio::time::timeout(bounds.body_timeout, drained).await.unwrap_or(Err(()))
}

/// The id a proxy gave the request if it is harmless, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=64).contains(&id.len()))
        .filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')))
        .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

fn into_response(answer: Answer, id: &str, close: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", id);
    }
    if let Some(cookie) = answer.cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    if close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
