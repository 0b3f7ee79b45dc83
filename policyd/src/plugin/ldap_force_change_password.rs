//! `ldap_force_change_password`: who has not changed the password for too long may not send. The tree holds the day of the
//! last change, counted from 1970; without it the password was never changed.

use outrider_core::directory::PasswordChange;

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

const DAY: i64 = 86_400;

pub(super) async fn check(request: &PolicyRequest, context: &Context) -> Result<Verdict, RuleError> {
    let ageless = &context.senders.ageless;
    let login = &request.sasl_username;
    if !request.is_authenticated() || ageless.contains(login) || ageless.contains(&request.sasl_domain) {
        return Ok(Verdict::Pass);
    }
    let changed = context.directory.password_last_change(login).await?;
    let Some(PasswordChange::Day(changed)) = changed else { return Ok(Verdict::Pass) };
    let after = context.settings.force_change_password.after.duration().as_secs();
    Ok(if is_overdue(changed, context.now(), after) {
        Verdict::Answer(Reply::ChangePassword)
    } else {
        Verdict::Pass
    })
}

/// Whole days count, of the password's age as well as of the limit in seconds.
fn is_overdue(changed: i64, now: i64, after: u64) -> bool {
    let age = now.div_euclid(DAY).saturating_sub(changed);
    age >= i64::try_from(after).unwrap_or(i64::MAX) / DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_passwords() {
        let days = |days: u64| days * 86_400;
        // 2025-03-15 12:00 is in day 20162.
        for (changed, after, overdue) in [
            (20_162, days(90), false),
            (20_073, days(90), false),
            (20_072, days(90), true),
            (0, days(90), true),
            (99_999, days(90), false),
            (i64::MAX, days(90), false),
            (i64::MIN, days(90), true),
            (0, u64::MAX, false),
        ] {
            assert_eq!(is_overdue(changed, 1_742_040_000, after), overdue, "{changed} {after}");
        }
    }
}
