//! The text in `domain.settings` (and `admin.settings`, `mailbox.settings`): `key:value;key:value;`.
//!
//! Keys that are not touched keep their value and their place, whether anybody knows them or not. A value may hold
//! colons, the key ends at the first one; what has no colon at all is kept as it is.

use std::fmt;

use super::Edit;

/// Settings as pairs in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainSettings(Vec<(String, Option<String>)>);

impl DomainSettings {
    /// Reads the text of the column.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
            match part.split_once(':') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (part.to_owned(), None),
            }
        });
        Self(pairs.collect())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_deref())
    }

    /// The value of `key` if it is a whole number.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.get(key)?.trim().parse().ok()
    }

    /// The values of a comma-separated setting.
    pub fn list(&self, key: &str) -> Vec<String> {
        let values = self.get(key).unwrap_or("").split(',').map(str::trim);
        values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// Sets `key`, or removes it if the value is empty. A value with `;` or a control character is refused and
    /// nothing changes: it would end the setting early.
    pub fn set(&mut self, key: &str, value: &str) -> bool {
        if value.contains(';') || value.chars().any(char::is_control) {
            return false;
        }
        let place = self.0.iter_mut().find(|(name, _)| name == key);
        match (place, value) {
            (_, "") => self.0.retain(|(name, _)| name != key),
            (Some(pair), _) => pair.1 = Some(value.to_owned()),
            (None, _) => self.0.push((key.to_owned(), Some(value.to_owned()))),
        }
        true
    }

    /// Changes a comma-separated setting; its values are kept sorted.
    pub fn edit(&mut self, key: &str, edit: &Edit) -> bool {
        let mut values = edit.apply(self.list(key));
        values.sort_unstable();
        self.set(key, &values.join(","))
    }
}

impl fmt::Display for DomainSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.0 {
            match value {
                Some(value) => write!(formatter, "{key}:{value};")?,
                None => write!(formatter, "{key};")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn untouched_keys_stay() {
        let mut settings =
            DomainSettings::parse("default_language:en_US;x:a:b;flag; enabled_services:b,a ;;");
        assert_eq!(settings.get("x"), Some("a:b"));
        assert_eq!(settings.list("enabled_services"), ["b", "a"]);
        assert!(settings.set("default_user_quota", "300"));
        assert!(settings.set("default_language", ""));
        let edit = Edit::Adjust { add: vec!["c".into(), "a".into()], remove: vec!["b".into()] };
        assert!(settings.edit("enabled_services", &edit));
        assert_eq!(settings.to_string(), "x:a:b;flag;enabled_services:a,c;default_user_quota:300;");
        assert_eq!(settings.int("default_user_quota"), Some(300));
    }

    #[test]
    fn values_that_would_break_the_text_are_refused() {
        let mut settings = DomainSettings::parse("a:1;");
        for value in ["x;isglobaladmin:1", "a\nb", "\0"] {
            assert!(!settings.set("a", value), "{value:?}");
        }
        assert_eq!(settings.to_string(), "a:1;");
    }

    proptest! {
        #[test]
        fn reading_what_was_written_changes_nothing(text in "([a-z_]{1,8}(:[a-z0-9:,_]{1,8})?;){0,6}") {
            prop_assert_eq!(DomainSettings::parse(&text).to_string(), text);
        }
    }
}
