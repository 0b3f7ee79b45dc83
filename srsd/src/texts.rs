//! What is said on each wire: tcp_table speaks as iRedAPD, socketmap as PostSRSd 2.

use outrider_core::forwarding::Left;
use outrider_core::srs::{self, ReverseError};

/// A token whose sender is not in the database, or no longer.
pub(crate) const UNKNOWN_TOKEN: &str = "Unknown alias.";
/// A token where no database of senders is set up.
pub(crate) const NO_DATABASE: &str = "No database for alias.";
/// The database of senders does not answer, or takes no more.
pub(crate) const DATABASE_ERROR: &str = "Database error.";

/// The text of a 500 reply on the forward side.
pub(crate) fn left_as_iredapd(left: Left) -> &'static str {
    match left {
        Left::NoDomain | Left::Unsuitable => "Not a valid email address, bypassed.",
        Left::SrsDomain => "Domain is srs_domain, bypassed.",
        Left::HostName => "Domain is server hostname, bypassed.",
        Left::LocalDomain => "Domain is a local mail domain, bypassed.",
        Left::Excluded => "Domain is explicitly excluded, bypassed.",
        Left::AlreadyOurs => "Already rewritten, bypassed.",
        // iRedAPD says nothing when the rewriting itself fails.
        Left::TooLong | Left::Off => "",
    }
}

/// The text of a NOTFOUND reply on the forward side.
pub(crate) fn left_as_postsrsd(left: Left) -> &'static str {
    match left {
        Left::NoDomain => "No domain.",
        Left::Unsuitable => "Not a rewritable address.",
        Left::SrsDomain | Left::HostName | Left::LocalDomain | Left::Excluded => {
            "Need not rewrite local domain."
        }
        Left::AlreadyOurs => "Already rewritten.",
        Left::TooLong => "Rewritten address too long.",
        Left::Off => "No secret or no domain configured.",
    }
}

/// The text of a 500 reply on the reverse side: nothing when hash or time stamp are wrong.
pub(crate) fn unreversed_as_iredapd(key: &str, error: ReverseError) -> &'static str {
    let is_address = key.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && domain.contains('.') && !key.contains([' ', '"', '['])
    });
    match error {
        ReverseError::NotSrs if !is_address => "Not a valid email address, bypassed.",
        ReverseError::NotSrs => "Not a valid SRS address, bypassed.",
        _ if srs::is_srs_address(key) => "",
        _ => "Not a valid SRS address, bypassed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_refusals() {
        let malformed = "Not a valid SRS address, bypassed.";
        let table = [
            ("user@srs.example.net", ReverseError::NotSrs, malformed),
            ("user", ReverseError::NotSrs, "Not a valid email address, bypassed."),
            ("\"a b\"@srs.example.net", ReverseError::NotSrs, "Not a valid email address, bypassed."),
            ("SRS0=h=WC=host=user@srs.example.net", ReverseError::HashInvalid, ""),
            ("SRS0=h=WC=host=user@srs.example.net", ReverseError::Expired, ""),
            ("SRS0=h=WC==user@srs.example.net", ReverseError::HashInvalid, malformed),
            ("SRS0==WC=host=user@srs.example.net", ReverseError::HashTooShort, malformed),
            ("SRS0=h@srs.example.net", ReverseError::NoTimestamp, malformed),
        ];
        for (key, error, expected) in table {
            assert_eq!(unreversed_as_iredapd(key, error), expected, "{key}");
        }
    }
}
