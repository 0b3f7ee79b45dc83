//! The same warning again and again: said once, then counted, then summed up once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a warning stays quiet after it was written.
const QUIET: Duration = Duration::from_secs(60);

/// Different warnings that are remembered; more than that are written each time.
const MOST: usize = 512;

#[derive(Debug)]
struct Entry {
    since: Instant,
    suppressed: u64,
}

/// The warnings of the last minute.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    seen: HashMap<String, Entry>,
    swept: Option<Instant>,
}

impl Repeats {
    /// Whether the line is to be written now.
    pub(super) fn admit(&mut self, line: &str, now: Instant) -> bool {
        match self.seen.get_mut(line) {
            Some(entry) if now.duration_since(entry.since) < QUIET => {
                entry.suppressed += 1;
                false
            }
            // Its minute is over: the summary of `due` has been or will be written; this one begins a new minute.
            Some(entry) => {
                entry.since = now;
                true
            }
            None => {
                if self.seen.len() < MOST {
                    self.seen.insert(line.to_owned(), Entry { since: now, suppressed: 0 });
                }
                true
            }
        }
    }

    /// Warnings whose minute is over and how often each was suppressed. Cheap when called often.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(String, u64)> {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < Duration::from_secs(1)) {
            return Vec::new();
        }
        self.swept = Some(now);
        let mut lines = Vec::new();
        self.seen.retain(|line, entry| {
            if now.duration_since(entry.since) < QUIET {
                return true;
            }
            if entry.suppressed == 0 {
                return false;
            }
            lines.push((line.clone(), entry.suppressed));
            (entry.since, entry.suppressed) = (now, 0);
            true
        });
        lines.sort();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_then_a_count_a_minute() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(repeats.admit("database down", at(0)));
        for second in 1..60 {
            assert!(!repeats.admit("database down", at(second)));
            assert!(repeats.due(at(second)).is_empty());
        }
        assert!(repeats.admit("disk full", at(30)), "another warning is another warning");
        assert_eq!(repeats.due(at(60)), [("database down".to_owned(), 59)]);
        assert!(!repeats.admit("database down", at(61)), "the summary began the next minute");
        assert_eq!(repeats.due(at(121)), [("database down".to_owned(), 1)]);
        assert!(repeats.due(at(200)).is_empty());
        assert!(repeats.admit("database down", at(201)), "after a quiet minute it is news again");
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for number in 0..10 * MOST {
            assert!(repeats.admit(&number.to_string(), now));
        }
        assert_eq!(repeats.seen.len(), MOST);
    }
}
