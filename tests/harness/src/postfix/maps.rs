//! The SQL look-ups of an iRedMail server, one file a map.

use crate::store::{Server, SqlAccess};

/// Name of the map (and its file) and its query; `%s` is the key, `%u` and `%d` its parts, as in `mysql_table(5)`.
pub(super) fn queries(server: Server) -> Vec<(&'static str, String)> {
    let maildir = server.concat(&["mailbox.storagenode", "'/'", "mailbox.maildir", "'/Maildir/'"]);
    let target_address = server.concat(&["'%u'", "'@'", "alias_domain.target_domain"]);
    let fixed = [
        (
            "virtual_mailbox_domains",
            "SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 UNION \
             SELECT alias_domain.alias_domain FROM alias_domain, domain WHERE alias_domain.alias_domain='%s' AND \
             alias_domain.active=1 AND alias_domain.target_domain=domain.domain AND domain.active=1 AND domain.backupmx=0",
        ),
        ("relay_domains", "SELECT domain FROM domain WHERE domain='%s' AND backupmx=1 AND active=1"),
        (
            "virtual_alias",
            "SELECT forwardings.forwarding FROM forwardings, domain WHERE forwardings.address='%s' AND \
             forwardings.domain=domain.domain AND forwardings.active=1 AND domain.backupmx=0 AND domain.active=1",
        ),
        (
            "catch_all",
            "SELECT forwardings.forwarding FROM forwardings, domain WHERE forwardings.address='%d' AND \
             '%u' NOT LIKE '%%+%%' AND forwardings.address=domain.domain AND forwardings.active=1 AND domain.active=1 AND \
             domain.backupmx=0",
        ),
        (
            "domain_alias_catch_all",
            "SELECT forwardings.forwarding FROM forwardings, alias_domain, domain WHERE \
             alias_domain.alias_domain='%d' AND forwardings.address=alias_domain.target_domain AND \
             alias_domain.target_domain=domain.domain AND forwardings.active=1 AND alias_domain.active=1",
        ),
        (
            "sender_login",
            "SELECT mailbox.username FROM mailbox, domain WHERE mailbox.username='%s' AND mailbox.domain='%d' AND \
             mailbox.domain=domain.domain AND mailbox.enablesmtp=1 AND mailbox.active=1 AND domain.backupmx=0 AND domain.active=1",
        ),
        (
            "transport_user",
            "SELECT mailbox.transport FROM mailbox, domain WHERE mailbox.username='%s' AND mailbox.domain='%d' AND \
             mailbox.domain=domain.domain AND mailbox.transport<>'' AND mailbox.active=1 AND mailbox.enabledeliver=1 AND \
             domain.backupmx=0 AND domain.active=1",
        ),
        (
            "transport_maillist",
            "SELECT maillists.transport FROM maillists, domain WHERE maillists.address='%s' AND \
             maillists.domain=domain.domain AND maillists.active=1 AND domain.active=1",
        ),
        ("transport_domain", "SELECT transport FROM domain WHERE domain='%s' AND active=1"),
        ("sender_relayhost", "SELECT relayhost FROM sender_relayhost WHERE account='%s'"),
    ];
    let mut queries: Vec<(&'static str, String)> =
        fixed.into_iter().map(|(name, query)| (name, query.to_owned())).collect();
    for (name, direction, of) in [
        ("sender_bcc_user", "sender", "user"),
        ("sender_bcc_domain", "sender", "domain"),
        ("recipient_bcc_user", "recipient", "user"),
        ("recipient_bcc_domain", "recipient", "domain"),
    ] {
        queries.push((name, bcc(direction, of)));
    }
    queries.push((
        "virtual_mailbox",
        format!(
            "SELECT {maildir} FROM mailbox, domain WHERE mailbox.username='%s' AND mailbox.active=1 AND \
             mailbox.enabledeliver=1 AND mailbox.domain=domain.domain AND domain.active=1"
        ),
    ));
    queries.push((
        "domain_alias",
        format!(
            "SELECT forwardings.forwarding FROM forwardings, alias_domain, domain WHERE alias_domain.alias_domain='%d' \
             AND forwardings.address={target_address} AND alias_domain.target_domain=domain.domain AND \
             forwardings.active=1 AND alias_domain.active=1 AND domain.backupmx=0"
        ),
    ));
    queries
}

fn bcc(direction: &str, of: &str) -> String {
    let table = format!("{direction}_bcc_{of}");
    let account = if of == "user" {
        format!("{table}.username='%s' AND {table}.active=1 AND domain.backupmx=0 AND ")
    } else {
        String::new()
    };
    format!(
        "SELECT {table}.bcc_address FROM {table}, domain WHERE {account}{table}.domain='%d' AND \
         {table}.domain=domain.domain AND domain.active=1"
    )
}

/// The text of a map file.
pub(super) fn file(sql: &SqlAccess, query: &str) -> String {
    format!(
        "hosts = {}\nuser = {}\npassword = {}\ndbname = vmail\nquery = {query}\n",
        sql.address, sql.user, sql.password
    )
}
