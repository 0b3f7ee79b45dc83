//! Sender rewriting, which iRedAPD has in the same process and we in one of its own.

use serde_json::Value;

use super::draft::Draft;
use super::installation;
use super::source::Source;

/// What policyd does not read; it reads srs_domain as well.
pub(super) const NAMES: [&str; 3] = ["srs_forward_port", "srs_reverse_port", "srs_secrets"];

/// What the names begin with that srsd needs.
const READ: [&str; 8] =
    ["srs_", "listen_address", "log_level", "SYSLOG_", "backend", "ldap_", "vmail_db_", "iredapd_db_"];

/// Whether iRedAPD rewrites senders: both are needed.
pub(super) fn is_on(source: &Source) -> bool {
    let has_secrets = matches!(source.value("srs_secrets"), Some(Value::Array(list)) if !list.is_empty());
    has_secrets && !source.text("srs_domain").is_empty()
}

/// The settings of srsd. Domains that are excluded stay in the table srs_exclude_domains.
pub(super) fn srsd(source: &Source) -> Draft {
    let mut draft = Draft::default();
    source.note_problems(|name| READ.iter().any(|begin| name.starts_with(begin)), &mut draft);
    if !is_on(source) {
        draft.note(
            "SRS is off in iRedAPD (srs_secrets or srs_domain is empty or could not be read): srsd rewrites with a secret \
             that it makes, or for the name of this host, where nothing else is set",
        );
    }
    let ports = [("listen_forward", "srs_forward_port", 7778), ("listen_reverse", "srs_reverse_port", 7779)];
    installation::listen(source, &ports, &mut draft);
    if !source.text("srs_domain").is_empty() {
        draft.set("srs_domain", source.text("srs_domain"), &source.origin("srs_domain"));
    }
    secrets(source, &mut draft);
    installation::log(source, &mut draft);
    installation::accounts(source, &mut draft);
    for database in ["vmail", "iredapd"] {
        installation::database(source, database, &mut draft);
    }
    draft.settle::<outrider_srsd::Settings>();
    draft
}

fn secrets(source: &Source, draft: &mut Draft) {
    let name = "srs_secrets";
    let Some(value) = source.value(name) else { return };
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let usable =
        |item: &&Value| item.as_str().is_some_and(|text| !text.is_empty() && !text.starts_with("file:"));
    let secrets: Vec<Value> = list.iter().filter(usable).cloned().collect();
    if secrets.len() < list.len() || !value.is_array() {
        draft.note(format!(
            "{}: {} of {} are taken over; the others are empty, no texts, or begin with \"file:\" and have to stand in a \
             file of their own",
            source.place(name),
            secrets.len(),
            list.len()
        ));
    }
    if !secrets.is_empty() {
        draft.set("secrets", secrets, &source.origin(name));
    }
}
