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

/// policyd.toml.
pub fn policyd(listen: SocketAddr, sql: &SqlAccess, name_server: SocketAddr) -> String {
    format!("listen = [\"{listen}\"]\n{}{}", database(sql), dns(name_server))
}

/// Appended to policyd.toml: nothing is cached, for tests that change rows and ask at once.
pub const UNCACHED: &str = "[cache]\nlifetime = \"0s\"\n";

/// srsd.toml with the stock `srs_domain`: the server's host name.
pub fn srsd(forward: SocketAddr, reverse: SocketAddr, domain: &str, sql: &SqlAccess) -> String {
    format!(
        "listen_forward = [\"{forward}\"]\nlisten_reverse = [\"{reverse}\"]\nsrs_domain = \"{domain}\"\nsecrets = [\"a secret for tests only\"]\n{}",
        database(sql)
    )
}

/// quota-status.toml with the answers iRedMail configures.
pub fn quota_status(listen: SocketAddr, sql: &SqlAccess) -> String {
    format!(
        "listen = [\"{listen}\"]\nsuccess = \"DUNNO\"\nnouser = \"DUNNO\"\noverquota = \"552 5.2.2 Mailbox is full\"\n{}",
        database(sql)
    )
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
