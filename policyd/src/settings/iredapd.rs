//! iRedAPD's names for our settings: the one table that imports, conformance runs and documentation use.
//!
//! iRedAPD's settings file assigns plain values to names. [`translate`] turns such assignments into the keys of our
//! file; what has no counterpart is named, never dropped in silence.

use serde_json::{Map, Value};

/// What becomes of one of iRedAPD's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The value as it is under this key.
    As(&'static str),
    /// A number of seconds for one question of the DNS.
    DnsSeconds(&'static str),
    /// A number of minutes as a time.
    Minutes(&'static str),
    /// A number of days as a time.
    Days(&'static str),
    /// A number, which may be given as text.
    Number(&'static str),
    /// A number, the nearest one of this range if it is none of it.
    Within(&'static str, i64, i64),
    /// Whole numbers by name; others are rounded.
    Priorities(&'static str),
    /// A text that is left out when empty.
    NotEmpty(&'static str),
    /// Lower-cased list.
    LowerList(&'static str),
    /// An account form: `user`, `domain`, anything else is `global`.
    Account(&'static str),
    /// Read with others together by the importer of whole installations: addresses of databases and the directory,
    /// syslog, the listener.
    Installation,
    /// Without effect here, with the reason.
    Dropped(&'static str),
}

use Meaning::{
    Account, As, Days, DnsSeconds, Dropped, Installation, LowerList, Minutes, NotEmpty, Number, Priorities,
    Within,
};

/// Every name that iRedAPD 6.1 knows, and `hostname` for the system's host name.
pub const NAMES: &[(&str, Meaning)] = &[
    ("ALLOWED_FORGED_SENDERS", LowerList("reject_sender_login_mismatch.allowed_forged_senders")),
    ("ALLOWED_LOGIN_MISMATCH_LIST_MEMBER", As("reject_sender_login_mismatch.allow_list_members")),
    ("ALLOWED_LOGIN_MISMATCH_SENDERS", LowerList("reject_sender_login_mismatch.allowed_logins")),
    ("ALLOWED_LOGIN_MISMATCH_STRICTLY", As("reject_sender_login_mismatch.allow_aliases")),
    ("CHANGE_PASSWORD_DAYS", Days("force_change_password.after")),
    ("CHANGE_PASSWORD_MESSAGE", As("force_change_password.message")),
    ("CHANGE_PASSWORD_NEVER_EXPIRE_USERS", LowerList("force_change_password.never_expire")),
    ("CHECK_FORGED_SENDER", As("reject_sender_login_mismatch.check_forged_sender")),
    ("CHECK_SPF_IF_LOGIN_MISMATCH", As("reject_sender_login_mismatch.check_spf")),
    ("CLEANUP_QUERY_SIZE_LIMIT", Within("cleanup.batch", 10, 100_000)),
    ("CMD_SENDMAIL", As("notification.sendmail")),
    ("DNS_QUERY_TIMEOUT", DnsSeconds("dns.timeout")),
    ("ENABLE_ALL_WILDCARD_IP", As("all_wildcard_addresses")),
    ("GREYLISTING_AUTH_TRIPLET_EXPIRE", Days("greylisting.passed_lifetime")),
    ("GREYLISTING_BLOCK_EXPIRE", Minutes("greylisting.block")),
    ("GREYLISTING_BYPASS_SPF", As("greylisting.bypass_spf")),
    ("GREYLISTING_MESSAGE", As("greylisting.message")),
    ("GREYLISTING_TRAINING_MODE", As("greylisting.training")),
    ("GREYLISTING_UNAUTH_TRIPLET_EXPIRE", Days("greylisting.unpassed_lifetime")),
    ("LOG_SMTP_SESSIONS", As("session_log.enabled")),
    ("LOG_SMTP_SESSIONS_BYPASS_DUNNO", As("session_log.skip_dunno")),
    ("LOG_SMTP_SESSIONS_BYPASS_GREYLISTING", As("session_log.skip_greylisting")),
    ("LOG_SMTP_SESSIONS_BYPASS_WHITELIST", As("session_log.skip_whitelisted")),
    ("LOG_SMTP_SESSIONS_EXPIRE_DAYS", Days("session_log.keep")),
    ("MLMMJADMIN_API_AUTH_TOKEN_HEADER_NAME", As("reject_sender_login_mismatch.list_api_token_header")),
    ("MYNETWORKS", As("mynetworks")),
    ("NOTIFICATION_RECIPIENTS", As("notification.recipients")),
    ("NOTIFICATION_SENDER_NAME", As("notification.sender_name")),
    ("NOTIFICATION_SMTP_DEBUG_LEVEL", Dropped("the log level decides")),
    ("NOTIFICATION_SMTP_PASSWORD", NotEmpty("notification.smtp_password")),
    ("NOTIFICATION_SMTP_PORT", Number("notification.smtp_port")),
    ("NOTIFICATION_SMTP_SERVER", As("notification.smtp_server")),
    ("NOTIFICATION_SMTP_STARTTLS", As("notification.smtp_starttls")),
    ("NOTIFICATION_SMTP_USER", As("notification.sender")),
    ("PLUGIN_PRIORITIES", Priorities("plugin_priorities")),
    ("RECIPIENT_DELIMITERS", As("recipient_delimiters")),
    ("SENDERSCORE_CACHE_DAYS", Days("senderscore.keep")),
    // Too high a number is left to the check of the settings: the nearest one would refuse everybody.
    ("SENDERSCORE_REJECT_SCORE", Within("senderscore.reject_score", -1, i64::MAX)),
    ("SPF_MAX_DNS_QUERIES", Number("spf.max_queries")),
    (
        "SQL_CONNECTION_MAX_OVERFLOW",
        Dropped("database.max_connections is all there are: messages of one moment share them"),
    ),
    ("SQL_CONNECTION_POOL_RECYCLE", Dropped("connections are renewed as needed")),
    ("SQL_CONNECTION_POOL_SIZE", Number("database.max_connections")),
    ("SQL_DB_DRIVER", Dropped("the driver is built in")),
    ("SYSLOG_FACILITY", Installation),
    ("SYSLOG_PORT", Installation),
    ("SYSLOG_SERVER", Installation),
    ("THROTTLE_BYPASS_LOCAL_RECIPIENT", As("throttle.bypass_local_recipient")),
    ("THROTTLE_BYPASS_MYNETWORKS", As("throttle.bypass_mynetworks")),
    ("THROTTLE_BYPASS_SAME_DOMAIN", As("throttle.bypass_same_domain")),
    ("TRACKING_EXPIRE_SECONDS", Dropped("iRedAPD never read it")),
    ("WBLIST_BYPASS_OUTGOING_EMAIL", As("wblist.bypass_outgoing")),
    ("WBLIST_DISCARD_INSTEAD_OF_REJECT", As("wblist.discard")),
    ("WBLIST_ENABLE_ALL_WILDCARD_IP", Dropped("iRedAPD no longer reads it; see ENABLE_ALL_WILDCARD_IP")),
    ("WL_RCPT_FOR_GREYLISTING", As("whitelist_outbound_recipient.for_greylisting")),
    ("WL_RCPT_LOCAL_ACCOUNT", Account("whitelist_outbound_recipient.account")),
    ("WL_RCPT_RCPT", As("whitelist_outbound_recipient.sender")),
    ("WL_RCPT_WHITELIST_DOMAIN_FOR_GREYLISTING", As("whitelist_outbound_recipient.domain_for_everybody")),
    ("WL_RCPT_WITHOUT_SPF", As("whitelist_outbound_recipient.without_spf")),
    ("amavisd_db_name", Installation),
    ("amavisd_db_password", Installation),
    ("amavisd_db_port", Installation),
    ("amavisd_db_server", Installation),
    ("amavisd_db_use_ssl", Installation),
    ("amavisd_db_user", Installation),
    ("backend", Installation),
    ("hostname", NotEmpty("myhostname")),
    ("iredapd_db_name", Installation),
    ("iredapd_db_password", Installation),
    ("iredapd_db_port", Installation),
    ("iredapd_db_server", Installation),
    ("iredapd_db_use_ssl", Installation),
    ("iredapd_db_user", Installation),
    ("ldap_basedn", Installation),
    ("ldap_binddn", Installation),
    ("ldap_bindpw", Installation),
    ("ldap_enable_tls", Installation),
    ("ldap_uri", Installation),
    ("listen_address", Installation),
    ("listen_port", Installation),
    ("log_action_in_db", Dropped("iRedAPD no longer reads it; see LOG_SMTP_SESSIONS")),
    ("log_level", Installation),
    ("mlmmjadmin_api_auth_token", NotEmpty("reject_sender_login_mismatch.list_api_token")),
    ("mlmmjadmin_api_endpoint", NotEmpty("reject_sender_login_mismatch.list_api")),
    ("pid_file", Dropped("there is no PID file")),
    ("plugins", As("plugins")),
    ("run_as_user", Dropped("the unit file names the account")),
    ("srs_domain", As("srs_domain")),
    ("srs_forward_port", Dropped("belongs to srsd")),
    ("srs_reverse_port", Dropped("belongs to srsd")),
    ("srs_secrets", Dropped("belongs to srsd")),
    ("vmail_db_name", Installation),
    ("vmail_db_password", Installation),
    ("vmail_db_port", Installation),
    ("vmail_db_server", Installation),
    ("vmail_db_use_ssl", Installation),
    ("vmail_db_user", Installation),
];

/// What names begin with that files of old releases still hold: iRedAPD itself passes over them.
const REMOVED: [&str; 3] = ["iredadmin_db_", "log_file", "log_rotate_"];
const NO_LONGER_READ: Meaning = Dropped("iRedAPD no longer reads it");

/// iRedAPD's settings in our words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Our settings, nested by section; an object ready to be written as TOML or merged into a file.
    pub settings: Map<String, Value>,
    /// Names that iRedAPD itself does not know (its custom plugins have their own).
    pub unknown: Vec<String>,
    /// `NAME: remark` for everything that was not taken over.
    pub remarks: Vec<String>,
    /// `NAME: note` for what was taken over with another value.
    pub notes: Vec<String>,
}

/// Translates assignments of iRedAPD's settings file.
pub fn translate(settings: &Map<String, Value>) -> Translation {
    let mut translation = Translation::default();
    for (name, value) in settings {
        let known = NAMES.iter().find(|(known, _)| known == name).map(|(_, meaning)| *meaning);
        let Some(meaning) =
            known.or(REMOVED.iter().any(|begin| name.starts_with(begin)).then_some(NO_LONGER_READ))
        else {
            translation.unknown.push(name.clone());
            continue;
        };
        match meaning {
            Within(key, least, most) => {
                if let Some(number) = number(value).filter(|number| !(least..=most).contains(number)) {
                    let nearest = number.clamp(least, most);
                    translation.notes.push(format!("{name}: {number} is taken over as {key} = {nearest}"));
                }
            }
            DnsSeconds(_) => note_long_wait(name, value, &mut translation),
            Priorities(_) if value.as_object().is_some_and(|rules| rules.values().any(Value::is_f64)) => {
                translation
                    .notes
                    .push(format!("{name}: priorities are whole numbers here; fractions are rounded"));
            }
            _ => {}
        }
        match convert(meaning, value) {
            Ok(Some((key, value))) => insert(&mut translation.settings, key, value),
            Ok(None) => {}
            Err(remark) => translation.remarks.push(format!("{name}: {remark}")),
        }
    }
    translation
}

/// The value that a name in capitals has in iRedAPD before its settings file changes it: ours are the same. Names in small
/// letters have none.
pub fn default_value(name: &str) -> Option<Value> {
    let meaning = NAMES.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning);
    let Some(As(key) | LowerList(key) | Priorities(key)) =
        meaning.filter(|_| name.starts_with(char::is_uppercase))
    else {
        return None;
    };
    let ours = serde_json::to_value(super::Settings::default()).ok()?;
    ours.pointer(&format!("/{}", key.replace('.', "/"))).cloned()
}

fn convert(meaning: Meaning, value: &Value) -> Result<Option<(&'static str, Value)>, String> {
    let odd = || format!("cannot be read: {value}");
    Ok(match meaning {
        As(key) => Some((key, value.clone())),
        Number(key) => Some((key, Value::from(number(value).ok_or_else(odd)?))),
        DnsSeconds(key) => Some((key, interval(value, 1.0).ok_or_else(odd)?)),
        Minutes(key) => Some((key, interval(value, 60.0).ok_or_else(odd)?)),
        Days(key) => Some((key, interval(value, 86_400.0).ok_or_else(odd)?)),
        Within(key, least, most) => {
            Some((key, Value::from(number(value).ok_or_else(odd)?.clamp(least, most))))
        }
        Priorities(key) => {
            let rules = value.as_object().ok_or_else(odd)?.iter();
            let whole =
                |priority: &Value| number(priority).or_else(|| Some(priority.as_f64()?.round() as i64));
            let whole = rules.map(|(rule, priority)| Some((rule.clone(), Value::from(whole(priority)?))));
            Some((key, Value::Object(whole.collect::<Option<_>>().ok_or_else(odd)?)))
        }
        NotEmpty(key) => match value {
            Value::String(text) if !text.is_empty() => Some((key, value.clone())),
            Value::String(_) | Value::Null => None,
            // Not shown: some of these are secrets.
            _ => return Err("is no text".to_owned()),
        },
        LowerList(key) => {
            let list = value.as_array().ok_or_else(odd)?;
            let lower = |item: &Value| item.as_str().map(str::to_lowercase).map(Value::from);
            Some((key, Value::Array(list.iter().map(lower).collect::<Option<_>>().ok_or_else(odd)?)))
        }
        Account(key) => {
            let form = value.as_str().filter(|form| matches!(*form, "user" | "domain")).unwrap_or("global");
            Some((key, Value::from(form)))
        }
        Installation => return Err("is part of the installation and not translated alone".to_owned()),
        Dropped(reason) => return Err(reason.to_owned()),
    })
}

/// Whoever waits longer for a name server means decisions: requests wait as long for an SPF record, as far as they can be
/// answered in time.
fn note_long_wait(name: &str, value: &Value, translation: &mut Translation) {
    let longest = super::Settings::default().outside_budget().as_secs_f64();
    if seconds(value).is_some_and(|wanted| wanted >= longest) {
        translation.notes.push(format!(
            "{name}: a request waits {longest} s for SPF records and no longer, four fifths of limits.request_timeout; \
             raise that if it is to wait for a name server that takes so long"
        ));
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A number that a time can be made of.
fn seconds(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (0.0..=1e9).contains(&number).then_some(number)
}

fn interval(value: &Value, unit: f64) -> Option<Value> {
    let millis = (seconds(value)? * unit * 1000.0).round() as u64;
    Some(Value::from(if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    }))
}

fn insert(settings: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            settings.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = settings.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Settings, WhitelistAccount};

    fn translated(settings: Value) -> (Settings, Translation) {
        let translation = translate(settings.as_object().unwrap());
        let ours = serde_json::from_value(Value::Object(translation.settings.clone())).unwrap();
        (ours, translation)
    }

    #[test]
    fn values_arrive_where_they_belong() {
        let (ours, translation) = translated(json!({
            "GREYLISTING_BLOCK_EXPIRE": 1, "GREYLISTING_UNAUTH_TRIPLET_EXPIRE": "2", "DNS_QUERY_TIMEOUT": 1.5,
            "ALLOWED_FORGED_SENDERS": ["Bob@Example.com"], "PLUGIN_PRIORITIES": {"amavisd_wblist": 99, "wblist_rdns": 49.5},
            "WL_RCPT_LOCAL_ACCOUNT": "anything", "GREYLISTING_MESSAGE": "421", "SENDERSCORE_REJECT_SCORE": "25", "mlmmjadmin_api_auth_token": "",
            "MYNETWORKS": ["10.0.0.0/8"], "plugins": ["greylisting"], "hostname": "mx.example.com",
            "CLEANUP_QUERY_SIZE_LIMIT": 500,
        }));
        assert_eq!(ours.greylisting.block.duration().as_secs(), 60);
        assert_eq!(ours.greylisting.unpassed_lifetime.duration().as_secs(), 172_800);
        assert_eq!(ours.dns.timeout.duration().as_millis(), 1500);
        assert_eq!(ours.reject_sender_login_mismatch.allowed_forged_senders, ["bob@example.com"]);
        assert_eq!(ours.plugin_priorities["amavisd_wblist"], 99);
        assert_eq!((ours.plugin_priorities["wblist_rdns"], translation.notes.len()), (50, 1));
        assert_eq!(ours.whitelist_outbound_recipient.account, WhitelistAccount::Global);
        assert_eq!(ours.senderscore.reject_score, 25);
        assert_eq!(ours.greylisting.message, "421");
        assert_eq!(ours.cleanup.batch, 500);
        assert!(ours.reject_sender_login_mismatch.list_api_token.is_none());
        assert_eq!(ours.myhostname.as_deref(), Some("mx.example.com"));
        assert_eq!((translation.unknown.len(), translation.remarks.len()), (0, 0));
    }

    /// Whoever waits long for a name server does so for the decision.
    #[test]
    fn patience_with_name_servers_is_patience_with_spf() {
        for (timeout, notes) in
            [(json!(1.5), 0), (json!(3.0), 0), (json!("3.5"), 0), (json!(4), 1), (json!(10), 1)]
        {
            let (ours, translation) = translated(json!({ "DNS_QUERY_TIMEOUT": timeout }));
            assert!(ours.dns.timeout.duration().as_secs_f64() == seconds(&timeout).unwrap(), "{timeout}");
            let waits = ours.spf.timeout.duration().min(ours.outside_budget());
            assert_eq!(ours.dns.timeout.duration() < waits, notes == 0, "{timeout}");
            assert_eq!((translation.notes.len(), translation.remarks.len()), (notes, 0), "{timeout}");
        }
    }

    #[test]
    fn numbers_beyond_a_range_become_the_nearest() {
        for (name, number, taken, notes) in [
            ("SENDERSCORE_REJECT_SCORE", -1, -1, 0),
            ("SENDERSCORE_REJECT_SCORE", -20, -1, 1),
            ("SENDERSCORE_REJECT_SCORE", 0, 0, 0),
            ("CLEANUP_QUERY_SIZE_LIMIT", 0, 10, 1),
            ("CLEANUP_QUERY_SIZE_LIMIT", 5, 10, 1),
            ("CLEANUP_QUERY_SIZE_LIMIT", 10, 10, 0),
            ("CLEANUP_QUERY_SIZE_LIMIT", 1_000_000, 100_000, 1),
        ] {
            let (ours, translation) = translated(json!({ name: number }));
            let got =
                if name.starts_with('S') { ours.senderscore.reject_score } else { ours.cleanup.batch.into() };
            assert_eq!((got, translation.notes.len()), (taken, notes), "{name} = {number}");
            assert!(translation.remarks.is_empty());
            let mut findings = outrider_core::settings::Findings::new();
            outrider_core::settings::check(&ours, &mut findings);
            assert!(!findings.is_fatal(), "{name} = {number}: {findings}");
        }
    }

    #[test]
    fn notices_go_through_smtp_when_there_is_a_password() {
        let (ours, translation) = translated(json!({
            "NOTIFICATION_SMTP_SERVER": "mail.example.com", "NOTIFICATION_SMTP_PORT": 2587, "NOTIFICATION_SMTP_STARTTLS": false,
            "NOTIFICATION_SMTP_USER": "no-reply@example.com", "NOTIFICATION_SMTP_PASSWORD": "Kanarienvogel",
            "NOTIFICATION_RECIPIENTS": ["postmaster@example.com"],
        }));
        let notification = &ours.notification;
        assert_eq!((notification.smtp_server.as_str(), notification.smtp_port), ("mail.example.com", 2587));
        assert!(!notification.smtp_starttls);
        assert_eq!(notification.sender, "no-reply@example.com");
        assert_eq!(notification.submission().map(|password| password.expose()), Some("Kanarienvogel"));
        assert_eq!((translation.unknown.len(), translation.remarks.len()), (0, 0));
        // What iRedAPD is installed with: no password, and so the program sendmail.
        let (ours, translation) = translated(json!({
            "NOTIFICATION_SMTP_SERVER": "localhost", "NOTIFICATION_SMTP_PORT": 587, "NOTIFICATION_SMTP_STARTTLS": true,
            "NOTIFICATION_SMTP_PASSWORD": "", "NOTIFICATION_RECIPIENTS": ["root"],
        }));
        assert!(ours.notification.submission().is_none() && translation.remarks.is_empty());
    }

    #[test]
    fn what_is_not_taken_over_is_named() {
        let settings = json!({
            "SPAM_TRAP_ACCOUNTS": [], "srs_secrets": ["x"], "DNS_QUERY_TIMEOUT": "soon", "log_file": "/var/log/x",
            "iredadmin_db_name": "iredadmin", "log_rotate_keep": 3,
        });
        let translation = translate(settings.as_object().unwrap());
        assert_eq!(translation.unknown, ["SPAM_TRAP_ACCOUNTS"]);
        assert_eq!(translation.remarks.len(), 5);
        assert!(translation.remarks.contains(&"log_file: iRedAPD no longer reads it".to_owned()));
        assert!(translation.settings.is_empty());
    }

    /// Importers rely on it: what iRedAPD's settings file leaves out is left out of ours.
    #[test]
    fn defaults_are_those_of_iredapd() {
        let theirs: Value = serde_json::from_str(
            r#"{
            "ALLOWED_FORGED_SENDERS": [], "ALLOWED_LOGIN_MISMATCH_LIST_MEMBER": false,
            "ALLOWED_LOGIN_MISMATCH_SENDERS": [], "ALLOWED_LOGIN_MISMATCH_STRICTLY": true,
            "CHANGE_PASSWORD_DAYS": 90, "CHANGE_PASSWORD_NEVER_EXPIRE_USERS": [],
            "CHANGE_PASSWORD_MESSAGE":
                "Password expired or never changed, please change your password in webmail before sending email",
            "CHECK_FORGED_SENDER": true, "CHECK_SPF_IF_LOGIN_MISMATCH": true, "CLEANUP_QUERY_SIZE_LIMIT": 1000,
            "CMD_SENDMAIL": "/usr/sbin/sendmail", "DNS_QUERY_TIMEOUT": 3.0, "ENABLE_ALL_WILDCARD_IP": false,
            "GREYLISTING_AUTH_TRIPLET_EXPIRE": 30, "GREYLISTING_BLOCK_EXPIRE": 15, "GREYLISTING_BYPASS_SPF": true,
            "GREYLISTING_MESSAGE": "Intentional policy rejection, please try again later",
            "GREYLISTING_TRAINING_MODE": false, "GREYLISTING_UNAUTH_TRIPLET_EXPIRE": 1, "LOG_SMTP_SESSIONS": true,
            "LOG_SMTP_SESSIONS_BYPASS_DUNNO": false, "LOG_SMTP_SESSIONS_BYPASS_GREYLISTING": false,
            "LOG_SMTP_SESSIONS_BYPASS_WHITELIST": false, "LOG_SMTP_SESSIONS_EXPIRE_DAYS": 7,
            "MLMMJADMIN_API_AUTH_TOKEN_HEADER_NAME": "X-MLMMJADMIN-API-AUTH-TOKEN", "MYNETWORKS": [],
            "NOTIFICATION_RECIPIENTS": ["root"], "NOTIFICATION_SENDER_NAME": "No Reply",
            "NOTIFICATION_SMTP_PASSWORD": "", "NOTIFICATION_SMTP_PORT": 587, "NOTIFICATION_SMTP_SERVER": "localhost",
            "NOTIFICATION_SMTP_STARTTLS": true, "NOTIFICATION_SMTP_USER": "no-reply@localhost.localdomain",
            "PLUGIN_PRIORITIES": {}, "RECIPIENT_DELIMITERS": ["+"], "SENDERSCORE_CACHE_DAYS": 2,
            "SENDERSCORE_REJECT_SCORE": 30, "SPF_MAX_DNS_QUERIES": 20, "THROTTLE_BYPASS_LOCAL_RECIPIENT": true,
            "THROTTLE_BYPASS_MYNETWORKS": false, "THROTTLE_BYPASS_SAME_DOMAIN": true,
            "WBLIST_BYPASS_OUTGOING_EMAIL": false, "WBLIST_DISCARD_INSTEAD_OF_REJECT": false,
            "WL_RCPT_FOR_GREYLISTING": true, "WL_RCPT_LOCAL_ACCOUNT": "user", "WL_RCPT_RCPT": "user",
            "WL_RCPT_WHITELIST_DOMAIN_FOR_GREYLISTING": false, "WL_RCPT_WITHOUT_SPF": false
        }"#,
        )
        .unwrap();
        let (ours, translation) = translated(theirs.clone());
        assert_eq!((translation.unknown.len(), translation.remarks.len()), (0, 0));
        let (ours, defaults) = (json!(ours), json!(Settings::default()));
        assert_eq!(ours, defaults);
        // The number of connections is ours: iRedAPD has 10 and 10 more.
        let apart = ["SQL_CONNECTION_POOL_SIZE"];
        for (name, meaning) in NAMES {
            if name.starts_with(char::is_uppercase) && !matches!(meaning, Dropped(_) | Installation) {
                assert!(theirs.get(name).is_some() || apart.contains(name), "{name}");
            }
            if let (true, As(_) | LowerList(_)) = (name.starts_with(char::is_uppercase), meaning) {
                assert_eq!(default_value(name).as_ref(), theirs.get(name), "{name}");
            }
        }
        assert_eq!(default_value("plugins"), None);
    }

    #[test]
    fn every_target_is_a_key_of_ours() {
        let keys: Vec<String> =
            outrider_core::settings::keys::<Settings>().iter().map(|key| key.dotted()).collect();
        for (name, meaning) in NAMES {
            if let As(key)
            | DnsSeconds(key)
            | Priorities(key)
            | Minutes(key)
            | Days(key)
            | Number(key)
            | Within(key, ..)
            | NotEmpty(key)
            | LowerList(key)
            | Account(key) = meaning
            {
                assert!(keys.iter().any(|known| known == key), "{name} -> {key}");
            }
        }
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, without doubles");
    }
}
