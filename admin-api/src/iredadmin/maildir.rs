//! Where the mailbox of a new user is put.

/// How paths are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The directory of all mailboxes, such as `/var/vmail/vmail1`.
    pub(crate) base: String,
    /// Whether directories of single characters spread the users.
    pub(crate) hashed: bool,
    /// Whether the path begins with the domain.
    pub(crate) prepend_domain: bool,
    /// Whether the last directory ends in the time of creation.
    pub(crate) append_timestamp: bool,
    /// Whether directories of single characters spread the domains.
    pub(crate) domain_hashed: bool,
}

/// The three columns that make up the path of a mailbox.
pub(crate) type Columns = [String; 3];

impl Layout {
    /// `storagebasedirectory`, `storagenode` and `maildir` of a new user. `time` is the local time as
    /// `YYYY.MM.DD.HH.MM.SS`.
    pub(crate) fn of(&self, local: &str, domain: &str, time: &str) -> Columns {
        let mut path = String::new();
        if self.prepend_domain {
            if self.domain_hashed {
                push_hash(&mut path, domain.split('.').next().unwrap_or(""), 2);
            }
            path.push_str(domain);
            path.push('/');
        }
        if self.hashed {
            push_hash(&mut path, local, 3);
        }
        path.push_str(local);
        if self.append_timestamp {
            path.push('-');
            path.push_str(time);
        }
        path.push('/');
        let (base, node) = split_base(&self.base);
        [base, node, path]
    }
}

/// Directories of the first characters of `text`, `_` where there is none or none that fits.
fn push_hash(path: &mut String, text: &str, count: usize) {
    let mut characters = text.chars();
    for _ in 0..count {
        let character = characters.next().filter(|c| !matches!(c, '.' | '~' | '/')).unwrap_or('_');
        path.push(character);
        path.push('/');
    }
}

/// The last directory is the node, what stands before it the base.
fn split_base(base: &str) -> (String, String) {
    let base = base.trim_end_matches('/');
    match base.rsplit_once('/') {
        Some((base, node)) => (base.to_owned(), node.to_owned()),
        None => (String::new(), base.to_owned()),
    }
}

/// The columns for a path given by the administrator: `/a/b/c/d` is `/a`, `b`, `c/d/`. `None` if the path is not
/// absolute, has fewer than three parts or any that is empty or special.
pub(crate) fn explicit(path: &str) -> Option<Columns> {
    let path = path.to_lowercase();
    let parts: Vec<&str> = path.strip_prefix('/')?.trim_end_matches('/').split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && *part != "."
            && *part != ".."
            && part.len() <= 255
            && !part.chars().any(char::is_control)
    };
    if parts.len() < 3 || !parts.iter().all(plain) || path.len() > 255 {
        return None;
    }
    Some([format!("/{}", parts[0]), parts[1].to_owned(), format!("{}/", parts[2..].join("/"))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAYOUT: fn() -> Layout = || Layout {
        base: "/var/vmail/vmail1".to_owned(),
        hashed: true,
        prepend_domain: true,
        append_timestamp: true,
        domain_hashed: false,
    };

    #[test]
    fn paths_of_new_users() {
        let time = "2025.03.15.12.00.00";
        let plain = Layout { hashed: false, append_timestamp: false, ..LAYOUT() };
        let spread = Layout { domain_hashed: true, ..LAYOUT() };
        for (layout, local, expected) in [
            (LAYOUT(), "u", "a.example/u/_/_/u-2025.03.15.12.00.00/"),
            (LAYOUT(), "john.doe", "a.example/j/o/h/john.doe-2025.03.15.12.00.00/"),
            (LAYOUT(), "a.b", "a.example/a/_/b/a.b-2025.03.15.12.00.00/"),
            (plain, "john", "a.example/john/"),
            (spread, "john", "a/_/a.example/j/o/h/john-2025.03.15.12.00.00/"),
            (Layout { prepend_domain: false, ..LAYOUT() }, "john", "j/o/h/john-2025.03.15.12.00.00/"),
        ] {
            let [base, node, maildir] = layout.of(local, "a.example", time);
            assert_eq!((base.as_str(), node.as_str(), maildir.as_str()), ("/var/vmail", "vmail1", expected));
        }
    }

    #[test]
    fn explicit_paths() {
        let columns = |a: &str, b: &str, c: &str| Some([a.to_owned(), b.to_owned(), c.to_owned()]);
        for (path, expected) in [
            ("/a/b/c/d", columns("/a", "b", "c/d/")),
            ("/Var/Vmail/X/", columns("/var", "vmail", "x/")),
            ("/a/b", None),
            ("a/b/c", None),
            ("/a/../b/c", None),
            ("/a//b/c", None),
            ("", None),
        ] {
            assert_eq!(explicit(path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn no_part_of_a_path_is_special(local in "[a-z0-9#_-][a-z0-9._&#~-]{0,20}") {
            let [_, _, maildir] = LAYOUT().of(&local, "a.example", "2025.03.15.12.00.00");
            let special = |part: &str| part.is_empty() || part == "." || part == "..";
            prop_assert!(!maildir.trim_end_matches('/').split('/').any(special), "{}", maildir);
        }
    }
}
