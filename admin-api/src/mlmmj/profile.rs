//! From the parameters of a request to changes of control files, and back from control files to parameters.
//!
//! Deciding what to write is pure: [`create`] and [`update`] look at the request only and return the changes in
//! the order in which they are to be applied. [`apply`] and [`read`] touch the files.
//!
//! No value can smuggle a second line into a file of one value, nor a second entry into a file of one entry a
//! line: control characters are dropped from such values, and entries that have to be addresses are checked.

use std::io;

use serde_json::{Map, Value};

use super::address::{ListAddress, parse_addresses};
use super::directory::Directory;
use super::parameter::{Kind, PARAMETERS, Parameter};
use crate::http::parameters::Parameters;

/// Largest control file that is read, in bytes.
const MAX_CONTROL_FILE: u64 = 1 << 20;

/// What becomes of a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// It holds this text.
    Text(String),
    /// It is there; if it was there before, its content stays.
    Present,
    /// It is not there.
    Absent,
    /// It holds at least one newline: the text part of a footer that is otherwise only HTML.
    AtLeastNewline,
    /// It is not there, unless the other footer needs it; then it is a single newline.
    AbsentUnlessHtml,
}

/// One change of one file below `control/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The file.
    pub(crate) file: &'static str,
    /// What becomes of it.
    pub(crate) content: Content,
}

/// Values that a new list gets where the request says nothing.
const DEFAULTS: &[(&str, &str)] = &[
    ("remove_headers", ""),
    ("custom_headers", ""),
    ("tocc", "yes"),
    ("moderate_non_subscriber_post", "no"),
    ("disable_retrieving_old_posts", "yes"),
    ("only_subscriber_can_get_old_posts", "yes"),
    ("notify_owner_when_sub_unsub", "no"),
    ("notify_sender_when_moderated", "no"),
    ("disable_archive", "no"),
    ("if_mod_send_only_mod_moderate", "yes"),
];

/// The changes that make a list of an empty `control/`.
pub(crate) fn create(list: &ListAddress, sent: &Parameters) -> Vec<Change> {
    let mut all = sent.clone();
    let postmaster = format!("postmaster@{}", list.domain());
    if !sent.contains("owners") {
        all.set_default("owner", &postmaster);
    }
    all.set_default("moderators", &postmaster);
    if !sent.is_yes("only_moderator_can_post") {
        all.set_default("only_subscriber_can_post", "yes");
    }
    if !sent.is_yes("only_subscriber_can_post") {
        all.set_default("only_moderator_can_post", "no");
    }
    for (name, value) in DEFAULTS {
        all.set_default(name, value);
    }
    all.set_default("extra_addresses", "");
    update(list, &all)
}

/// The changes for the parameters that were sent.
pub(crate) fn update(list: &ListAddress, sent: &Parameters) -> Vec<Change> {
    let mut changes = Vec::new();
    for parameter in PARAMETERS {
        if let Some(value) = sent.get(parameter.name) {
            changes.extend(change(list, parameter, value, sent));
        }
    }
    changes
}

fn change(list: &ListAddress, parameter: &Parameter, value: &str, sent: &Parameters) -> Vec<Change> {
    let one = |content| vec![Change { file: parameter.file, content }];
    let lines = |entries: Vec<String>| one(lines(&entries));
    match parameter.kind {
        Kind::Flag => flag(parameter, value, sent),
        Kind::Line => one(first_line(value).map_or(Content::Absent, |line| Content::Text(line + "\n"))),
        Kind::Size => one(size(value).map_or(Content::Absent, |bytes| Content::Text(format!("{bytes}\n")))),
        Kind::Addresses => {
            // `owners` is only another spelling; where both are sent, `owner` counts.
            if parameter.name == "owners" && sent.contains("owner") {
                return Vec::new();
            }
            let mut entries = written_addresses(value);
            entries.sort_unstable();
            lines(entries)
        }
        Kind::Moderators => lines(to_lines(&parse_addresses(value))),
        Kind::SubscriptionModerators => {
            let moderators = to_lines(&parse_addresses(value));
            match sent.get("moderate_subscription") {
                Some("yes") if moderators.is_empty() => one(Content::Text(String::new())),
                Some("yes") | None => lines(moderators),
                Some(_) => one(Content::Absent),
            }
        }
        Kind::CustomHeaders => one(Content::Text(custom_headers(list, value))),
        Kind::RemoveHeaders => {
            let mut entries: Vec<String> = value
                .split(',')
                .map(|entry| printable(entry).trim().to_owned())
                .filter(|entry| !entry.is_empty())
                .map(|entry| if entry.contains(':') { entry } else { entry + ":" })
                .collect();
            entries.sort_unstable();
            lines(entries)
        }
        Kind::ExtraAddresses => {
            let mut entries = written_addresses(value);
            entries.retain(|entry| !entry.eq_ignore_ascii_case(list.as_str()));
            entries.sort_unstable();
            entries.insert(0, list.to_string());
            lines(entries)
        }
        Kind::Text => footer(parameter, value),
    }
}

fn flag(parameter: &Parameter, value: &str, sent: &Parameters) -> Vec<Change> {
    let change = |file, content| Change { file, content };
    match (parameter.name, value) {
        // Both files in one go are decided by `subscription_moderators`.
        ("moderate_subscription", _) if sent.contains("subscription_moderators") => Vec::new(),
        ("moderate_subscription", "yes") => vec![change(parameter.file, Content::Present)],
        // Who may post is one of two; if both are asked for, the moderators win.
        ("only_subscriber_can_post", "yes") if sent.is_yes("only_moderator_can_post") => {
            vec![change("subonlypost", Content::Absent)]
        }
        ("only_subscriber_can_post", "yes") => {
            vec![change("subonlypost", Content::Text(String::new())), change("modonlypost", Content::Absent)]
        }
        ("only_moderator_can_post", "yes") => {
            vec![change("modonlypost", Content::Text(String::new())), change("subonlypost", Content::Absent)]
        }
        (_, "yes") => vec![change(parameter.file, Content::Text(String::new()))],
        (_, "no") => vec![change(parameter.file, Content::Absent)],
        _ => Vec::new(),
    }
}

/// alterMIME loses a message whose list has an HTML footer without a text footer.
fn footer(parameter: &Parameter, value: &str) -> Vec<Change> {
    let text = value.trim();
    let change = |file, content| Change { file, content };
    match (parameter.name, text.is_empty()) {
        ("footer_text", true) => vec![change("footer_text", Content::AbsentUnlessHtml)],
        (_, true) => vec![change(parameter.file, Content::Absent)],
        ("footer_html", false) => vec![
            change("footer_text", Content::AtLeastNewline),
            change("footer_html", Content::Text(format!("{text}\n"))),
        ],
        (_, false) => vec![change(parameter.file, Content::Text(format!("{text}\n")))],
    }
}

/// Header lines sent, without those that have a default, then the default ones.
fn custom_headers(list: &ListAddress, value: &str) -> String {
    let defaults = default_headers(list);
    let name_of = |header: &str| header.split(':').next().unwrap_or("").trim().to_lowercase();
    let reserved: Vec<String> = defaults.iter().map(|header| name_of(header)).collect();
    let mut headers: Vec<String> = value
        .split('\n')
        .map(|line| printable(line).trim().to_owned())
        .filter(|line| line.contains(':') && !reserved.contains(&name_of(line)))
        .collect();
    headers.sort_unstable();
    headers.extend(defaults);
    headers.join("\n") + "\n"
}

fn default_headers(list: &ListAddress) -> [String; 6] {
    let (local, domain) = (list.local(), list.domain());
    [
        "Precedence: bulk".to_owned(),
        format!("List-Id: <{list}>"),
        format!("Reply-To: {list}"),
        format!("List-Post: <mailto:{list}>"),
        format!("List-Subscribe: <mailto:{local}+subscribe@{domain}?subject=Subscribe>"),
        format!("List-Unsubscribe: <mailto:{local}+unsubscribe@{domain}?subject=Unsubscribe>"),
    ]
}

/// Bytes of a size limit; `None` for what is no number and for 0.
pub(crate) fn size(value: &str) -> Option<i64> {
    value.trim().parse().ok().filter(|bytes| *bytes > 0)
}

fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || *character == '\t').collect()
}

fn first_line(value: &str) -> Option<String> {
    let line = printable(value.lines().next().unwrap_or(""));
    (!line.is_empty()).then_some(line)
}

/// Valid addresses in the spelling they were sent in.
fn written_addresses(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(str::trim)
        .filter(|entry| ListAddress::parse(entry).is_some())
        .map(str::to_owned)
        .collect()
}

fn to_lines(addresses: &[ListAddress]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A file of one entry a line; an empty list has no file.
pub(crate) fn lines(entries: &[String]) -> Content {
    if entries.is_empty() { Content::Absent } else { Content::Text(entries.join("\n") + "\n") }
}

/// Makes the changes in `control`, one after the other; the first failure ends it. `scratch` takes the temporary
/// files.
pub(crate) fn apply(control: &Directory, scratch: &Directory, changes: &[Change]) -> io::Result<()> {
    for change in changes {
        let file = change.file;
        match &change.content {
            Content::Text(text) => control.replace(scratch, file, text.as_bytes())?,
            Content::Present if control.exists(file)? => {}
            Content::Present => control.replace(scratch, file, b"")?,
            Content::AtLeastNewline => {
                let empty = control.read(file, MAX_CONTROL_FILE)?.is_none_or(|text| text.is_empty());
                if empty {
                    control.replace(scratch, file, b"\n")?;
                }
            }
            Content::AbsentUnlessHtml if control.exists("footer_html")? => {
                control.replace(scratch, file, b"\n")?;
            }
            Content::Absent | Content::AbsentUnlessHtml => {
                if control.remove(file)? {
                    control.sync()?;
                }
            }
        }
    }
    Ok(())
}

/// Whether every change only takes files away, which succeeds for a list that does not exist, too.
pub(crate) fn only_removes(changes: &[Change]) -> bool {
    changes.iter().all(|change| matches!(change.content, Content::Absent | Content::AbsentUnlessHtml))
}

/// The values of `parameters` as the API shows them.
pub(crate) fn read(
    list: &ListAddress,
    control: Option<&Directory>,
    parameters: &[Parameter],
) -> io::Result<Map<String, Value>> {
    let mut values = Map::new();
    for parameter in parameters {
        let text = match control {
            Some(control) => read_text(control, parameter.file)?,
            None => None,
        };
        values.insert(parameter.name.to_owned(), value(list, parameter.kind, text));
    }
    Ok(values)
}

fn value(list: &ListAddress, kind: Kind, text: Option<String>) -> Value {
    let present = text.is_some();
    let text = text.unwrap_or_default();
    match kind {
        Kind::Flag => Value::from(if present { "yes" } else { "no" }),
        Kind::Line | Kind::Size => Value::from(text.lines().next().unwrap_or("")),
        Kind::Text => Value::from(text.trim()),
        Kind::ExtraAddresses => {
            let mut entries = entries(&text);
            entries.retain(|entry| !entry.eq_ignore_ascii_case(list.as_str()));
            Value::from(entries)
        }
        _ => Value::from(entries(&text)),
    }
}

/// The entries of a file of one entry a line, sorted; blank lines are skipped.
pub(crate) fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    entries.sort_unstable();
    entries
}

/// The text of a control file; `None` if it is missing.
pub(crate) fn read_text(control: &Directory, file: &str) -> io::Result<Option<String>> {
    let Some(bytes) = control.read(file, MAX_CONTROL_FILE)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ListAddress {
        ListAddress::parse("list@example.com").unwrap()
    }

    fn text(file: &'static str, text: &str) -> Change {
        Change { file, content: Content::Text(text.to_owned()) }
    }

    fn absent(file: &'static str) -> Change {
        Change { file, content: Content::Absent }
    }

    #[test]
    fn single_parameters() {
        for (name, value, expected) in [
            ("close_list", "yes", vec![text("closedlist", "")]),
            ("close_list", "no", vec![absent("closedlist")]),
            ("close_list", "YES", vec![]),
            ("max_message_size", "10240", vec![text("maxmailsize", "10240\n")]),
            ("max_message_size", "10M", vec![absent("maxmailsize")]),
            ("max_message_size", "0", vec![absent("maxmailsize")]),
            ("max_message_size", "-5", vec![absent("maxmailsize")]),
            ("subject_prefix", "[x] ", vec![text("prefix", "[x] \n")]),
            ("subject_prefix", "", vec![absent("prefix")]),
            ("relay_host", "a\nb", vec![text("relayhost", "a\n")]),
            ("relay_host", "a\rb\0", vec![text("relayhost", "ab\n")]),
            ("owner", " b@x.example , A@x.example,bad,", vec![text("owner", "A@x.example\nb@x.example\n")]),
            ("owner", "a@x.example\nevil@x.example", vec![absent("owner")]),
            ("moderators", "M@X.example,m@x.example", vec![text("moderators", "m@x.example\nm@x.example\n")]),
            ("moderators", "", vec![absent("moderators")]),
            ("remove_headers", "X-A,X-B: ,\n", vec![text("delheaders", "X-A:\nX-B:\n")]),
            ("extra_addresses", "", vec![text("listaddress", "list@example.com\n")]),
            (
                "extra_addresses",
                "b@x.example,LIST@example.com,a@x.example",
                vec![text("listaddress", "list@example.com\na@x.example\nb@x.example\n")],
            ),
            ("moderate_subscription", "yes", vec![Change { file: "submod", content: Content::Present }]),
            ("moderate_subscription", "maybe", vec![]),
            ("subscription_moderators", "", vec![absent("submod")]),
            ("only_subscriber_can_post", "yes", vec![text("subonlypost", ""), absent("modonlypost")]),
            ("footer_text", " a\nb \n", vec![text("footer_text", "a\nb\n")]),
            ("unknown", "x", vec![]),
        ] {
            assert_eq!(update(&list(), &[(name, value)].into()), expected, "{name}={value:?}");
        }
    }

    #[test]
    fn parameters_that_depend_on_each_other() {
        for (sent, expected) in [
            (
                Parameters::from([("only_moderator_can_post", "yes"), ("only_subscriber_can_post", "yes")]),
                vec![text("modonlypost", ""), absent("subonlypost"), absent("subonlypost")],
            ),
            (
                [("moderate_subscription", "yes"), ("subscription_moderators", "s@x.example")].into(),
                vec![text("submod", "s@x.example\n")],
            ),
            (
                [("moderate_subscription", "yes"), ("subscription_moderators", "")].into(),
                vec![text("submod", "")],
            ),
            (
                [("moderate_subscription", "no"), ("subscription_moderators", "s@x.example")].into(),
                vec![absent("submod")],
            ),
            (
                [("owner", "a@x.example"), ("owners", "b@x.example")].into(),
                vec![text("owner", "a@x.example\n")],
            ),
        ] {
            assert_eq!(update(&list(), &sent), expected, "{sent:?}");
        }
    }

    #[test]
    fn custom_headers_keep_the_default_ones() {
        let value = "X-B: 2\r\nX-A:1\nbroken\nreply-to: me@x.example\nPRECEDENCE: list";
        assert_eq!(
            custom_headers(&list(), value),
            "X-A:1\nX-B: 2\nPrecedence: bulk\nList-Id: <list@example.com>\nReply-To: list@example.com\n\
             List-Post: <mailto:list@example.com>\n\
             List-Subscribe: <mailto:list+subscribe@example.com?subject=Subscribe>\n\
             List-Unsubscribe: <mailto:list+unsubscribe@example.com?subject=Unsubscribe>\n"
        );
    }

    /// `control/` of a new list after applying `sent`.
    fn created(sent: &Parameters) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let control = Directory::open_root(folder.path()).unwrap();
        apply(&control, &control, &create(&list(), sent)).unwrap();
        (folder, control)
    }

    #[test]
    fn a_new_list_has_the_default_files() {
        let (_folder, control) = created(&Parameters::default());
        let expected = [
            "customheaders",
            "ifmodsendonlymodmoderate",
            "listaddress",
            "moderators",
            "noget",
            "owner",
            "subonlyget",
            "subonlypost",
            "tocc",
        ];
        assert_eq!(control.names().unwrap(), expected);
        assert_eq!(read_text(&control, "owner").unwrap().unwrap(), "postmaster@example.com\n");
        let (_folder, control) = created(&[("only_moderator_can_post", "yes")].into());
        assert!(control.exists("modonlypost").unwrap() && !control.exists("subonlypost").unwrap());
    }

    #[test]
    fn an_html_footer_never_stands_alone() {
        let (_folder, control) = created(&[("footer_html", "<p>bye</p>")].into());
        let change = |sent: Parameters| apply(&control, &control, &update(&list(), &sent)).unwrap();
        let footers =
            || (read_text(&control, "footer_text").unwrap(), read_text(&control, "footer_html").unwrap());
        let html = Some("<p>bye</p>\n".to_owned());
        assert_eq!(footers(), (Some("\n".to_owned()), html.clone()));
        change([("footer_text", "x")].into());
        assert_eq!(footers(), (Some("x\n".to_owned()), html.clone()));
        change([("footer_text", "")].into());
        assert_eq!(footers(), (Some("\n".to_owned()), html));
        change([("footer_html", "")].into());
        change([("footer_text", "")].into());
        assert_eq!(footers(), (None, None));
    }

    #[test]
    fn reading_hand_written_files() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("prefix", "[p] \ncomment\n"),
            ("owner", "\nB@x.example\n\na@x.example \n"),
            ("footer_text", "a\nb\n\n"),
            ("listaddress", "List@example.com\nb@x.example\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let control = Directory::open_root(folder.path()).unwrap();
        let names = Some("subject_prefix,owner,footer_text,extra_addresses,close_list,moderators");
        let values = read(&list(), Some(&control), &super::super::parameter::select(names)).unwrap();
        assert_eq!(
            Value::from(values),
            serde_json::json!({
                "subject_prefix": "[p] ", "owner": ["B@x.example", "a@x.example"], "footer_text": "a\nb",
                "extra_addresses": ["b@x.example"], "close_list": "no", "moderators": [],
            })
        );
    }
}
