//! `outrider throttle show`: which limits hold for somebody, and why.

use std::fmt::Write as _;
use std::net::IpAddr;

use outrider_core::directory::write::{AccountKey, ThrottleKind};
use outrider_core::lookup::Form;
use outrider_policyd::Settings;
use outrider_policyd::admin::{Counter, Effect, Explanation, Part, Subject};
use outrider_policyd::limit::Limit;
use outrider_policyd::store::throttle::Limits;
use serde_json::{Value, json};

use super::desk::Desk;
use super::throttle::{Kind, kinds, period, value};
use crate::failure::{Failure, Outcome};
use crate::output::{moment, print, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also look at the limits of this client
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// Only limits of this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// user@domain; or a client's address, to see its limits alone
    address: String,
}

/// Explains the limits.
pub(super) async fn show(desk: Desk, arguments: &Arguments) -> Outcome {
    let subject = subject(arguments, &desk.settings)?;
    desk.say_where_both();
    let mut explanations = Vec::new();
    for kind in kinds(arguments.kind) {
        let subject = match kind {
            // A login keeps its extension.
            ThrottleKind::Outbound => subject.clone(),
            _ => Subject { user: desk.settings.without_extension(&subject.user), ..subject.clone() },
        };
        explanations.push((desk.admin.explain_throttle(kind, &subject).await?, subject));
    }
    let settings = &desk.settings;
    let data: Vec<Value> = explanations.iter().map(|(one, whose)| as_json(one, whose, settings)).collect();
    print(desk.json, &data, || {
        let mut text: String = explanations.iter().map(|(one, whose)| as_text(one, whose)).collect();
        if subject.client.is_empty() {
            text += "Limits of clients are left out: name one with --client.\n";
        }
        for (setting, what) in exemptions(settings) {
            let _ = writeln!(text, "Exempt by the settings: {what} ({setting}).");
        }
        text
    })?;
    Ok(0)
}

fn subject(arguments: &Arguments, settings: &Settings) -> Result<Subject, Failure> {
    let client = || arguments.client.map(|ip| ip.to_string()).unwrap_or_default();
    let key = AccountKey::parse_as(&arguments.address, settings.reading());
    match key.as_ref().map(|key| (key.as_str(), key.form())) {
        Some((ip, Form::Ip)) if arguments.client.is_none() => {
            Ok(Subject { user: String::new(), client: ip.to_owned() })
        }
        Some((user, Form::Address)) => Ok(Subject { user: user.to_owned(), client: client() }),
        _ => {
            let typed = printable(&arguments.address);
            Err(Failure::data(format!("\"{typed}\" is neither user@domain nor a client's address")))
        }
    }
}

fn row_json(row: &Limits) -> Value {
    json!({ "id": row.id, "account": row.account, "priority": row.priority, "period": row.period })
}

fn counter_of<'a>(explanation: &'a Explanation, effect: &Effect) -> Option<&'a Counter> {
    let row = explanation.rows.get(effect.row?).filter(|_| effect.limit.is_counted())?;
    explanation.counters.iter().find(|counter| counter.tracked.tid == row.id)
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Supplies => "supplies",
        Part::Inherits => "inherits",
        Part::Beaten => "beaten",
        Part::Ignored => "ignored",
    }
}

fn as_json(explanation: &Explanation, subject: &Subject, settings: &Settings) -> Value {
    let limit = |effect: &Effect| {
        let rows = explanation.rows.iter().enumerate().map(|(place, row)| {
            let mut object = row_json(row);
            object["value"] = effect.limit.of(row).into();
            object["part"] = part_name(explanation.part(effect.limit, place)).into();
            object
        });
        let counter = counter_of(explanation, effect).map(|counter| {
            json!({
                "key": counter.tracked.key,
                "counted": counter.counted.map_or(0, |counted| amount(effect.limit, counted)),
                "since": counter.counted.map(|counted| counted.since),
                "until": counter.counted.map(|counted| counted.until),
            })
        });
        json!({
            "limit": effect.limit.name(),
            "value": effect.value,
            "from": effect.row.and_then(|place| explanation.rows.get(place)).map(row_json),
            "rows": rows.collect::<Vec<_>>(),
            "counter": counter,
        })
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let applies = |(setting, _): &(&str, &str)| {
        *setting != LOCAL_RECIPIENT || explanation.kind == ThrottleKind::Inbound
    };
    let exemption = |(setting, what)| json!({ "what": what, "by": setting });
    json!({
        "kind": explanation.kind.name(),
        "address": some(&subject.user),
        "client": some(&subject.client),
        "alias_of": explanation.real_user,
        "limits": explanation.limits.iter().map(limit).collect::<Vec<_>>(),
        "exempt": exemptions(settings).into_iter().filter(applies).map(exemption).collect::<Vec<_>>(),
    })
}

fn amount(limit: Limit, counted: outrider_policyd::admin::Counted) -> i64 {
    if limit == Limit::MaxMsgs { counted.messages } else { counted.bytes }
}

fn as_text(explanation: &Explanation, subject: &Subject) -> String {
    let who = match (subject.user.as_str(), subject.client.as_str()) {
        ("", client) => client.to_owned(),
        (user, "") => user.to_owned(),
        (user, client) => format!("{user} at {client}"),
    };
    let mut text = format!("{} limits of {who}\n", explanation.kind.name());
    if let Some(real) = &explanation.real_user {
        let _ = writeln!(text, "  also looked up as {}", printable(real));
    }
    if explanation.rows.is_empty() {
        text += "  none: no row covers this\n\n";
        return text;
    }
    for effect in &explanation.limits {
        let supplier = effect.row.and_then(|place| explanation.rows.get(place));
        let _ = match (effect.value, supplier) {
            (Some(number), Some(row)) => {
                let within = match effect.limit.is_counted() {
                    true => format!(" in {}", period(row.period)),
                    false => String::new(),
                };
                writeln!(text, "  {:<10} {}{within}, from {}", effect.limit.name(), value(number), named(row))
            }
            _ => writeln!(text, "  {:<10} unlimited: no row says anything", effect.limit.name()),
        };
        for (place, row) in explanation.rows.iter().enumerate() {
            let said = value(effect.limit.of(row));
            let _ = match explanation.part(effect.limit, place) {
                Part::Supplies => Ok(()),
                Part::Inherits => writeln!(text, "{:13}left open by {}", "", named(row)),
                Part::Beaten => writeln!(text, "{:13}in vain: {said}, from {}", "", named(row)),
                Part::Ignored => writeln!(text, "{:13}without a period: {said}, from {}", "", named(row)),
            };
        }
        if let Some(counter) = counter_of(explanation, effect) {
            let key = printable(&counter.tracked.key);
            let _ = match counter.counted {
                None => writeln!(text, "{:13}counted: nothing in this period, under {key}", ""),
                Some(counted) => writeln!(
                    text,
                    "{:13}counted: {}, under {key}, from {} to {} UTC",
                    "",
                    amount(effect.limit, counted),
                    moment(counted.since),
                    moment(counted.until)
                ),
            };
        }
    }
    text + "\n"
}

fn named(row: &Limits) -> String {
    format!("row {} of {}, priority {}", row.id, printable(&row.account), row.priority)
}

const LOCAL_RECIPIENT: &str = "throttle.bypass_local_recipient";

/// What the settings let pass without any limit: the setting, and whom it means.
fn exemptions(settings: &Settings) -> Vec<(&'static str, &'static str)> {
    let throttle = &settings.throttle;
    [
        (throttle.bypass_same_domain, ("throttle.bypass_same_domain", "mail within one domain")),
        (throttle.bypass_mynetworks, ("throttle.bypass_mynetworks", "clients in mynetworks")),
        (throttle.bypass_local_recipient, (LOCAL_RECIPIENT, "inbound limits when the sender has logged in")),
    ]
    .into_iter()
    .filter_map(|(on, exemption)| on.then_some(exemption))
    .collect()
}

#[cfg(test)]
mod tests {
    use outrider_policyd::settings::InvalidAddress;

    use super::*;

    #[test]
    fn who_is_meant() {
        let mut settings = Settings::default();
        let given = |settings: &Settings, address: &str, client: Option<&str>| {
            let client = client.map(|ip| ip.parse().unwrap());
            let arguments = Arguments { client, kind: None, address: address.to_owned() };
            subject(&arguments, settings).ok().map(|subject| (subject.user, subject.client))
        };
        let of = |address: &str, client: Option<&str>| given(&settings, address, client);
        let pair = |user: &str, client: &str| Some((user.to_owned(), client.to_owned()));
        assert_eq!(of("A+box@example.com", None), pair("a+box@example.com", ""));
        assert_eq!(of("a@example.com", Some("192.0.2.7")), pair("a@example.com", "192.0.2.7"));
        assert_eq!(of("192.0.2.7", None), pair("", "192.0.2.7"));
        assert_eq!(of("192.0.2.7", Some("192.0.2.7")), None);
        assert_eq!(of("@example.com", None), None);
        assert_eq!(of("o'brien@example.com", None), None, "no limit holds for it");
        settings.invalid_address = InvalidAddress::Check;
        assert_eq!(given(&settings, "O'Brien+x@example.com", None), pair("o'brien+x@example.com", ""));
        assert_eq!(given(&settings, "@example.com", None), None);
    }
}
