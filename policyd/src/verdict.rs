//! What a rule says, and the words in which Postfix is told.

use std::borrow::Cow;

use crate::settings::Settings;

/// The opinion of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None: the next rule is asked. On the wire `DUNNO`.
    Pass,
    /// This is the answer; no further rule is asked.
    Answer(Reply),
}

/// Every answer a rule can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted, which also ends Postfix's own list of restrictions.
    Whitelisted,
    /// Accepted and thrown away.
    Discard,
    /// Refused: the list is disabled.
    Rejected,
    /// An authenticated client used the null sender.
    NullSender,
    /// A sender of a local domain without login.
    ForgedSender,
    /// The sender does not belong to the login.
    LoginMismatch,
    /// The sender, the client or its name is on a blacklist.
    Blacklisted,
    /// The sender may not write to this recipient.
    NotAuthorized,
    /// Too many messages or bytes in a period.
    QuotaExceeded,
    /// The message is larger than allowed.
    TooLarge,
    /// The message has more recipients than allowed.
    TooManyRecipients,
    /// The client's address has a bad reputation.
    BadReputation,
    /// A new sender, asked to come again.
    Greylisted,
    /// The user's password is too old.
    ChangePassword,
}

impl Reply {
    /// The text after `action=`. `client_address` is quoted by one of them.
    pub fn text(self, settings: &Settings, client_address: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Reply::Whitelisted => "OK",
            Reply::Discard => "DISCARD Policy discard",
            Reply::Rejected => "REJECT Policy rejection",
            Reply::NullSender => "REJECT Policy rejection due to null sender",
            Reply::ForgedSender => "REJECT SMTP AUTH is required for users under this sender domain",
            Reply::LoginMismatch => "REJECT Sender is not same as SMTP authenticate username",
            Reply::Blacklisted => "REJECT Blacklisted",
            Reply::NotAuthorized => "REJECT Not authorized",
            Reply::QuotaExceeded => "REJECT Throttling quota exceeded",
            Reply::TooLarge => "REJECT Message size is too large",
            Reply::TooManyRecipients => "REJECT Too many recipients in single message",
            Reply::BadReputation => {
                return Cow::Owned(format!(
                    "REJECT Server IP address has bad reputation. \
                     FYI: https://www.senderscore.org/lookup.php?lookup={client_address}"
                ));
            }
            Reply::Greylisted => return Cow::Owned(format!("451 4.7.1 {}", settings.greylisting.message)),
            Reply::ChangePassword => {
                return Cow::Owned(format!("REJECT {}", settings.force_change_password.message));
            }
        })
    }

    /// A fixed short name for metrics and the log.
    pub fn name(self) -> &'static str {
        match self {
            Reply::Whitelisted => "whitelisted",
            Reply::Discard => "discard",
            Reply::Rejected => "rejected",
            Reply::NullSender => "null_sender",
            Reply::ForgedSender => "forged_sender",
            Reply::LoginMismatch => "login_mismatch",
            Reply::Blacklisted => "blacklisted",
            Reply::NotAuthorized => "not_authorized",
            Reply::QuotaExceeded => "quota_exceeded",
            Reply::TooLarge => "too_large",
            Reply::TooManyRecipients => "too_many_recipients",
            Reply::BadReputation => "bad_reputation",
            Reply::Greylisted => "greylisted",
            Reply::ChangePassword => "change_password",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_postfix_is_told() {
        let settings = Settings::default();
        for (reply, text) in [
            (Reply::Whitelisted, "OK"),
            (Reply::Greylisted, "451 4.7.1 Intentional policy rejection, please try again later"),
            (
                Reply::BadReputation,
                "REJECT Server IP address has bad reputation. \
                 FYI: https://www.senderscore.org/lookup.php?lookup=192.0.2.7",
            ),
            (
                Reply::ChangePassword,
                "REJECT Password expired or never changed, please change your password in webmail before sending email",
            ),
        ] {
            assert_eq!(reply.text(&settings, "192.0.2.7"), text);
        }
    }
}
