//! Lists of domains that are left alone, in the three spellings that administrators bring along.

use std::collections::HashSet;

/// What the entries of a list mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListStyle {
    /// Table `srs_exclude_domains` of iRedAPD: an entry covers the domain and all below it, with or without
    /// a leading dot.
    #[default]
    Iredapd,
    /// Option `-X` of PostSRSd 1: the domain itself, or with a leading dot everything below it but not
    /// the domain.
    Postsrsd1,
    /// `domains` and `domains-file` of PostSRSd 2: matched as in PostSRSd 1, written one a line.
    Postsrsd2,
}

/// Domains in lower case, without the dot at their end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainList {
    exact: HashSet<String>,
    below: HashSet<String>,
}

impl DomainList {
    /// A list of single entries.
    pub fn new<S: AsRef<str>>(style: ListStyle, entries: impl IntoIterator<Item = S>) -> Self {
        let mut list = DomainList::default();
        for entry in entries {
            let entry = normal(entry.as_ref().trim());
            let (name, dotted) = match entry.strip_prefix('.') {
                Some(name) => (name.to_owned(), true),
                None => (entry, false),
            };
            if name.is_empty() {
                continue;
            }
            match style {
                ListStyle::Iredapd => {
                    list.below.insert(name.clone());
                    list.exact.insert(name);
                }
                ListStyle::Postsrsd1 | ListStyle::Postsrsd2 if dotted => drop(list.below.insert(name)),
                ListStyle::Postsrsd1 | ListStyle::Postsrsd2 => drop(list.exact.insert(name)),
            }
        }
        list
    }

    /// The text of a list file: PostSRSd 2 has one entry a line and comments from `#` on, the others
    /// separate by commas and white space.
    pub fn from_text(style: ListStyle, text: &str) -> Self {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        match style {
            ListStyle::Postsrsd2 => DomainList::new(style, lines),
            _ => {
                let words = lines.flat_map(|line| line.split(|c: char| c == ',' || c.is_whitespace()));
                DomainList::new(style, words)
            }
        }
    }

    /// Adds the entries of `other`.
    pub fn extend(&mut self, other: DomainList) {
        self.exact.extend(other.exact);
        self.below.extend(other.below);
    }

    /// Whether the list covers a domain, which must be in lower case and without a dot at its end.
    pub fn contains(&self, domain: &str) -> bool {
        if self.exact.contains(domain) {
            return true;
        }
        if self.below.is_empty() {
            return false;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// Whether the list covers nothing.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }
}

/// A domain as it is compared: lower case, no dot at the end.
fn normal(domain: &str) -> String {
    domain.strip_suffix('.').unwrap_or(domain).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ListStyle::*;

    #[test]
    fn styles_keep_their_meaning() {
        let entries = ["Excluded.example", ".dotted.example", "tld-all", "", "."];
        let table = [
            ("excluded.example", true, true),
            ("sub.excluded.example", true, false),
            ("a.b.excluded.example", true, false),
            ("myexcluded.example", false, false),
            ("dotted.example", true, false),
            ("sub.dotted.example", true, true),
            ("a.b.dotted.example", true, true),
            ("any.tld-all", true, false),
            ("tld-all", true, true),
            ("example", false, false),
            ("", false, false),
        ];
        for (domain, iredapd, postsrsd) in table {
            assert_eq!(DomainList::new(Iredapd, entries).contains(domain), iredapd, "{domain}");
            assert_eq!(DomainList::new(Postsrsd1, entries).contains(domain), postsrsd, "{domain}");
            assert_eq!(DomainList::new(Postsrsd2, entries).contains(domain), postsrsd, "{domain}");
        }
    }

    #[test]
    fn texts() {
        let one = DomainList::from_text(Postsrsd1, "a.example, .b.example\tc.example.\n");
        assert!(one.contains("a.example") && one.contains("x.b.example") && one.contains("c.example"));
        let two = DomainList::from_text(Postsrsd2, "# local\na.example # ours\n\n  .b.example\r\n");
        assert!(two.contains("a.example") && two.contains("x.b.example"));
        assert!(!two.contains("# local") && !two.contains("b.example"));
        assert!(DomainList::from_text(Postsrsd2, "#\n").is_empty());
    }

    #[test]
    fn lists_add_up() {
        let mut list = DomainList::new(Postsrsd1, ["a.example"]);
        list.extend(DomainList::new(Iredapd, ["b.example"]));
        assert!(list.contains("a.example") && list.contains("x.b.example") && !list.contains("x.a.example"));
    }
}
