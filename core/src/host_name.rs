//! The name of this machine as other mail servers know it.

use std::fs;

/// The fully qualified name of the host: what the kernel says if it has a dot, else the first name with a dot
/// that `/etc/hosts` gives to that name, as `getfqdn` of other languages does, else what the kernel says, and
/// `localhost` where it says nothing.
///
/// No name server is asked, so this neither waits nor depends on the network.
pub fn full_host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.contains('.') {
        return name;
    }
    if name.is_empty() {
        return "localhost".to_owned();
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    qualified(&name, &hosts).map_or(name.clone(), str::to_owned)
}

/// The first name with a dot on the first line of a hosts file that has `name`.
fn qualified<'a>(name: &str, hosts: &'a str) -> Option<&'a str> {
    let names = |line: &'a str| line.split('#').next().unwrap_or_default().split_ascii_whitespace().skip(1);
    hosts
        .lines()
        .filter(|line| names(line).any(|other| other.eq_ignore_ascii_case(name)))
        .find_map(|line| names(line).find(|other| other.contains('.') && !other.starts_with("localhost.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_hosts_file() {
        let table = [
            ("127.0.1.1 mail.example.net mail\n", Some("mail.example.net")),
            ("127.0.1.1\tmail mail.example.net # x\n", Some("mail.example.net")),
            (
                "127.0.0.1 localhost.localdomain localhost mail\n192.0.2.1 mail.example.net mail",
                Some("mail.example.net"),
            ),
            ("127.0.0.1 localhost\n# 192.0.2.1 mail.example.net mail\n", None),
            ("192.0.2.1 other.example.net mailer\n", None),
            ("", None),
        ];
        for (hosts, expected) in table {
            assert_eq!(qualified("mail", hosts), expected, "{hosts}");
        }
    }
}
