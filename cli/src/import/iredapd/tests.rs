use outrider_core::directory::AccountSource;
use outrider_core::settings::{self, Findings, LogLevel, LogStyle, LogTarget};

use super::*;

const MYSQL: &str = include_str!("../../../tests/iredapd/mysql.py");
const PGSQL: &str = include_str!("../../../tests/iredapd/pgsql.py");
const LDAP: &str = include_str!("../../../tests/iredapd/ldap.py");

/// The settings as a daemon reads them, without any finding, and the notes. No secret is in these.
fn read<S: settings::DaemonSettings>(draft: &Draft) -> (S, String) {
    let text = draft.text("head");
    let ours: S = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut findings = Findings::new();
    settings::check(&ours, &mut findings);
    assert!(!findings.is_fatal(), "{findings}\n{text}");
    let notes = draft.notes.join("\n");
    for part in text.lines().filter(|line| line.starts_with('#')).chain(notes.lines()) {
        assert!(!part.contains("Kanarien"), "{part}");
        assert!(!part.chars().any(char::is_control), "{part:?}");
    }
    (ours, notes)
}

fn imported(text: &str) -> (Settings, String) {
    read(&policyd(&Source::read(text), &Folder::default()))
}

fn imported_srs(text: &str) -> (outrider_srsd::Settings, String) {
    read(&srs::srsd(&Source::read(text)))
}

#[test]
fn a_server_with_mysql() {
    let source = Source::read(MYSQL);
    let folder = Folder::of(["__init__", "greylisting", "custom_spam_trap", "custom_relay"]);
    let draft = policyd(&source, &folder);
    let (ours, notes) = read::<Settings>(&draft);
    assert_eq!((ours.accounts, ours.listen.len()), (AccountSource::Sql, 1));
    assert_eq!(ours.plugins.len(), 8);
    assert_eq!(ours.plugin_priorities, [("amavisd_wblist".to_owned(), 99)].into());
    assert_eq!(ours.recipient_delimiters, ["+", "-"]);
    assert_eq!(ours.reject_sender_login_mismatch.allowed_logins, ["scanner@example.com", "@example.net"]);
    assert_eq!(ours.greylisting.message, "Please try again in some \"minutes\"");
    let token = ours.reject_sender_login_mismatch.list_api_token.as_ref().map(|token| token.expose());
    assert_eq!(token, Some("Kanarienvogel-6"));
    assert_eq!((ours.log.style, ours.log.target), (LogStyle::Iredapd, LogTarget::Syslog));
    assert_eq!((ours.log.tag.as_deref(), ours.log.level), (Some("iredapd"), LogLevel::Info));
    assert_eq!(settings::Facility::Local5 as u8, ours.log.facility as u8);
    let text = draft.text("head");
    for line in [
        "vmail = \"mysql://vmail:Kanarien%3Avogel%40%2F3%3F%23%25@127.0.0.1:3306/vmail\"",
        "iredapd = \"mysql://iredapd:Kanarienvogel-5@db.example.com:3307/iredapd?ssl-mode=verify-full\"",
        "# iRedAPD: GREYLISTING_BLOCK_EXPIRE, line 72",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    for part in [
        "line 80, NOTIFICATION_RECIPIENTS: is calculated",
        "did not verify the certificate",
        "left out: custom_spam_trap. Custom plugins",
        "setting forward",
        "needs srs_secrets = [], or it holds the ports of srsd, and LOG_SMTP_SESSIONS = False",
        "not enabled, and no rules of ours: __init__, custom_relay",
        "no number: custom_spam_trap",
        "line 82, CHANGE_PASSWORD_DAYS",
        "SPAM_TRAP_ACCOUNTS (line 81)",
        "SENDERSCORE_REJECT_SCORE, line 83 is not taken over",
        "log_file (iRedAPD no longer reads it)",
    ] {
        assert!(notes.contains(part), "{part}\n{notes}");
    }
    assert_eq!(draft.notes.len(), 9, "{notes}");

    let (ours, notes) = imported_srs(MYSQL);
    assert_eq!(ours.srs_domain.as_deref(), Some("mail.example.com"));
    let secrets: Vec<&str> = ours.secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, ["Kanarienvogel-1", "Kanarienvogel-2"]);
    assert!(ours.database.vmail.is_some() && ours.database.iredapd.is_some());
    assert!(!notes.contains("NOTIFICATION"), "{notes}");
}

#[test]
fn a_server_with_postgresql_in_a_jail() {
    let (ours, notes) = imported(PGSQL);
    assert_eq!(ours.listen[0].to_string(), "172.16.0.9:7777");
    assert_eq!(ours.limits.allow[0].to_string(), "172.16.0.9/32");
    assert_eq!(ours.log.syslog_socket.to_str(), Some("/var/run/log"));
    assert_eq!(
        (settings::Facility::Local3 as u8, LogLevel::Debug),
        (ours.log.facility as u8, ours.log.level)
    );
    let shown = |url: Option<outrider_core::sql::DbUrl>| url.map(|url| url.to_string());
    assert_eq!(
        shown(ours.database.vmail).as_deref(),
        Some("postgresql://vmail:<hidden>@172.16.0.9:5432/vmail")
    );
    assert_eq!(
        shown(ours.database.iredapd).as_deref(),
        Some("postgresql://iredapd:<hidden>@/run/postgresql/iredapd")
    );
    assert!(ours.database.amavisd.is_none() && ours.reject_sender_login_mismatch.list_api_token.is_none());
    assert!(notes.contains("amavisd_db_password") && notes.contains("limits.allow"), "{notes}");
    let (ours, _) = imported_srs(PGSQL);
    assert_eq!(ours.listen_reverse[0].to_string(), "172.16.0.9:7779");
}

#[test]
fn a_list_service_behind_tls() {
    let (ours, notes) = imported(
        "mlmmjadmin_api_endpoint = 'https://lists.example.com/api'\nmlmmjadmin_api_auth_token = 'Kanarienvogel-7'\n",
    );
    let login = &ours.reject_sender_login_mismatch;
    assert_eq!(login.list_api.as_deref(), Some("https://lists.example.com/api"), "{notes}");
    assert!(login.list_api_token.is_some() && !notes.contains("mlmmjadmin"), "{notes}");
}

#[test]
fn a_server_with_ldap() {
    let (ours, notes) = imported(LDAP);
    assert_eq!(ours.accounts, AccountSource::Ldap);
    assert_eq!(ours.ldap.base_dn, "o=domains,dc=example,dc=com");
    assert_eq!(ours.ldap.bind_password.expose(), "Kanarienvogel-3");
    assert!(!ours.ldap.starttls && ours.database.vmail.is_none() && ours.database.amavisd.is_some());
    assert!(ours.plugins.contains(&"ldap_maillist_access_policy".to_owned()));
    assert!(!notes.contains("vmail_db"), "{notes}");
    let (ours, notes) = imported_srs(LDAP);
    assert!(ours.srs_domain.is_none() && ours.secrets.is_empty() && notes.contains("SRS is off"), "{notes}");
    let (ours, notes) = imported(&LDAP.replace("ldap_enable_tls = False", "ldap_enable_tls = True"));
    assert!(ours.ldap.starttls && ours.ldap.verify_certificate && notes.contains("ldap.ca_file"), "{notes}");
}

#[test]
fn what_python_takes_for_true() {
    for (value, expected) in [
        ("True", true),
        ("False", false),
        ("None", false),
        ("'False'", true),
        ("''", false),
        ("1", true),
        ("0", false),
    ] {
        let assigned = format!("ldap_enable_tls = {value}");
        let (ours, _) = imported(&LDAP.replace("ldap_enable_tls = False", &assigned));
        assert_eq!(ours.ldap.starttls, expected, "{value}");
    }
}

#[test]
fn priorities_that_are_fractions_are_rounded() {
    let (ours, notes) = imported("plugins = ['greylisting']\nPLUGIN_PRIORITIES = {'greylisting': 9.5}\n");
    assert_eq!(ours.plugin_priorities.get("greylisting"), Some(&10), "{notes}");
}

/// Whatever somebody assigns, the daemon takes what is written, and what it would not take is named.
#[test]
fn what_the_daemon_would_refuse_is_named() {
    for (lines, part) in [
        ("", "backend, which is not assigned"),
        ("backend = 'mysql'\n", "vmail_db_server, which is not assigned"),
        ("backend = 'oracle'\n", "line 1, backend is none of"),
        ("GREYLISTING_TRAINING_MODE = 'yes'\n", "GREYLISTING_TRAINING_MODE, line 1 is not taken over"),
        (
            "GREYLISTING_TRAINING_MODE = None\n",
            "GREYLISTING_TRAINING_MODE, line 1 is not taken over: it is None",
        ),
        ("GREYLISTING_MESSAGE = 'two\\nlines'\n", "GREYLISTING_MESSAGE, line 1 is not taken over"),
        ("GREYLISTING_UNAUTH_TRIPLET_EXPIRE = 0\n", "a new sender is forgotten before it may come again"),
        ("GREYLISTING_BLOCK_EXPIRE = 1440\n", "a new sender is forgotten before it may come again"),
        (
            "CLEANUP_QUERY_SIZE_LIMIT = 5\n",
            "line 1, CLEANUP_QUERY_SIZE_LIMIT: 5 is taken over as cleanup.batch = 10",
        ),
        ("DNS_QUERY_TIMEOUT = 10\n", "line 1, DNS_QUERY_TIMEOUT: a request waits 4 s"),
        (
            "SENDERSCORE_REJECT_SCORE = -7\n",
            "SENDERSCORE_REJECT_SCORE: -7 is taken over as senderscore.reject_score = -1",
        ),
        ("SPF_MAX_DNS_QUERIES = -1\n", "SPF_MAX_DNS_QUERIES, line 1 is not taken over"),
        ("NOTIFICATION_SMTP_PORT = 70000\n", "NOTIFICATION_SMTP_PORT, line 1 is not taken over"),
        ("NOTIFICATION_SMTP_PASSWORD = 'Kanarien'\n", "NOTIFICATION_SMTP_PASSWORD, line 1 is not taken over"),
        ("NOTIFICATION_SMTP_PASSWORD = ['Kanarien']\n", "line 1, NOTIFICATION_SMTP_PASSWORD: is no text"),
        ("mlmmjadmin_api_auth_token = 'file:/Kanarien'\n", "file of its own"),
        ("mlmmjadmin_api_endpoint = 'ftp://x'\n", "mlmmjadmin_api_endpoint, line 1 is not taken over"),
        ("MYNETWORKS = ['192.0.2.1/24']\n", "mynetworks: "),
        ("MYNETWORKS = {'a': 1}\n", "MYNETWORKS, line 1 is not taken over"),
        ("PLUGIN_PRIORITIES = ['a']\n", "PLUGIN_PRIORITIES is no dictionary"),
        ("plugins = 'greylisting'\n", "plugins is no list"),
        ("plugins = f()\n", "line 1, plugins: is taken from somewhere else"),
        ("listen_address = '0.0.0.0'\n", "all addresses"),
        ("listen_address = ''\n", "all addresses"),
        ("listen_address = 'mail.example.com'\n", "which is no address"),
        ("listen_port = 'Kanal'\n", "listen_port is no port"),
        ("SYSLOG_SERVER = 'log.example.com'\n", "send lines on to log.example.com, port 514"),
        ("SYSLOG_SERVER = '192.0.2.1'\nSYSLOG_PORT = 5140\n", "send lines on to 192.0.2.1, port 5140"),
        ("MLMMJADMIN_API_AUTH_TOKEN_HEADER_NAME = 'a b'\n", "is no name of an HTTP header"),
        ("SYSLOG_FACILITY = 'kern'\n", "it is local5"),
        ("log_level = 'loud'\n", "log_level, line 1 is not taken over"),
        ("backend = 'ldap'\nldap_bindpw = 'Kanarien'\n", "to be set by hand: ldap.base_dn"),
        ("vmail_db_password = 'a\nKanarien'\n", "line 2: is no assignment"),
        ("Kanarien + 1\nOTHER = f()\n", "line 2: is taken"),
        ("backend = 'ldap'\nldap_basedn = 'o=d'\nldap_uri = 'ldaps://h'\n", "ldap.ca_file"),
        (
            "backend = 'ldap'\nldap_basedn = 'o=d'\nldap_uri = 'http://h'\n",
            "ldap_uri, line 3 is not taken over",
        ),
        ("hostname = 'a'\nOTHER = 1\n", "custom plugins: OTHER (line 2), hostname (line 1)"),
        ("a = '\u{1b}]0;x\u{7}'\nb = [a]\nmynetworks_\u{1b} = 1\n", "line 3"),
    ] {
        let draft = policyd(&Source::read(lines), &Folder::default());
        let notes = draft.notes.join("\n");
        assert!(notes.contains(part), "{lines}{notes}");
        // Where the base of the tree is missing nothing could be written in its place.
        if !lines.contains("ldap_bindpw") {
            read::<Settings>(&draft);
        }
    }
}

/// What nothing cures does not keep the rest from being looked at, errors and warnings.
#[test]
fn all_that_the_daemon_would_refuse_is_named() {
    let text = "backend = 'ldap'\nldap_basedn = f()\nGREYLISTING_MESSAGE = 'two\\nlines'\nMYNETWORKS = ['192.0.2.1/24']\n";
    let draft = policyd(&Source::read(text), &Folder::default());
    let notes = draft.notes.join("\n");
    for part in [
        "to be set by hand: ldap.base_dn",
        "GREYLISTING_MESSAGE, line 3 is not taken over",
        "mynetworks: \"192.0.2.1/24\" is no address",
    ] {
        assert_eq!(notes.matches(part).count(), 1, "{part}\n{notes}");
    }
    assert!(!draft.text("head").contains("message ="), "{notes}");
}

#[test]
fn databases_that_cannot_be_used() {
    let usual = "backend = 'mysql'\niredapd_db_server = 'h'\niredapd_db_port = 3306\niredapd_db_name = 'n'\niredapd_db_user = \
                 'u'\niredapd_db_password = 'Kanarien'\n";
    for (lines, url, part) in [
        ("", Some("mysql://u:<hidden>@h:3306/n"), ""),
        ("iredapd_db_port = '3307 '\n", Some("mysql://u:<hidden>@h:3307/n"), ""),
        ("iredapd_db_port = 'x'\n", None, "iredapd_db_port is no port"),
        (
            "iredapd_db_password = os.environ['P']\n",
            None,
            "iredapd_db_password, which is not assigned or could not be read,",
        ),
        ("iredapd_db_server = '::1'\n", Some("mysql://u:<hidden>@[::1]:3306/n"), ""),
        ("iredapd_db_use_ssl = 'yes'\n", Some("mysql://u:<hidden>@h:3306/n"), "neither True nor False"),
    ] {
        let (ours, notes) = imported(&format!("{usual}{lines}"));
        assert_eq!(ours.database.iredapd.map(|url| url.to_string()).as_deref(), url, "{lines}");
        assert!(notes.contains(part), "{notes}");
    }
}

/// Whatever stands there may have changed what was assigned before, for policyd and for srsd.
#[test]
fn what_may_have_changed_every_name_is_named_to_everybody() {
    let usual = "srs_domain = 'a.example'\nsrs_secrets = ['Kanarien1']\nMYNETWORKS = ['192.0.2.0/28']\n";
    for line in [
        "from local import *",
        "exec(open('/etc/local.py').read())",
        "load_local()",
        "try:\n    from local import *\nexcept ImportError:\n    pass",
    ] {
        let (ours, notes) = imported(&format!("{usual}{line}\nRECIPIENT_DELIMITERS = ['-']\n"));
        assert!(ours.mynetworks.is_empty() && ours.srs_domain.is_empty(), "{line}");
        assert_eq!(ours.recipient_delimiters, ["-"], "{line}");
        assert!(notes.contains("what no line below assigns is not known"), "{line}\n{notes}");
        let (ours, notes) = imported_srs(&format!("{usual}{line}\n"));
        assert!(ours.srs_domain.is_none() && ours.secrets.is_empty(), "{line}");
        assert!(notes.contains("what no line below assigns is not known"), "{line}\n{notes}");
        let (ours, notes) = imported_srs(&format!("{line}\n{usual}"));
        assert_eq!((ours.srs_domain.as_deref(), ours.secrets.len()), (Some("a.example"), 1), "{line}");
        assert!(notes.contains("what no line below assigns is not known"), "{line}\n{notes}");
    }
    let (ours, notes) = imported_srs(&format!("{usual}import os\nfrom os import path\n"));
    assert_eq!((ours.srs_domain.as_deref(), ours.secrets.len()), (Some("a.example"), 1));
    assert!(!notes.contains("not known"), "{notes}");
}

#[test]
fn secrets_of_srs() {
    let (ours, notes) =
        imported_srs("srs_domain = 'a.example'\nsrs_secrets = ['Kanarien1', '', 'file:/Kanarien2', 3]\n");
    assert_eq!(ours.secrets.iter().map(|secret| secret.expose()).collect::<Vec<_>>(), ["Kanarien1"]);
    assert!(notes.contains("1 of 4"), "{notes}");
    let (ours, notes) = imported_srs("srs_domain = 'localhost'\nsrs_secrets = get('Kanarien')\n");
    assert!(ours.secrets.is_empty() && ours.srs_domain.is_none());
    assert!(notes.contains("line 2, srs_secrets: ") && notes.contains("SRS is off"), "{notes}");
}

#[test]
fn hostile_files_are_survived() {
    let many = 100_000;
    for text in [
        format!("plugins = {}", "[".repeat(many)),
        format!("MYNETWORKS = {}{}", "[".repeat(many), "]".repeat(many)),
        format!("PLUGIN_PRIORITIES = {}", "{'a':".repeat(many)),
        format!("plugins = [{}]", "'\u{7f}\\x1b[2J',".repeat(many)),
        "a = f()\n".repeat(many),
        (0..many).map(|number| format!("name{number} = 1\n")).collect(),
        format!("PLUGIN_PRIORITIES['{}'] = 1", "a".repeat(many)),
        format!("{} = f()", "a".repeat(many)),
    ] {
        let draft = policyd(&Source::read(&text), &Folder::default());
        read::<Settings>(&draft);
        assert!(draft.notes.len() < 300 && draft.notes.iter().all(|note| note.len() < 2000));
    }
}
