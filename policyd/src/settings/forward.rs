//! Other policy servers that are asked as steps of the chain.

use std::collections::BTreeMap;

use outrider_core::settings::{Findings, Interval, ListenAddress};
use serde::{Deserialize, Serialize};

use super::{OnFailure, Settings};

/// A value of the attribute `protocol_state` (`SMTPD_POLICY_README`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
#[allow(missing_docs)] // They are SMTP's words.
pub enum ProtocolState {
    Connect,
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    EndOfMessage,
    Vrfy,
    Etrn,
}

impl ProtocolState {
    /// As Postfix writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ProtocolState::Connect => "CONNECT",
            ProtocolState::Helo => "HELO",
            ProtocolState::Ehlo => "EHLO",
            ProtocolState::Mail => "MAIL",
            ProtocolState::Rcpt => "RCPT",
            ProtocolState::Data => "DATA",
            ProtocolState::EndOfMessage => "END-OF-MESSAGE",
            ProtocolState::Vrfy => "VRFY",
            ProtocolState::Etrn => "ETRN",
        }
    }
}

outrider_core::settings! {
    /// A policy server that is asked as one step of the chain.
    pub struct ForwardSettings {
        /// The server: "127.0.0.1:10040" or "unix:/run/filter/policy.sock".
        #[serde(skip_serializing_if = "Option::is_none")]
        pub address: Option<ListenAddress> = None,
        /// Its place among the rules, as in plugin_priorities: larger is asked first, equal ones after the rules.
        pub priority: i64 = 0,
        /// The protocol states in which it is asked.
        pub states: Vec<ProtocolState> = vec![ProtocolState::Rcpt],
        /// The longest wait for its answer, a connection included.
        pub timeout: Interval = Interval::seconds(2),
        /// What happens when it does not answer in time, or nonsense: "pass" or "defer".
        pub on_failure: OnFailure = OnFailure::Pass,
        /// Connections to it. Each carries one question at a time and is kept for the next.
        pub max_connections: usize = 20,
    }
}

/// The longest name of a step: it becomes a label of metrics.
const LONGEST_NAME: usize = 32;
/// The most connections to one server.
const MOST_CONNECTIONS: usize = 1000;

/// The steps by name.
pub type ForwardMap = BTreeMap<String, ForwardSettings>;

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    for (name, step) in &settings.forward {
        let key = |field: &str| format!("forward.{name}.{field}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
            let reason = "the name of a step must be 1 to 32 letters, digits, - and _";
            findings.error(format!("forward.{name}"), reason, "it is shown in the log and in metrics");
        }
        match &step.address {
            None => {
                let fix = "write address = \"127.0.0.1:10040\" or \"unix:/path\"";
                findings.error(key("address"), "there is no server to ask", fix);
            }
            Some(ListenAddress::Tcp(address)) if address.port() == 0 => {
                findings.error(key("address"), "port 0 is none", "write the port of the policy server");
            }
            Some(address) if settings.listen.iter().any(|own| reaches(address, own)) => {
                let reason = format!("{address} is policyd itself, which would ask itself for ever");
                findings.error(key("address"), reason, "write the address of the other policy server");
            }
            Some(_) => {}
        }
        if step.states.is_empty() {
            findings.error(key("states"), "in no state it is never asked", "write [\"RCPT\"]");
        }
        let most = settings.outside_budget();
        if step.timeout.duration().is_zero() || step.timeout.duration() > most {
            let reason = "must leave a fifth of limits.request_timeout, and be longer than nothing";
            findings.error(key("timeout"), reason, format!("write at most \"{}\"", Interval(most)));
        }
        if !(1..=MOST_CONNECTIONS).contains(&step.max_connections) {
            findings.error(key("max_connections"), "must be between 1 and 1000", "the default is 20");
        }
    }
}

/// Whether a connection to `address` ends at `own`.
fn reaches(address: &ListenAddress, own: &ListenAddress) -> bool {
    match (address, own) {
        (ListenAddress::Tcp(address), ListenAddress::Tcp(own)) => {
            let everywhere = own.ip().is_unspecified() && address.ip().to_canonical().is_loopback();
            address.port() == own.port() && (address.ip() == own.ip() || everywhere)
        }
        _ => address == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_step_needs_an_address_only() {
        let settings = of("[forward.relays]\naddress = '127.0.0.1:10040'").unwrap();
        let step = &settings.forward["relays"];
        assert_eq!(step.address, Some("127.0.0.1:10040".parse().unwrap()));
        assert_eq!((step.priority, &step.states[..]), (0, &[ProtocolState::Rcpt][..]));
        assert_eq!((step.timeout, step.on_failure), (Interval::seconds(2), OnFailure::Pass));
        let mut findings = Findings::new();
        check(&settings, &mut findings);
        assert!(findings.is_empty(), "{findings}");
        assert!(Settings::default().forward.is_empty());
    }

    #[test]
    fn states_are_written_as_postfix_does() {
        let every = [
            ProtocolState::Connect,
            ProtocolState::Helo,
            ProtocolState::Ehlo,
            ProtocolState::Mail,
            ProtocolState::Rcpt,
            ProtocolState::Data,
            ProtocolState::EndOfMessage,
            ProtocolState::Vrfy,
            ProtocolState::Etrn,
        ];
        for state in every {
            let settings = of(&format!("[forward.x]\nstates = ['{}']", state.as_str())).unwrap();
            assert_eq!(settings.forward["x"].states, [state]);
        }
        assert!(of("[forward.x]\nstates = ['BDAT']").unwrap_err().contains("END-OF-MESSAGE"));
        assert!(of("[forward.x]\npriorty = 3").unwrap_err().contains("priority"));
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (name, text, key) in [
            ("x", "address = '127.0.0.1:1'", None),
            ("x", "address = 'unix:/run/x'\npriority = -5\ntimeout = '4s'\nmax_connections = 1", None),
            ("x", "address = '127.0.0.1:7778'", None),
            ("x", "address = '192.0.2.1:8888'", None),
            ("x", "", Some("forward.x.address")),
            ("x", "address = '127.0.0.1:0'", Some("forward.x.address")),
            ("x", "address = '127.0.0.1:7777'", Some("forward.x.address")),
            ("x", "address = '127.0.0.2:8888'", Some("forward.x.address")),
            ("x", "address = 'unix:/run/own'", Some("forward.x.address")),
            ("x", "address = '127.0.0.1:1'\nstates = []", Some("forward.x.states")),
            ("x", "address = '127.0.0.1:1'\ntimeout = '0s'", Some("forward.x.timeout")),
            ("x", "address = '127.0.0.1:1'\ntimeout = '4001ms'", Some("forward.x.timeout")),
            ("x", "address = '127.0.0.1:1'\nmax_connections = 0", Some("forward.x.max_connections")),
            ("x", "address = '127.0.0.1:1'\nmax_connections = 1001", Some("forward.x.max_connections")),
            ("'a b'", "address = '127.0.0.1:1'", Some("forward.a b")),
            ("''", "address = '127.0.0.1:1'", Some("forward.")),
            (
                "a23456789012345678901234567890123",
                "address = '127.0.0.1:1'",
                Some("forward.a23456789012345678901234567890123"),
            ),
        ] {
            let listen = "listen = ['127.0.0.1:7777', '0.0.0.0:8888', 'unix:/run/own']";
            let settings = of(&format!("{listen}\n[forward.{name}]\n{text}")).unwrap();
            let mut findings = Findings::new();
            check(&settings, &mut findings);
            assert_eq!(findings.iter().map(|one| one.key.as_str()).next(), key, "{text}: {findings}");
        }
    }
}
