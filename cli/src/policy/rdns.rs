//! `outrider wblist rdns`: reverse names of clients that are always or never accepted.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::desk::Desk;
use super::wblist::Colours;
use super::{input, provider};
use crate::exit;
use crate::failure::Outcome;
use crate::output::{Table, print};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the names
    List,
    /// Put names on a list, and take them off the opposite one
    Add {
        #[command(flatten)]
        colours: Colours,
        /// host.example.com for one name, .example.com for it and everything below
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Take names off their list
    Delete {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Blacklist the suffixes that iRedMail blacklists on a new server; names that are listed already stay as they are
    Seed {
        /// Only print them
        #[arg(long)]
        list: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(desk: Desk, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(desk).await,
        Verb::Add { colours, names } => {
            let white = colours.one()? == outrider_core::directory::write::Colour::White;
            let (names, invalid) = parsed(&names);
            let code = input::report_invalid(&invalid, FORMS);
            set(desk, &names, white, code).await
        }
        Verb::Delete { names } => delete(desk, &names).await,
        Verb::Seed { list: true } => {
            print(desk.json, &provider::REVERSE_NAMES, || provider::REVERSE_NAMES.join("\n"))?;
            Ok(0)
        }
        Verb::Seed { list: false } => {
            let known = desk.admin.rdns().all().await?;
            let new = |name: &&&str| !known.iter().any(|(listed, _)| listed == **name);
            let names: Vec<String> =
                provider::REVERSE_NAMES.iter().filter(new).map(|name| (*name).to_owned()).collect();
            set(desk, &names, false, 0).await
        }
    }
}

const FORMS: &str = "host name, or one with a dot before it";

fn parsed(typed: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut names, mut invalid) = (Vec::new(), Vec::new());
    for text in typed {
        match name(text) {
            Some(name) if names.contains(&name) => {}
            Some(name) => names.push(name),
            None => invalid.push(text.clone()),
        }
    }
    (names, invalid)
}

fn name(typed: &str) -> Option<String> {
    let name = typed.trim().trim_end_matches('.').to_lowercase();
    let labels = name.strip_prefix('.').unwrap_or(&name);
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    (name.len() <= 253 && labels.split('.').all(is_label)).then_some(name)
}

async fn list(desk: Desk) -> Outcome {
    #[derive(Serialize)]
    struct Entry {
        name: String,
        list: &'static str,
    }
    desk.say_where(desk.admin.iredapd());
    let entry = |(name, letter): (String, String)| Entry {
        name,
        list: match letter.as_str() {
            "W" => "whitelist",
            "B" => "blacklist",
            _ => "neither",
        },
    };
    let entries: Vec<Entry> = desk.admin.rdns().all().await?.into_iter().map(entry).collect();
    print(desk.json, &entries, || {
        let mut table = Table::new(&["LIST", "NAME"]);
        entries.iter().for_each(|entry| table.row(&[&entry.list, &entry.name]));
        table.to_string()
    })?;
    Ok(0)
}

async fn set(desk: Desk, names: &[String], white: bool, code: u8) -> Outcome {
    desk.say_where(desk.admin.iredapd());
    for name in names {
        desk.admin.rdns().set(name, white).await?;
    }
    let list = if white { "whitelist" } else { "blacklist" };
    print(desk.json, &json!({ "list": list, "added": names }), || match names {
        [] => "nothing to change".to_owned(),
        names => names.iter().map(|name| format!("{list}: added {name}\n")).collect(),
    })?;
    Ok(code)
}

async fn delete(desk: Desk, typed: &[String]) -> Outcome {
    let (names, invalid) = parsed(typed);
    let mut code = input::report_invalid(&invalid, FORMS);
    if !names.is_empty() {
        input::confirm(desk.yes, &format!("Take {} off its list?", names.join(", ")))?;
    }
    desk.say_where(desk.admin.iredapd());
    let mut removed = Vec::new();
    for name in names {
        if desk.admin.rdns().forget(&name).await? {
            removed.push(name);
        }
    }
    if removed.is_empty() && code == 0 {
        code = exit::NEGATIVE;
    }
    print(desk.json, &json!({ "removed": removed }), || match removed.as_slice() {
        [] => "nothing to change".to_owned(),
        removed => removed.iter().map(|name| format!("removed {name}\n")).collect(),
    })?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_they_are_typed() {
        for (typed, expected) in [
            (".Example.com", Some(".example.com")),
            ("host_1.example.com.", Some("host_1.example.com")),
            (".tld", Some(".tld")),
            (".", None),
            ("a..b", None),
            ("a b", None),
            ("*.example.com", None),
        ] {
            assert_eq!(name(typed).as_deref(), expected, "{typed}");
        }
        for suffix in provider::REVERSE_NAMES {
            assert_eq!(name(suffix).as_deref(), Some(*suffix));
        }
    }
}
