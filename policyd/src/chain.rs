//! Which rules are asked, in which order, and what becomes of what they say.
//!
//! Rules run by descending priority, equal ones in the order of the `plugins` setting. The first opinion is the answer. A
//! rule that cannot decide has no opinion, unless `on_failure` wants the client to come again; either way it is logged:
//! the first time at once, then once a minute with the number of times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::context::{Context, Database, RuleError};
use crate::plugin::Plugin;
use crate::request::PolicyRequest;
use crate::settings::{OnFailure, Settings};
use crate::verdict::{Reply, Verdict};

/// Time between two log lines about failures of one rule.
const SILENCE: Duration = Duration::from_secs(60);

/// What the rules together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Pass,
    /// The answer of this rule.
    By(Plugin, Reply),
    /// This rule could not decide, and the client is to come again.
    Unavailable(Plugin),
}

/// The rules in the order in which they are asked.
pub struct Chain {
    rules: Vec<Plugin>,
    failures: Mutex<HashMap<Plugin, (Instant, u64)>>,
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
        let priority = |plugin: &Plugin| {
            settings.plugin_priorities.get(plugin.name()).copied().unwrap_or(plugin.priority())
        };
        rules.sort_by_key(|plugin| std::cmp::Reverse(priority(plugin)));
        Chain { rules, failures: Mutex::new(HashMap::new()) }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, first asked first.
    pub fn rules(&self) -> &[Plugin] {
        &self.rules
    }

    /// Asks the rules of the request's protocol state.
    pub async fn decide(&self, request: &PolicyRequest, context: &Context) -> Decision {
        let Some(state) = request.state else { return Decision::Pass };
        for &plugin in self.rules.iter().filter(|plugin| plugin.state() == state) {
            match plugin.check(request, context).await {
                Ok(Verdict::Pass) => {}
                Ok(Verdict::Answer(reply)) => return Decision::By(plugin, reply),
                Err(error) => {
                    self.note_failure(plugin, &error);
                    if on_failure(&error, &context.settings) == OnFailure::Defer {
                        return Decision::Unavailable(plugin);
                    }
                }
            }
        }
        Decision::Pass
    }

    fn note_failure(&self, plugin: Plugin, error: &RuleError) {
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unreported) = failures.entry(plugin).or_insert((now - SILENCE, 0));
        *unreported += 1;
        if now.duration_since(*last) >= SILENCE {
            tracing::warn!(check = plugin.name(), times = *unreported, %error, "a rule could not decide");
            (*last, *unreported) = (now, 0);
        }
    }
}

fn on_failure(error: &RuleError, settings: &Settings) -> OnFailure {
    match error {
        RuleError::Accounts(_) => settings.on_failure.vmail,
        RuleError::Table { database: Database::Amavisd, .. } => settings.on_failure.amavisd,
        RuleError::Table { database: Database::Iredapd, .. } => settings.on_failure.iredapd,
        RuleError::Table { database: Database::Valkey, .. } => settings.on_failure.valkey,
        // Bad data of the client is no failure of ours.
        RuleError::Client(_) | RuleError::Attribute(_) => OnFailure::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::directory::AccountSource;

    fn order(settings: &Settings) -> Vec<&'static str> {
        Chain::new(settings).rules().iter().map(|plugin| plugin.name()).collect()
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
        settings.plugins.clear();
        assert!(Chain::new(&settings).is_empty());
    }
}
