//! The header section of a message (RFC 5322 section 2.2), cut into fields without changing an octet.
//!
//! A total function: a line without a colon is a field without a name, a first line that begins with a blank is a
//! field of its own. Whoever edits a header works on these pieces, so that what is not edited leaves as it came.

/// One header field with its folded lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// All octets of the field, line ends included.
    pub raw: &'a [u8],
    colon: Option<usize>,
}

impl<'a> Field<'a> {
    /// The name without blanks around it, in the case of the message; empty when there is no colon.
    pub fn name(&self) -> &'a [u8] {
        self.colon.map(|colon| self.raw[..colon].trim_ascii()).unwrap_or_default()
    }

    /// What follows the colon, folds and line end included; empty when there is no colon.
    pub fn value(&self) -> &'a [u8] {
        self.colon.map(|colon| &self.raw[colon + 1..]).unwrap_or_default()
    }

    /// Compares the name without regard to case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value as one line of text: line ends removed (RFC 5322 section 2.2.3), octets that are not UTF-8
    /// replaced, blanks at both ends cut.
    pub fn text(&self) -> String {
        let value: Vec<u8> =
            self.value().iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
        String::from_utf8_lossy(&value).trim().to_owned()
    }
}

/// Where the header section of a message ends and its body begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Length of the header section, the line end of its last field included.
    pub header: usize,
    /// Offset of the first octet of the body. Equal to `header` when no empty line separates the two.
    pub body: usize,
}

/// Finds the empty line after the header section in text with CR LF line ends. `None` when there is none (yet).
pub fn boundary(text: &[u8]) -> Option<Boundary> {
    if text.starts_with(b"\r\n") {
        return Some(Boundary { header: 0, body: 2 });
    }
    memchr::memmem::find(text, b"\r\n\r\n").map(|at| Boundary { header: at + 2, body: at + 4 })
}

/// The fields of a header section, from the top.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { rest: header }
}

/// Iterator over the fields of a header section.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr_iter(b'\n', self.rest)
            .map(|at| at + 1)
            .find(|next| !matches!(self.rest.get(*next), Some(b' ' | b'\t')))
            .unwrap_or(self.rest.len());
        let (raw, rest) = self.rest.split_at(end);
        self.rest = rest;
        // A colon counts only on the first line, and only after a name of printable octets (blanks may follow it).
        let first_line = memchr::memchr(b'\n', raw).unwrap_or(raw.len());
        let colon = memchr::memchr(b':', &raw[..first_line]).filter(|colon| is_name(&raw[..*colon]));
        Some(Field { raw, colon })
    }
}

fn is_name(before_colon: &[u8]) -> bool {
    let name = before_colon.trim_ascii_end();
    !name.is_empty() && name.iter().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_fields() {
        let header = b"From: a@b.test\r\nSubject : folded\r\n\tline\r\nno colon here\r\nX-Empty:\r\n";
        let got: Vec<(&[u8], String)> = fields(header).map(|field| (field.name(), field.text())).collect();
        let expected: Vec<(&[u8], String)> = vec![
            (b"From", "a@b.test".into()),
            (b"Subject", "folded\tline".into()),
            (b"", String::new()),
            (b"X-Empty", String::new()),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn finds_the_body() {
        let table: [(&[u8], Option<Boundary>); 5] = [
            (b"A: b\r\n\r\nbody", Some(Boundary { header: 6, body: 8 })),
            (b"\r\nbody", Some(Boundary { header: 0, body: 2 })),
            (b"A: b\r\n", None),
            (b"", None),
            (b"A: b\r\n \r\n\r\nx", Some(Boundary { header: 9, body: 11 })),
        ];
        for (text, expected) in table {
            assert_eq!(boundary(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octet_is_lost(header in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'a'), any::<u8>()], 0..200)) {
            let joined: Vec<u8> = fields(&header).flat_map(|field| field.raw.iter().copied()).collect();
            prop_assert_eq!(joined, header);
        }
    }
}
