//! Names of keys by pattern, for an administrator's questions. No request of a mail server asks them: they go through
//! all keys of the server.

use std::sync::LazyLock;

use outrider_core::sql::DbError;
use redis::Script;

use super::connection::Valkey;
use super::script;

static SCAN: LazyLock<Script> = LazyLock::new(|| script(include_str!("scan.lua")));
static FORGET: LazyLock<Script> = LazyLock::new(|| script(include_str!("forget.lua")));

/// About how many keys one step looks at: a few milliseconds in which the server does nothing else.
pub(super) const STEP: i64 = 1000;
/// After so many steps a search ends, whatever is left. It also ends one that a server sends round in circles.
const MOST_STEPS: usize = 10_000;
/// Keys of one script: what it may hold at once is bounded.
const BATCH: usize = 500;

/// A search through all keys.
pub(super) struct Scan {
    pattern: String,
    cursor: Option<String>,
    steps: usize,
}

impl Scan {
    /// Keys that begin and end so, behind the prefix of the settings.
    pub(super) fn new(server: &Valkey, begin: &str, end: &str) -> Scan {
        let pattern = format!("{}*{}", literal(&server.key(begin)), literal(end));
        Scan { pattern, cursor: Some("0".to_owned()), steps: 0 }
    }

    /// The next names, perhaps none and perhaps some of them again; `None` after the last.
    pub(super) async fn next(&mut self, server: &Valkey) -> Result<Option<Vec<String>>, DbError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        if self.steps == MOST_STEPS {
            return Ok(None);
        }
        self.steps += 1;
        let mut script = SCAN.prepare_invoke();
        script.arg(cursor).arg(&self.pattern).arg(STEP);
        let (next, names): (String, Vec<Vec<u8>>) = server.run(&script).await?;
        self.cursor = (next != "0").then_some(next);
        // Our own names are text.
        Ok(Some(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect()))
    }

    /// Whether it ended before all keys were looked at.
    pub(super) fn is_cut(&self) -> bool {
        self.cursor.is_some()
    }
}

/// Removes keys; how many there were.
pub(super) async fn forget(server: &Valkey, keys: &[String]) -> Result<u64, DbError> {
    let mut forgotten = 0;
    for some in keys.chunks(BATCH) {
        let mut script = FORGET.prepare_invoke();
        for key in some {
            script.key(key);
        }
        forgotten += server.run::<u64>(&script).await?;
    }
    Ok(forgotten)
}

/// A pattern that is nothing but this text.
pub(super) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_text() {
        assert_eq!(literal("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
        assert_eq!(literal("user@example.com"), "user@example.com");
    }
}
