//! Reports of our own: to the sender, when some recipients of a mail got it and others were refused (contentfilter
//! sections 3.3 and 13). A client that has heard 250 will not report anything itself.

use crate::outcome::Outcome;
use crate::process::{Done, Incoming};
use crate::relay::Envelope;
use crate::store::Message;
use outrider_core::codec::smtp::command::{Body, Mail, Rcpt};
use outrider_core::codec::smtp::path::Path;
use outrider_core::codec::smtp::reply::Enhanced;
use outrider_core::codec::smtp::xtext;
use std::fmt::Write as _;

/// Most octets of the original header that are returned.
const MAX_RETURNED: usize = 64 * 1024;

/// A report ready to be sent.
pub struct Report {
    /// Null sender, the author of the mail as recipient.
    pub envelope: Envelope,
    /// Header fields of the report.
    pub header: Vec<u8>,
    /// The report: its body; the header above is sent in front of it.
    pub message: Message,
}

/// The report about refused recipients, or nothing when nobody wants one: null sender, or NOTIFY=NEVER (or without
/// FAILURE) for all of them.
pub fn about_refused(incoming: &Incoming, done: &Done, report_id: &str) -> Option<Report> {
    if incoming.mail.path.is_null() {
        return None;
    }
    let wanted = |recipient: &Rcpt| match recipient.notify.as_deref() {
        None => true,
        Some(list) => list.split(',').any(|word| word == "FAILURE"),
    };
    let refused: Vec<(&Rcpt, &Outcome)> = incoming
        .recipients
        .iter()
        .zip(&done.outcomes)
        .filter(|(recipient, outcome)| outcome.refused() && wanted(recipient))
        .collect();
    if refused.is_empty() {
        return None;
    }
    let host = &incoming.snapshot.hostname;
    let boundary = format!("----------=_{report_id}");
    let header = header(incoming, done, &boundary);
    let mut text = body(incoming, &refused, &boundary);
    returned_header(incoming.message.header(), &mut text);
    let _ = write!(text, "\r\n--{boundary}--\r\n");
    let stamp = jiff::Timestamp::from_second(incoming.arrived).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
    let address = incoming.mail.path.address();
    let envelope = Envelope {
        mail: Mail {
            path: Path::null(),
            body: Some(Body::SevenBit),
            envid: Some(format!("AM.{report_id}.{stamp}@{host}")),
            smtputf8: !address.is_ascii(),
            ..Mail::default()
        },
        recipients: vec![Rcpt {
            path: incoming.mail.path.clone(),
            notify: None,
            orcpt: Some(format!("rfc822;{}", xtext::encode(address.as_bytes()))),
        }],
        forwarded: None,
        separate_replies: false,
    };
    // The message consists of its body alone: header and empty line are written from `header`.
    let mut wire = b"\r\n".to_vec();
    wire.extend_from_slice(text.as_bytes());
    Some(Report { envelope, header, message: Message::from_text(wire) })
}

fn header(incoming: &Incoming, done: &Done, boundary: &str) -> Vec<u8> {
    let host = &incoming.snapshot.hostname;
    let relayed = done.outcomes.iter().any(Outcome::delivered);
    let subject = if relayed { "Delivery status notification" } else { "Undeliverable mail" };
    let to = if incoming.mail.path.address().is_ascii() {
        incoming.mail.path.to_string()
    } else {
        "undisclosed-recipients:;".to_owned()
    };
    format!(
        "From: \"Content-filter at {host}\" <postmaster@{host}>\r\n\
         To: {to}\r\n\
         Date: {}\r\n\
         Subject: {subject}, MTA-BLOCKED\r\n\
         Message-ID: <DSN{}@{host}>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
         Content-Transfer-Encoding: 8bit\r\n",
        incoming.date(),
        done.mail_id.id,
    )
    .into_bytes()
}

fn body(incoming: &Incoming, refused: &[(&Rcpt, &Outcome)], boundary: &str) -> String {
    let host = &incoming.snapshot.hostname;
    let date = incoming.date();
    let mut text = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         The mail system at {host} could not deliver your message to these\r\nrecipients; all others received it:\r\n"
    );
    for (recipient, outcome) in refused {
        let _ = write!(
            text,
            "\r\n{}\r\n    {}\r\n",
            ascii(&recipient.path.to_string()),
            ascii(&outcome.reply.to_string())
        );
    }
    let _ = write!(
        text,
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; {host}\r\nArrival-Date: {date}\r\n"
    );
    for (recipient, outcome) in refused {
        let status = outcome.reply.enhanced.unwrap_or(Enhanced(5, 0, 0));
        if let Some(original) = &recipient.orcpt {
            let _ = write!(text, "\r\nOriginal-Recipient: {}", ascii(original));
        }
        let _ = write!(
            text,
            "\r\nFinal-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {}\r\n\
             Last-Attempt-Date: {date}\r\nFinal-Log-ID: {}\r\n",
            ascii(&recipient.path.address()),
            ascii(&outcome.reply.to_string()),
            incoming.log_id,
        );
    }
    let _ = write!(
        text,
        "\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\
         Content-Disposition: inline\r\n\r\n"
    );
    text
}

/// The original header section, as much of it as fits, in lines of ASCII.
fn returned_header(original: &[u8], text: &mut String) {
    let end = original.len().min(MAX_RETURNED);
    for line in original[..end].split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            text.push_str(&ascii(&String::from_utf8_lossy(&line[..line.len().min(900)])));
            text.push_str("\r\n");
        }
    }
}

/// One line of printable ASCII: what came from outside must neither end a line nor need 8-bit transport.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c == '\t' || c.is_ascii_graphic() { c } else { '?' }).collect()
}
