//! Dovecot's configuration as `doveconf -n` prints it: settings in sections in sections.
//!
//! ```text
//! # 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
//! recipient_delimiter = +
//! service quota-status {
//!   inet_listener {
//!     port = 12340
//!   }
//! }
//! plugin {
//!   quota_status_overquota = 552 5.2.2 Mailbox is full
//! }
//! ```

/// Deeper than any of Dovecot's sections.
const DEEPEST: usize = 20;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The sections around it, the outermost first: `service quota-status`, `inet_listener`.
    pub(super) sections: Vec<String>,
    pub(super) name: String,
    /// Without quotation marks around it.
    pub(super) value: String,
    /// Of the text, from 1.
    pub(super) line: usize,
}

/// Which of the two generations of names a configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    /// 2.3 and before.
    V2_3,
    /// 2.4 and after.
    V2_4,
}

/// A whole configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) generation: Generation,
    pub(super) settings: Vec<Setting>,
    /// All sections that occur, also empty ones, each with those around it.
    pub(super) sections: Vec<Vec<String>>,
}

impl Config {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub(super) fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config { generation: Generation::V2_3, settings: Vec::new(), sections: Vec::new() };
        let mut open: Vec<String> = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('!') {
                return Err(format!(
                    "line {number} includes other files: give the output of `doveconf -n`, which has everything in it"
                ));
            }
            if line == "}" {
                if open.pop().is_none() {
                    return Err(format!("line {number} ends a section where none is open"));
                }
                continue;
            }
            let setting = line.split_once('=').filter(|(name, _)| !name.trim_end().contains('{'));
            if let Some((name, value)) = setting {
                config.settings.push(Setting {
                    sections: open.clone(),
                    name: name.trim().to_owned(),
                    value: unquoted(value.trim()),
                    line: number,
                });
            } else if let Some(head) = line.strip_suffix('{') {
                if open.len() == DEEPEST {
                    return Err(format!("line {number}: more than {DEEPEST} sections in one another"));
                }
                open.push(section_name(head));
                config.sections.push(open.clone());
            } else {
                return Err(format!("line {number} is neither a setting nor a section: {line:?}"));
            }
        }
        if let Some(section) = open.last() {
            return Err(format!("section {section:?} does not end"));
        }
        if let Some(version) = config.top("dovecot_config_version") {
            let mut numbers = version.value.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if version >= (2, 4) {
                config.generation = Generation::V2_4;
            }
        }
        Ok(config)
    }

    /// A setting outside of all sections; the last one, which is the one that counts.
    pub(super) fn top(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|setting| setting.sections.is_empty() && setting.name == name)
    }

    /// A setting in exactly this section.
    pub(super) fn within(&self, section: &str, name: &str) -> Option<&Setting> {
        let matches = |setting: &&Setting| setting.sections == [section] && setting.name == name;
        self.settings.iter().rev().find(matches)
    }

    /// Whether there is a section of this kind, whatever its name.
    pub(super) fn has_section(&self, kind: &str) -> bool {
        self.sections.iter().any(|path| path.last().is_some_and(|section| kind_of(section) == kind))
    }
}

/// `service` of `service quota-status`.
pub(super) fn kind_of(section: &str) -> &str {
    section.split_once(' ').map_or(section, |(kind, _)| kind)
}

/// `service  "quota-status" ` is `service quota-status`.
fn section_name(head: &str) -> String {
    let head = head.trim();
    match head.split_once(char::is_whitespace) {
        Some((kind, name)) => format!("{kind} {}", unquoted(name.trim())),
        None => head.to_owned(),
    }
}

fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_settings() {
        let text = "# 2.3.19.1\nlisten = 127.0.0.1\nlisten = ::1\n\nservice \"quota-status\" {\n  inet_listener {\n    \
                    port = 12340\n  }\n}\nplugin {\n  quota_status_overquota = \"552 5.2.2 \\\"full\\\" = full\"\n  empty =\n}\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.generation, Generation::V2_3);
        assert_eq!(config.top("listen").unwrap().value, "::1");
        let port = &config.settings[2];
        assert_eq!((port.sections.join("/").as_str(), port.line), ("service quota-status/inet_listener", 7));
        assert_eq!(
            config.within("plugin", "quota_status_overquota").unwrap().value,
            "552 5.2.2 \"full\" = full"
        );
        assert_eq!(config.within("plugin", "empty").unwrap().value, "");
        assert!(config.has_section("service") && !config.has_section("userdb"));
        assert_eq!(Config::parse("dovecot_config_version = 2.4.1\n").unwrap().generation, Generation::V2_4);
    }

    #[test]
    fn what_is_no_configuration() {
        for (text, part) in [
            ("}", "line 1"),
            ("plugin {\n", "does not end"),
            ("a\n", "neither"),
            ("!include conf.d/*.conf\n", "doveconf -n"),
            (&"a {\n".repeat(30), "more than"),
        ] {
            assert!(Config::parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
