//! A policy request as the rules see it.
//!
//! From the attributes of the wire come typed, lower-cased values and those derived from them. Requests that no rule
//! may see (empty, without a state, with an address that is none) end here with their answer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use outrider_core::address;
use outrider_core::codec::policy::Request;
use tokio::time::Instant;

use crate::settings::{InvalidAddress, Settings};

/// The protocol states in which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// One recipient was named.
    Rcpt,
    /// The whole message has arrived.
    EndOfMessage,
}

/// One request, with everything derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRequest {
    /// `None` in all states that no rule knows.
    pub state: Option<State>,
    /// `protocol_state` as received.
    pub protocol_state: String,
    /// Envelope sender, lower case; empty for the null sender.
    pub sender: String,
    /// The sender without its extension.
    pub sender_without_ext: String,
    /// What stands behind the sender's first `@`.
    pub sender_domain: String,
    /// Recipient, lower case; empty at the end of a message with several.
    pub recipient: String,
    /// The recipient without its extension.
    pub recipient_without_ext: String,
    /// What stands behind the recipient's first `@`.
    pub recipient_domain: String,
    /// Login, lower case; empty if not authenticated.
    pub sasl_username: String,
    /// What stands behind the login's first `@`.
    pub sasl_domain: String,
    /// The client's address as received.
    pub client_address: String,
    /// The client's address if it is one.
    pub client_ip: Option<IpAddr>,
    /// The client's verified name, or `unknown`.
    pub client_name: String,
    /// The client's unverified reverse name, lower case, or `unknown`.
    pub reverse_client_name: String,
    /// What the client called itself.
    pub helo_name: String,
    /// Size of the message in bytes as received; `None` if the attribute is missing.
    pub size: Option<String>,
    /// Number of recipients as received; `None` if the attribute is missing.
    pub recipient_count: Option<String>,
    /// Postfix's id of the message's transaction.
    pub instance: String,
    /// Postfix's queue id; empty at RCPT of the first recipient.
    pub queue_id: String,
    /// TLS version.
    pub encryption_protocol: String,
    /// TLS cipher.
    pub encryption_cipher: String,
    /// The address on which Postfix was reached.
    pub server_address: String,
    /// The port on which Postfix was reached.
    pub server_port: String,
    /// When the request was complete: its deadline counts from here.
    pub arrived: Instant,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// One for the rules.
    Ready(Box<PolicyRequest>),
    /// One that no rule may see: nothing to decide upon.
    Pass,
    /// One with an address that is none: no rule may see it, log and table do.
    Invalid {
        /// `sender`, `recipient` or `sasl_username`.
        attribute: &'static str,
        /// The value, lower case.
        value: String,
        /// The request all the same; what is missing is empty.
        request: Box<PolicyRequest>,
    },
}

const ADDRESSES: [&str; 3] = ["sender", "recipient", "sasl_username"];

impl PolicyRequest {
    /// Reads the attributes of a request.
    pub fn parse(request: &Request, settings: &Settings) -> Parsed {
        if request.is_empty() {
            return Parsed::Pass;
        }
        if settings.invalid_address != InvalidAddress::Check
            && let Some((attribute, value)) = first_invalid(request)
        {
            let request = Box::new(PolicyRequest::read(request, settings));
            return Parsed::Invalid { attribute, value, request };
        }
        if ["protocol_state", "sender", "recipient"].iter().any(|name| request.last(name).is_none()) {
            return Parsed::Pass;
        }
        Parsed::Ready(Box::new(PolicyRequest::read(request, settings)))
    }

    /// Whether the client is this machine.
    pub fn is_from_here(&self) -> bool {
        matches!(self.client_address.as_str(), "127.0.0.1" | "::1")
    }

    /// The values of a request; those of missing attributes are empty.
    fn read(request: &Request, settings: &Settings) -> PolicyRequest {
        let text = |name| request.last(name).map(String::from_utf8_lossy);
        let owned = |name| text(name).unwrap_or_default().into_owned();
        let lower = |name| text(name).unwrap_or_default().to_lowercase();
        let state = owned("protocol_state");
        let address = |name| match settings.invalid_address {
            InvalidAddress::Check => unquoted(lower(name)),
            InvalidAddress::Pass | InvalidAddress::Reject => lower(name),
        };
        let (sender, recipient) = (address("sender"), address("recipient"));
        let sasl_username = address("sasl_username");
        let client_address = owned("client_address");
        PolicyRequest {
            state: known_state(&state),
            protocol_state: state,
            sender_without_ext: settings.without_extension(&sender),
            sender_domain: domain(&sender),
            recipient_without_ext: settings.without_extension(&recipient),
            recipient_domain: domain(&recipient),
            sasl_domain: domain(&sasl_username),
            client_ip: IpAddr::from_str(&client_address).ok(),
            client_name: owned("client_name"),
            reverse_client_name: lower("reverse_client_name"),
            helo_name: owned("helo_name"),
            size: text("size").map(Cow::into_owned),
            recipient_count: text("recipient_count").map(Cow::into_owned),
            instance: owned("instance"),
            queue_id: owned("queue_id"),
            encryption_protocol: owned("encryption_protocol"),
            encryption_cipher: owned("encryption_cipher"),
            server_address: owned("server_address"),
            server_port: owned("server_port"),
            arrived: Instant::now(),
            sender,
            recipient,
            sasl_username,
            client_address,
        }
    }

    /// Whether the client logged in.
    pub fn is_authenticated(&self) -> bool {
        !self.sasl_username.is_empty()
    }
}

/// Every occurrence counts, as it does for iRedAPD, which judges line by line.
fn first_invalid(request: &Request) -> Option<(&'static str, String)> {
    for (name, value) in request.iter() {
        let Some(attribute) = ADDRESSES.into_iter().find(|known| known.as_bytes() == name) else { continue };
        if value.is_empty() {
            continue;
        }
        let value = String::from_utf8_lossy(value).to_lowercase();
        if !address::is_valid_iredapd(&value) {
            return Some((attribute, value));
        }
    }
    None
}

/// `"anna"@example.com` is another spelling of `anna@example.com` (RFC 5321 section 4.1.2). Local parts that need their
/// quotation marks keep them.
fn unquoted(address: String) -> String {
    let Some((local, domain)) = address.strip_prefix('"').and_then(|rest| rest.split_once("\"@")) else {
        return address;
    };
    let plain = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let needless =
        local.chars().all(plain) && local.split('.').all(|atom| !atom.is_empty()) && !domain.contains('@');
    if needless { format!("{local}@{domain}") } else { address }
}

fn known_state(text: &str) -> Option<State> {
    if text.eq_ignore_ascii_case("RCPT") {
        Some(State::Rcpt)
    } else if text.eq_ignore_ascii_case("END-OF-MESSAGE") {
        Some(State::EndOfMessage)
    } else {
        None
    }
}

/// The part behind the first `@`, the whole text if there is none.
fn domain(address: &str) -> String {
    address::split_first(address).map_or(address, |(_, domain)| domain).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::BytesMut;
    use outrider_core::codec::policy::{Decoder, Limits};

    use super::*;

    /// A request of the given attributes (`name=value` lines) as the codec gives it.
    pub(crate) fn wire(lines: &str) -> Request {
        let text = if lines.is_empty() { "\n".to_owned() } else { format!("{lines}\n\n") };
        let mut buffer = BytesMut::from(text.as_str());
        Decoder::new(Limits::default()).decode(&mut buffer).unwrap().unwrap()
    }

    /// A request for the rules; panics if the lines are not one.
    pub(crate) fn request(lines: &str) -> PolicyRequest {
        match PolicyRequest::parse(&wire(lines), &Settings::default()) {
            Parsed::Ready(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_folded_and_derived() {
        let request = request(
            "protocol_state=rcpt\nsender=Friend+Box@Sender.Test\nrecipient=ALICE@example.com\n\
             sasl_username=Al+X@Example.com\nclient_address=::ffff:192.0.2.7\nreverse_client_name=MX.Example\n\
             helo_name=HeLo\nsize=12",
        );
        assert_eq!(request.state, Some(State::Rcpt));
        assert_eq!(request.protocol_state, "rcpt");
        assert_eq!(request.sender, "friend+box@sender.test");
        assert_eq!(request.sender_without_ext, "friend@sender.test");
        assert_eq!(request.sender_domain, "sender.test");
        assert_eq!(request.sasl_username, "al+x@example.com");
        assert_eq!(request.sasl_domain, "example.com");
        // Postfix never says it like that; for iRedAPD it is an IPv6 address.
        assert_eq!(request.client_ip.unwrap().to_string(), "::ffff:192.0.2.7");
        assert_eq!(request.reverse_client_name, "mx.example");
        assert_eq!(request.helo_name, "HeLo");
        assert_eq!((request.size.as_deref(), request.recipient_count), (Some("12"), None));
    }

    #[test]
    fn requests_that_no_rule_may_see() {
        let table = [
            ("", None),
            ("sender=\nrecipient=a@example.com", None),
            ("protocol_state=RCPT\nrecipient=a@example.com", None),
            ("protocol_state=RCPT\nsender=a@example.com", None),
            ("protocol_state=RCPT\nsender=NoDomain\nrecipient=a@example.com", Some(("sender", "nodomain"))),
            ("recipient=r\nsender=s\nprotocol_state=RCPT", Some(("recipient", "r"))),
            ("sender=s\nsender=s@example.com\nrecipient=r@example.com", Some(("sender", "s"))),
            ("sender=\nrecipient=\nsasl_username=alice", Some(("sasl_username", "alice"))),
        ];
        for (lines, expected) in table {
            match PolicyRequest::parse(&wire(lines), &Settings::default()) {
                Parsed::Pass => assert_eq!(expected, None, "{lines}"),
                Parsed::Invalid { attribute, value, .. } => {
                    assert_eq!(expected, Some((attribute, value.as_str())), "{lines}");
                }
                other => panic!("{lines}: {other:?}"),
            }
        }
    }

    #[test]
    fn invalid_addresses_may_be_checked_all_the_same() {
        let settings = Settings { invalid_address: InvalidAddress::Check, ..Settings::default() };
        let parsed = PolicyRequest::parse(
            &wire("protocol_state=RCPT\nsender=o'b+c@x.example\nrecipient=r"),
            &settings,
        );
        let Parsed::Ready(request) = parsed else { panic!("{parsed:?}") };
        assert_eq!((request.sender_domain.as_str(), request.recipient_domain.as_str()), ("x.example", "r"));
        assert_eq!(request.sender_without_ext, "o'b@x.example");
    }

    #[test]
    fn an_invalid_address_stays_as_it_came() {
        let request = wire("protocol_state=RCPT\nsender=\"Bob\"@x.example\nrecipient=a@x.example");
        for (invalid_address, expected) in [
            (InvalidAddress::Pass, "\"bob\"@x.example"),
            (InvalidAddress::Reject, "\"bob\"@x.example"),
            (InvalidAddress::Check, "bob@x.example"),
        ] {
            let settings = Settings { invalid_address, ..Settings::default() };
            let (Parsed::Invalid { request, .. } | Parsed::Ready(request)) =
                PolicyRequest::parse(&request, &settings)
            else {
                panic!("{invalid_address:?}")
            };
            assert_eq!(request.sender_without_ext, expected);
        }
    }

    #[test]
    fn quotation_marks_that_nobody_needs() {
        for (address, expected) in [
            ("\"a.b\"@example.com", "a.b@example.com"),
            ("\"o'b+x\"@example.com", "o'b+x@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("\"a@evil.test\"@example.com", "\"a@evil.test\"@example.com"),
            ("\"a\\\"b\"@example.com", "\"a\\\"b\"@example.com"),
            ("\"a.\"@example.com", "\"a.\"@example.com"),
            ("\"\"@example.com", "\"\"@example.com"),
            ("\"a\"@evil.test@example.com", "\"a\"@evil.test@example.com"),
            ("\"a@example.com", "\"a@example.com"),
            ("a@example.com", "a@example.com"),
        ] {
            assert_eq!(unquoted(address.to_owned()), expected);
        }
    }

    #[test]
    fn the_last_of_repeated_attributes_counts() {
        let request = request(
            "protocol_state=RCPT\nsender=a@example.com\nsender=b@example.com\nrecipient=c@example.com",
        );
        assert_eq!(request.sender, "b@example.com");
        assert_eq!(request.client_ip, None);
    }
}
