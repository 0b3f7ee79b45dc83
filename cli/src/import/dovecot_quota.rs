//! `outrider import dovecot-quota`: quota-status.toml from Dovecot.
//!
//! Our defaults are those of iRedMail. What Dovecot leaves out is therefore written down as Dovecot's own default, so that
//! Postfix is answered as before.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outrider_core::settings::Size;

use super::dovecot_config::{Config, Generation, Setting, kind_of};
use super::dovecot_database::{self, Accounts};
use super::text::quoted;
use super::{Target, bounded, read_text, text_from};
use crate::failure::{Failure, Outcome};
use crate::output::printable;

/// The longest configuration that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// The file may come to hold passwords later on.
const MODE: u32 = 0o640;

/// Writes quota-status.toml from a Dovecot configuration, with comments that tell where each value comes from, and
/// names what cannot be taken over.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A saved output of `doveconf -n`, "-" for standard input; without it `doveconf -n` is run
    #[arg(long, value_name = "FILE")]
    dovecot_config: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let text = read(arguments.dovecot_config.as_deref())?;
    let config =
        Config::parse(&text).map_err(|why| Failure::data(format!("Dovecot's configuration: {why}")))?;
    let draft = translate(&config);
    arguments.target.write(&draft.text(), &draft.notes, MODE, "quota-status")
}

fn read(file: Option<&Path>) -> Result<String, Failure> {
    match file {
        Some(path) => read_text(path, LONGEST),
        None => text_from("doveconf -n", run_doveconf()),
    }
}

fn run_doveconf() -> std::io::Result<Vec<u8>> {
    let output = Command::new("doveconf").arg("-n").stdin(Stdio::null()).output()?;
    if output.status.success() {
        bounded(&*output.stdout, LONGEST)
    } else {
        Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The settings to be written.
#[derive(Debug, Default)]
struct Draft {
    top: Vec<String>,
    sections: Vec<(&'static str, Vec<String>)>,
    /// What has to be looked at.
    notes: Vec<String>,
}

impl Draft {
    fn set(&mut self, name: &str, value: &str, origin: &str) {
        self.top.push(format!("# {}\n{name} = {}\n", printable(origin), quoted(value)));
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(printable(&text.into()));
    }

    fn text(&self) -> String {
        let mut text = "# Settings of quota-status, taken over from Dovecot by `outrider import dovecot-quota`.\n\
                        # Before it can start, comment out the inet_listener of `service quota-status` in Dovecot and reload it.\n"
            .to_owned();
        if !self.notes.is_empty() {
            text.push_str("#\n# To be looked at:\n");
        }
        for note in &self.notes {
            let _ = writeln!(text, "# - {note}");
        }
        for entry in &self.top {
            let _ = write!(text, "\n{entry}");
        }
        for (name, lines) in &self.sections {
            let _ = writeln!(text, "\n[{name}]");
            for line in lines {
                let _ = writeln!(text, "{}", printable(line));
            }
        }
        text
    }
}

/// Where a setting stands, for people.
fn origin(setting: &Setting) -> String {
    let mut path = String::new();
    for section in &setting.sections {
        let _ = write!(path, "{section} / ");
    }
    format!("Dovecot: {path}{}, line {}", setting.name, setting.line)
}

fn translate(config: &Config) -> Draft {
    let mut draft = Draft::default();
    listeners(config, &mut draft);
    answers(config, &mut draft);
    sizes(config, &mut draft);
    names(config, &mut draft);
    usage(config, &mut draft);
    accounts(config, &mut draft);
    rules(config, &mut draft);
    draft
}

/// A setting of the quota plugin: in `plugin { }` before 2.4; outside of all sections or in `quota NAME { }`, where its
/// name may go without `quota_`, since.
fn of_plugin<'a>(config: &'a Config, name: &str) -> Option<&'a Setting> {
    match config.generation {
        Generation::V2_3 => config.within("plugin", name),
        Generation::V2_4 => config.top(name).or_else(|| {
            let in_quota = |setting: &&Setting| {
                let is_named = setting.name == name || name.strip_prefix("quota_") == Some(&setting.name);
                setting.sections.len() == 1 && kind_of(&setting.sections[0]) == "quota" && is_named
            };
            config.settings.iter().rev().find(in_quota)
        }),
    }
}

fn listeners(config: &Config, draft: &mut Draft) {
    let service = "service quota-status";
    if !config.sections.iter().any(|path| *path == [service]) {
        draft.note("Dovecot has no service quota-status here; listen is the usual one");
        return;
    }
    let mut listen = Vec::new();
    let mut origins = Vec::new();
    for path in config.sections.iter().filter(|path| path.len() == 2 && path[0] == service) {
        let find = |names: &[&str]| {
            let here =
                |setting: &&Setting| setting.sections == **path && names.contains(&setting.name.as_str());
            config.settings.iter().rev().find(here)
        };
        match kind_of(&path[1]) {
            "inet_listener" => {
                let Some(port) = find(&["port"]).filter(|port| port.value != "0") else { continue };
                let addresses = find(&["address", "listen"]).map_or("", |setting| setting.value.as_str());
                for address in addresses.split([' ', ',']).filter(|address| !address.is_empty()) {
                    match address {
                        "*" | "0.0.0.0" => listen.push(format!("0.0.0.0:{}", port.value)),
                        "::" | "[::]" => listen.push(format!("[::]:{}", port.value)),
                        address if address.contains(':') => {
                            listen.push(format!("[{}]:{}", address.trim_matches(['[', ']']), port.value));
                        }
                        address => listen.push(format!("{address}:{}", port.value)),
                    }
                }
                if addresses.is_empty() {
                    listen.push(format!("127.0.0.1:{}", port.value));
                    draft.note(format!(
                        "Dovecot listens on all addresses at port {}; ours is bound to 127.0.0.1 only: change listen if \
                         Postfix asks from another machine",
                        port.value
                    ));
                }
                origins.push(origin(port));
            }
            "unix_listener" => {
                let name = path[1].split_once(' ').map_or("", |(_, name)| name);
                if name.starts_with('/') {
                    listen.push(format!("unix:{name}"));
                    origins.push(format!("Dovecot: {service} / {}", path[1]));
                    draft.note(format!(
                        "owner and mode of {name} are process.socket_group and process.socket_mode"
                    ));
                } else {
                    draft.note(format!(
                        "the socket {name} lies in Dovecot's own folder and is not taken over"
                    ));
                }
            }
            _ => {}
        }
    }
    // A name instead of an address is possible there, but not here.
    let (good, bad): (Vec<String>, Vec<String>) = listen
        .into_iter()
        .partition(|address| address.parse::<outrider_core::settings::ListenAddress>().is_ok());
    for address in bad {
        draft.note(format!(
            "the listen address {address} is not taken over: write it as an IP address and a port"
        ));
    }
    if !good.is_empty() {
        let list: Vec<String> = good.iter().map(|address| quoted(address)).collect();
        let origins = printable(&origins.join("; "));
        draft.top.push(format!("# {origins}\nlisten = [{}]\n", list.join(", ")));
    }
}

fn answers(config: &Config, draft: &mut Draft) {
    let message = of_plugin(config, "quota_exceeded_message");
    if let Some(message) = message.filter(|message| message.value.starts_with('<')) {
        draft.note(format!(
            "quota_exceeded_message is in the file {}: its text is not taken over",
            &message.value[1..]
        ));
    }
    let message = message.map(|message| message.value.as_str()).filter(|text| !text.starts_with('<'));
    let overquota = format!("554 5.2.2 {}", message.unwrap_or("Quota exceeded (mailbox for user is full)"));
    for (name, usual) in [
        ("quota_status_success", Some("OK")),
        ("quota_status_nouser", Some("REJECT Unknown user")),
        ("quota_status_overquota", Some(overquota.as_str())),
        ("quota_status_toolarge", None),
    ] {
        match (of_plugin(config, name), usual) {
            (Some(setting), _) => draft.set(name, &setting.value, &origin(setting)),
            (None, Some(usual)) => draft.set(name, usual, "not set in Dovecot: its default"),
            (None, None) => {}
        }
        if config.generation == Generation::V2_4 && config.within("plugin", name).is_some() {
            draft.note(format!("{name} stands in plugin {{ }}, where Dovecot 2.4 does not look for it; so it is not taken over"));
        }
        if config.generation == Generation::V2_3 && config.top(name).is_some() {
            draft.note(format!("{name} stands outside of plugin {{ }}, where Dovecot 2.3 does not look for it; so it is not taken over"));
        }
    }
    if of_plugin(config, "quota_status_success")
        .is_none_or(|setting| setting.value.eq_ignore_ascii_case("OK"))
    {
        draft.note("quota_status_success = \"OK\" ends Postfix' restriction list with permit; \"DUNNO\" is usual and safer");
    }
}

fn sizes(config: &Config, draft: &mut Draft) {
    let (grace, usual, mail_size) = match config.generation {
        Generation::V2_3 => ("quota_grace", "10%", "quota_max_mail_size"),
        Generation::V2_4 => ("quota_storage_grace", "10M", "quota_mail_size"),
    };
    match of_plugin(config, grace) {
        None => draft.set("quota_grace", usual, "not set in Dovecot: its default"),
        Some(setting) => {
            // In plugin { } a percent sign is written twice.
            let value = setting.value.replace("%%", "%");
            match value.parse::<outrider_quota_status::Grace>() {
                Ok(_) => draft.set("quota_grace", &value, &origin(setting)),
                Err(why) => draft.note(format!("{grace} is not taken over: {why}")),
            }
        }
    }
    if let Some(setting) = of_plugin(config, mail_size).filter(|setting| setting.value != "unlimited") {
        match setting.value.parse::<Size>() {
            Ok(_) => draft.set("quota_max_mail_size", &setting.value, &origin(setting)),
            Err(why) => draft.note(format!("{mail_size} is not taken over: {why}")),
        }
    }
}

fn names(config: &Config, draft: &mut Draft) {
    for name in ["recipient_delimiter", "auth_username_chars"] {
        if let Some(setting) = config.top(name) {
            draft.set(name, &setting.value, &origin(setting));
        }
    }
    if let Some(format) = config.top("auth_username_format") {
        let lowers = ["%Lu", "%{user|lower}", "%u", "%{user}"];
        if !lowers.contains(&format.value.as_str()) {
            draft.note(format!(
                "auth_username_format = {}: ours always looks up the whole address in lower case",
                format.value
            ));
        }
    }
}

fn usage(config: &Config, draft: &mut Draft) {
    let api_key = config.top("doveadm_api_key").is_some();
    let copied = match config.generation {
        Generation::V2_3 => of_plugin(config, "quota_clone_dict").is_some(),
        Generation::V2_4 => config.has_section("quota_clone"),
    };
    let (driver, from) = match config.generation {
        Generation::V2_3 => match config.within("plugin", "quota") {
            Some(setting) => {
                (setting.value.split(':').next().unwrap_or_default().to_owned(), origin(setting))
            }
            None => (String::new(), String::new()),
        },
        Generation::V2_4 if config.has_section("quota") => match of_plugin(config, "quota_driver") {
            Some(setting) => (setting.value.clone(), origin(setting)),
            None => ("count".to_owned(), "not set in Dovecot: its default".to_owned()),
        },
        Generation::V2_4 => (String::new(), String::new()),
    };
    match driver.as_str() {
        "dict" => draft.set("usage", "sql", &format!("{from} (dict)")),
        "maildir" => {
            draft.set("usage", "maildirsize", &format!("{from} (maildir)"));
            draft.note("usage = \"maildirsize\": quota-status has to run as the account that owns the mailboxes, to read their files maildirsize");
        }
        _ if copied => draft.set("usage", "sql", &format!("{from} (copied to the database by quota_clone)")),
        "" => draft.note("Dovecot has no quota here; usage is read from table used_quota"),
        other => {
            draft.set("usage", "doveadm", &format!("{from} ({other}: only Dovecot itself knows the usage)"));
            doveadm(config, api_key, draft);
        }
    }
    let others = config.settings.iter().filter(|setting| {
        config.generation == Generation::V2_3
            && setting.sections == ["plugin"]
            && setting.name.strip_prefix("quota").is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    for other in others {
        draft.note(format!("{} is a further quota root; only the first one is looked at", other.name));
    }
}

/// The HTTP interface, where Dovecot already has one.
fn doveadm(config: &Config, api_key: bool, draft: &mut Draft) {
    let port = config.settings.iter().find(|setting| {
        setting.sections.first().is_some_and(|section| section == "service doveadm")
            && setting.sections.get(1).is_some_and(|section| section == "inet_listener http")
            && setting.name == "port"
    });
    let mut lines = Vec::new();
    match port {
        Some(port) => {
            lines.push(format!("# {}", origin(port)));
            lines.push(format!("url = \"http://127.0.0.1:{}/doveadm/v1\"", port.value));
        }
        None => draft.note(
            "usage = \"doveadm\" needs service doveadm { inet_listener http { address = 127.0.0.1 port = 8080 } } in Dovecot",
        ),
    }
    if !api_key {
        draft.note("usage = \"doveadm\" needs doveadm_api_key in Dovecot");
    }
    lines.push("api_key = \"file:/etc/outrider/doveadm.key\"".to_owned());
    draft.note("put the key of doveadm_api_key into /etc/outrider/doveadm.key, readable by root and the group of quota-status only");
    draft.sections.push(("doveadm", lines));
}

fn accounts(config: &Config, draft: &mut Draft) {
    let password = |file: &str, origin: &str, draft: &mut Draft| {
        draft.note(format!(
            "put the password from {origin} into {file}, readable by root and the group of quota-status only"
        ));
    };
    match dovecot_database::find(config) {
        Accounts::Sql { url, origin } => {
            let mut lines = vec![format!("# Dovecot: {origin}"), format!("vmail = {}", quoted(&url))];
            if !url.starts_with("sqlite:") {
                let file = "/etc/outrider/vmail.password";
                lines.push(format!("vmail_password_file = {}", quoted(file)));
                password(file, &origin, draft);
            }
            draft.sections.push(("database", lines));
            draft.note("accounts are looked for in iRedMail's tables; another user_query is not taken over");
        }
        Accounts::Ldap { uri, base, bind_dn, origin } => {
            draft.set("accounts", "ldap", &format!("Dovecot: {origin}"));
            if let Some((url, from)) = dovecot_database::usage_database(config) {
                let file = "/etc/outrider/iredadmin.password";
                let lines = vec![
                    format!("# Dovecot: {from}"),
                    format!("iredadmin = {}", quoted(&url)),
                    format!("iredadmin_password_file = {}", quoted(file)),
                ];
                draft.sections.push(("database", lines));
                password(file, &from, draft);
            } else {
                draft.note("database.iredadmin has to be set by hand: the database with table used_quota");
            }
            let mut lines = vec![
                format!("# Dovecot: {origin}"),
                format!("uri = {}", quoted(&uri)),
                format!("base_dn = {}", quoted(&base)),
            ];
            if !bind_dn.is_empty() {
                let file = "/etc/outrider/ldap.password";
                lines.push(format!("bind_dn = {}", quoted(&bind_dn)));
                lines.push(format!("bind_password = \"file:{file}\""));
                password(file, &origin, draft);
            }
            draft.sections.push(("ldap", lines));
        }
        Accounts::Unknown(why) => draft.note(format!("database.vmail has to be set by hand: {why}")),
    }
}

/// Limits that Dovecot has in its configuration; ours come with the accounts.
fn rules(config: &Config, draft: &mut Draft) {
    let is_rule = |setting: &&Setting| match config.generation {
        Generation::V2_3 => {
            setting.sections == ["plugin"]
                && setting
                    .name
                    .strip_prefix("quota_rule")
                    .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        }
        Generation::V2_4 => {
            let names = [
                "quota_storage_size",
                "quota_storage_extra",
                "quota_storage_percentage",
                "quota_message_count",
                "quota_ignore",
            ];
            let in_warning = setting.sections.iter().any(|section| kind_of(section) == "warning");
            let in_quota = setting.sections.last().is_some_and(|section| kind_of(section) == "quota");
            let is_named = names.iter().any(|name| {
                setting.name == *name || (in_quota && name.strip_prefix("quota_") == Some(&setting.name))
            });
            is_named && !in_warning
        }
    };
    for rule in config.settings.iter().filter(is_rule) {
        draft.note(format!(
            "{} = {} ({}) is not taken over: limits come with the accounts, one for each mailbox",
            rule.name,
            rule.value,
            origin(rule)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::settings::{DaemonSettings, Findings, ListenAddress};
    use outrider_quota_status::{Grace, Settings, UsageSource};

    /// The settings as the daemon reads them, and the notes. Passwords are in files that are not there.
    fn import(text: &str) -> (Settings, String) {
        let draft = translate(&Config::parse(text).unwrap());
        let written = draft.text();
        assert!(!written.contains("geheim"), "{written}");
        let readable: Vec<&str> = written
            .lines()
            .filter(|line| !line.contains("_password_file =") && !line.contains("\"file:"))
            .collect();
        let settings: Settings =
            toml::from_str(&readable.join("\n")).unwrap_or_else(|error| panic!("{error}\n{written}"));
        (settings, draft.notes.join("\n"))
    }

    const IREDMAIL_2_3: &str = "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
auth_username_format = %Lu
recipient_delimiter = +-
plugin {
  quota = dict:user::proxy::quotadict
  quota_grace = 10%%
  quota_max_mail_size = 500k
  quota_status_nouser = DUNNO
  quota_status_overquota = 552 5.2.2 Mailbox is full
  quota_status_success = DUNNO
  quota_status_toolarge = \"552 5.3.4 Too \\\"large\\\"\"
  quota_warning = storage=100%% quota-warning 100 %u
  quota_rule2 = Trash:storage=+100M
}
service quota-status {
  client_limit = 1
  executable = quota-status -p postfix
  inet_listener {
    address = 127.0.0.1
    port = 12340
  }
}
";

    #[test]
    fn dovecot_2_3() {
        let (settings, notes) = import(IREDMAIL_2_3);
        assert_eq!(settings.listen, [ListenAddress::local(12340)]);
        assert_eq!(settings.quota_status_success, "DUNNO");
        assert_eq!(settings.quota_status_overquota, "552 5.2.2 Mailbox is full");
        assert_eq!(settings.quota_status_toolarge.as_deref(), Some("552 5.3.4 Too \"large\""));
        assert_eq!((settings.quota_grace, settings.quota_max_mail_size.0), (Grace::Percent(10), 512_000));
        assert_eq!((settings.recipient_delimiter.as_str(), settings.usage), ("+-", UsageSource::Sql));
        for part in ["Trash:storage=+100M", "database.vmail has to be set"] {
            assert!(notes.contains(part), "{notes}");
        }
        assert!(!notes.contains("quota_warning") && !notes.contains("auth_username_format"), "{notes}");
        let mut findings = Findings::new();
        settings.check(&mut findings);
        assert!(findings.is_empty(), "{findings}");
    }

    #[test]
    fn what_dovecot_leaves_out_is_answered_as_dovecot_does() {
        let (settings, notes) = import(
            "plugin {\n  quota_exceeded_message = Box of user is full\n  quota_grace = 0%%\n  quota = maildir:User quota\n}\n\
             service quota-status {\n  inet_listener {\n    port = 12341\n  }\n}\n",
        );
        assert_eq!(settings.quota_status_success, "OK");
        assert_eq!(settings.quota_status_nouser, "REJECT Unknown user");
        assert_eq!(settings.quota_status_overquota, "554 5.2.2 Box of user is full");
        assert_eq!((settings.quota_grace, settings.usage), (Grace::Percent(0), UsageSource::Maildirsize));
        assert_eq!(settings.listen, [ListenAddress::local(12341)]);
        for part in ["restriction list", "maildirsize", "all addresses"] {
            assert!(notes.contains(part), "{notes}");
        }
        let (settings, notes) = import("plugin {\n  quota = count:User quota\n}\n");
        assert_eq!((settings.quota_grace, settings.usage), (Grace::Percent(10), UsageSource::Doveadm));
        assert!(notes.contains("no service quota-status") && notes.contains("doveadm_api_key"), "{notes}");
    }

    #[test]
    fn dovecot_2_4() {
        let (settings, notes) = import(
            "dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
quota_exceeded_message = Full
quota_mail_size = 20M
quota_status_nouser = DUNNO
quota_status_success = DUNNO
quota_storage_grace = 30M
recipient_delimiter = +
sql_driver = mysql
mysql db.example.com {
  dbname = vmail
  password = geheim
  user = vmail
}
mailbox Trash {
  quota_storage_extra = 100M
}
quota \"User quota\" {
  driver = count
  storage_size = 1G
  warning warn-95 {
    quota_storage_percentage = 95
    execute quota-warning {
      args = 95 %{user}
    }
  }
}
quota_clone {
  dict proxy {
    name = quotadict
  }
}
plugin {
  quota_status_overquota = 552 never looked at
}
service quota-status {
  executable = quota-status -p postfix
  inet_listener quota-status {
    listen = 127.0.0.1 ::1
    port = 65265
  }
}
",
        );
        let both: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        assert_eq!(both, ["127.0.0.1:65265", "[::1]:65265"]);
        assert_eq!(settings.quota_status_overquota, "554 5.2.2 Full");
        assert_eq!(
            (settings.quota_grace, settings.quota_max_mail_size.0),
            (Grace::Bytes(30 << 20), 20 << 20)
        );
        assert_eq!(settings.usage, UsageSource::Sql);
        let url = settings.database.vmail.map(|url| url.to_string());
        assert_eq!(url.as_deref(), Some("mysql://vmail@db.example.com:3306/vmail"));
        for part in [
            "quota_status_overquota stands in plugin",
            "quota_storage_extra",
            "storage_size = 1G",
            "section mysql db.example.com",
        ] {
            assert!(notes.contains(part), "{notes}");
        }
        assert!(!notes.contains("quota_storage_percentage"), "{notes}");
        // Without a word about it, 2.4 has a grace of ten megabytes, not of ten per cent.
        let (settings, _) = import("dovecot_config_version = 2.4.0\n");
        assert_eq!(settings.quota_grace, Grace::Bytes(10 << 20));
    }

    #[test]
    fn control_characters_are_neither_written_nor_shown() {
        let (settings, notes) = import(
            "plugin {\n  quota_status_overquota = 552 \u{1b}[2J\n  quota_rule = \u{1b}]0;x\u{7}\n}\n\
             service quota-status {\n  inet_listener \u{1b} {\n    address = 127.0.0.1\n    port = 1\n  }\n}\n",
        );
        assert_eq!(settings.quota_status_overquota, "552 \u{1b}[2J");
        assert!(!notes.contains(|character: char| character.is_control() && character != '\n'), "{notes:?}");
    }

    #[test]
    fn odd_listeners_are_named() {
        let (settings, notes) = import(
            "service quota-status {\n  inet_listener a {\n    address = localhost\n    port = 1\n  }\n  inet_listener off {\n    \
             port = 0\n  }\n  unix_listener /var/spool/postfix/private/quota {\n    mode = 0660\n  }\n  unix_listener own {\n    \
             mode = 0600\n  }\n}\n",
        );
        let all: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["unix:/var/spool/postfix/private/quota"]);
        for part in ["localhost:1", "socket own", "socket_mode"] {
            assert!(notes.contains(part), "{notes}");
        }
    }
}
