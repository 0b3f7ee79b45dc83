//! One connection: requests in, answers out, and what is noted about each.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use outrider_core::codec::policy::Request;
use outrider_core::log;
use outrider_core::net::Peer;
use outrider_core::policy_session::{Action, Failure, PolicyHandler};
use outrider_core::settings::LogStyle;

use crate::chain::Decision;
use crate::daemon::{Policyd, Snapshot};
use crate::log_line;
use crate::request::{Parsed, PolicyRequest};
use crate::settings::{InvalidAddress, OnFailure};

/// Asks the client to come again, unless Postfix would refuse it for another reason anyway.
const DEFER: Action = Action(Cow::Borrowed("DEFER_IF_PERMIT Service temporarily unavailable"));

/// Who decided, and what, in metrics and log.
struct Ruling {
    check: &'static str,
    result: &'static str,
    /// Whatever the log should say beside `result`.
    reason: Option<String>,
}

impl Ruling {
    /// No rule had an opinion.
    const NOBODY: Ruling = Ruling::new("none", "pass");

    const fn new(check: &'static str, result: &'static str) -> Ruling {
        Ruling { check, result, reason: None }
    }

    /// Nearly all mail: a line for each of them would hide the others.
    fn is_ordinary(&self) -> bool {
        self.check == "none" && self.reason.is_none()
    }
}

impl PolicyHandler for Policyd {
    type Peer = Peer;

    async fn answer(&self, request: &Request, _: &Peer) -> Action {
        let start = Instant::now();
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
                let decision = Box::pin(snapshot.chain.decide(&parsed, request, &snapshot.context)).await;
                let (ruling, action) = match decision {
                    Decision::Pass => (Ruling::NOBODY, Action::DUNNO),
                    Decision::By(plugin, reply) => (
                        Ruling::new(plugin.name(), reply.name()),
                        Action(reply.text(settings, &parsed.client_address)),
                    ),
                    Decision::Forwarded(check, answer) => (Ruling::new(check, "forwarded"), answer.into()),
                    Decision::Unavailable(check) => (Ruling::new(check, "unavailable"), DEFER),
                };
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
        let ruling = Ruling { reason: Some(reason.to_owned()), ..Ruling::new("none", result) };
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
        } else if ruling.is_ordinary() {
            tracing::debug!(
                event = "answer",
                action,
                client = request.client_address,
                instance = request.instance,
                elapsed_ms = millis(elapsed)
            );
        } else {
            tracing::info!(
                event = "answer",
                action,
                check = ruling.check,
                reason = ruling.reason,
                state = request.protocol_state,
                client = request.client_address,
                helo = request.helo_name,
                sasl = request.sasl_username,
                sender = request.sender,
                rcpt = request.recipient,
                nrcpt = request.recipient_count,
                size = request.size,
                queue_id = request.queue_id,
                instance = request.instance,
                elapsed_ms = millis(elapsed),
            );
        }
        self.sessions.note(request, action, snapshot.context.now(), &settings.session_log);
    }
}

fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e5).round() / 100.0
}
