//! Tag lists, `name=value; name=value` (RFC 6376 section 3.2): DKIM signatures and key records.

use std::ops::Range;

/// A parsed tag list. Values have their white space at both ends cut; white space inside is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList<'a> {
    text: &'a [u8],
    tags: Vec<(&'a str, Range<usize>)>,
}

/// Why octets are no tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// A part without `=`, or a name with other characters than letters, digits and `_`.
    #[error("malformed tag")]
    Malformed,
    /// A name that occurs twice.
    #[error("duplicate tag")]
    Duplicate,
    /// More tags than any signature has use for.
    #[error("too many tags")]
    TooMany,
}

const MAX_TAGS: usize = 64;

impl<'a> TagList<'a> {
    /// Parses octets, folded or not.
    pub fn parse(text: &'a [u8]) -> Result<TagList<'a>, TagError> {
        let mut tags: Vec<(&'a str, Range<usize>)> = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b';', text).chain([text.len()]) {
            let part = &text[start..end];
            if !part.trim_ascii().is_empty() {
                let equals = memchr::memchr(b'=', part).ok_or(TagError::Malformed)?;
                let name =
                    std::str::from_utf8(part[..equals].trim_ascii()).map_err(|_| TagError::Malformed)?;
                if name.is_empty()
                    || !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
                {
                    return Err(TagError::Malformed);
                }
                if tags.iter().any(|(seen, _)| *seen == name) {
                    return Err(TagError::Duplicate);
                }
                if tags.len() == MAX_TAGS {
                    return Err(TagError::TooMany);
                }
                tags.push((name, start + equals + 1..end));
            }
            start = end + 1;
        }
        Ok(TagList { text, tags })
    }

    /// The value of a tag, white space at both ends cut, or nothing when the tag is absent or is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let range = self.range(name)?;
        std::str::from_utf8(self.text[range].trim_ascii()).ok()
    }

    /// The value of a tag with all white space removed: base64 and lists of names may be folded anywhere.
    pub fn dense(&self, name: &str) -> Option<String> {
        Some(self.get(name)?.chars().filter(|c| !c.is_ascii_whitespace()).collect())
    }

    /// Where the value of a tag stands in the parsed octets: from behind the `=` up to the `;`.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tags.iter().find(|(tag, _)| *tag == name).map(|(_, range)| range.clone())
    }

    /// Name of the first tag.
    pub fn first(&self) -> Option<&'a str> {
        self.tags.first().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses() {
        let text = b" v=1; h = from :\r\n to;b=AB\r\n\tCD ;";
        let list = TagList::parse(text).expect("a tag list");
        assert_eq!(list.get("v"), Some("1"));
        assert_eq!(list.dense("h").as_deref(), Some("from:to"));
        assert_eq!(list.dense("b").as_deref(), Some("ABCD"));
        assert_eq!(list.get("x"), None);
        assert_eq!(list.first(), Some("v"));
        assert_eq!(list.range("b").map(|range| &text[range]), Some(b"AB\r\n\tCD ".as_slice()));
    }

    #[test]
    fn refuses() {
        let table: [(&[u8], TagError); 4] = [
            (b"v=1; nonsense", TagError::Malformed),
            (b"v=1; =x", TagError::Malformed),
            (b"v=1; v=1", TagError::Duplicate),
            (b"a b=1", TagError::Malformed),
        ];
        for (text, error) in table {
            assert_eq!(TagList::parse(text), Err(error), "{text:?}");
        }
        let many: String = (0..100).map(|n| format!("t{n}=1;")).collect();
        assert_eq!(TagList::parse(many.as_bytes()), Err(TagError::TooMany));
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = TagList::parse(&text);
        }
    }
}
