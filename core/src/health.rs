//! Is the daemon alive, ready, complete? Answers for monitoring, over HTTP on a listener of their own.
//!
//! * `/livez`: 200 as long as the event loop turns.
//! * `/readyz`: 200 while clients are served, also when a dependency is missing (then the service answers what its
//!   settings say); 503 once a stop was asked for.
//! * `/healthz`: JSON with the state of each dependency.
//! * `/metrics`: OpenMetrics text.
//!
//! Limits: only GET and HEAD, no request body, 16 KiB of header, 10 s to send it, 32 connections. With a token set,
//! all but `/livez` need `Authorization: Bearer`.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::daemon::DependencyHealth;
use crate::metrics::Metrics;
use crate::net::Shutdown;
use crate::settings::Secret;

/// Connections of monitoring systems that are served at once.
pub(crate) const MOST_CONNECTIONS: usize = 32;

/// An answer to be sent over HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that the answers are made of.
pub(crate) struct HealthEndpoint {
    pub(crate) service: &'static str,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Box<dyn Fn() -> Vec<DependencyHealth> + Send + Sync>,
    pub(crate) token: Option<Secret>,
    pub(crate) stopping: Shutdown,
}

impl HealthEndpoint {
    /// Answers one request; `authorization` is the value of that header.
    pub(crate) fn answer(&self, method: &str, path: &str, authorization: Option<&[u8]>) -> Answer {
        let text = |status, body: &str| Answer { status, content_type: TEXT, body: format!("{body}\n") };
        if method != "GET" && method != "HEAD" {
            return text(405, "only GET and HEAD");
        }
        let path = path.split('?').next().unwrap_or(path);
        if !matches!(path, "/livez" | "/readyz" | "/healthz" | "/metrics") {
            return text(404, "try /livez, /readyz, /healthz or /metrics");
        }
        if path == "/livez" {
            return text(200, "ok");
        }
        if !self.is_authorized(authorization) {
            return text(401, "a bearer token is needed");
        }
        let stopping = self.stopping.requested();
        let health = (self.health)();
        let degraded = health.iter().any(|dependency| !dependency.up);
        let state = match (stopping, degraded) {
            (true, _) => "stopping",
            (false, true) => "degraded",
            (false, false) => "ok",
        };
        match path {
            "/metrics" => {
                self.metrics.dependencies(&health);
                Answer { status: 200, content_type: OPEN_METRICS, body: self.metrics.render() }
            }
            "/readyz" => text(if stopping { 503 } else { 200 }, state),
            _ => {
                let body = serde_json::json!({
                    "service": self.service,
                    "version": env!("CARGO_PKG_VERSION"),
                    "status": state,
                    "dependencies": health,
                });
                Answer {
                    status: if stopping { 503 } else { 200 },
                    content_type: JSON,
                    body: format!("{body}\n"),
                }
            }
        }
    }

    fn is_authorized(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        given.ct_eq(token.expose().as_bytes()).into()
    }
}

mod http {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    use hyper_util::rt::{TokioIo, TokioTimer};

    use super::HealthEndpoint;
    use crate::net::{Connection, Shutdown};

    /// Serves one connection of a monitoring system.
    pub(crate) async fn serve(endpoint: Arc<HealthEndpoint>, connection: Connection, shutdown: Shutdown) {
        let service = service_fn(|request: Request<Incoming>| {
            let answer = endpoint.answer(
                request.method().as_str(),
                request.uri().path(),
                request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes),
            );
            let mut response = Response::new(Full::new(Bytes::from(answer.body)));
            *response.status_mut() =
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let http = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(connection.stream), service);
        let mut http = std::pin::pin!(http);
        tokio::select! {
            // An error is a client that went away or wrote no HTTP: nothing to do.
            _ = &mut http => return,
            () = shutdown.wait() => http.as_mut().graceful_shutdown(),
        }
        let _ = http.await;
    }
}

pub(crate) use http::serve;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(up: bool, token: Option<&str>) -> (HealthEndpoint, crate::net::ShutdownTrigger) {
        let (trigger, stopping) = Shutdown::new();
        let health = move || {
            let detail = if up { "" } else { "connection refused" }.to_owned();
            vec![DependencyHealth { name: "vmail", up, detail, pool: None }]
        };
        let metrics = Arc::new(Metrics::new("policyd"));
        let token = token.map(Secret::new);
        let health = Box::new(health);
        (HealthEndpoint { service: "policyd", metrics, health, token, stopping }, trigger)
    }

    #[test]
    fn degraded_is_ready_and_stopping_is_not() {
        let (endpoint, trigger) = endpoint(false, None);
        let get = |path| endpoint.answer("GET", path, None);
        assert_eq!((get("/livez").status, get("/livez").body.as_str()), (200, "ok\n"));
        assert_eq!((get("/readyz").status, get("/readyz").body.as_str()), (200, "degraded\n"));
        let health: serde_json::Value = serde_json::from_str(&get("/healthz").body).unwrap();
        assert_eq!(health["status"], "degraded");
        assert_eq!(
            health["dependencies"],
            serde_json::json!([{"name": "vmail", "up": false, "detail": "connection refused"}])
        );
        let metrics = get("/metrics?x=1");
        assert!(metrics.body.contains("outrider_policyd_up_dependency{name=\"vmail\"} 0"));
        assert!(metrics.body.contains("outrider_policyd_degraded 1"));
        assert_eq!(get("/").status, 404);
        assert_eq!(endpoint.answer("POST", "/metrics", None).status, 405);
        trigger.request();
        assert_eq!((get("/livez").status, get("/readyz").status, get("/healthz").status), (200, 503, 503));
    }

    #[test]
    fn token_guards_everything_but_livez() {
        let (endpoint, _trigger) = endpoint(true, Some("s3cret"));
        let get = |path, value: Option<&str>| endpoint.answer("GET", path, value.map(str::as_bytes)).status;
        for (path, value, status) in [
            ("/livez", None, 200),
            ("/metrics", None, 401),
            ("/metrics", Some("Bearer s3cret"), 200),
            ("/metrics", Some("Bearer s3cre"), 401),
            ("/metrics", Some("Basic s3cret"), 401),
            ("/readyz", Some("Bearer s3cret"), 200),
            ("/healthz", Some(""), 401),
        ] {
            assert_eq!(get(path, value), status, "{path} {value:?}");
        }
    }
}
