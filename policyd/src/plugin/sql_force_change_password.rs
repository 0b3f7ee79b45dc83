//! `sql_force_change_password`: who has not changed the password for too long may not send.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use outrider_core::directory::PasswordChange;

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let ageless = &context.senders.ageless;
    if !request.is_authenticated()
        || ageless.contains(&request.sasl_username)
        || ageless.contains(&request.sasl_domain)
    {
        return Ok(Verdict::Pass);
    }
    let changed = context.directory.password_last_change(&request.sasl_username).await?;
    let Some(PasswordChange::Time(changed)) = changed else { return Ok(Verdict::Pass) };
    let now = Timestamp::from_second(context.now()).unwrap_or(Timestamp::MAX);
    // The column holds the server's local time.
    let now = now.to_zoned(TimeZone::system()).datetime();
    let most = SignedDuration::try_from(context.settings.force_change_password.after.duration());
    Ok(match age(&changed, now).zip(most.ok()) {
        Some((age, most)) if age >= most => Verdict::Answer(Reply::ChangePassword),
        _ => Verdict::Pass,
    })
}

/// `None` for text that is no date, such as the zero date of old MySQL servers.
fn age(changed: &str, now: DateTime) -> Option<SignedDuration> {
    let changed: DateTime = changed.parse().ok()?;
    Some(now.duration_since(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_passwords() {
        let now: DateTime = "2025-03-15 12:00:00".parse().unwrap();
        let days = |text| age(text, now).map(|age| age.as_hours() / 24);
        assert_eq!(days("2025-03-05 12:00:00"), Some(10));
        assert_eq!(days("2025-03-05 12:00:01"), Some(9));
        assert_eq!(days("1970-01-01 01:01:01"), Some(20162));
        assert_eq!(days("2026-01-01"), Some(-291));
        assert_eq!(days("0000-00-00 00:00:00"), None);
        assert_eq!(days(""), None);
    }
}
