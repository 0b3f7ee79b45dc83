//! The log line of a message: Amavisd's, or key=value (contentfilter section 14).

use crate::process::{Done, Incoming};
use crate::settings::LogTemplate;
use crate::trace::{self, Hop};
use outrider_core::codec::smtp::path::Path;
use outrider_core::codec::smtp::xforward::Attribute;
use outrider_core::log;
use outrider_core::settings::LogStyle;

/// Octets of an Amavisd line; what is longer goes on in the next one.
const MAX_LINE: usize = 980;

/// Writes the lines of a finished message: one for the recipients that got it, one for those that did not.
pub fn write(incoming: &Incoming, done: &Done) {
    for passed in [true, false] {
        let recipients: Vec<&Path> = incoming
            .recipients
            .iter()
            .zip(&done.outcomes)
            .filter(|(_, outcome)| outcome.delivered() == passed)
            .map(|(recipient, _)| &recipient.path)
            .collect();
        if recipients.is_empty() {
            continue;
        }
        if log::style() == LogStyle::Amavis {
            let text = amavis(incoming, done, &recipients, passed);
            for line in split(&text, &incoming.log_id) {
                tracing::info!(line = line.as_str());
            }
        } else {
            key_value(incoming, done, &recipients, passed);
        }
    }
}

fn key_value(incoming: &Incoming, done: &Done, recipients: &[&Path], passed: bool) {
    let mut reasons = done.outcomes.iter().filter(|outcome| outcome.delivered() == passed);
    let reply = reasons.next().map(|outcome| outcome.reply.to_string()).unwrap_or_default();
    let forwarded = &incoming.client.forwarded;
    tracing::info!(
        event = if passed { "passed" } else { "blocked" },
        queue_id = forwarded.text(Attribute::Ident).as_deref(),
        message_id = done.facts.message_id.as_deref(),
        client = forwarded
            .text(Attribute::Addr)
            .or_else(|| incoming.client.peer.map(|ip| ip.to_string()))
            .as_deref(),
        helo = forwarded.text(Attribute::Helo).as_deref(),
        sender = incoming.mail.path.to_string().as_str(),
        rcpt = recipients.iter().map(|path| path.to_string()).collect::<Vec<_>>().join(",").as_str(),
        nrcpt = recipients.len(),
        size = done.size,
        action = category(done),
        reason = reply.as_str(),
        elapsed_ms = done.elapsed_ms,
        id = incoming.log_id.as_str(),
        mail_id = done.mail_id.id.as_str(),
        bank = incoming.bank.path.as_str(),
        dkim_sd = done.verified().as_str(),
        dkim_new = done.signed.join(",").as_str(),
    );
}

/// What kind of mail it was: the highest category.
fn category(done: &Done) -> &'static str {
    if done.outcomes.iter().all(|outcome| outcome.delivered()) { "CLEAN" } else { "MTA-BLOCKED" }
}

fn amavis(incoming: &Incoming, done: &Done, recipients: &[&Path], passed: bool) -> String {
    let verbose = incoming.snapshot.settings.log_templ == LogTemplate::Verbose;
    let forwarded = &incoming.client.forwarded;
    let hops = trace::public_hops(client_hop(incoming), &done.facts.received);
    let word = if passed { "Passed" } else { "Blocked" };
    let mut line = format!("{word} {} {{{}}},", category(done), actions(incoming, done));
    for part in [incoming.bank.path.as_str(), if incoming.bank.originating { "LOCAL" } else { "" }] {
        if !part.is_empty() {
            line.push_str(&format!(" {part}"));
        }
    }
    let address = incoming.client_address().map(|ip| ip.to_string()).unwrap_or_default();
    line.push_str(&format!(" [{address}]"));
    if let Some(port) = forwarded.text(Attribute::Port) {
        line.push_str(&format!(":{port}"));
    }
    if let Some(oldest) = hops.last() {
        line.push_str(&format!(" [{}]", oldest.address));
    }
    if verbose {
        let theirs = forwarded.text(Attribute::Proto).unwrap_or_default();
        line.push_str(&format!(" {}/{}", word_of(&theirs), incoming.client.protocol));
    }
    let shown: Vec<String> = recipients.iter().map(|path| shown(path)).collect();
    line.push_str(&format!(" {} -> {}", self::shown(&incoming.mail.path), shown.join(",")));
    if verbose {
        let trace: Vec<String> = hops.iter().map(Hop::to_string).collect();
        line.push_str(&format!(", ({})", trace.join(" < ")));
    }
    let mut add = |name: &str, value: &str| line.push_str(&format!(", {name}{value}"));
    if let Some(ident) = forwarded.text(Attribute::Ident) {
        add("Queue-ID: ", &word_of(&ident));
    }
    if let Some(id) = &done.facts.message_id {
        add("Message-ID: ", &word_of(id));
    }
    add("mail_id: ", &done.mail_id.id);
    if verbose && let Some(digest) = &done.body_digest {
        add("b: ", digest);
    }
    add("Hits: ", "-");
    add("size: ", &done.size.to_string());
    let queued = crate::outcome::queued_as(&done.outcomes);
    if passed && !queued.is_empty() {
        add("queued_as: ", &queued);
    }
    if verbose {
        add_details(&mut add, incoming, done);
    }
    let verified = done.verified();
    if !verified.is_empty() {
        add("dkim_sd=", &verified);
    }
    if !done.signed.is_empty() {
        add("dkim_new=", &done.signed.join(","));
    }
    add(&done.elapsed_ms.to_string(), " ms");
    line
}

/// What iRedMail's template shows beyond the short one.
fn add_details(add: &mut impl FnMut(&str, &str), incoming: &Incoming, done: &Done) {
    let facts = &done.facts;
    if let (Some(raw), Some(decoded)) = (&facts.subject, &facts.subject_decoded) {
        let plain = |text: &str| cut(&text.replace('"', ""), 100).to_owned();
        let more = if raw == decoded { String::new() } else { format!(" (raw: {})", plain(raw)) };
        add("Subject: ", &format!("\"{}{more}\"", plain(decoded)));
    }
    let authors: Vec<String> = facts.authors.iter().map(|author| format!("<{}>", word_of(author))).collect();
    let by_author = done.checked.iter().any(|check| facts.authors.iter().any(|author| check.is_by(author)));
    add("From: ", &format!("{}{}", authors.join(",_"), if by_author { " (dkim:AUTHOR)" } else { "" }));
    if let Some((name, agent)) = &facts.user_agent {
        add(&format!("{name}: "), &word_of(agent));
    }
    if incoming.client.forwarded.helo_named() {
        let helo = incoming.client.forwarded.text(Attribute::Helo).unwrap_or_default();
        add("helo=", &word_of(&helo));
    }
    let identities: Vec<&str> = done
        .checked
        .iter()
        .filter(|check| check.passed())
        .filter_map(|check| check.identity.as_deref())
        .collect();
    if !identities.is_empty() {
        add("dkim_i=", &identities.join(","));
    }
}

/// The first client as XFORWARD told it.
fn client_hop(incoming: &Incoming) -> Option<Hop> {
    let forwarded = &incoming.client.forwarded;
    Some(Hop {
        with: forwarded.text(Attribute::Proto).map(|proto| word_of(&proto)).unwrap_or_default(),
        address: forwarded.address()?,
        port: forwarded.text(Attribute::Port).and_then(|port| port.parse().ok()),
    })
}

/// `RelayedInbound` and the like: what was done and in which direction, each once, sorted.
fn actions(incoming: &Incoming, done: &Done) -> String {
    let mut words: Vec<String> = incoming
        .recipients
        .iter()
        .zip(&done.outcomes)
        .map(|(recipient, outcome)| {
            let direction = match (incoming.bank.originating, incoming.snapshot.is_local(&recipient.path)) {
                (false, true) => "Inbound",
                (true, true) => "Internal",
                (true, false) => "Outbound",
                (false, false) => "OpenRelay",
            };
            let action = if outcome.delivered() {
                "Relayed"
            } else if outcome.refused() {
                "Rejected"
            } else {
                "TempFailed"
            };
            format!("{action}{direction}")
        })
        .collect();
    words.sort();
    words.dedup();
    words.join(",")
}

/// An address as Amavisd logs it: the domain in lower case.
fn shown(path: &Path) -> String {
    let lower = Path { domain: path.domain_lower().into_bytes(), ..path.clone() };
    lower.to_string()
}

/// Text of outside without blanks, so that it cannot be taken for the next part of the line.
fn word_of(text: &str) -> String {
    text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

/// At most so many octets.
fn cut(text: &str, octets: usize) -> &str {
    let mut end = text.len().min(octets);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `(LOGID) text`, cut into lines that Amavisd's readers join again at the `...`.
fn split(text: &str, log_id: &str) -> Vec<String> {
    let prefix = format!("({log_id}) ");
    let (mut lines, mut rest, mut first) = (Vec::new(), text, true);
    loop {
        let dots = if first { "" } else { "..." };
        let room = MAX_LINE - prefix.len() - dots.len() - "...".len();
        let part = cut(rest, room);
        rest = &rest[part.len()..];
        let end = if rest.is_empty() { "" } else { "..." };
        lines.push(format!("{prefix}{dots}{part}{end}"));
        if rest.is_empty() {
            return lines;
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_split_and_can_be_joined() {
        for text in ["short".to_owned(), "abc ".repeat(1000), "é".repeat(2000)] {
            let lines = split(&text, "00077-01");
            let mut joined = String::new();
            for (at, line) in lines.iter().enumerate() {
                assert!(line.len() <= MAX_LINE);
                let mut part = line.strip_prefix("(00077-01) ").expect("the log id");
                if at > 0 {
                    part = part.strip_prefix("...").expect("dots");
                }
                if at + 1 < lines.len() {
                    part = part.strip_suffix("...").expect("dots");
                }
                joined.push_str(part);
            }
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn threat_t52_outside_text_cannot_forge_parts() {
        assert_eq!(word_of("a, Hits: 9\r\n\x1b[31m"), "a,_Hits:_9___[31m");
        assert_eq!(cut("Grüße", 3), "Gr");
    }
}
