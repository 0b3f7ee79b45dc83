//! A server, a directory that asks it, and the database with the usage of mailboxes.

use std::sync::Arc;

use outrider_core::directory::{AccountSource, Directory, LdapSettings, open};
use outrider_core::schema::{Database, create_statements};
use outrider_core::settings::{Interval, Secret};
use outrider_core::sql::{DatabaseSettings, Db, DbUrl, Engine, PoolOptions, Stmt};
use outrider_tests::folder::Folder;
use outrider_tests::slapd::Slapd;

/// `None` where slapd is not installed.
pub(crate) fn server() -> Option<Slapd> {
    if !Slapd::is_installed() {
        return None;
    }
    Some(Slapd::start().expect("started"))
}

/// Settings that reach a server, with limits short enough for tests.
pub(crate) fn settings(server: &Slapd) -> LdapSettings {
    LdapSettings {
        uri: server.uri().parse().expect("an address"),
        base_dn: Slapd::BASE_DN.to_owned(),
        bind_dn: Slapd::BIND_DN.to_owned(),
        bind_password: Secret::new(Slapd::BIND_PASSWORD),
        search_timeout: Interval::seconds(2),
        ..LdapSettings::default()
    }
}

/// The directory of these settings without any usage of mailboxes.
pub(crate) async fn directory(settings: &LdapSettings) -> Arc<dyn Directory> {
    open(AccountSource::Ldap, settings, &DatabaseSettings::default(), "/nonexistent".as_ref())
        .await
        .expect("opened")
}

/// A database `iredadmin` with table `used_quota`, as iRedMail makes it for LDAP.
pub(crate) async fn usage(folder: &Folder) -> DatabaseSettings {
    let file = folder.path().join("iredadmin.db");
    let db = Db::open_file(&file, &PoolOptions::default());
    let tables = create_statements(Database::Vmail, Engine::Sqlite);
    for statement in tables.into_iter().filter(|statement| statement.contains("used_quota")) {
        db.execute_script(statement).await.expect("created");
    }
    const USED: Stmt = Stmt::same("INSERT INTO used_quota (username, bytes) VALUES (?, 5000000000)");
    db.execute(&USED, &["alice@example.com".into()]).await.expect("written");
    DatabaseSettings { iredadmin: Some(DbUrl::sqlite(&file)), ..DatabaseSettings::default() }
}
