//! The manual page of the command, made from its help texts.

use std::fmt::Write as _;

/// The page as troff, one section a verb.
pub(crate) fn page(mut command: clap::Command) -> String {
    command.build();
    let version = command.get_version().unwrap_or_default();
    let mut page = format!(".TH OUTRIDER 1 \"\" \"Outrider {version}\" \"User Commands\"\n");
    page += ".SH NAME\noutrider \\- run, check and administer the companion daemons of a mail server\n";
    page += ".SH SYNOPSIS\n.B outrider\n\\fIverb\\fR [\\fIoptions\\fR]\n";
    page += ".SH DESCRIPTION\n.nf\n";
    page += &text(&command.render_long_help().to_string());
    page += ".fi\n.SH VERBS\n";
    add_verbs(&mut page, &command, "outrider");
    page += ".SH TOOLS OF IREDAPD\nCalled by the name of greylisting_admin, wblist_admin, \
             spf_to_greylist_whitelists, cleanup_db, senderscore_admin or fix_throttle_priority (with or without .py) it \
             takes the arguments of that tool. Links are in /usr/lib/outrider/iredapd\\-tools.\n";
    page += ".SH EXIT STATUS\n0 success, 1 a negative answer (nothing found, nothing to remove), 64 wrong usage, 65 \
             something given is invalid (the rest was done), 66 a file is missing, 69 the database is away, 70 a \
             fault of the program, 71 the system refused something, 73 a file cannot be made, 74 reading or writing failed, \
             75 try again later, 77 no permission, 78 wrong settings or missing rights.\n";
    page += ".SH FILES\n/etc/outrider/policyd.toml and the other settings of the daemons\n.SH SEE ALSO\n";
    let daemons = ["policyd", "srsd", "contentfilter", "quota\\-status", "admin\\-api"];
    let names: Vec<String> = daemons.iter().map(|name| format!(".BR outrider\\-{name} (8)")).collect();
    page + &names.join(",\n") + "\n"
}

fn add_verbs(page: &mut String, command: &clap::Command, path: &str) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let path = format!("{path} {}", verb.get_name());
        let help = verb.clone().render_long_help().to_string();
        let _ = write!(page, ".SS {}\n.nf\n{}.fi\n", text(&path).trim_end(), text(&help));
        add_verbs(page, verb, &path);
    }
}

/// Text as it is: no backslash, no request at the start of a line.
fn text(plain: &str) -> String {
    let escaped = plain.replace('\\', "\\e").replace('-', "\\-");
    let mut lines = String::new();
    for line in escaped.lines() {
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        let _ = writeln!(lines, "{guard}{line}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn every_verb_has_its_place() {
        let page = super::page(crate::Command::command());
        for verb in ["outrider serve", "outrider greylist whitelist add", "outrider throttle show"] {
            assert!(page.contains(&format!(".SS {verb}\n")), "{verb}");
        }
        assert!(page.contains("\\-\\-max\\-msgs") && !page.contains("man\\-page"));
    }
}
