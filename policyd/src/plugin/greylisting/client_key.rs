//! Which clients count as one.
//!
//! By default each address stands for itself, as in iRedAPD. Large providers, however, try again from another address of
//! their pool, and such mail may be put off for hours. With `greylisting.key = "organization"` a retry from anywhere in
//! the pool counts. A pool is recognised by what its owner alone can say:
//!
//! 1. the sender's domain, if its SPF record lists the client;
//! 2. the registrable domain of the client's reverse name, if that name leads back to the client (Postfix' `client_name`).
//!    Names made from the address itself (`dsl-192-0-2-7.isp.example`) tell whose line it is and not whose mail server:
//!    else one visitor of a dial-in provider would open the door for all;
//! 3. the /24 or /64 of its address.
//!
//! The key stands in the column `client_address` of 40 characters, with a prefix that no address has.

use std::net::IpAddr;

use outrider_core::network;

/// The domain that somebody registered: `mail-1.eu.example.co.uk` is of `example.co.uk`. `None` for names that nobody can
/// register, such as `co.uk` or `localhost`.
fn registrable(name: &str) -> Option<&str> {
    let name = name.trim_end_matches('.');
    let domain = psl::domain(name.as_bytes())?;
    domain.suffix().is_known().then(|| std::str::from_utf8(domain.as_bytes()).ok()).flatten()
}

/// Whether the name holds the address: the octets of an IPv4 address in either order, whatever is between them, or as
/// eight hexadecimal digits; the last group of an IPv6 address.
fn is_made_from(name: &str, client: IpAddr) -> bool {
    let host = name.to_ascii_lowercase();
    let numbers: Vec<&str> =
        host.split(|c: char| !c.is_ascii_digit()).filter(|text| !text.is_empty()).collect();
    match client {
        IpAddr::V4(ip) => {
            let octets = ip.octets().map(|octet| octet.to_string());
            let same =
                |text: &str, octet: &String| text.trim_start_matches('0') == octet.trim_start_matches('0');
            let in_order = |order: &[usize]| {
                let windows = numbers.windows(order.len());
                windows
                    .into_iter()
                    .any(|part| part.iter().zip(order).all(|(text, &at)| same(text, &octets[at])))
            };
            let [a, b, c, d] = ip.octets();
            let joined = octets.iter().map(|octet| format!("{octet:0>3}")).collect::<String>();
            // The last three are enough, in either order: not every provider writes the first.
            in_order(&[1, 2, 3])
                || in_order(&[3, 2, 1])
                || host.contains(&format!("{a:02x}{b:02x}{c:02x}{d:02x}"))
                || host.contains(&joined)
        }
        IpAddr::V6(ip) => {
            let [.., before, last] = ip.segments();
            let groups: Vec<&str> =
                host.split(|c: char| !c.is_ascii_hexdigit()).filter(|text| !text.is_empty()).collect();
            let hex = |text: &str, group: u16| u16::from_str_radix(text, 16) == Ok(group);
            groups.windows(2).any(|two| hex(two[0], before) && hex(two[1], last))
                || host.contains(&format!("{before:04x}{last:04x}"))
        }
    }
}

/// The key of a client; `spf_domain` is the sender's domain if its record lists the client, `client_name` the verified name
/// or `unknown`.
pub(super) fn organization(client: IpAddr, client_name: &str, spf_domain: Option<&str>) -> String {
    if let Some(domain) = spf_domain {
        return format!("spf:{}", registrable(domain).unwrap_or(domain));
    }
    match registrable(client_name) {
        Some(domain) if !is_made_from(client_name, client) => format!("name:{}", domain.to_ascii_lowercase()),
        _ => network::of_client(client).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_by_what_their_owners_say() {
        let table = [
            ("198.51.100.7", "mail-1.eu.big.co.uk", None, "name:big.co.uk"),
            ("198.51.101.9", "OUT-22.Big.co.uk", None, "name:big.co.uk"),
            ("198.51.100.7", "mail-1.eu.big.co.uk", Some("news.shop.example.com"), "spf:example.com"),
            ("198.51.100.7", "unknown", None, "198.51.100.0/24"),
            ("198.51.100.7", "", None, "198.51.100.0/24"),
            ("198.51.100.7", "localhost", None, "198.51.100.0/24"),
            ("198.51.100.7", "co.uk", None, "198.51.100.0/24"),
            ("2001:db8:1:2::7", "unknown", None, "2001:db8:1:2::/64"),
            // Customers of one host are not one organisation.
            ("198.51.100.7", "shop.blogspot.com", None, "name:shop.blogspot.com"),
        ];
        for (client, name, spf, expected) in table {
            assert_eq!(organization(client.parse().unwrap(), name, spf), expected, "{client} {name}");
        }
    }

    #[test]
    fn names_made_from_the_address_name_nobody() {
        for (client, name, expected) in [
            ("198.51.100.7", "dsl-198-51-100-7.isp.com", true),
            ("198.51.100.7", "7.100.51.198.dyn.isp.com", true),
            ("198.51.100.7", "host-198051100007.isp.com", true),
            ("198.51.100.7", "p51-100-7.isp.com", true),
            ("198.51.100.7", "c6336407.dip.isp.com", true),
            ("198.51.100.7", "mail7.isp.com", false),
            ("198.51.100.7", "a198-51.smtp-out.isp.com", false),
            ("0.0.0.0", "h0.0.0.0.isp.com", true),
            ("2001:db8::ab:12", "x00ab0012.isp.com", true),
            ("2001:db8::ab:12", "2001-db8--ab-12.isp.com", true),
            ("2001:db8::ab:12", "mx12.isp.com", false),
        ] {
            assert_eq!(is_made_from(name, client.parse().unwrap()), expected, "{client} {name}");
        }
    }
}
