//! The database or directory from which Dovecot has its accounts.
//!
//! Names and addresses are taken over, passwords never: they stay where they are until the administrator puts them into
//! a file that only our daemon may read.

use std::path::Path;

use super::database_url::Place;
use super::dovecot_config::{Config, Generation, Setting, kind_of};

/// The longest file of queries that is read, in bytes.
const LONGEST: u64 = 256 * 1024;

/// Where accounts are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accounts {
    /// A database: its URL without the password, and where that was read.
    Sql { url: String, origin: String },
    /// An LDAP tree.
    Ldap { uri: String, base: String, bind_dn: String, origin: String },
    /// Not known: what has to be done by hand.
    Unknown(String),
}

/// Looks for the first source of users that is a database or a tree.
pub(super) fn find(config: &Config) -> Accounts {
    match config.generation {
        Generation::V2_3 => of_2_3(config),
        Generation::V2_4 => of_2_4(config),
    }
}

fn of_2_3(config: &Config) -> Accounts {
    for driver in
        config.settings.iter().filter(|setting| is_in(setting, "userdb") && setting.name == "driver")
    {
        let is_ldap = match driver.value.as_str() {
            "sql" => false,
            "ldap" => true,
            _ => continue,
        };
        // Settings of one section stand together; its own `args` is the nearest.
        let args = config
            .settings
            .iter()
            .filter(|setting| is_in(setting, "userdb") && setting.name == "args")
            .min_by_key(|setting| setting.line.abs_diff(driver.line));
        let Some(args) = args else { continue };
        let file = args.value.split_whitespace().last().unwrap_or_default();
        return match read(file) {
            Ok(pairs) if is_ldap => ldap_of(&pairs, file),
            Ok(pairs) => sql_of(&pairs, file),
            Err(why) => Accounts::Unknown(why),
        };
    }
    Accounts::Unknown("Dovecot has its users neither from SQL nor from LDAP".to_owned())
}

/// The database behind Dovecot's quota dictionary (2.3), which with LDAP is where usage is.
pub(super) fn usage_database(config: &Config) -> Option<(String, String)> {
    let dictionary =
        config.settings.iter().find(|setting| is_in(setting, "dict") && setting.name.contains("quota"))?;
    let (driver, file) = dictionary.value.split_once(':')?;
    let mut pairs = read(file).ok()?;
    pairs.push(("driver".to_owned(), driver.to_owned()));
    match sql_of(&pairs, file) {
        Accounts::Sql { url, origin } => Some((url, origin)),
        _ => None,
    }
}

fn is_in(setting: &Setting, section: &str) -> bool {
    setting.sections.len() == 1 && kind_of(&setting.sections[0]) == section
}

/// `name = value` lines of a `.conf.ext` file.
fn read(file: &str) -> Result<Vec<(String, String)>, String> {
    use std::io::Read;
    let failed = |why: &dyn std::fmt::Display| format!("{file}: {why}");
    if !Path::new(file).is_absolute() {
        return Err(failed(&"not an absolute path"));
    }
    let open = std::fs::File::open(file).map_err(|error| failed(&error))?;
    let mut text = String::new();
    open.take(LONGEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
    let pairs = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = pairs.filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
        .collect())
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn sql_of(pairs: &[(String, String)], file: &str) -> Accounts {
    let driver = value(pairs, "driver").unwrap_or_default();
    let connect = value(pairs, "connect").unwrap_or_default();
    let words: Vec<(&str, &str)> =
        connect.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    // With several hosts the first one is taken; Dovecot shares the load between them.
    let word = |name: &str| words.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let database = word("dbname").unwrap_or("vmail");
    let user = word("user").unwrap_or("vmail");
    match url(driver, word("host").unwrap_or("127.0.0.1"), word("port"), user, database, connect) {
        Some(url) => Accounts::Sql { url, origin: file.to_owned() },
        None => Accounts::Unknown(format!("{file}: driver {driver:?} is none that can be taken over")),
    }
}

/// A URL without a password.
fn url(
    driver: &str,
    host: &str,
    port: Option<&str>,
    user: &str,
    database: &str,
    file: &str,
) -> Option<String> {
    let scheme = match driver {
        "mysql" => "mysql",
        "pgsql" => "postgresql",
        "sqlite" => return Some(format!("sqlite://{file}")),
        _ => return None,
    };
    let place = Place { scheme, host, port, user, password: "", database, verified_tls: false };
    Some(place.url())
}

fn ldap_of(pairs: &[(String, String)], file: &str) -> Accounts {
    let first = |list: &str| list.split_whitespace().next().unwrap_or_default().to_owned();
    let uri = match (value(pairs, "uris"), value(pairs, "hosts")) {
        (Some(uris), _) => first(uris),
        (None, Some(hosts)) => format!("ldap://{}", first(hosts)),
        (None, None) => "ldap://127.0.0.1:389".to_owned(),
    };
    Accounts::Ldap {
        uri,
        base: value(pairs, "base").unwrap_or_default().to_owned(),
        bind_dn: value(pairs, "dn").unwrap_or_default().to_owned(),
        origin: file.to_owned(),
    }
}

/// 2.4 has everything in one file: `sql_driver`, and a section `mysql HOST` or `pgsql HOST`.
fn of_2_4(config: &Config) -> Accounts {
    let text = |name: &str| config.top(name).map(|setting| setting.value.clone());
    if let Some(uris) =
        text("ldap_uris").filter(|_| config.sections.iter().any(|path| is_userdb(path, "ldap")))
    {
        return Accounts::Ldap {
            uri: uris.split_whitespace().next().unwrap_or_default().to_owned(),
            base: text("ldap_base").unwrap_or_default(),
            bind_dn: text("ldap_auth_dn").unwrap_or_default(),
            origin: "ldap_uris".to_owned(),
        };
    }
    let Some(driver) = text("sql_driver") else {
        return Accounts::Unknown("Dovecot has its users neither from SQL nor from LDAP".to_owned());
    };
    if driver == "sqlite" {
        return match text("sqlite_path") {
            Some(path) => Accounts::Sql { url: format!("sqlite://{path}"), origin: "sqlite_path".to_owned() },
            None => Accounts::Unknown("sqlite_path is not set".to_owned()),
        };
    }
    let section = config.sections.iter().find(|path| path.len() == 1 && kind_of(&path[0]) == driver);
    let Some(section) = section.map(|path| path[0].as_str()) else {
        return Accounts::Unknown(format!("sql_driver is {driver}, but there is no section {driver} HOST"));
    };
    // PostgreSQL has them in a section `parameters` in it.
    let within = |name: &str| {
        let here = |setting: &&Setting| {
            setting.sections.first().is_some_and(|outer| outer == section) && setting.name == name
        };
        config.settings.iter().rev().find(here).map(|setting| setting.value.clone())
    };
    let named = section.split_once(' ').map_or("127.0.0.1", |(_, host)| host);
    let host = within("host").unwrap_or_else(|| named.to_owned());
    let database = within("dbname").unwrap_or_else(|| "vmail".to_owned());
    let user = within("user").unwrap_or_else(|| "vmail".to_owned());
    match url(&driver, &host, within("port").as_deref(), &user, &database, "") {
        Some(url) => Accounts::Sql { url, origin: format!("section {section}") },
        None => Accounts::Unknown(format!("sql_driver {driver:?} is none that can be taken over")),
    }
}

fn is_userdb(path: &[String], driver: &str) -> bool {
    path.last().is_some_and(|section| *section == format!("userdb {driver}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(userdb: &str, file: &str) -> Accounts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("query.conf.ext");
        std::fs::write(&path, file).unwrap();
        let text = format!("userdb {{\n  args = {}\n  driver = {userdb}\n}}\n", path.display());
        match find(&Config::parse(&text).unwrap()) {
            Accounts::Sql { url, .. } => Accounts::Sql { url, origin: String::new() },
            Accounts::Ldap { uri, base, bind_dn, .. } => {
                Accounts::Ldap { uri, base, bind_dn, origin: String::new() }
            }
            other => other,
        }
    }

    #[test]
    fn files_of_queries() {
        let sql = |url: &str| Accounts::Sql { url: url.to_owned(), origin: String::new() };
        for (file, expected) in [
            (
                "driver = mysql\n# connect = host=wrong\nconnect = host=127.0.0.1 port=3306 dbname=vmail user=vmail \
                 password=geheim\n",
                "mysql://vmail@127.0.0.1:3306/vmail",
            ),
            (
                "driver=pgsql\nconnect=host=db.example.com dbname=mail user=a@b password=x\n",
                "postgresql://a%40b@db.example.com/mail",
            ),
            (
                "driver = mysql\nconnect = host=/run/mysqld/mysqld.sock dbname=vmail user=vmail\n",
                "mysql://vmail@127.0.0.1/vmail?socket=/run/mysqld/mysqld.sock",
            ),
            ("driver = sqlite\nconnect = /var/lib/vmail.db\n", "sqlite:///var/lib/vmail.db"),
        ] {
            let found = with("sql", file);
            assert_eq!(found, sql(expected), "{file}");
            assert!(expected.parse::<outrider_core::sql::DbUrl>().is_ok(), "{expected}");
        }
        assert_eq!(
            with(
                "ldap",
                "hosts = 127.0.0.1:389 other\ndn = cn=vmail,dc=example\ndnpass = x\nbase = o=domains,dc=example\n"
            ),
            Accounts::Ldap {
                uri: "ldap://127.0.0.1:389".to_owned(),
                base: "o=domains,dc=example".to_owned(),
                bind_dn: "cn=vmail,dc=example".to_owned(),
                origin: String::new()
            }
        );
        let text = "dovecot_config_version = 2.4.1\nsql_driver = pgsql\npgsql db {\n  parameters {\n    dbname = mail\n    user = \
                    post\n    password = geheim\n  }\n}\n";
        assert_eq!(
            find(&Config::parse(text).unwrap()),
            Accounts::Sql {
                url: "postgresql://post@db/mail".to_owned(),
                origin: "section pgsql db".to_owned()
            }
        );
        let text = "dovecot_config_version = 2.4.1\nldap_uris = ldap://a ldap://b\nldap_base = o=domains\nldap_auth_dn = \
                    cn=vmail\nuserdb ldap {\n}\n";
        assert_eq!(
            find(&Config::parse(text).unwrap()),
            Accounts::Ldap {
                uri: "ldap://a".to_owned(),
                base: "o=domains".to_owned(),
                bind_dn: "cn=vmail".to_owned(),
                origin: "ldap_uris".to_owned()
            }
        );
        assert!(matches!(with("sql", "driver = cassandra\nconnect = x\n"), Accounts::Unknown(_)));
        assert!(matches!(with("passwd", ""), Accounts::Unknown(_)));
        let missing = "userdb {\n  args = /nonexistent/sql.conf\n  driver = sql\n}\n";
        let found = find(&Config::parse(missing).unwrap());
        assert!(matches!(found, Accounts::Unknown(why) if why.contains("/nonexistent/sql.conf")));
    }
}
