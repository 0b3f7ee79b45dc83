//! What belongs to the installation rather than to a rule: listeners, the log, databases and the directory.

use std::net::{IpAddr, SocketAddr};

use outrider_core::settings::Facility;
use serde_json::{Value, json};

use super::draft::Draft;
use super::source::Source;
use crate::import::database_url::Place;

/// Where the accounts and tables are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    MySql,
    PgSql,
    Ldap,
}

fn backend(source: &Source) -> Option<Backend> {
    match source.text("backend").as_str() {
        "mysql" => Some(Backend::MySql),
        "pgsql" => Some(Backend::PgSql),
        "ldap" => Some(Backend::Ldap),
        _ => None,
    }
}

/// Listeners: key of ours, iRedAPD's name for the port and its usual number. All have one address.
pub(super) fn listen(source: &Source, listeners: &[(&str, &str, u16)], draft: &mut Draft) {
    let is_set = |name: &str| source.value(name).is_some();
    if !is_set("listen_address") && !listeners.iter().any(|(_, port, _)| is_set(port)) {
        return;
    }
    let address = match source.text("listen_address") {
        text if is_set("listen_address") => text,
        _ => "127.0.0.1".to_owned(),
    };
    // Python takes the empty text for all addresses.
    let parsed = if address.is_empty() { "0.0.0.0" } else { &address }.parse::<IpAddr>();
    let ip = match parsed {
        Ok(ip) if !ip.is_unspecified() => ip,
        other => {
            let what = match other {
                Ok(_) => "all addresses".to_owned(),
                Err(_) => format!("{address:?}, which is no address"),
            };
            draft.note(format!(
                "{}: {what}; ours is bound to 127.0.0.1 only: if Postfix asks from another machine, change listen and name \
                 its network in limits.allow",
                source.place("listen_address")
            ));
            [127, 0, 0, 1].into()
        }
    };
    for (key, name, usual) in listeners {
        let port = match source.text(name) {
            text if is_set(name) => text.trim().parse().ok().filter(|port| *port != 0),
            _ => Some(*usual),
        };
        let Some(port) = port else {
            draft.note(format!("{} is no port; {key} is the usual one", source.place(name)));
            continue;
        };
        let origin = format!("{}; {}", source.origin("listen_address"), source.origin(name));
        draft.set(key, json!([SocketAddr::new(ip, port).to_string()]), &origin);
    }
    if !ip.to_canonical().is_loopback() {
        // From this machine it is reached under the same address.
        let own = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
        draft.set("limits.allow", json!([own]), &source.origin("listen_address"));
        draft.note(format!(
            "limits.allow lets this machine in only: if Postfix asks {ip} from another one, add its network"
        ));
    }
}

/// Lines go where iRedAPD's went, and look like them.
pub(super) fn log(source: &Source, draft: &mut Draft) {
    if source.value("log_level").is_some() {
        draft.set("log.level", source.text("log_level").to_lowercase(), &source.origin("log_level"));
    }
    draft.set("log.style", "iredapd", "the lines of iRedAPD");
    draft.set("log.tag", "iredapd", "the name in front of iRedAPD's lines, which rsyslog's rule looks for");
    draft.set("log.target", "syslog", &source.origin("SYSLOG_SERVER"));
    let server = source.text("SYSLOG_SERVER");
    if server.starts_with('/') {
        draft.set("log.syslog_socket", server, &source.origin("SYSLOG_SERVER"));
    } else if !server.is_empty() {
        let port = source.text("SYSLOG_PORT");
        let port = if port.is_empty() { "514" } else { &port };
        draft.note(format!(
            "{}: ours writes to the syslog of this machine (/dev/log); let that one send lines on to {server}, port {port}",
            source.place("SYSLOG_SERVER")
        ));
    }
    let facility = source.text("SYSLOG_FACILITY").to_lowercase();
    let is_known = serde_json::from_value::<Facility>(Value::from(facility.as_str())).is_ok();
    if !is_known && source.value("SYSLOG_FACILITY").is_some() {
        draft.note(format!("{} is no facility of ours; it is local5", source.place("SYSLOG_FACILITY")));
    }
    let facility = if is_known { facility } else { "local5".to_owned() };
    draft.set("log.facility", facility, &source.origin("SYSLOG_FACILITY"));
}

/// Where the accounts are, and the directory if they are there.
pub(super) fn accounts(source: &Source, draft: &mut Draft) {
    match backend(source) {
        Some(Backend::MySql | Backend::PgSql) => {
            draft.set("accounts", "sql", &source.origin("backend"));
        }
        Some(Backend::Ldap) => {
            draft.set("accounts", "ldap", &source.origin("backend"));
            for (key, name) in [
                ("ldap.uri", "ldap_uri"),
                ("ldap.base_dn", "ldap_basedn"),
                ("ldap.bind_dn", "ldap_binddn"),
                ("ldap.bind_password", "ldap_bindpw"),
            ] {
                if let Some(value) = source.value(name) {
                    draft.set(key, value.clone(), &source.origin(name));
                }
            }
            let starttls = source.is_on("ldap_enable_tls", draft);
            if starttls {
                draft.set("ldap.starttls", true, &source.origin("ldap_enable_tls"));
            }
            if starttls || source.text("ldap_uri").to_lowercase().starts_with("ldaps:") {
                draft.note(
                    "iRedAPD did not verify the certificate of the LDAP server, ours does: if it is signed by an authority of \
                     your own, set ldap.ca_file",
                );
            }
        }
        None => draft.note(format!(
            "{} is none of mysql, pgsql and ldap: accounts, database and ldap have to be set by hand",
            source.place("backend")
        )),
    }
}

/// One database with its password. `database` is ours and the beginning of iRedAPD's names.
pub(super) fn database(source: &Source, database: &str, draft: &mut Draft) {
    let scheme = match backend(source) {
        None => return,
        // The account that iRedAPD reads from LDAP with is no account of the database.
        Some(Backend::Ldap) if database == "vmail" => return,
        // Beside LDAP iRedMail has MySQL.
        Some(Backend::MySql | Backend::Ldap) => "mysql",
        Some(Backend::PgSql) => "postgresql",
    };
    let name = |part: &str| format!("{database}_db_{part}");
    let parts = ["server", "port", "name", "user", "password"];
    let [host, port, base, user, password] = parts.map(|part| source.text(&name(part)));
    if let Some(part) = parts.iter().find(|part| source.text(&name(part)).is_empty()) {
        draft.note(format!(
            "{} is empty or could not be read: database.{database} is not set, and a file in the state directory takes \
             its place",
            source.place(&name(part))
        ));
        return;
    }
    if port.trim().parse::<u16>().is_err() {
        draft.note(format!("{} is no port: database.{database} is not set", source.place(&name("port"))));
        return;
    }
    let verified_tls = source.is_on(&name("use_ssl"), draft);
    if verified_tls {
        draft.note(format!(
            "{}: iRedAPD did not verify the certificate of the server, ours does. If it is signed by an authority of your \
             own, add &ssl-ca=/PATH to database.{database}; ssl-mode=unverified verifies nothing, as before",
            source.place(&name("use_ssl"))
        ));
    }
    let place = Place {
        scheme,
        host: &host,
        port: Some(port.trim()),
        user: &user,
        password: &password,
        database: &base,
        verified_tls,
    };
    let origin = format!("{} and what belongs to it", source.origin(&name("server")));
    draft.set(&format!("database.{database}"), place.url(), &origin);
}
