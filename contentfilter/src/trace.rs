//! The way a mail came: hops with public addresses, out of XFORWARD and the Received fields.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// One hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Protocol word: `ESMTP`, `ESMTPSA`, ...; empty when not known.
    pub with: String,
    /// Address of the client of that hop.
    pub address: IpAddr,
    /// Its port.
    pub port: Option<u16>,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}://[{}]:{port}", self.with, self.address),
            None => write!(f, "{}://{}", self.with, self.address),
        }
    }
}

/// The public hops, newest first. `client` is the first client as XFORWARD told it, `received` the texts of the
/// Received fields from the top.
pub fn public_hops(client: Option<Hop>, received: &[String]) -> Vec<Hop> {
    let parsed: Vec<Option<Hop>> = received.iter().map(|text| parse_received(text)).collect();
    let mut hops: Vec<Hop> = Vec::new();
    let mut rest = parsed.into_iter();
    if let Some(client) = client.filter(|client| is_public(client.address)) {
        // The topmost field usually is that of the MTA in front of us and shows the same client.
        let top = rest.next().flatten();
        match top.filter(|top| is_public(top.address)) {
            Some(top) if top.address == client.address => hops.push(Hop { port: client.port, ..top }),
            other => {
                hops.push(client);
                hops.extend(other);
            }
        }
    }
    hops.extend(rest.flatten().filter(|hop| is_public(hop.address)));
    hops
}

/// True for addresses of the Internet: not loopback, private, link-local, shared (100.64/10), multicast, reserved.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared || a == 0 || a >= 224)
                && v4 != Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let private = first & 0xfe00 == 0xfc00;
            let link_local = first & 0xffc0 == 0xfe80;
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || private || link_local)
        }
    }
}

/// Reads the client's address from the `from` clause and the word after `with`.
fn parse_received(text: &str) -> Option<Hop> {
    let mut words = text.split_ascii_whitespace();
    let from = text.find(" by ").map_or(text, |by| &text[..by]);
    let with = words.by_ref().find(|word| word.eq_ignore_ascii_case("with")).and_then(|_| words.next());
    let with = with.unwrap_or_default().trim_end_matches(';').to_owned();
    let mut rest = from;
    while let Some(open) = rest.find('[') {
        let after = &rest[open + 1..];
        let close = after.find(']')?;
        let inner = &after[..close];
        let bare = match inner.get(..5) {
            Some(prefix) if prefix.eq_ignore_ascii_case("IPv6:") => &inner[5..],
            _ => inner,
        };
        if let Ok(address) = bare.parse() {
            let digits = after[close + 1..].strip_prefix(':').unwrap_or_default();
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            return Some(Hop { with, address, port: digits[..end].parse().ok() });
        }
        rest = &after[close + 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: &str = "from mua.sender.test (mua.sender.test [198.51.100.7]) by mx.sender.test (Postfix) with \
        ESMTPSA id 4XYZ1234AB for <bob@example.com>; Tue, 02 Jul 2024 09:12:34 +0200 (CEST)";

    fn joined(client: Option<&str>, received: &[&str]) -> String {
        let client = client.map(|address| Hop {
            with: "ESMTP".to_owned(),
            address: address.parse().expect("an address"),
            port: Some(51234),
        });
        let received: Vec<String> = received.iter().map(|text| (*text).to_owned()).collect();
        public_hops(client, &received).iter().map(Hop::to_string).collect::<Vec<_>>().join(" < ")
    }

    #[test]
    fn hops() {
        let table: [(Option<&str>, &[&str], &str); 8] = [
            (Some("192.0.2.10"), &[POSTFIX], "ESMTP://[192.0.2.10]:51234 < ESMTPSA://198.51.100.7"),
            (Some("198.51.100.7"), &[POSTFIX], "ESMTPSA://[198.51.100.7]:51234"),
            (Some("127.0.0.1"), &[POSTFIX], "ESMTPSA://198.51.100.7"),
            (None, &[POSTFIX], "ESMTPSA://198.51.100.7"),
            (Some("192.0.2.10"), &[], "ESMTP://[192.0.2.10]:51234"),
            (None, &["from a (a [IPv6:2001:db8::7]:2525) by b with SMTP; x"], "SMTP://[2001:db8::7]:2525"),
            (None, &["from [10.0.0.1] by b with SMTP; x", "by c with HTTP; x", "nonsense ["], ""),
            (None, &["from a ([not-an-ip] [203.0.113.9]) by b; x"], "://203.0.113.9"),
        ];
        for (client, received, expected) in table {
            assert_eq!(joined(client, received), expected, "{client:?} {received:?}");
        }
    }

    #[test]
    fn public_addresses() {
        let public = ["192.0.2.1", "8.8.8.8", "2001:db8::1", "100.128.0.1"];
        let other = [
            "127.0.0.1",
            "10.1.1.1",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "224.0.0.1",
            "250.0.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ];
        for (list, expected) in [(public.as_slice(), true), (other.as_slice(), false)] {
            for address in list {
                assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
            }
        }
    }
}
