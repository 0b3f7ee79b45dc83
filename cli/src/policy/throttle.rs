//! `outrider throttle`: limits on what an account may send and receive.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use outrider_core::directory::write::{AccountKey, Throttle, ThrottleKind};
use outrider_core::lookup::Form;
use outrider_core::settings::Interval;
use outrider_policyd::Settings;
use serde::Serialize;
use serde_json::json;

use super::desk::{self, Desk, Place};
use super::{input, throttle_show};
use crate::exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, print, printable};

/// Limits on message size, recipients, messages and bytes of a period
///
/// A number may be -1 or "inherit" (a less telling row decides), 0 or "unlimited", or a limit. Works on the database
/// itself (and the Valkey server, where counters are kept on one), with the settings of policyd; no daemon has to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the limits
    List {
        /// Only those of this kind
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
    /// Explain which limits hold for an address, which rows they come from, and what has been counted
    Show(throttle_show::Arguments),
    /// Set limits of an account; what is not named stays as it was, or is inherited
    Set(Set),
    /// Remove the limits of an account together with what was counted under them
    Delete {
        /// Only those of this kind
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        #[arg(help = ACCOUNTS)]
        account: String,
    },
    /// Give every row the priority of its account's form (as fix_throttle_priority of iRedAPD)
    FixPriority,
    /// Forget what has been counted for a user or a client, so that a new period begins
    Reset {
        /// Only under limits of this kind
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        /// user@domain, or the address of a client
        address: String,
    },
}

const ACCOUNTS: &str =
    "user@domain, @domain, @.domain, @. (everybody), client's address, a.b.c.*, or @ip (every client)";

/// Whose mail a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Mail that our users send.
    Outbound,
    /// Mail that our users receive.
    Inbound,
    /// Mail that others send.
    External,
}

impl Kind {
    pub(crate) fn of(self) -> ThrottleKind {
        match self {
            Kind::Outbound => ThrottleKind::Outbound,
            Kind::Inbound => ThrottleKind::Inbound,
            Kind::External => ThrottleKind::External,
        }
    }
}

/// The one that was named, or all.
pub(crate) fn kinds(kind: Option<Kind>) -> Vec<ThrottleKind> {
    kind.map_or(ThrottleKind::ALL.to_vec(), |kind| vec![kind.of()])
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Mail that our users send, that they receive, or that others send
    #[arg(long, value_enum)]
    kind: Kind,
    /// The time in which messages and bytes are counted, such as 1h; needed for a new row
    #[arg(long)]
    period: Option<Interval>,
    /// Largest message, such as 50MiB
    #[arg(long, value_parser = input::limit, allow_hyphen_values = true, value_name = "BYTES")]
    msg_size: Option<i64>,
    /// Recipients of one message
    #[arg(long, value_parser = input::limit, allow_hyphen_values = true, value_name = "N")]
    max_rcpts: Option<i64>,
    /// Messages of a period, counted once for each recipient
    #[arg(long, value_parser = input::limit, allow_hyphen_values = true, value_name = "N")]
    max_msgs: Option<i64>,
    /// Bytes of a period
    #[arg(long, value_parser = input::limit, allow_hyphen_values = true, value_name = "BYTES")]
    max_quota: Option<i64>,
    #[arg(help = ACCOUNTS)]
    account: String,
}

/// Runs the verb.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { place, verb } = arguments;
    desk::run(&place, async |desk| match verb {
        Verb::List { kind } => list(desk, kind).await,
        Verb::Show(arguments) => throttle_show::show(desk, &arguments).await,
        Verb::Set(set) => set_limits(desk, &set).await,
        Verb::Delete { kind, account } => delete(desk, &account, kind).await,
        Verb::FixPriority => fix_priority(desk).await,
        Verb::Reset { kind, address } => reset(desk, &address, kind).await,
    })
}

/// Networks and `user@*` are not looked up, and addresses without their extension, unless they are logins.
fn account(typed: &str, kind: Kind, settings: &Settings) -> Result<AccountKey, Failure> {
    let wanted = |key: &AccountKey| match key.form() {
        Form::Address => kind == Kind::Outbound || !input::has_extension(settings, key),
        form => form.covers_addresses() || matches!(form, Form::Ip | Form::WildcardIp | Form::AtIp),
    };
    let forms = "account of such limits: write user@domain (with an extension only if it is a login), @domain, @.domain, \
                 @., an address, a.b.c.* or @ip";
    input::key(typed, settings.reading(), wanted, forms)
}

#[derive(Serialize)]
struct Limits {
    id: i64,
    account: String,
    kind: String,
    priority: i64,
    period: i64,
    msg_size: i64,
    max_rcpts: i64,
    max_msgs: i64,
    max_quota: i64,
}

impl Limits {
    fn read(row: &outrider_core::sql::Row) -> Limits {
        let number = |name, default| row.int(name).unwrap_or(default);
        Limits {
            id: number("id", 0),
            account: row.string("account").unwrap_or_default(),
            kind: row.string("kind").unwrap_or_default(),
            priority: number("priority", 0),
            period: number("period", 0),
            msg_size: number("msg_size", -1),
            max_rcpts: number("max_rcpts", -1),
            max_msgs: number("max_msgs", -1),
            max_quota: number("max_quota", -1),
        }
    }
}

async fn list(desk: Desk, kind: Option<Kind>) -> Outcome {
    desk.say_where(desk.admin.iredapd());
    let rows = desk.admin.rules().throttles().await?;
    let mut limits: Vec<Limits> = rows.iter().map(Limits::read).collect();
    if let Some(kind) = kind {
        limits.retain(|row| row.kind == kind.of().name());
    }
    print(desk.json, &limits, || {
        let mut table = Table::new(&[
            "ID",
            "KIND",
            "ACCOUNT",
            "PRIORITY",
            "PERIOD",
            "MSG_SIZE",
            "MAX_RCPTS",
            "MAX_MSGS",
            "MAX_QUOTA",
        ]);
        for row in &limits {
            table.row(&[
                &row.id,
                &row.kind,
                &row.account,
                &row.priority,
                &period(row.period),
                &value(row.msg_size),
                &value(row.max_rcpts),
                &value(row.max_msgs),
                &value(row.max_quota),
            ]);
        }
        table.to_string()
    })?;
    Ok(0)
}

/// A limit in words.
pub(crate) fn value(number: i64) -> String {
    match number {
        0 => "unlimited".to_owned(),
        n if n < 0 => "inherit".to_owned(),
        n => n.to_string(),
    }
}

/// A number of seconds in the largest unit that holds it.
pub(crate) fn period(seconds: i64) -> String {
    Interval::seconds(u64::try_from(seconds).unwrap_or(0)).to_string()
}

async fn set_limits(desk: Desk, set: &Set) -> Outcome {
    let account = account(&set.account, set.kind, &desk.settings)?;
    let kind = set.kind.of();
    if [set.msg_size, set.max_rcpts, set.max_msgs, set.max_quota].iter().all(Option::is_none)
        && set.period.is_none()
    {
        return Err(Failure::usage("name at least one of the limits, or the period"));
    }
    desk.say_where(desk.admin.iredapd());
    let known = desk.admin.rules().throttle(&account, kind).await?.map(|row| Limits::read(&row));
    let seconds = set.period.map(|period| i64::try_from(period.duration().as_secs()).unwrap_or(i64::MAX));
    let Some(period) = seconds.or(known.as_ref().map(|row| row.period)) else {
        return Err(Failure::usage(format!("{account} has no {} limits yet: say --period", kind.name())));
    };
    // iRedMail's MySQL tables hold 32 bits.
    if !(1..=i64::from(u32::MAX)).contains(&period) {
        return Err(Failure::data("the period must be 1s to 4294967295s: a row without one is ignored"));
    }
    let known = |of: fn(&Limits) -> i64| known.as_ref().map_or(-1, of);
    let limit = Throttle {
        period,
        msg_size: set.msg_size.unwrap_or_else(|| known(|row| row.msg_size)),
        max_msgs: set.max_msgs.unwrap_or_else(|| known(|row| row.max_msgs)),
        max_quota: set.max_quota.unwrap_or_else(|| known(|row| row.max_quota)),
        max_rcpts: set.max_rcpts.unwrap_or_else(|| known(|row| row.max_rcpts)),
    };
    desk.admin.rules().set_throttle(&account, kind, &limit).await?;
    let told = desk.admin.rules().throttle(&account, kind).await?.map(|row| Limits::read(&row));
    print(desk.json, &told, || {
        format!(
            "{} limits of {account} in {}: msg_size {}, max_rcpts {}, max_msgs {}, max_quota {}",
            kind.name(),
            self::period(period),
            value(limit.msg_size),
            value(limit.max_rcpts),
            value(limit.max_msgs),
            value(limit.max_quota)
        )
    })?;
    Ok(0)
}

async fn delete(desk: Desk, typed: &str, kind: Option<Kind>) -> Outcome {
    let account = input::written(typed)?;
    input::confirm(desk.yes, &format!("Remove the limits of {account} and what was counted?"))?;
    desk.say_where_both();
    let mut removed = 0;
    for kind in kinds(kind) {
        removed += desk.admin.remove_throttle(&account, kind).await?;
    }
    print(desk.json, &json!({ "account": account.as_str(), "removed": removed }), || {
        format!("removed {removed} rows of {account}")
    })?;
    Ok(if removed == 0 { exit::NEGATIVE } else { 0 })
}

/// Gives every row the priority of its account's form.
pub(crate) async fn fix_priority(desk: Desk) -> Outcome {
    desk.say_where(desk.admin.iredapd());
    let (fixed, unknown) = desk.admin.rules().fix_throttle_priorities().await?;
    let rows: Vec<_> = fixed
        .iter()
        .map(|row| json!({ "id": row.id, "account": row.account, "old": row.old, "new": row.new }))
        .collect();
    print(desk.json, &json!({ "fixed": rows, "unknown": unknown }), || {
        let line = |row: &outrider_core::directory::write::FixedPriority| {
            format!("{}: priority {} instead of {}\n", printable(&row.account), row.new, row.old)
        };
        match fixed.iter().map(line).collect::<String>() {
            nothing if nothing.is_empty() => "all priorities are those of their accounts".to_owned(),
            lines => lines,
        }
    })?;
    for account in &unknown {
        eprintln!("outrider: \"{}\" is no account, its priority stays", printable(account));
    }
    Ok(0)
}

async fn reset(desk: Desk, typed: &str, kind: Option<Kind>) -> Outcome {
    // Counters stand under the user or the client, whatever account the limit is for.
    let wanted = |key: &AccountKey| matches!(key.form(), Form::Address | Form::Ip | Form::WildcardIp);
    let key = input::key(
        typed,
        desk.settings.reading(),
        wanted,
        "counter: write user@domain, a client's address or a.b.c.*",
    )?;
    input::confirm(desk.yes, &format!("Forget what was counted for {key}?"))?;
    desk.say_where_both();
    let removed = desk.admin.reset_throttle(key.as_str(), &kinds(kind)).await?;
    print(desk.json, &json!({ "key": key.as_str(), "removed": removed }), || {
        format!("forgot {removed} counters of {key}")
    })?;
    Ok(if removed == 0 { exit::NEGATIVE } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_words() {
        assert_eq!([-1, 0, 7].map(value), ["inherit", "unlimited", "7"]);
        assert_eq!([0, 3600, 90].map(period), ["0s", "1h", "90s"]);
    }

    #[test]
    fn accounts_that_throttling_looks_up() {
        for typed in ["a@example.com", "@example.com", "@.com", "@.", "192.0.2.7", "192.0.2.*", "@ip"] {
            assert!(account(typed, Kind::Inbound, &Settings::default()).is_ok(), "{typed}");
        }
        for typed in ["192.0.2.0/24", "a@*", "a+b@example.com", "example.com", ""] {
            assert_eq!(
                account(typed, Kind::Inbound, &Settings::default()).map_err(|failure| failure.code),
                Err(exit::BAD_DATA),
                "{typed}"
            );
        }
        let login = |kind| account("a+b@example.com", kind, &Settings::default()).is_ok();
        assert_eq!([Kind::Outbound, Kind::Inbound, Kind::External].map(login), [true, false, false]);
    }
}
