//! One connection: requests in, answers out, and what is noted about each.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use outrider_core::codec::policy::Request;
use outrider_core::log;
use outrider_core::net::Peer;
use outrider_core::policy_session::{self, Action, Failure, PolicyHandler, SessionLimits};
use outrider_core::settings::LogStyle;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::chain::{Decided, Decision};
use crate::daemon::{Policyd, Snapshot};
use crate::log_line;
use crate::request::{Parsed, PolicyRequest};
use crate::settings::{InvalidAddress, OnFailure};
use crate::waits;

/// Asks the client to come again, unless Postfix would refuse it for another reason anyway.
const DEFER: Action = Action(Cow::Borrowed("DEFER_IF_PERMIT Service temporarily unavailable"));

/// Who decided, and what, in metrics and log.
struct Ruling {
    check: &'static str,
    result: &'static str,
    /// What the log says instead of `result`.
    reason: Option<String>,
    /// Whether something of ours could not be asked.
    degraded: bool,
}

impl Ruling {
    /// No rule had an opinion.
    const NOBODY: Ruling = Ruling::new("none", "pass");

    const fn new(check: &'static str, result: &'static str) -> Ruling {
        Ruling { check, result, reason: None, degraded: false }
    }

    /// Nearly all mail: a line for each of them would hide the others.
    fn is_ordinary(&self) -> bool {
        self.check == "none" && self.reason.is_none() && !self.degraded
    }
}

impl PolicyHandler for Policyd {
    type Peer = Peer;

    async fn answer(&self, request: &Request, _: &Peer) -> Action {
        let start = Instant::now();
        waits::begin();
        let _inflight = self.metrics.frame.inflight();
        self.metrics.repeated.inc_by(request.repeated() as u64);
        let snapshot = self.snapshot();
        let settings = &snapshot.context.settings;
        match PolicyRequest::parse(request, settings) {
            Parsed::Pass => {
                self.metrics.decided("none", "no_request", start.elapsed());
                Action::DUNNO
            }
            Parsed::Invalid { attribute, value, request } => {
                let action: Action = match settings.invalid_address {
                    InvalidAddress::Reject => "REJECT Invalid email address".into(),
                    _ => format!("DUNNO Error: Invalid {attribute} address: {value}").into(),
                };
                let reason = Some(format!("invalid {attribute} address: {value}"));
                let ruling = Ruling { reason, ..Ruling::new("none", "invalid_address") };
                self.note(&request, &action.0, &ruling, start.elapsed(), &snapshot);
                action
            }
            Parsed::Ready(parsed) if snapshot.chain.is_empty() => {
                self.note(&parsed, "DUNNO", &Ruling::NOBODY, start.elapsed(), &snapshot);
                "DUNNO No enabled plugins".into()
            }
            Parsed::Ready(parsed) => {
                // Boxed: each connection that Postfix keeps open would hold the room of all rules otherwise.
                let deciding = Box::pin(snapshot.chain.decide(&parsed, request, &snapshot.context));
                let Decided { decision, degraded } = waits::measured(deciding).await;
                let (ruling, action) = match decision {
                    Decision::Pass => (Ruling::NOBODY, Action::DUNNO),
                    Decision::By(plugin, reply) => (
                        Ruling::new(plugin.name(), reply.name()),
                        Action(reply.text(settings, &parsed.client_address)),
                    ),
                    Decision::Forwarded(check, answer) => (Ruling::new(check, "forwarded"), answer.into()),
                    Decision::Unavailable(check) => (Ruling::new(check, "unavailable"), DEFER),
                };
                let ruling = Ruling { degraded, ..ruling };
                self.note(&parsed, &action.0, &ruling, start.elapsed(), &snapshot);
                action
            }
        }
    }

    fn overdue(&self) -> Action {
        match self.snapshot().context.settings.on_failure.deadline {
            OnFailure::Pass => Action::DUNNO,
            OnFailure::Defer => DEFER,
        }
    }

    fn failed(&self, failure: Failure) {
        match failure {
            Failure::Deadline => {
                self.metrics.frame.timeout("request");
                tracing::warn!("a request was not decided in time");
            }
            Failure::Panic => {
                self.metrics.frame.panic();
                tracing::error!("a rule panicked; the request was answered as if it had taken too long");
            }
            Failure::Protocol => tracing::warn!("a client sent more than a policy request may hold"),
        }
    }

    fn given_up(&self, request: &Request, action: &Action, failure: Failure, elapsed: Duration) {
        let snapshot = self.snapshot();
        let (result, reason) = match failure {
            Failure::Panic => ("panic", "a rule panicked"),
            _ => ("overdue", "not decided in time"),
        };
        let ruling =
            Ruling { reason: Some(reason.to_owned()), degraded: true, ..Ruling::new("none", result) };
        match PolicyRequest::parse(request, &snapshot.context.settings) {
            // Only rules take long, and they are not asked about any other; a panic has no such manners.
            Parsed::Pass => self.metrics.decided("none", result, elapsed),
            Parsed::Ready(request) | Parsed::Invalid { request, .. } => {
                self.note(&request, &action.0, &ruling, elapsed, &snapshot);
            }
        }
    }
}

impl Policyd {
    /// Answers the requests that come over `stream` until the client leaves, a bound is exceeded or `stop` completes.
    pub async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: Peer,
        limits: &SessionLimits,
        stop: impl Future<Output = ()>,
    ) {
        waits::of_connection(policy_session::serve(stream, peer, self, limits, stop)).await;
    }

    /// Metrics, log line and session row of one answer.
    fn note(
        &self,
        request: &PolicyRequest,
        action: &str,
        ruling: &Ruling,
        elapsed: Duration,
        snapshot: &Snapshot,
    ) {
        self.metrics.decided(ruling.check, ruling.result, elapsed);
        let settings = &snapshot.context.settings;
        if log::style() == LogStyle::Iredapd {
            tracing::info!(line = log_line::iredapd(request, action, elapsed));
        } else {
            let line = log_line::Answer {
                request,
                action,
                check: ruling.check,
                reason: ruling.reason.as_deref().unwrap_or(ruling.result),
                degraded: ruling.degraded,
                elapsed,
                waits: waits::figures(),
            };
            line.write(ruling.is_ordinary());
        }
        self.sessions.note(request, action, snapshot.context.now(), &settings.session_log);
    }
}
