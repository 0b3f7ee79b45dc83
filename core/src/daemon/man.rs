//! The manual page of a daemon, made from its command line and the documentation of its settings.

use std::fmt::Write as _;

use super::Daemon;
use crate::settings::{DaemonSettings, SectionDoc, keys};

/// The page in the language of man(7), section 8.
pub(super) fn page<D: Daemon>(command: &clap::Command) -> String {
    let name = format!("outrider-{}", D::NAME);
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        out,
        ".TH {} 8 \"\" \"Outrider {version}\" \"System Administration\"",
        text(&name.to_uppercase())
    );
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", text(&name), text(D::ABOUT));
    let _ = writeln!(out, ".SH SYNOPSIS\n.B {}\n[\\fIoptions\\fR]", text(&name));
    let _ = writeln!(
        out,
        ".SH DESCRIPTION\nRuns in the foreground beside Postfix and Dovecot and changes no file of either. An empty or \
         missing settings file is valid. When clients can connect, one line\n.I ready service={} role=address ...\n\
         is printed and the service manager is told.",
        text(D::NAME)
    );
    out.push_str(".SH OPTIONS\n");
    for option in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let mut spelled = option.get_short().map_or(String::new(), |short| format!("-{short}, "));
        let _ = write!(spelled, "--{}", option.get_long().unwrap_or_default());
        if option.get_action().takes_values() {
            let names = option.get_value_names().unwrap_or_default();
            let _ =
                write!(spelled, " {}", names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "));
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, ".TP\n.B {}\n{}.", text(&spelled), text(&help));
    }
    out.push_str(SIGNALS);
    settings_section::<D>(&mut out);
    out.push_str(DIAGNOSTICS);
    let _ = writeln!(
        out,
        ".SH FILES\n.TP\n.I /etc/outrider/{0}.toml\nSettings.\n.TP\n.I /etc/outrider/{0}.d/*.toml\nFurther settings, \
         applied in byte order of their names.\n.TP\n.I /var/lib/outrider/{0}\nState.",
        D::NAME
    );
    out.push_str(".SH SEE ALSO\n.BR outrider (1),\n.BR postconf (5),\n.BR systemd.service (5)\n");
    out
}

const SIGNALS: &str = ".SH SIGNALS
.TP
.B SIGTERM, SIGINT
Close the listeners, finish requests in progress within limits.grace, exit 0. A second one exits at once.
.TP
.B SIGHUP
Read the settings again; if they are wrong, log why and keep the old ones. Log files are opened again.
.TP
.B SIGUSR1
Open log files again.
.TP
.B SIGUSR2
Write the state of connections, dependencies and counters to the log.
";

const DIAGNOSTICS: &str = ".SH DIAGNOSTICS
Problems are logged at level warn or error with a field
.IR reason .
.SS Exit status
0 after an orderly stop, 64 wrong usage, 66 settings file missing, 70 internal error, 71 a socket cannot be opened, 73 the log
cannot be opened, 74 a file cannot be used, 77 no permission, 78 wrong settings.
.SH SECURITY
Works without any capability. Started by root it opens its sockets and then becomes process.user for good. Listens on
127.0.0.1 by default; other addresses are refused unless limits.allow names the networks of clients, and clients from elsewhere
are then turned away.
";

fn settings_section<D: Daemon>(out: &mut String) {
    let _ = writeln!(
        out,
        ".SH SETTINGS\nThe file\n.I /etc/outrider/{}.toml\nis TOML. Unknown keys are errors. Each key can be given in the \
         environment too, as\n.IR {}SECTION_KEY .",
        D::NAME,
        text(&crate::settings::environment_prefix(D::NAME))
    );
    let docs = D::Settings::describe();
    let defaults = toml::Table::try_from(D::Settings::default()).unwrap_or_default();
    for key in keys::<D::Settings>() {
        let lines = lines_of(&docs, &key.path);
        let said = lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        if key.section {
            let _ = writeln!(out, ".SS [{}]\n{}", text(&key.dotted()), text(&said));
            continue;
        }
        let mut places = key.path.iter();
        let top = places.next().and_then(|part| defaults.get(part));
        let default = places.fold(top, |value, part| value?.get(part));
        let default = default.map_or("not set".to_owned(), |value| format!("default: {value}"));
        let _ = writeln!(
            out,
            ".TP\n.BR {} \" ({})\"\n{}",
            text(key.name()),
            text(&default).replace('"', "\\(dq"),
            text(&said)
        );
    }
}

fn lines_of(docs: &SectionDoc, path: &[String]) -> &'static [&'static str] {
    let Some((first, rest)) = path.split_first() else { return docs.lines };
    let Some(field) = docs.fields.iter().find(|field| field.key == first) else { return &[] };
    match (&field.section, rest.is_empty()) {
        (Some(section), true) if field.lines.iter().all(|line| line.trim().is_empty()) => section.lines,
        (_, true) => field.lines,
        (Some(section), false) => lines_of(section, rest),
        (None, false) => &[],
    }
}

/// Text that man(7) shows as it is: no request at the start of a line, hyphens that can be copied.
fn text(plain: &str) -> String {
    let escaped = plain.replace('\\', "\\e").replace('-', "\\-");
    let line =
        |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    escaped.lines().map(line).collect::<Vec<_>>().join("\n")
}
