//! Lists of trusted or named client networks, as settings spell them.
//!
//! An entry is an address, an IPv4 address with `*` for octets (`192.0.2.*`, `192.0.*.7`), or a network in CIDR
//! notation. A network with host bits set (`192.0.2.1/24`) names nothing: iRedAPD drops such entries and sites
//! have grown used to it, so they are kept apart for the settings check to complain about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::lookup;

/// The client's address is no IP address, so nothing can be said about the networks it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not an IP address: {0:?}")]
pub struct InvalidAddress(pub String);

/// Parses a network the strict way: `address/prefix` (zeros may lead the number), `a.b.c.d/netmask` or
/// `a.b.c.d/hostmask`, or a bare address (the network of that one address). `None` if host bits are set or the text is
/// anything else. These are the spellings that Python's `ip_network` takes, by which iRedAPD reads lists.
pub fn parse_strict(text: &str) -> Option<IpNet> {
    let Some((address, mask)) = text.split_once('/') else {
        return IpAddr::from_str(text).ok().map(IpNet::from);
    };
    let net = match IpAddr::from_str(address).ok()? {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new(ip, prefix_v4(mask)?).ok()?),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new(ip, digits(mask)?).ok()?),
    };
    (net.network() == net.addr()).then_some(net)
}

fn prefix_v4(mask: &str) -> Option<u8> {
    if let Ok(mask) = Ipv4Addr::from_str(mask) {
        // 0.0.0.0 and 255.255.255.255 are taken for netmasks.
        let is_netmask = |bits: u32| bits.leading_ones() + bits.trailing_zeros() >= 32;
        let bits = u32::from(mask);
        let netmask = [bits, !bits].into_iter().find(|&bits| is_netmask(bits));
        return netmask.map(|bits| bits.leading_ones() as u8);
    }
    digits(mask)
}

fn digits(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A list of addresses, wildcard addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkList {
    exact: Vec<String>,
    networks: Vec<IpNet>,
    ignored: Vec<String>,
}

impl NetworkList {
    /// Reads the entries. Those that are neither an address, nor a wildcard address, nor a strict network match
    /// nothing and are listed by [`NetworkList::ignored`].
    pub fn new<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> NetworkList {
        let mut list = NetworkList::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            if lookup::is_wildcard_ip(entry) {
                list.exact.push(entry.to_owned());
            } else if let Some(network) = parse_strict(entry) {
                list.networks.push(network);
            } else {
                list.ignored.push(entry.to_owned());
            }
        }
        list
    }

    /// Entries that match nothing, for the settings check.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Whether nothing can match.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.networks.is_empty()
    }

    /// Whether the client is in the list. `all_wildcards` widens the `*` forms that are tried (see
    /// [`lookup::wildcard_ipv4`]).
    ///
    /// # Errors
    /// [`InvalidAddress`] if the text is no IP address, whatever the list holds: a rule that cannot tell whether
    /// the client is trusted must not decide.
    pub fn contains(&self, client: &str, all_wildcards: bool) -> Result<bool, InvalidAddress> {
        if !self.exact.is_empty()
            && lookup::wildcard_ipv4(client, all_wildcards).iter().any(|key| self.exact.contains(key))
        {
            return Ok(true);
        }
        let ip = IpAddr::from_str(client).map_err(|_| InvalidAddress(client.to_owned()))?;
        Ok(self.contains_ip(ip))
    }

    /// Whether one of the addresses and networks (not the wildcard forms) holds the address.
    pub fn contains_ip(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

/// Whether the text is a network in CIDR notation (with a `/`, no host bits set) that contains the address.
pub fn cidr_contains(entry: &str, ip: IpAddr) -> bool {
    entry.contains('/') && parse_strict(entry).is_some_and(|network| network.contains(&ip))
}

/// The network that usually belongs to one customer: the /24 of an IPv4 address, the /64 of an IPv6 one.
pub fn of_client(client: IpAddr) -> IpNet {
    match unmapped(client) {
        IpAddr::V4(ip) => IpNet::from(Ipv4Net::new_assert(ip, 24)).trunc(),
        IpAddr::V6(ip) => IpNet::from(Ipv6Net::new_assert(ip, 64)).trunc(),
    }
}

/// The address an IPv4 client has when it comes in over an IPv6 socket (`::ffff:192.0.2.7`) is the IPv4 one.
pub fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => Ipv6Addr::to_ipv4_mapped(&v6).map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_networks() {
        for (text, ok) in [
            ("192.0.2.0/24", true),
            ("192.0.2.0/255.255.255.0", true),
            ("192.0.2.1", true),
            ("2001:db8::/32", true),
            ("2001:db8:0:1:0:0:0:0/64", true),
            ("0.0.0.0/0", true),
            ("192.0.2.1/24", false),
            ("192.0.2.0/33", false),
            ("192.0.2.0/+24", false),
            ("192.0.2.0/255.0.255.0", false),
            ("203.0.0.0/08", true),
            ("203.0.113.0/0000024", true),
            ("2001:db8::/032", true),
            ("203.0.113.0/0.0.0.255", true),
            ("203.0.113.0/0.255.0.255", false),
            ("203.0.113.1/0.0.0.255", false),
            ("192.0.2.0/0.0.0.0", false),
            ("0.0.0.0/0.0.0.0", true),
            ("128.0.0.0/127.255.255.255", true),
            ("203.000.113.0/24", false),
            ("203.0.113.0/0255.255.255.0", false),
            ("2001:db8::/ffff:ffff::", false),
            ("192.0.2.0/256", false),
            ("192.0.2/24", false),
            ("2001:db8::1/32", false),
            ("/24", false),
            ("192.0.2.0/", false),
            ("", false),
        ] {
            assert_eq!(parse_strict(text).is_some(), ok, "{text}");
        }
    }

    #[test]
    fn masks_are_lengths() {
        for (text, expected) in [
            ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
            ("192.0.2.0/0.0.0.255", "192.0.2.0/24"),
            ("192.0.2.7/255.255.255.255", "192.0.2.7/32"),
            ("0.0.0.0/0.0.0.0", "0.0.0.0/0"),
            ("203.0.0.0/08", "203.0.0.0/8"),
        ] {
            assert_eq!(
                parse_strict(text).map(|network| network.to_string()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn who_is_in_the_list() {
        let list = NetworkList::new([
            "192.0.2.7",
            "198.51.100.*",
            "10.1.*.9",
            "203.0.113.0/24",
            "2001:db8::/32",
            "x/8",
        ]);
        assert_eq!(list.ignored(), ["x/8"]);
        for (client, expected) in [
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("198.51.100.44", true),
            ("10.1.200.9", true),
            ("10.1.200.8", false),
            ("203.0.113.255", true),
            ("203.0.114.0", false),
            ("2001:db8:1::5", true),
            ("2001:db9::5", false),
        ] {
            assert_eq!(list.contains(client, false), Ok(expected), "{client}");
        }
        assert_eq!(list.contains("unknown", false), Err(InvalidAddress("unknown".into())));
        assert_eq!(NetworkList::new(["10.*.*.*"]).contains("10.1.2.3", false), Ok(false));
        assert_eq!(NetworkList::new(["10.*.*.*"]).contains("10.1.2.3", true), Ok(true));
        assert!(NetworkList::default().contains("unknown", false).is_err());
        assert!(NetworkList::default().is_empty());
    }

    #[test]
    fn cidr_entries_of_tables() {
        let ip: IpAddr = "203.0.113.10".parse().unwrap();
        assert!(cidr_contains("202.0.0.0/7", ip));
        for other in ["user@example.com", "203.0.113.10", "203.0.113.1/24", "2001:db8::/32"] {
            assert!(!cidr_contains(other, ip), "{other}");
        }
        assert_eq!(unmapped("::ffff:192.0.2.7".parse().unwrap()).to_string(), "192.0.2.7");
        assert_eq!(unmapped("2001:db8::1".parse().unwrap()).to_string(), "2001:db8::1");
    }
}
