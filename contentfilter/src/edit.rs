//! Header edits: what is removed, repaired and put in front of a mail (contentfilter section 7).
//!
//! Fields that are not edited leave octet by octet as they came.

use crate::settings::Settings;
use outrider_core::codec::header::{self, Field};
use outrider_core::codec::smtp::data::Outgoing;
use outrider_core::mailauth::results;

/// Longest line of a header field, without its line end (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

/// Fields that only a spam filter behind the border may add.
const SPAM_FIELDS: [&str; 7] = [
    "X-Spam-Status",
    "X-Spam-Level",
    "X-Spam-Flag",
    "X-Spam-Score",
    "X-Spam-Report",
    "X-Spam-Checker-Version",
    "X-Spam-Tests",
];

/// What is the same for all recipients of a mail.
#[derive(Clone, Debug)]
pub struct Edits<'a> {
    /// Settings with the names and texts of fields.
    pub settings: &'a Settings,
    /// Our name in Authentication-Results.
    pub authserv_id: &'a str,
    /// The mail counts as scanned for viruses.
    pub scanned: bool,
    /// The Received field, line end included.
    pub received: String,
}

impl Edits<'_> {
    /// The header section as it leaves (without a DKIM signature), with `results` if these recipients get it.
    pub fn apply(&self, original: &[u8], results: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(original.len() + 1024);
        let settings = self.settings;
        if self.scanned && !settings.x_header_line.is_empty() && self.allowed(&settings.x_header_tag) {
            out.extend_from_slice(
                format!("{}: {}\r\n", settings.x_header_tag, settings.x_header_line).as_bytes(),
            );
        }
        if let Some(results) = results.filter(|_| self.allowed("Authentication-Results")) {
            out.extend_from_slice(results);
        }
        if self.allowed("Received") {
            out.extend_from_slice(self.received.as_bytes());
        }
        for field in header::fields(original).filter(|field| !self.removes(field)) {
            copy(&field, &mut out);
        }
        out
    }

    /// Whether a field of ours may be added.
    pub fn allowed(&self, name: &str) -> bool {
        let fields = &self.settings.allowed_added_header_fields;
        fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).is_none_or(|(_, allowed)| *allowed)
    }

    fn removes(&self, field: &Field<'_>) -> bool {
        self.settings.remove_existing_spam_headers && SPAM_FIELDS.iter().any(|name| field.is(name))
            || self.settings.remove_existing_x_scanned_headers && field.is(&self.settings.x_header_tag)
            || results::must_be_removed(field, self.authserv_id)
    }
}

/// Copies a field: verbatim if its lines may stand in a mail, repaired otherwise.
fn copy(field: &Field<'_>, out: &mut Vec<u8>) {
    let mut cleaned = Vec::new();
    let raw = if memchr::memchr(0, field.raw).is_some() || has_stray_cr(field.raw) {
        Outgoing::default().push(field.raw, &mut cleaned);
        &cleaned
    } else {
        field.raw
    };
    for (at, line) in raw.split_inclusive(|octet| *octet == b'\n').enumerate() {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        // A folded line of white space only would be taken for the end of the header by some readers.
        if at > 0 && text.iter().all(|octet| matches!(octet, b' ' | b'\t')) {
            continue;
        }
        if text.len() <= MAX_LINE {
            out.extend_from_slice(line);
        } else {
            split_long(text, out);
        }
    }
}

fn has_stray_cr(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at + 1) != Some(&b'\n'))
}

/// Folds an overlong line, at white space where there is some. No line that comes of it is blank, for some readers take
/// that for the end of the header: blanks at the end go, and of more blanks than a line holds one stays.
fn split_long(text: &[u8], out: &mut Vec<u8>) {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let Some(last) = text.iter().rposition(|octet| !is_blank(octet)) else { return };
    let mut rest = &text[..=last];
    while rest.len() > MAX_LINE {
        let blanks = rest.iter().take_while(|octet| is_blank(octet)).count();
        if blanks + 1 >= MAX_LINE {
            rest = &rest[blanks - 1..];
            continue;
        }
        let blank = rest[1..=MAX_LINE].iter().rposition(is_blank).map(|at| at + 1);
        match blank.filter(|at| *at > blanks) {
            Some(at) => {
                out.extend_from_slice(&rest[..at]);
                out.extend_from_slice(b"\r\n");
                rest = &rest[at..];
            }
            None => {
                out.extend_from_slice(&rest[..MAX_LINE - 1]);
                out.extend_from_slice(b"\r\n ");
                rest = &rest[MAX_LINE - 1..];
            }
        }
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(original: &str, change: impl FnOnce(&mut Settings), results: Option<&str>) -> String {
        let mut settings =
            Settings { x_header_line: "amavis at example.com".to_owned(), ..Settings::default() };
        change(&mut settings);
        let edits = Edits {
            settings: &settings,
            authserv_id: "mail.example.com",
            scanned: true,
            received: "Received: by us\r\n".to_owned(),
        };
        let out = edits.apply(original.as_bytes(), results.map(str::as_bytes));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn order_and_removal() {
        let original = "Received: earlier\r\nX-Spam-Flag: YES\r\nx-spam-status: No,\r\n\tscore=1\r\n\
            X-Virus-Scanned: elsewhere\r\nAuthentication-Results: mail.example.com; spf=pass\r\n\
            Authentication-Results: other.test; spf=pass\r\nX-Spam: kept\r\n";
        let expected = "X-Virus-Scanned: amavis at example.com\r\nA-R: ours\r\nReceived: by us\r\n\
            Received: earlier\r\nX-Virus-Scanned: elsewhere\r\nAuthentication-Results: other.test; spf=pass\r\n\
            X-Spam: kept\r\n";
        assert_eq!(apply(original, |_| {}, Some("A-R: ours\r\n")), expected);
        let bare = apply(
            "X-Virus-Scanned: elsewhere\r\nX-Spam-Flag: YES\r\n",
            |settings| {
                settings.remove_existing_x_scanned_headers = true;
                settings.remove_existing_spam_headers = false;
                settings.allowed_added_header_fields.insert("received".to_owned(), false);
                settings.x_header_line.clear();
            },
            None,
        );
        assert_eq!(bare, "X-Spam-Flag: YES\r\n");
    }

    #[test]
    fn bad_lines_are_repaired() {
        let long = "x".repeat(1500);
        let words = "word ".repeat(400);
        let original = format!("A: b\r\n \t\r\n c\r\nLong: {long}\r\nWords: {words}\r\nB: a\rb\r\n");
        let out = apply(&original, |settings| settings.x_header_line.clear(), None);
        let lines: Vec<&str> = out.split_terminator("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE && !line.trim().is_empty()), "{lines:?}");
        assert!(out.starts_with("Received: by us\r\nA: b\r\n c\r\nLong:\r\n xxx"), "{out}");
        assert!(out.ends_with("B: ab\r\n"), "{out}");

        let unfolded = out.replace("\r\n", "");
        assert_eq!(unfolded.matches("word").count(), 400);
    }

    #[test]
    fn no_repair_leaves_a_blank_line() {
        let blanks = |count: usize| " ".repeat(count);
        for long in [
            format!("X: {}{}", "a".repeat(995), blanks(1)),
            format!("X: {}{}", "a".repeat(995), blanks(3000)),
            format!("X:{}y", blanks(3000)),
            format!("X: a{}b{}c", blanks(996), blanks(2500)),
            format!("X: {}{}{}", "a".repeat(995), blanks(1500), "b".repeat(1500)),
            format!("X: a\r\n{}\r\n{}y", blanks(1200), blanks(1200)),
        ] {
            let out = apply(&format!("{long}\r\nY: z\r\n"), |settings| settings.x_header_line.clear(), None);
            let lines: Vec<&str> = out.split_terminator("\r\n").collect();
            assert!(lines.iter().all(|line| line.len() <= MAX_LINE && !line.trim().is_empty()), "{lines:?}");
            assert!(out.ends_with("Y: z\r\n"), "{out}");
            let marks = |text: &str| text.replace([' ', '\r', '\n'], "");
            assert!(marks(&out).ends_with(&marks(&format!("{long}Y: z"))), "{out}");
        }
    }

    #[test]
    fn untouched_fields_are_verbatim() {
        let original = "Subject :  odd   spacing \r\n\tand folds\r\nno colon\r\nX-8bit: caf\u{e9}\r\n";
        assert!(apply(original, |_| {}, None).ends_with(original));
    }
}
