//! Settings files of the daemons, as an administrator of an iRedMail server would write them.

use std::net::SocketAddr;
use std::path::Path;

use crate::store::SqlAccess;

/// `[database]` for a server.
fn database(sql: &SqlAccess) -> String {
    let mut text = String::from("[database]\n");
    for name in ["vmail", "iredapd", "amavisd", "iredadmin"] {
        text.push_str(&format!("{name} = \"{}\"\n", sql.url(name)));
    }
    text
}

fn dns(server: SocketAddr) -> String {
    format!("[dns]\nservers = [\"{server}\"]\ntimeout = \"1s\"\nattempts = 1\n")
}

/// Whether a daemon may keep rows in memory for a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// As installed.
    Default,
    /// Not at all: for tests that change rows and ask at once.
    Off,
}

/// policyd.toml.
pub fn policyd(listen: SocketAddr, sql: &SqlAccess, name_server: SocketAddr, caching: Caching) -> String {
    let cache = if caching == Caching::Off { "[cache]\nlifetime = \"0s\"\n" } else { "" };
    format!("listen = [\"{listen}\"]\n{cache}{}{}", database(sql), dns(name_server))
}

/// policyd.toml without a database server: its tables are files in the state directory.
pub fn policyd_embedded(listen: SocketAddr, name_server: SocketAddr) -> String {
    format!("listen = [\"{listen}\"]\n{}", dns(name_server))
}

/// The secret of everybody who rewrites.
const SRS_SECRET: &str = "a secret for tests only";

/// What the content filter needs to rewrite as [`srsd`] does.
pub fn selective_srs(domain: &str, sql: &SqlAccess) -> String {
    let database = database(sql).replace("[database]", "[srs.database]");
    format!(
        "[srs]\nsrs_domain = \"{domain}\"\nmyhostname = \"{domain}\"\nsecrets = [\"{SRS_SECRET}\"]\n{database}"
    )
}

/// srsd.toml with the stock `srs_domain`: the server's host name.
pub fn srsd(forward: SocketAddr, reverse: SocketAddr, domain: &str, sql: &SqlAccess) -> String {
    format!(
        "listen_forward = [\"{forward}\"]\nlisten_reverse = [\"{reverse}\"]\nsrs_domain = \"{domain}\"\nsecrets = [\"{SRS_SECRET}\"]\n{}",
        database(sql)
    )
}

/// quota-status.toml; its default answers are those of iRedMail.
pub fn quota_status(listen: SocketAddr, sql: &SqlAccess, caching: Caching) -> String {
    let cache = if caching == Caching::Off { "cache_life = \"0s\"\n" } else { "" };
    format!("listen = [\"{listen}\"]\n{cache}{}", database(sql))
}

/// What contentfilter.toml depends on.
#[derive(Debug)]
pub struct FilterSettings<'a> {
    /// 10024.
    pub inbound: SocketAddr,
    /// 10026.
    pub originating: SocketAddr,
    /// 10027.
    pub lists: SocketAddr,
    /// 10025.
    pub reinject: SocketAddr,
    /// 10028.
    pub reinject_lists: SocketAddr,
    /// The hosted domain, signed with `key_file`, selector `dkim`.
    pub domain: &'a str,
    /// Its private key.
    pub key_file: &'a Path,
    /// The name server.
    pub dns: SocketAddr,
}

/// contentfilter.toml.
pub fn contentfilter(scene: &FilterSettings<'_>) -> String {
    let FilterSettings {
        inbound,
        originating,
        lists,
        reinject,
        reinject_lists,
        domain,
        key_file,
        dns: name_server,
    } = scene;
    let hop = |address: &SocketAddr| format!("smtp:[{}]:{}", address.ip(), address.port());
    format!(
        "listen_inbound = [\"{inbound}\"]\nlisten_originating = [\"{originating}\"]\nlisten_lists = [\"{lists}\"]\n\
         forward_method = \"{back}\"\nnotify_method = \"{back}\"\nmyhostname = \"mx.{domain}\"\nlocal_domains = [\".{domain}\"]\n\
         [policy_bank.MLMMJ]\nforward_method = \"{lists_back}\"\n\
         [[dkim.key]]\ndomain = \"{domain}\"\nselector = \"dkim\"\nfile = \"{file}\"\n{}",
        dns(*name_server),
        back = hop(reinject),
        lists_back = hop(reinject_lists),
        file = key_file.display(),
    )
}
