//! What the header section says about a mail: read once, used by the signer, the log and the loop check.

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;
use outrider_core::codec::header::{self, Field};

/// More addresses of one kind than any decision looks at.
const MAX_ADDRESSES: usize = 20;

/// Facts about a header section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of all From fields.
    pub authors: Vec<String>,
    /// Number of From fields.
    pub from_fields: usize,
    /// Addresses of Resent-From and Resent-Sender, from the top.
    pub resent: Vec<String>,
    /// Address of Sender.
    pub sender: Option<String>,
    /// Message-ID with its brackets.
    pub message_id: Option<String>,
    /// Subject as it stands there, unfolded.
    pub subject: Option<String>,
    /// Subject for people: encoded words decoded.
    pub subject_decoded: Option<String>,
    /// User-Agent or else X-Mailer, with the name of the field.
    pub user_agent: Option<(&'static str, String)>,
    /// Texts of the Received fields, from the top.
    pub received: Vec<String>,
}

impl Facts {
    /// Reads a header section.
    pub fn read(header: &[u8]) -> Facts {
        let mut facts = Facts::default();
        let mut mailer = None;
        for field in header::fields(header) {
            if field.is("From") {
                facts.from_fields += 1;
                addresses(&field, &mut facts.authors);
            } else if field.is("Resent-From") || field.is("Resent-Sender") {
                addresses(&field, &mut facts.resent);
            } else if field.is("Sender") && facts.sender.is_none() {
                let mut all = Vec::new();
                addresses(&field, &mut all);
                facts.sender = all.into_iter().next();
            } else if field.is("Message-ID") && facts.message_id.is_none() {
                facts.message_id = Some(field.text()).filter(|id| !id.is_empty());
            } else if field.is("Subject") && facts.subject.is_none() {
                facts.subject = Some(field.text());
                facts.subject_decoded = Some(decoded(&field));
            } else if field.is("User-Agent") && facts.user_agent.is_none() {
                facts.user_agent = Some(("User-Agent", field.text()));
            } else if field.is("X-Mailer") && mailer.is_none() {
                mailer = Some(("X-Mailer", field.text()));
            } else if field.is("Received") {
                facts.received.push(field.text());
            }
        }
        facts.user_agent = facts.user_agent.or(mailer);
        facts
    }

    /// Who is asked for a DKIM key, in this order: authors, resent fields, Sender, envelope sender.
    pub fn signing_candidates(&self, envelope_sender: &str) -> Vec<String> {
        let mut candidates = self.authors.clone();
        candidates.extend(self.resent.iter().cloned());
        candidates.extend(self.sender.iter().cloned());
        candidates.push(envelope_sender.to_owned());
        candidates.retain(|candidate| !candidate.is_empty());
        candidates
    }
}

fn addresses(field: &Field<'_>, out: &mut Vec<String>) {
    if let HeaderValue::Address(parsed) = MessageStream::new(field.value()).parse_address() {
        let found =
            parsed.iter().filter_map(|entry| entry.address.as_deref()).filter(|text| text.contains('@'));
        out.extend(found.take(MAX_ADDRESSES.saturating_sub(out.len())).map(str::to_owned));
    }
}

fn decoded(field: &Field<'_>) -> String {
    let text = field.text();
    // Only encoded words need the parser; other text is taken as it stands.
    if !text.contains("=?") {
        return text;
    }
    match MessageStream::new(field.value()).parse_unstructured() {
        HeaderValue::Text(decoded) => decoded.trim().to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters() {
        let header = "Received: from a ([192.0.2.1])\r\n by b; x\r\n\
            From: \"A, B\" <a@sender.test>, b@sender.test\r\n\
            Sender: Office <office@sender.test>\r\n\
            Resent-From: r@other.test\r\n\
            Subject: =?iso-8859-1?Q?Gr=FC=DFe?= aus =?utf-8?Q?K=C3=B6ln?=\r\n\
            Message-ID: <1@sender.test>\r\n\
            X-Mailer: m 1\r\nUser-Agent: u 2\r\n";
        let facts = Facts::read(header.as_bytes());
        assert_eq!(facts.authors, ["a@sender.test", "b@sender.test"]);
        assert_eq!(facts.sender.as_deref(), Some("office@sender.test"));
        assert_eq!(facts.message_id.as_deref(), Some("<1@sender.test>"));
        assert_eq!(facts.subject_decoded.as_deref(), Some("Grüße aus Köln"));
        assert_eq!(facts.subject.as_deref(), Some("=?iso-8859-1?Q?Gr=FC=DFe?= aus =?utf-8?Q?K=C3=B6ln?="));
        assert_eq!(facts.user_agent, Some(("User-Agent", "u 2".to_owned())));
        assert_eq!(facts.received, ["from a ([192.0.2.1]) by b; x"]);
        let candidates = facts.signing_candidates("env@sender.test");
        assert_eq!(
            candidates,
            ["a@sender.test", "b@sender.test", "r@other.test", "office@sender.test", "env@sender.test"]
        );
    }

    #[test]
    fn threat_t24_odd_from_fields() {
        let table: [(&str, usize, &[&str]); 6] = [
            ("From: a@b.test\r\nFrom: c@d.test\r\n", 2, &["a@b.test", "c@d.test"]),
            ("Subject: none\r\n", 0, &[]),
            ("From: nobody\r\n", 1, &[]),
            ("From : a@b.test (comment)\r\n", 1, &["a@b.test"]),
            ("From:\r\n a@b.test\r\n", 1, &["a@b.test"]),
            ("From: group: a@b.test, c@d.test;\r\n", 1, &["a@b.test", "c@d.test"]),
        ];
        for (header, fields, authors) in table {
            let facts = Facts::read(header.as_bytes());
            assert_eq!(
                (facts.from_fields, facts.authors.as_slice()),
                (fields, &authors.map_strings()[..]),
                "{header}"
            );
        }
    }

    trait MapStrings {
        fn map_strings(&self) -> Vec<String>;
    }

    impl MapStrings for &[&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }
}
