//! The rules, under the names of the `plugins` setting.
//!
//! A rule gets the parsed request and the read-only [`Context`] and returns a [`Verdict`]. It writes no wire text, opens no
//! connection and keeps nothing but what stands in the stores. Rules are asked in the order of their priorities, see
//! [`crate::chain`].

mod amavisd_wblist;
pub(crate) mod greylisting;
mod ldap_force_change_password;
mod ldap_maillist_access_policy;
mod list_access;
mod reject_null_sender;
mod reject_sender_login_mismatch;
mod reject_to_hostname;
mod senderscore;
mod sql_alias_access_policy;
mod sql_force_change_password;
mod sql_ml_access_policy;
mod throttle;
mod wblist_rdns;
mod whitelist_outbound_recipient;

use outrider_core::directory::AccountSource;

use crate::context::{Context, RuleError};
use crate::request::{PolicyRequest, State};
use crate::verdict::Verdict;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is described in its own module.
pub enum Plugin {
    RejectNullSender,
    RejectToHostname,
    WblistRdns,
    RejectSenderLoginMismatch,
    Greylisting,
    Throttle,
    AmavisdWblist,
    SqlAliasAccessPolicy,
    SqlMlAccessPolicy,
    LdapMaillistAccessPolicy,
    WhitelistOutboundRecipient,
    Senderscore,
    SqlForceChangePassword,
    LdapForceChangePassword,
}

/// What is fixed about a rule.
struct Profile {
    plugin: Plugin,
    name: &'static str,
    /// Larger is asked first.
    priority: i64,
    state: State,
    /// What keeps the accounts that it is about; `None` if it is about any.
    accounts: Option<AccountSource>,
    /// iRedMail enables it, whatever keeps the accounts.
    in_iredmail: bool,
}

/// A line for each rule, in the order of the enumeration.
macro_rules! profiles {
    ($($plugin:ident $name:literal $priority:literal $state:ident $accounts:expr, $in_iredmail:literal;)+) => {
        [$(Profile {
            plugin: Plugin::$plugin,
            name: $name,
            priority: $priority,
            state: State::$state,
            accounts: $accounts,
            in_iredmail: $in_iredmail,
        },)+]
    };
}

const SQL: Option<AccountSource> = Some(AccountSource::Sql);
const LDAP: Option<AccountSource> = Some(AccountSource::Ldap);

#[rustfmt::skip]
static PROFILES: [Profile; 14] = profiles! {
    RejectNullSender           "reject_null_sender"           100 Rcpt         None, true;
    RejectToHostname           "reject_to_hostname"           100 Rcpt         None, false;
    WblistRdns                 "wblist_rdns"                   99 Rcpt         None, true;
    RejectSenderLoginMismatch  "reject_sender_login_mismatch"  90 Rcpt         None, true;
    Greylisting                "greylisting"                   80 Rcpt         None, true;
    Throttle                   "throttle"                      60 EndOfMessage None, true;
    AmavisdWblist              "amavisd_wblist"                40 Rcpt         None, true;
    SqlAliasAccessPolicy       "sql_alias_access_policy"       50 Rcpt         SQL,  true;
    SqlMlAccessPolicy          "sql_ml_access_policy"          51 Rcpt         SQL,  true;
    LdapMaillistAccessPolicy   "ldap_maillist_access_policy"   50 Rcpt         LDAP, true;
    WhitelistOutboundRecipient "whitelist_outbound_recipient"  30 EndOfMessage None, false;
    Senderscore                "senderscore"                   10 Rcpt         None, false;
    SqlForceChangePassword     "sql_force_change_password"      0 Rcpt         SQL,  false;
    LdapForceChangePassword    "ldap_force_change_password"     0 Rcpt         LDAP, false;
};

impl Plugin {
    /// All rules.
    pub fn all() -> impl Iterator<Item = Plugin> {
        PROFILES.iter().map(|profile| profile.plugin)
    }

    /// The rule of a name in the `plugins` setting.
    pub fn by_name(name: &str) -> Option<Plugin> {
        Plugin::all().find(|plugin| plugin.name() == name)
    }

    fn profile(self) -> &'static Profile {
        &PROFILES[self as usize]
    }

    /// Its name in the `plugins` setting.
    pub fn name(self) -> &'static str {
        self.profile().name
    }

    /// Larger is asked first, unless the setting `plugin_priorities` says otherwise.
    pub fn priority(self) -> i64 {
        self.profile().priority
    }

    /// What keeps the accounts that it is about; `None` if it is about any.
    pub fn accounts(self) -> Option<AccountSource> {
        self.profile().accounts
    }

    /// The protocol state in which it is asked.
    pub fn state(self) -> State {
        self.profile().state
    }

    /// Whether iRedMail enables it, whatever keeps the accounts.
    pub fn is_in_iredmail(self) -> bool {
        self.profile().in_iredmail
    }

    /// Asks it.
    ///
    /// # Errors
    /// If it cannot decide; what that means is said by the settings.
    pub async fn check(self, request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
        match self {
            Plugin::RejectNullSender => Ok(reject_null_sender::check(request)),
            Plugin::RejectToHostname => reject_to_hostname::check(request, context),
            Plugin::WblistRdns => wblist_rdns::check(request, context).await,
            Plugin::RejectSenderLoginMismatch => reject_sender_login_mismatch::check(request, context).await,
            Plugin::Greylisting => greylisting::check(request, context).await,
            Plugin::Throttle => throttle::check(request, context).await,
            Plugin::SqlMlAccessPolicy => sql_ml_access_policy::check(request, context).await,
            Plugin::SqlAliasAccessPolicy => sql_alias_access_policy::check(request, context).await,
            Plugin::AmavisdWblist => amavisd_wblist::check(request, context).await,
            Plugin::WhitelistOutboundRecipient => whitelist_outbound_recipient::check(request, context).await,
            Plugin::Senderscore => senderscore::check(request, context).await,
            Plugin::SqlForceChangePassword => sql_force_change_password::check(request, context).await,
            Plugin::LdapMaillistAccessPolicy => ldap_maillist_access_policy::check(request, context).await,
            Plugin::LdapForceChangePassword => ldap_force_change_password::check(request, context).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_own_line() {
        for (at, plugin) in Plugin::all().enumerate() {
            assert_eq!(plugin as usize, at, "{}", plugin.name());
            assert_eq!(Plugin::by_name(plugin.name()), Some(plugin));
        }
        assert_eq!(Plugin::by_name("none"), None);
    }

    /// Where two of them get the same priority, that of this order is asked first.
    #[test]
    fn what_iredmail_enables() {
        let enabled: Vec<&str> =
            Plugin::all().filter(|plugin| plugin.is_in_iredmail()).map(Plugin::name).collect();
        assert_eq!(
            enabled,
            [
                "reject_null_sender",
                "wblist_rdns",
                "reject_sender_login_mismatch",
                "greylisting",
                "throttle",
                "amavisd_wblist",
                "sql_alias_access_policy",
                "sql_ml_access_policy",
                "ldap_maillist_access_policy",
            ]
        );
    }
}
