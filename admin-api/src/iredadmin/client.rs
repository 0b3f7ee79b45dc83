//! Where a request really comes from, and lists of clients as iRedAdmin's settings spell them.

use std::net::{IpAddr, Ipv4Addr};

use hyper::header::HeaderMap;
use outrider_core::network::{parse_strict, unmapped};

/// Addresses, CIDR networks, ranges `a.b.c.d-e` and prefixes `a.b.c`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientList(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Network(ipnet::IpNet),
    Range(Ipv4Addr, Ipv4Addr),
}

impl ClientList {
    /// Reads the entries.
    ///
    /// # Errors
    /// The first one that is none of the four forms.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let parsed = entries.iter().map(|entry| {
            let entry = entry.as_ref().trim();
            parse_entry(entry).ok_or_else(|| entry.to_owned())
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is no entry, which means no restriction.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the client is in the list.
    pub(crate) fn contains(&self, client: IpAddr) -> bool {
        let client = unmapped(client);
        self.0.iter().any(|entry| match (entry, client) {
            (Entry::Network(network), _) => network.contains(&client),
            (Entry::Range(first, last), IpAddr::V4(client)) => (first..=last).contains(&&client),
            (Entry::Range(..), IpAddr::V6(_)) => false,
        })
    }

    /// Whether a client may pass: no list, no restriction. A client without an address came over a UNIX socket,
    /// whose permissions are the restriction.
    pub(crate) fn admits(&self, client: Option<IpAddr>) -> bool {
        self.is_empty() || client.is_none_or(|client| self.contains(client))
    }
}

fn parse_entry(entry: &str) -> Option<Entry> {
    if let Some(network) = parse_strict(entry) {
        return Some(Entry::Network(network));
    }
    if let Some((first, last)) = entry.split_once('-') {
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let [a, b, c, d] = first.octets();
        let last: u8 = last.trim().parse().ok()?;
        return (d <= last).then(|| Entry::Range(first, Ipv4Addr::new(a, b, c, last)));
    }
    let octets: Vec<u8> =
        entry.trim_end_matches('.').split('.').map(|o| o.parse().ok()).collect::<Option<_>>()?;
    match octets[..] {
        [a, b, c] => Some(Entry::Range(Ipv4Addr::new(a, b, c, 0), Ipv4Addr::new(a, b, c, 255))),
        _ => None,
    }
}

/// The address of the client. A trusted proxy tells it in the last element of `X-Forwarded-For`, which is the one the
/// proxy itself has written; from anybody else the header means nothing.
pub(crate) fn address(peer: Option<IpAddr>, headers: &HeaderMap, proxies: &ClientList) -> Option<IpAddr> {
    let trusted = peer.is_none_or(|peer| proxies.contains(peer)) && !proxies.is_empty();
    if !trusted {
        return peer.map(unmapped);
    }
    let told = headers
        .get_all("x-forwarded-for")
        .iter()
        .next_back()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.rsplit(',').next())
        .and_then(|address| address.trim().parse().ok());
    told.or(peer).map(unmapped)
}

/// Whether the client reached the proxy by TLS, as a trusted proxy tells.
pub(crate) fn is_secure(peer: Option<IpAddr>, headers: &HeaderMap, proxies: &ClientList) -> bool {
    let trusted = peer.is_none_or(|peer| proxies.contains(peer)) && !proxies.is_empty();
    trusted
        && headers
            .get("x-forwarded-proto")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn forms_of_entries() {
        let list =
            ClientList::parse(&["192.0.2.1", "198.51.100.0/24", "203.0.113.5-9", "10.1.2", "2001:db8::/32"])
                .unwrap();
        for (client, expected) in [
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("198.51.100.77", true),
            ("203.0.113.5", true),
            ("203.0.113.9", true),
            ("203.0.113.10", false),
            ("10.1.2.200", true),
            ("10.1.3.1", false),
            ("2001:db8::1", true),
            ("::ffff:192.0.2.1", true),
        ] {
            assert_eq!(list.contains(ip(client)), expected, "{client}");
        }
        for wrong in ["192.0.2.1/24", "a", "10.1", "1.2.3.9-5", ""] {
            assert_eq!(ClientList::parse(&[wrong]), Err(wrong.to_owned()));
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let proxies = ClientList::parse(&["127.0.0.1"]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.66, 192.0.2.7".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        for (peer, expected, secure) in [("127.0.0.1", "192.0.2.7", true), ("192.0.2.9", "192.0.2.9", false)]
        {
            assert_eq!(address(Some(ip(peer)), &headers, &proxies), Some(ip(expected)));
            assert_eq!(is_secure(Some(ip(peer)), &headers, &proxies), secure);
        }
        headers.insert("x-forwarded-for", "nonsense".parse().unwrap());
        assert_eq!(address(Some(ip("127.0.0.1")), &headers, &proxies), Some(ip("127.0.0.1")));
        assert_eq!(address(Some(ip("127.0.0.1")), &headers, &ClientList::default()), Some(ip("127.0.0.1")));
    }
}
