//! The sections that all daemons share: `[log]`, `[metrics]`, `[process]` and `[limits]`.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Findings, FrameSettings, Interval, ListenAddress, ListenerSpec, Secret};

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The service is not doing its work.
    Error,
    /// An administrator should look today.
    Warn,
    /// One line for each finished unit of work.
    Info,
    /// Single steps.
    Debug,
    /// Protocol bytes.
    Trace,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStyle {
    /// `service=policyd event=answer action=DUNNO`
    KeyValue,
    /// One JSON object a line with the same keys.
    Json,
    /// The lines of iRedAPD, for log analysers that know them.
    Iredapd,
    /// The lines of Amavisd, for log analysers that know them.
    Amavis,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// Standard error, which systemd puts into the journal.
    Stderr,
    /// The syslog socket.
    Syslog,
    /// The file `path`.
    File,
}

/// A syslog facility (RFC 5424 section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Facility {
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

crate::settings! {
    /// What is logged, in which form and where to.
    pub struct LogSettings {
        /// How much is logged: "error", "warn", "info", "debug" or "trace" (protocol bytes).
        pub level: LogLevel = LogLevel::Info,
        /// The form of a line: "key-value", "json", or as the replaced program writes it: "iredapd", "amavis".
        pub style: LogStyle = LogStyle::KeyValue,
        /// Where lines go: "stderr" (the journal under systemd), "syslog" or "file".
        pub target: LogTarget = LogTarget::Stderr,
        /// The syslog facility: "mail", "daemon", "user", "auth", "local0" to "local7".
        pub facility: Facility = Facility::Mail,
        /// The name in front of syslog lines; the name of the daemon if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tag: Option<String> = None,
        /// The file for target = "file"; SIGUSR1 and SIGHUP open it again after rotation.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub path: Option<PathBuf> = None,
        /// The socket for target = "syslog".
        pub syslog_socket: PathBuf = PathBuf::from("/dev/log"),
    }
}

crate::settings! {
    /// Where Prometheus metrics and health answers are served: /metrics, /livez, /readyz and /healthz.
    pub struct MetricsSettings {
        /// Addresses such as "127.0.0.1:9777" or "unix:/run/outrider/policyd.metrics"; none by default.
        pub listen: Vec<ListenAddress> = Vec::new(),
        /// The bearer token that clients must send; needed on addresses that are not loopback.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub token: Option<Secret> = None,
    }
}

crate::settings! {
    /// The account and the resources of the process. Changes need a restart.
    pub struct ProcessSettings {
        /// The account to run as when started by root; systemd units set it with User= instead.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub user: Option<String> = None,
        /// The group to run as; the main group of `user` if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub group: Option<String> = None,
        /// Further groups of the process, for example one that may read DKIM keys.
        pub supplementary_groups: Vec<String> = Vec::new(),
        /// Threads that serve connections; 0 means one for each processor, for policyd one for two of them, for srsd one.
        pub worker_threads: usize = 0,
        /// The permissions of UNIX sockets, in octal digits.
        pub socket_mode: String = "0660".to_owned(),
        /// The group of UNIX sockets, for example "postfix"; the group of the process if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub socket_group: Option<String> = None,
    }
}

crate::settings! {
    /// Bounds on what clients may use.
    pub struct LimitSettings {
        /// Connections served at once. At the limit the one that is idle for longest is closed for a new one.
        pub max_connections: usize = 1000,
        /// A connection without any request for this long is closed.
        pub idle_timeout: Interval = Interval::seconds(310),
        /// The time within which a request is answered.
        pub request_timeout: Interval = Interval::seconds(5),
        /// How long a stop waits for requests in progress.
        pub grace: Interval = Interval::seconds(10),
        /// Networks of clients that may connect, such as ["127.0.0.0/8", "192.0.2.0/24"].
        /// Empty: only this machine, and listening on other addresses than loopback is refused.
        pub allow: Vec<IpNet> = Vec::new(),
    }
}

impl ProcessSettings {
    /// The permissions of UNIX sockets as a number; `None` if the text is not octal.
    pub fn socket_mode_bits(&self) -> Option<u32> {
        u32::from_str_radix(&self.socket_mode, 8).ok().filter(|mode| *mode <= 0o777)
    }
}

/// Checks the frame's sections and the listeners of a daemon.
pub(super) fn check_frame(frame: &FrameSettings<'_>, listeners: &[ListenerSpec], findings: &mut Findings) {
    if frame.log.target == LogTarget::File && frame.log.path.is_none() {
        findings.error(
            "log.path",
            "is needed with target = \"file\"",
            "add path = \"/var/log/outrider/NAME.log\"",
        );
    }
    if let Some(path) = frame.log.path.as_ref().filter(|path| !path.is_absolute()) {
        findings.error("log.path", format!("{} is no absolute path", path.display()), "start it with /");
    }
    if let Some(tag) = &frame.log.tag
        && (tag.is_empty() || tag.len() > 48 || !tag.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        findings.error("log.tag", "must be 1 to 48 printable ASCII characters without spaces", "");
    }
    if frame.process.socket_mode_bits().is_none() {
        findings.error("process.socket_mode", "must be up to three octal digits", "write \"0660\"");
    }
    if frame.process.worker_threads > 1024 {
        findings.error("process.worker_threads", "must be at most 1024", "write 0 for one per processor");
    }
    if frame.limits.max_connections == 0 || frame.limits.max_connections > 1_000_000 {
        findings.error("limits.max_connections", "must be between 1 and 1000000", "the default is 1000");
    }
    for (key, value) in [
        ("limits.idle_timeout", frame.limits.idle_timeout),
        ("limits.request_timeout", frame.limits.request_timeout),
    ] {
        if value.duration().is_zero() {
            findings.error(key, "must be longer than nothing", "write a time such as \"30s\"");
        }
    }
    if frame.limits.allow.is_empty() {
        for listener in listeners.iter().filter(|listener| !listener.address.is_loopback()) {
            findings.error(
                "limits.allow",
                format!(
                    "{} can be reached from other machines, but no client networks are named",
                    listener.address
                ),
                "list the networks of your mail servers, for example allow = [\"192.0.2.0/24\"]",
            );
        }
    }
    if frame.metrics.token.is_none() {
        for address in frame.metrics.listen.iter().filter(|address| !address.is_loopback()) {
            findings.error(
                "metrics.token",
                format!("{address} can be reached from other machines, but no token is set"),
                "add token = \"file:/etc/outrider/metrics.token\" or listen on 127.0.0.1",
            );
        }
    }
}
