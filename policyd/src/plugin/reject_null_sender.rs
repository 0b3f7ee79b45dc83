//! `reject_null_sender`: who logs in has an address. The null sender of an authenticated client is a sign of a stolen
//! password, for it escapes all limits that are kept by sender. Trusted clients are not exempt.

use crate::request::PolicyRequest;
use crate::verdict::{Reply, Verdict};

pub(super) fn check(request: &PolicyRequest) -> Verdict {
    if request.is_authenticated() && request.sender.is_empty() {
        return Verdict::Answer(Reply::NullSender);
    }
    Verdict::Pass
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn only_logins_need_a_sender() {
        for (sender, login, expected) in [
            ("", "alice@example.com", Verdict::Answer(Reply::NullSender)),
            ("", "", Verdict::Pass),
            ("alice@example.com", "alice@example.com", Verdict::Pass),
        ] {
            let lines = format!(
                "protocol_state=RCPT\nsender={sender}\nrecipient=b@example.org\nsasl_username={login}\n\
                 client_address=127.0.0.1"
            );
            assert_eq!(check(&request(&lines)), expected, "{sender} {login}");
        }
    }
}
