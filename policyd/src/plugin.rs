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
    SqlMlAccessPolicy,
    SqlAliasAccessPolicy,
    LdapMaillistAccessPolicy,
    AmavisdWblist,
    WhitelistOutboundRecipient,
    Senderscore,
    SqlForceChangePassword,
    LdapForceChangePassword,
}

impl Plugin {
    /// All rules.
    pub const ALL: [Plugin; 14] = [
        Plugin::RejectNullSender,
        Plugin::RejectToHostname,
        Plugin::WblistRdns,
        Plugin::RejectSenderLoginMismatch,
        Plugin::Greylisting,
        Plugin::Throttle,
        Plugin::SqlMlAccessPolicy,
        Plugin::SqlAliasAccessPolicy,
        Plugin::LdapMaillistAccessPolicy,
        Plugin::AmavisdWblist,
        Plugin::WhitelistOutboundRecipient,
        Plugin::Senderscore,
        Plugin::SqlForceChangePassword,
        Plugin::LdapForceChangePassword,
    ];

    /// Those that iRedMail enables, whatever keeps the accounts.
    pub const IREDMAIL: [Plugin; 9] = [
        Plugin::RejectNullSender,
        Plugin::WblistRdns,
        Plugin::RejectSenderLoginMismatch,
        Plugin::Greylisting,
        Plugin::Throttle,
        Plugin::AmavisdWblist,
        Plugin::SqlAliasAccessPolicy,
        Plugin::SqlMlAccessPolicy,
        Plugin::LdapMaillistAccessPolicy,
    ];

    /// The rule of a name in the `plugins` setting.
    pub fn by_name(name: &str) -> Option<Plugin> {
        Plugin::ALL.into_iter().find(|plugin| plugin.name() == name)
    }

    /// Its name in the `plugins` setting.
    pub fn name(self) -> &'static str {
        match self {
            Plugin::RejectNullSender => "reject_null_sender",
            Plugin::RejectToHostname => "reject_to_hostname",
            Plugin::WblistRdns => "wblist_rdns",
            Plugin::RejectSenderLoginMismatch => "reject_sender_login_mismatch",
            Plugin::Greylisting => "greylisting",
            Plugin::Throttle => "throttle",
            Plugin::SqlMlAccessPolicy => "sql_ml_access_policy",
            Plugin::SqlAliasAccessPolicy => "sql_alias_access_policy",
            Plugin::AmavisdWblist => "amavisd_wblist",
            Plugin::WhitelistOutboundRecipient => "whitelist_outbound_recipient",
            Plugin::Senderscore => "senderscore",
            Plugin::SqlForceChangePassword => "sql_force_change_password",
            Plugin::LdapMaillistAccessPolicy => "ldap_maillist_access_policy",
            Plugin::LdapForceChangePassword => "ldap_force_change_password",
        }
    }

    /// Larger is asked first, unless the setting `plugin_priorities` says otherwise.
    pub fn priority(self) -> i64 {
        match self {
            Plugin::RejectNullSender | Plugin::RejectToHostname => 100,
            Plugin::WblistRdns => 99,
            Plugin::RejectSenderLoginMismatch => 90,
            Plugin::Greylisting => 80,
            Plugin::Throttle => 60,
            Plugin::SqlMlAccessPolicy => 51,
            Plugin::SqlAliasAccessPolicy | Plugin::LdapMaillistAccessPolicy => 50,
            Plugin::AmavisdWblist => 40,
            Plugin::WhitelistOutboundRecipient => 30,
            Plugin::Senderscore => 10,
            Plugin::SqlForceChangePassword | Plugin::LdapForceChangePassword => 0,
        }
    }

    /// What keeps the accounts that it is about; `None` if it is about any.
    pub fn accounts(self) -> Option<AccountSource> {
        match self {
            Plugin::SqlMlAccessPolicy | Plugin::SqlAliasAccessPolicy | Plugin::SqlForceChangePassword => {
                Some(AccountSource::Sql)
            }
            Plugin::LdapMaillistAccessPolicy | Plugin::LdapForceChangePassword => Some(AccountSource::Ldap),
            _ => None,
        }
    }

    /// The protocol state in which it is asked.
    pub fn state(self) -> State {
        match self {
            Plugin::Throttle | Plugin::WhitelistOutboundRecipient => State::EndOfMessage,
            _ => State::Rcpt,
        }
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
