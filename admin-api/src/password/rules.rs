//! The rules a new password has to meet.

use super::MAX_PASSWORD;

/// What counts as a special character.
const SPECIAL: &str = "#$%&*+-,.:;!=<>'\"?@[]/(){}_`~";

/// Which rules are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// At least one letter.
    pub(crate) letter: bool,
    /// At least one upper-case letter.
    pub(crate) uppercase: bool,
    /// At least one digit.
    pub(crate) digit: bool,
    /// At least one of the special characters.
    pub(crate) special: bool,
    /// The bounds where a domain sets none.
    pub(crate) bounds: Bounds,
}

/// How long a password has to be, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The least.
    pub(crate) min: i64,
    /// The most; 0 is no limit.
    pub(crate) max: i64,
}

impl Rules {
    /// Checks a new password.
    ///
    /// # Errors
    /// The codes of all rules it breaks, joined with commas in the order clients know.
    pub(crate) fn check(&self, password: &str, bounds: Bounds) -> Result<(), String> {
        if password.trim().is_empty() {
            return Err("PW_EMPTY".to_owned());
        }
        let length = i64::try_from(password.chars().count()).unwrap_or(i64::MAX);
        let any = |test: fn(&char) -> bool| password.chars().any(|character| test(&character));
        let broken = [
            (!password.is_ascii(), "PW_NON_ASCII"),
            (length < bounds.min, "PW_SHORTER_THAN_MIN_LENGTH"),
            (
                (bounds.max > 0 && length > bounds.max) || password.len() > MAX_PASSWORD,
                "PW_GREATER_THAN_MAX_LENGTH",
            ),
            (self.letter && !any(char::is_ascii_alphabetic), "PW_NO_LETTER"),
            (self.uppercase && !any(char::is_ascii_uppercase), "PW_NO_UPPERCASE"),
            (self.digit && !any(char::is_ascii_digit), "PW_NO_DIGIT_NUMBER"),
            (self.special && !any(|c| SPECIAL.contains(*c)), "PW_NO_SPECIAL_CHAR"),
        ];
        let codes: Vec<&str> =
            broken.iter().filter(|(is_broken, _)| *is_broken).map(|(_, code)| *code).collect();
        if codes.is_empty() { Ok(()) } else { Err(codes.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rules = Rules {
        letter: true,
        uppercase: true,
        digit: true,
        special: true,
        bounds: Bounds { min: 8, max: 0 },
    };

    #[test]
    fn broken_rules_are_named_in_their_order() {
        let bounds = |min, max| Bounds { min, max };
        for (password, bounds, expected) in [
            ("Us3r#Secret", bounds(8, 0), Ok(())),
            ("", bounds(8, 0), Err("PW_EMPTY")),
            ("   ", bounds(1, 0), Err("PW_EMPTY")),
            (
                "short",
                bounds(8, 0),
                Err("PW_SHORTER_THAN_MIN_LENGTH,PW_NO_UPPERCASE,PW_NO_DIGIT_NUMBER,PW_NO_SPECIAL_CHAR"),
            ),
            ("Us3r#Secret", bounds(8, 10), Err("PW_GREATER_THAN_MAX_LENGTH")),
            ("12345678", bounds(8, 0), Err("PW_NO_LETTER,PW_NO_UPPERCASE,PW_NO_SPECIAL_CHAR")),
            ("Größe#12", bounds(8, 0), Err("PW_NON_ASCII")),
            ("a-B1", bounds(4, 4), Ok(())),
        ] {
            assert_eq!(ALL.check(password, bounds), expected.map_err(str::to_owned), "{password:?}");
        }
    }

    #[test]
    fn rules_can_be_switched_off() {
        let none = Rules { letter: false, uppercase: false, digit: false, special: false, ..ALL };
        assert_eq!(none.check("^^^^", Bounds { min: 0, max: 0 }), Ok(()));
    }
}
