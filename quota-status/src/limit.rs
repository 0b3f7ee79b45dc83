//! Whether a message fits: the arithmetic of Dovecot's quota, in bytes.
//!
//! `L` is the limit, `U` what is used, `S` the size of the message, `G` the grace:
//!
//! - `S` above the largest message size: too large, whatever else.
//! - `L = 0`: unlimited.
//! - `U >= L`: full; the grace no longer counts.
//! - `U + S <= L + G`: fits, both borders included.
//! - `S > L + G`: too large, it would not even fit into the empty mailbox.

use crate::settings::Grace;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits.
    Fits,
    /// It would never fit.
    TooLarge,
    /// It does not fit now.
    Full,
}

/// The bounds of the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) grace: Grace,
    /// Largest message in bytes; 0 is no bound.
    pub(crate) max_mail_size: u64,
}

impl Bounds {
    /// Decides about a message of `size` bytes for a mailbox with a limit of `limit` bytes, 0 or more, of which
    /// `used` are used. Negative usage is a counter gone wrong and counts as none.
    pub(crate) fn check(&self, limit: i64, used: i64, size: u64) -> Fit {
        // 128 bits: no sum of these can overflow.
        let size = u128::from(size.max(1));
        if self.max_mail_size > 0 && size > u128::from(self.max_mail_size) {
            return Fit::TooLarge;
        }
        let limit = u128::try_from(limit).unwrap_or(0);
        if limit == 0 {
            return Fit::Fits;
        }
        let used = u128::try_from(used).unwrap_or(0);
        let most = limit + self.grace_above(limit);
        if used < limit && used + size <= most {
            Fit::Fits
        } else if size > most {
            Fit::TooLarge
        } else {
            Fit::Full
        }
    }

    fn grace_above(&self, limit: u128) -> u128 {
        match self.grace {
            Grace::Percent(percent) => limit * u128::from(percent) / 100,
            Grace::Bytes(bytes) => u128::from(bytes),
        }
    }

    /// What a message may exceed a limit by, in bytes; 0 where there is no limit.
    pub(crate) fn grace_of(&self, limit: i64) -> u64 {
        match u128::try_from(limit) {
            Ok(0) | Err(_) => 0,
            Ok(limit) => u64::try_from(self.grace_above(limit)).unwrap_or(u64::MAX),
        }
    }
}

/// Whether a mailbox is so far from its limit that its usage may be a few seconds old: below three quarters.
pub(crate) fn far_from_limit(limit: i64, used: i64) -> bool {
    let limit = i128::from(limit);
    limit == 0 || i128::from(used) * 4 < limit * 3
}

/// The attribute `size`: missing, empty, not a number or beyond 64 bits counts as 0.
pub(crate) fn size(value: Option<&[u8]>) -> u64 {
    let digits = value.filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: i64 = 1 << 20;

    #[test]
    fn borders() {
        use Fit::*;
        let percent = |grace| Bounds { grace: Grace::Percent(grace), max_mail_size: 0 };
        let bytes = |grace| Bounds { grace: Grace::Bytes(grace), max_mail_size: 0 };
        let table = [
            ("exactly the limit is full, even for nothing", percent(10), 1, MB, 0, Full),
            ("one byte below, one byte", percent(10), 1, MB - 1, 1, Fits),
            ("one byte below, nothing counts as one byte", percent(0), 1, MB - 1, 0, Fits),
            ("two bytes need the grace", percent(10), 1, MB - 1, 2, Fits),
            ("two bytes without grace", percent(0), 1, MB - 1, 2, Full),
            ("grace to the last byte", percent(10), 1, MB - 1, 104_858, Fits),
            ("one byte beyond the grace", percent(10), 1, MB - 1, 104_859, Full),
            ("grace in bytes", bytes(10), 1, MB - 1, 11, Fits),
            ("beyond the grace in bytes", bytes(10), 1, MB - 1, 12, Full),
            ("limit plus grace into the empty mailbox", percent(10), 1, 0, 1_153_433, Fits),
            ("more than that", percent(10), 1, 0, 1_153_434, TooLarge),
            ("more than that into a full one", percent(10), 1, 2 * MB, 2_000_000, TooLarge),
            ("over the limit, no grace any more", percent(10), 1, MB + 5, 1, Full),
            ("unlimited", percent(10), 0, i64::MAX, u64::MAX, Fits),
            ("negative usage", percent(10), 1, -5_000_000, 10, Fits),
            ("4 TiB", percent(10), 4 << 20, 0, 4 << 40, Fits),
            ("2^64-1", percent(10), 1, 10, u64::MAX, TooLarge),
            ("everything at its largest", percent(1000), i64::MAX, i64::MAX, u64::MAX, Full),
        ];
        for (case, bounds, megabytes, used, size, expected) in table {
            let limit = i64::saturating_mul(megabytes, MB);
            assert_eq!(bounds.check(limit, used, size), expected, "{case}");
        }
        let bounded = Bounds { grace: Grace::Percent(0), max_mail_size: 512_000 };
        assert_eq!(bounded.check(MB, 0, 512_000), Fits);
        assert_eq!(bounded.check(MB, 0, 512_001), TooLarge);
        assert_eq!(bounded.check(0, 0, 512_001), TooLarge);
        assert_eq!(bounded.check(MB, 2 * MB, 512_001), TooLarge);
        assert_eq!(bounded.check(MB, 2 * MB, 1), Full);
    }

    #[test]
    fn sizes() {
        let table: &[(&[u8], u64)] = &[
            (b"0", 0),
            (b"1000", 1000),
            (b"0001000", 1000),
            (b"18446744073709551615", u64::MAX),
            (b"18446744073709551616", 0),
            (b"99999999999999999999999", 0),
            (b"", 0),
            (b"abc", 0),
            (b"-5", 0),
            (b"+5", 0),
            (b"5 ", 0),
            (b"5\xFF", 0),
        ];
        for (value, expected) in table {
            assert_eq!(size(Some(value)), *expected, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(size(None), 0);
    }

    #[test]
    fn far() {
        assert!(far_from_limit(0, i64::MAX));
        assert!(far_from_limit(4 * MB, 3 * MB - 1));
        assert!(!far_from_limit(4 * MB, 3 * MB));
        assert!(far_from_limit(i64::MAX, i64::MAX / 2));
    }

    proptest! {
        /// What fits still fits when it is smaller, less is used, or the limit is higher.
        #[test]
        fn fitting_is_monotonous(
            limit in 1i64..1 << 30, used in 0i64..1 << 31, size in 0u64..1 << 31, percent in 0u32..100,
        ) {
            let bounds = Bounds { grace: Grace::Percent(percent), max_mail_size: 0 };
            if bounds.check(limit, used, size) == Fit::Fits {
                prop_assert_eq!(bounds.check(limit, used, size / 2), Fit::Fits);
                prop_assert_eq!(bounds.check(limit, used / 2, size), Fit::Fits);
                prop_assert_eq!(bounds.check(limit + 1, used, size), Fit::Fits);
            }
        }
    }
}
