//! The day of an SRS0 address: two base32 characters of (days since 1970) mod 1024, high bits first.
//! 2025-03-15 is `WC`. Ages wrap after 1024 days; that is inherent in the format.

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DAY: i64 = 86_400;
const CYCLE: i64 = 1024;

/// A time stamp that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadTimestamp {
    /// Not of two characters.
    Length,
    /// A character outside `A`-`Z`, `2`-`7`.
    Character,
}

/// The time stamp of `now`, in seconds since 1970.
pub(super) fn encode(now: i64) -> String {
    let day = now.div_euclid(DAY).rem_euclid(CYCLE) as usize;
    [day >> 5, day & 31].map(|digit| char::from(BASE32[digit])).iter().collect()
}

/// Age in days of a time stamp, 0 to 1023; a future one shows as a very old one.
pub(super) fn age(stamp: &str, now: i64) -> Result<i64, BadTimestamp> {
    let digit = |byte: u8| {
        let upper = byte.to_ascii_uppercase();
        let place = BASE32.iter().position(|c| *c == upper).ok_or(BadTimestamp::Character)?;
        Ok(place as i64)
    };
    let mut day = 0;
    for byte in stamp.bytes().take(2) {
        day = day * 32 + digit(byte)?;
    }
    if stamp.len() != 2 {
        return Err(BadTimestamp::Length);
    }
    Ok((now.div_euclid(DAY) - day).rem_euclid(CYCLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_742_040_000;

    #[test]
    fn days() {
        assert_eq!(encode(NOON), "WC");
        assert_eq!(encode(NOON + 12 * 3600 - 1), "WC");
        assert_eq!(encode(NOON + 12 * 3600), "WD");
        assert_eq!(encode(0), "AA");
        assert_eq!(encode(-1), "77");
    }

    #[test]
    fn ages() {
        let table = [
            ("WC", Ok(0)),
            ("wc", Ok(0)),
            ("WB", Ok(1)),
            ("VN", Ok(21)),
            ("VM", Ok(22)),
            ("WD", Ok(1023)),
            ("W8", Err(BadTimestamp::Character)),
            ("W1", Err(BadTimestamp::Character)),
            ("\u{fc}", Err(BadTimestamp::Character)),
            ("", Err(BadTimestamp::Length)),
            ("W", Err(BadTimestamp::Length)),
            ("AWC", Err(BadTimestamp::Length)),
        ];
        for (stamp, expected) in table {
            assert_eq!(age(stamp, NOON), expected, "{stamp}");
        }
    }

    #[test]
    fn every_day_of_the_cycle_is_its_own() {
        for day in 0..2 * CYCLE {
            let stamp = encode(day * DAY);
            assert_eq!(age(&stamp, day * DAY), Ok(0));
            assert_eq!(age(&stamp, (day + 5) * DAY), Ok(5));
        }
    }
}
