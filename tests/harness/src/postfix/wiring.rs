//! main.cf and master.cf of an iRedMail server, with the ports of this test.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::maps;
use crate::mailing_list;
use crate::store::SqlAccess;

/// How Postfix asks the SRS daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrsProtocol {
    /// `tcp:HOST:PORT`, as iRedMail.
    TcpTable,
    /// `socketmap:inet:HOST:PORT:forward`, as PostSRSd 2.
    Socketmap,
}

/// The two SRS listeners.
#[derive(Debug, Clone, Copy)]
pub struct Srs {
    /// Protocol spoken to both.
    pub protocol: SrsProtocol,
    /// Sender addresses (7778); `None` where the content filter rewrites them.
    pub forward: Option<SocketAddr>,
    /// Recipient addresses (7779).
    pub reverse: SocketAddr,
}

/// The content filter's listeners.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    /// Mail from outside (10024).
    pub inbound: SocketAddr,
    /// Mail of our users (10026).
    pub originating: SocketAddr,
}

/// What is plugged in. Everything absent is left out of main.cf, so the default is a plain Postfix.
#[derive(Debug, Clone, Default)]
pub struct Wiring {
    /// `check_policy_service` at RCPT and END-OF-MESSAGE (7777).
    pub policy: Option<SocketAddr>,
    /// `check_policy_service` last at RCPT (12340).
    pub quota: Option<SocketAddr>,
    /// Canonical maps.
    pub srs: Option<Srs>,
    /// `content_filter`.
    pub filter: Option<Filter>,
    /// The spool of the mlmmj lists.
    pub lists: Option<PathBuf>,
    /// Parameters added at the end of main.cf; the last one wins.
    pub extra: Vec<(String, String)>,
}

/// The listeners of this Postfix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listeners {
    pub(super) mx: u16,
    pub(super) submission: u16,
    pub(super) reinject: u16,
    pub(super) reinject_lists: u16,
}

/// Everything main.cf depends on.
pub(super) struct Scene<'a> {
    pub(super) folder: &'a Path,
    pub(super) host_name: &'a str,
    pub(super) sql: &'a SqlAccess,
    pub(super) relay: SocketAddr,
    pub(super) wiring: &'a Wiring,
    pub(super) listeners: Listeners,
}

/// At most this many smtp-amavis deliveries at a time; iRedMail writes the filter's number of workers.
const FILTER_PROCESSES: usize = 4;

impl Scene<'_> {
    /// The text of main.cf.
    pub(super) fn main_cf(&self) -> String {
        let folder = self.folder.display();
        let map = |name: &str| format!("proxy:{}:{folder}/etc/sql/{name}.cf", self.sql.server.driver());
        let policy = self.wiring.policy.map(|address| format!("check_policy_service inet:{address}"));
        let quota = self.wiring.quota.map(|address| format!("check_policy_service inet:{address}"));
        let mut recipient =
            vec!["reject_non_fqdn_recipient".to_owned(), "reject_unlisted_recipient".to_owned()];
        recipient.extend(policy.clone());
        recipient.extend(
            ["permit_mynetworks", "permit_sasl_authenticated", "reject_unauth_destination"]
                .map(str::to_owned),
        );
        recipient.extend(quota);

        let mut text = String::from("# Written by the test harness.\n");
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} = {value}");
        };
        // Where this instance lives.
        set("compatibility_level", "2");
        set("queue_directory", &format!("{folder}/q"));
        set("data_directory", &format!("{folder}/var"));
        set("maillog_file", &format!("{folder}/maillog"));
        set("maillog_file_prefixes", &folder.to_string());
        set("inet_interfaces", "127.0.0.1");
        set("inet_protocols", "ipv4");
        // iRedMail's choices (its installer writes these values).
        for (name, value) in [
            ("myhostname", self.host_name),
            ("mydestination", "$myhostname, localhost, localhost.localdomain"),
            ("mynetworks", "127.0.0.1"),
            ("recipient_delimiter", "+"),
            ("enable_original_recipient", "no"),
            ("smtpd_reject_unlisted_recipient", "yes"),
            ("smtpd_reject_unlisted_sender", "yes"),
            ("smtputf8_enable", "no"),
            ("enable_long_queue_ids", "yes"),
            ("smtpd_discard_ehlo_keywords", "chunking"),
            ("allow_percent_hack", "no"),
            ("swap_bangpath", "no"),
            ("alias_maps", ""),
            ("virtual_alias_domains", ""),
            ("virtual_mailbox_base", &format!("{folder}/mail")),
            ("virtual_uid_maps", "static:2000"),
            ("virtual_gid_maps", "static:2000"),
            ("virtual_transport", "lmtp:unix:private/dovecot-lmtp"),
            ("lmtp_destination_recipient_limit", "1"),
            ("mlmmj_destination_recipient_limit", "1"),
            ("smtp-amavis_destination_recipient_limit", "1"),
            ("message_size_limit", "15728640"),
            ("smtpd_sasl_type", "dovecot"),
            ("smtpd_sasl_path", "private/dovecot-auth"),
            ("smtpd_helo_required", "yes"),
            (
                "smtpd_helo_restrictions",
                "permit_mynetworks, permit_sasl_authenticated, reject_non_fqdn_helo_hostname",
            ),
            (
                "smtpd_sender_restrictions",
                "reject_non_fqdn_sender, reject_unlisted_sender, permit_mynetworks, permit_sasl_authenticated",
            ),
            ("smtpd_data_restrictions", "reject_unauth_pipelining"),
        ] {
            set(name, value);
        }
        set("smtpd_recipient_restrictions", &recipient.join(", "));
        if let Some(policy) = &policy {
            set("smtpd_end_of_data_restrictions", policy);
        }
        set(
            "transport_maps",
            &["transport_user", "transport_maillist", "transport_domain"].map(map).join(" "),
        );
        set("virtual_mailbox_domains", &map("virtual_mailbox_domains"));
        set("relay_domains", &format!("$mydestination {}", map("relay_domains")));
        set("virtual_mailbox_maps", &map("virtual_mailbox"));
        set(
            "virtual_alias_maps",
            &["virtual_alias", "domain_alias", "catch_all", "domain_alias_catch_all"].map(map).join(" "),
        );
        set("smtpd_sender_login_maps", &map("sender_login"));
        set("sender_dependent_relayhost_maps", &map("sender_relayhost"));
        set("sender_bcc_maps", &["sender_bcc_user", "sender_bcc_domain"].map(map).join(" "));
        set("recipient_bcc_maps", &["recipient_bcc_user", "recipient_bcc_domain"].map(map).join(" "));
        set(
            "proxy_read_maps",
            "proxy:unix:passwd.byname $transport_maps $virtual_mailbox_domains $relay_domains $virtual_mailbox_maps \
             $virtual_alias_maps $smtpd_sender_login_maps $sender_dependent_relayhost_maps $sender_bcc_maps \
             $recipient_bcc_maps",
        );
        if let Some(filter) = &self.wiring.filter {
            set("content_filter", &format!("smtp-amavis:[127.0.0.1]:{}", filter.inbound.port()));
        }
        if let Some(srs) = &self.wiring.srs {
            let map = |address: SocketAddr, name: &str| match srs.protocol {
                SrsProtocol::TcpTable => format!("tcp:{address}"),
                SrsProtocol::Socketmap => format!("socketmap:inet:{address}:{name}"),
            };
            if let Some(forward) = srs.forward {
                set("sender_canonical_maps", &map(forward, "forward"));
                set("sender_canonical_classes", "envelope_sender");
            }
            set("recipient_canonical_maps", &map(srs.reverse, "reverse"));
            set("recipient_canonical_classes", "envelope_recipient,header_recipient");
        }
        // What a test machine needs: no DNS, no TLS, no waiting for minutes, clients that may say where they come from.
        for (name, value) in [
            ("relayhost", &*format!("[127.0.0.1]:{}", self.relay.port())),
            ("smtp_dns_support_level", "disabled"),
            ("smtpd_peername_lookup", "no"),
            ("smtp_tls_security_level", "none"),
            ("smtpd_tls_security_level", "none"),
            ("smtpd_authorized_xclient_hosts", "127.0.0.1"),
            ("queue_run_delay", "1s"),
            ("minimal_backoff_time", "1s"),
            ("maximal_backoff_time", "3s"),
            ("transport_retry_time", "1s"),
            ("smtpd_client_connection_count_limit", "0"),
            ("notify_classes", ""),
        ] {
            set(name, value);
        }
        for (name, value) in &self.wiring.extra {
            set(name, value);
        }
        text
    }

    /// The text of master.cf.
    pub(super) fn master_cf(&self) -> String {
        let Listeners { mx, submission, reinject, reinject_lists } = self.listeners;
        let mut text = String::new();
        let mut service = |line: &str, options: &[&str]| {
            text.push_str(line);
            text.push('\n');
            for option in options {
                let _ = writeln!(text, "  -o {option}");
            }
        };
        service(&format!("127.0.0.1:{mx} inet n - n - - smtpd"), &[]);
        let originating = self.wiring.filter.map(|filter| filter.originating.port());
        let content_filter =
            originating.map_or_else(String::new, |port| format!("smtp-amavis:[127.0.0.1]:{port}"));
        service(
            &format!("127.0.0.1:{submission} inet n - n - - smtpd"),
            &[
                "syslog_name=postfix/submission",
                "smtpd_sasl_auth_enable=yes",
                "smtpd_client_restrictions=permit_sasl_authenticated,reject",
                // Loopback clients must log in here like everybody else.
                "mynetworks=",
                &format!("content_filter={content_filter}"),
            ],
        );
        service(
            &format!("smtp-amavis unix - - n - {FILTER_PROCESSES} smtp"),
            &[
                "syslog_name=postfix/amavis",
                "smtp_data_done_timeout=1200",
                "smtp_send_xforward_command=yes",
                "smtp_dns_support_level=disabled",
                "max_use=20",
                "local_header_rewrite_clients=",
            ],
        );
        for (role, port, mappings) in
            [("10025", reinject, ",no_address_mappings"), ("10028", reinject_lists, "")]
        {
            service(
                &format!("127.0.0.1:{port} inet n - n - - smtpd"),
                &[
                    &format!("syslog_name=postfix/{role}"),
                    "content_filter=",
                    "mynetworks_style=host",
                    "mynetworks=127.0.0.0/8",
                    "local_header_rewrite_clients=",
                    "local_recipient_maps=",
                    "relay_recipient_maps=",
                    "strict_rfc821_envelopes=yes",
                    "smtp_tls_security_level=none",
                    "smtpd_tls_security_level=none",
                    "smtpd_restriction_classes=",
                    "smtpd_delay_reject=no",
                    "smtpd_client_restrictions=permit_mynetworks,reject",
                    "smtpd_helo_restrictions=",
                    "smtpd_sender_restrictions=",
                    "smtpd_recipient_restrictions=permit_mynetworks,reject",
                    "smtpd_end_of_data_restrictions=",
                    "smtpd_error_sleep_time=0",
                    "smtpd_soft_error_limit=1001",
                    "smtpd_hard_error_limit=1000",
                    "smtpd_client_connection_count_limit=0",
                    "smtpd_client_connection_rate_limit=0",
                    &format!(
                        "receive_override_options=no_header_body_checks,no_unknown_recipient_checks{mappings}"
                    ),
                ],
            );
        }
        if let Some(spool) = &self.wiring.lists {
            let account = mailing_list::ACCOUNT;
            service(
                &format!(
                    "mlmmj unix - n n - - pipe flags=ORhu user={account} argv=/usr/bin/mlmmj-receive -L {}/${{nexthop}}",
                    spool.display()
                ),
                &[],
            );
        }
        for line in [
            "pickup unix n - n 60 1 pickup",
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "verify unix - - n - 1 verify",
            "flush unix n - n 1000? 0 flush",
            "proxymap unix - - n - - proxymap",
            "proxywrite unix - - n - 1 proxymap",
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
            "lmtp unix - - n - - lmtp",
            "showq unix n - n - - showq",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "discard unix - - n - - discard",
            "local unix - n n - - local",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "postlog unix-dgram n - n - 1 postlogd",
        ] {
            service(line, &[]);
        }
        text
    }

    /// The map files: name and text.
    pub(super) fn maps(&self) -> Vec<(String, String)> {
        maps::queries(self.sql.server)
            .into_iter()
            .map(|(name, query)| (format!("{name}.cf"), maps::file(self.sql, &query)))
            .collect()
    }
}
