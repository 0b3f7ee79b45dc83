//! Which rules are asked, in which order, and what becomes of what they say.
//!
//! Rules run by descending priority, equal ones in the order of the `plugins` setting; other policy servers stand among
//! them, after the rules of their priority. The first opinion is the answer. A rule that cannot decide has no opinion,
//! unless `on_failure` wants the client to come again; either way it is logged: the first time at once, then once a
//! minute with the number of times. So is the first answer of a policy server after that.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrider_core::codec::policy::Request;
use tokio::time::Instant;

use crate::context::{Context, Database, RuleError};
use crate::forward::Forward;
use crate::plugin::Plugin;
use crate::request::PolicyRequest;
use crate::settings::{OnFailure, Settings};
use crate::verdict::{Reply, Verdict};
use crate::waits;

/// Time between two log lines about failures of one rule.
const SILENCE: Duration = Duration::from_secs(60);

/// What the rules together say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Pass,
    /// The answer of this rule.
    By(Plugin, Reply),
    /// The answer of another policy server, by the name of the step.
    Forwarded(&'static str, String),
    /// This rule or step could not decide, and the client is to come again.
    Unavailable(&'static str),
}

/// A decision and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What the rules say.
    pub decision: Decision,
    /// Whether a rule or another policy server that was asked could not decide: its database or name server was away. The
    /// client's own bad data does not count.
    pub degraded: bool,
}

enum Step {
    Rule(Plugin),
    Forward(Box<Forward>),
}

/// What is known of the failures of one rule.
struct Trouble {
    told: Instant,
    /// Failures since then.
    untold: u64,
    /// The last thing told was a failure.
    down: bool,
}

/// The rules in the order in which they are asked.
pub struct Chain {
    steps: Vec<Step>,
    failures: Mutex<HashMap<&'static str, Trouble>>,
}

impl Chain {
    /// The rules that the settings enable. Unknown names, and rules about accounts kept elsewhere, are left out; the
    /// settings check reports them.
    pub fn new(settings: &Settings) -> Chain {
        let mut rules: Vec<Plugin> = Vec::new();
        for plugin in settings.plugins.iter().filter_map(|name| Plugin::by_name(name)) {
            let fits = plugin.accounts().is_none_or(|source| source == settings.accounts);
            if fits && !rules.contains(&plugin) {
                rules.push(plugin);
            }
        }
        let priority = |step: &Step| match step {
            Step::Rule(plugin) => {
                settings.plugin_priorities.get(plugin.name()).copied().unwrap_or(plugin.priority())
            }
            Step::Forward(forward) => forward.priority(),
        };
        let forwards = Forward::all(settings).map(|forward| Step::Forward(Box::new(forward)));
        let mut steps: Vec<Step> = rules.into_iter().map(Step::Rule).chain(forwards).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(priority(step)));
        Chain { steps, failures: Mutex::new(HashMap::new()) }
    }

    /// Whether there is nothing to ask at all.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The names of rules and steps, first asked first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| match step {
            Step::Rule(plugin) => plugin.name(),
            Step::Forward(forward) => forward.check(),
        })
    }

    /// The other policy servers.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.steps.iter().filter_map(|step| match step {
            Step::Forward(forward) => Some(&**forward),
            Step::Rule(_) => None,
        })
    }

    /// Asks the rules of the request's protocol state. `received` is the same request, for other policy servers.
    pub async fn decide(&self, request: &PolicyRequest, received: &Request, context: &Context) -> Decided {
        let mut degraded = false;
        for step in &self.steps {
            let decision = match step {
                Step::Rule(plugin) if Some(plugin.state()) == request.state => {
                    match plugin.check(request, context).await {
                        Ok(Verdict::Pass) => None,
                        Ok(Verdict::Answer(reply)) => Some(Decision::By(*plugin, reply)),
                        Err(error) => {
                            degraded |= error.is_ours();
                            self.note_failure(plugin.name(), &error);
                            (on_failure(&error, &context.settings) == OnFailure::Defer)
                                .then(|| Decision::Unavailable(plugin.name()))
                        }
                    }
                }
                Step::Forward(forward) if forward.is_asked_in(&request.protocol_state) => {
                    self.forward(forward, request, received, context, &mut degraded).await
                }
                Step::Rule(_) | Step::Forward(_) => None,
            };
            if let Some(decision) = decision {
                return Decided { decision, degraded };
            }
        }
        Decided { decision: Decision::Pass, degraded }
    }

    async fn forward(
        &self,
        forward: &Forward,
        request: &PolicyRequest,
        received: &Request,
        context: &Context,
        degraded: &mut bool,
    ) -> Option<Decision> {
        let check = forward.check();
        let answer = waits::for_others(forward.ask(received, context.patience(request))).await;
        *degraded |= answer.is_err();
        let result = match answer {
            Ok(None) => "dunno",
            Ok(Some(_)) => "answer",
            Err(_) => "failed",
        };
        context.metrics.forwarded(check, result);
        match answer {
            Ok(answer) => {
                self.note_success(check);
                answer.map(|answer| Decision::Forwarded(check, answer))
            }
            Err(error) => {
                self.note_failure(check, &error);
                (forward.on_failure() == OnFailure::Defer).then_some(Decision::Unavailable(check))
            }
        }
    }

    fn note_failure(&self, check: &'static str, error: &impl Display) {
        let now = Instant::now();
        let mut failures = self.failures();
        let trouble =
            failures.entry(check).or_insert(Trouble { told: now - SILENCE, untold: 0, down: false });
        trouble.untold += 1;
        if now.duration_since(trouble.told) >= SILENCE {
            tracing::warn!(check, times = trouble.untold, %error, "a rule could not decide");
            *trouble = Trouble { told: now, untold: 0, down: true };
        }
    }

    /// Not more often than failures, so that a server that comes and goes does not fill the log.
    fn note_success(&self, check: &'static str) {
        if let Some(trouble) = self.failures().get_mut(check)
            && std::mem::take(&mut trouble.down)
        {
            tracing::info!(check, "a policy server answers again");
        }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<&'static str, Trouble>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn on_failure(error: &RuleError, settings: &Settings) -> OnFailure {
    match error {
        RuleError::Accounts(_) => settings.on_failure.vmail,
        RuleError::Table { database: Database::Amavisd, .. } => settings.on_failure.amavisd,
        RuleError::Table { database: Database::Iredapd, .. } => settings.on_failure.iredapd,
        RuleError::Table { database: Database::Valkey, .. } => settings.on_failure.valkey,
        // It may be allowed, so it is not refused, and it may be forged, so it does not pass: the next try finds the answer.
        RuleError::Unfinished(_) => OnFailure::Defer,
        // Bad data of the client is no failure of ours.
        RuleError::Client(_) | RuleError::Attribute(_) => OnFailure::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ForwardSettings;
    use outrider_core::directory::AccountSource;
    use outrider_core::settings::ListenAddress;

    fn order(settings: &Settings) -> Vec<&'static str> {
        Chain::new(settings).names().collect()
    }

    #[test]
    fn priorities_make_the_order() {
        let mut settings = Settings::default();
        assert_eq!(
            order(&settings),
            [
                "reject_null_sender",
                "wblist_rdns",
                "reject_sender_login_mismatch",
                "greylisting",
                "throttle",
                "sql_ml_access_policy",
                "sql_alias_access_policy",
                "amavisd_wblist",
            ]
        );
        settings.accounts = AccountSource::Ldap;
        assert_eq!(order(&settings)[5..], ["ldap_maillist_access_policy", "amavisd_wblist"]);
        settings.plugins =
            ["senderscore", "no_such_plugin", "reject_to_hostname", "reject_null_sender", "senderscore"]
                .map(String::from)
                .to_vec();
        assert_eq!(order(&settings), ["reject_to_hostname", "reject_null_sender", "senderscore"]);
        settings.plugin_priorities.insert("senderscore".into(), 200);
        assert_eq!(order(&settings)[0], "senderscore");
        let step = |priority| ForwardSettings {
            address: Some(ListenAddress::local(10040)),
            priority,
            ..ForwardSettings::default()
        };
        settings.forward = [("a", 100), ("b", 101), ("c", 0), ("d", 0), ("e", -1)]
            .map(|(name, priority)| (name.to_owned(), step(priority)))
            .into();
        settings.plugins.push("sql_force_change_password".into());
        assert_eq!(
            order(&settings),
            [
                "senderscore",
                "forward.b",
                "reject_to_hostname",
                "reject_null_sender",
                "forward.a",
                "forward.c",
                "forward.d",
                "forward.e",
            ],
            "the accounts are not in SQL"
        );
        settings.accounts = AccountSource::Sql;
        assert_eq!(
            order(&settings)[5..],
            ["sql_force_change_password", "forward.c", "forward.d", "forward.e"]
        );
        settings.plugins.clear();
        assert!(!Chain::new(&settings).is_empty());
        settings.forward.clear();
        assert!(Chain::new(&settings).is_empty());
    }
}
