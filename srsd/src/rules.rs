//! What is done with an address: pure functions of the address, the domains known and the time.

use crate::domains::{Knowledge, Known};
use outrider_core::srs::{
    self, AddressCheck, DomainList, ForwardError, NotRewritable, ReverseError, Sender, Srs,
};
use std::borrow::Cow;

/// Why a sender was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has no domain.
    NoDomain,
    /// It is not an address that can be rewritten.
    Unsuitable,
    /// Its domain is that of rewritten addresses.
    SrsDomain,
    /// Its domain is the name of this host.
    HostName,
    /// Its domain is a local one.
    LocalDomain,
    /// Its domain is excluded.
    Excluded,
    /// It is an SRS address of ours already.
    AlreadyOurs,
    /// The rewritten address would be too long.
    TooLong,
    /// There is no secret, or no domain, to make an address with.
    Off,
}

/// What becomes of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forward {
    /// It is replaced by this one.
    Rewritten(String),
    /// It stays.
    Left(Left),
    /// Whether its domain is local could not be found out.
    Undecided,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reverse {
    /// It is replaced by the original sender.
    Original(String),
    /// It stays.
    Left(ReverseError),
    /// A program fault left it undecided.
    Undecided,
}

/// The rules of one set of settings.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The engine; its domain is empty when there is no domain for rewritten addresses.
    pub(crate) srs: Srs,
    /// Which senders are rewritten at all.
    pub(crate) address_check: AddressCheck,
    /// The name of this host, in lower case.
    pub(crate) host_name: String,
    /// Local domains of the settings.
    pub(crate) local: DomainList,
    /// Excluded domains of the settings.
    pub(crate) excluded: DomainList,
    /// Whether local domains are rewritten too.
    pub(crate) always_rewrite: bool,
    /// Whether valid SRS addresses of ours are left alone.
    pub(crate) keep_own_addresses: bool,
}

impl Rules {
    /// Decides about a sender. `knowledge` is what the databases say about domains.
    pub(crate) fn forward(&self, key: &str, knowledge: &Knowledge, now: i64) -> Forward {
        let sender = match Sender::parse(key, self.address_check) {
            Ok(sender) => sender,
            Err(NotRewritable::NoDomain) => return Forward::Left(Left::NoDomain),
            Err(_) => return Forward::Left(Left::Unsuitable),
        };
        let own = &self.srs.options().domain;
        if own.is_empty() {
            return Forward::Left(Left::Off);
        }
        let domain = comparable(sender.domain());
        if !self.always_rewrite {
            if srs::same_domain(&domain, own) {
                return Forward::Left(Left::SrsDomain);
            }
            if srs::same_domain(&domain, &self.host_name) {
                return Forward::Left(Left::HostName);
            }
            if self.local.contains(&domain) {
                return Forward::Left(Left::LocalDomain);
            }
        }
        if self.excluded.contains(&domain) {
            return Forward::Left(Left::Excluded);
        }
        match knowledge {
            Knowledge::Known(known) => {
                if let Some(left) = self.left_by(known, &domain) {
                    return Forward::Left(left);
                }
            }
            Knowledge::Pending | Knowledge::Unknown => return Forward::Undecided,
        }
        if self.keep_own_addresses && self.srs.reverse(key, now).is_ok() {
            return Forward::Left(Left::AlreadyOurs);
        }
        match self.srs.forward(&sender, now) {
            Ok(address) => Forward::Rewritten(address),
            Err(ForwardError::TooLong) => Forward::Left(Left::TooLong),
            Err(_) => Forward::Left(Left::Off),
        }
    }

    fn left_by(&self, known: &Known, domain: &str) -> Option<Left> {
        if !self.always_rewrite && known.local.contains(domain) {
            return Some(Left::LocalDomain);
        }
        known.excluded.contains(domain).then_some(Left::Excluded)
    }
}

/// A domain as it is compared: lower case, without a dot at its end.
fn comparable(domain: &str) -> Cow<'_, str> {
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    if bare.is_ascii() && !bare.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Borrowed(bare)
    } else {
        Cow::Owned(bare.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use outrider_core::srs::{ListStyle, Secrets};
    use std::sync::Arc;

    const NOW: i64 = 1_742_040_000;

    fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
        let options = Settings::default().srs_options("srs.example.net");
        let mut rules = Rules {
            srs: Srs::new(options, Secrets::new(["secretOne"])),
            address_check: AddressCheck::Rfc5321,
            host_name: "mail.example.net".into(),
            local: DomainList::new(ListStyle::Postsrsd2, ["listed.example"]),
            excluded: DomainList::new(ListStyle::Iredapd, ["excluded.example"]),
            always_rewrite: false,
            keep_own_addresses: false,
        };
        change(&mut rules);
        rules
    }

    fn known() -> Knowledge {
        Knowledge::Known(Arc::new(Known {
            local: ["local.example".to_string()].into(),
            excluded: DomainList::new(ListStyle::Iredapd, ["dotted.example"]),
        }))
    }

    #[test]
    fn senders_left_alone() {
        let table = [
            ("", Some(Left::NoDomain)),
            ("user", Some(Left::NoDomain)),
            ("user@localhost", Some(Left::Unsuitable)),
            ("x@srs.example.net", Some(Left::SrsDomain)),
            ("x@SRS.Example.net.", Some(Left::SrsDomain)),
            ("x@Mail.Example.net", Some(Left::HostName)),
            ("x@listed.example", Some(Left::LocalDomain)),
            ("x@LOCAL.example.", Some(Left::LocalDomain)),
            ("x@sub.excluded.example", Some(Left::Excluded)),
            ("x@dotted.example", Some(Left::Excluded)),
            ("x@sub.local.example", None),
            ("x@a.srs.example.net", None),
            ("SRS0=lnpB=WC=gmail.com=user@foreign.example", None),
        ];
        for (key, left) in table {
            match (rules(|_| ()).forward(key, &known(), NOW), left) {
                (Forward::Left(got), Some(expected)) => assert_eq!(got, expected, "{key}"),
                (Forward::Rewritten(_), None) => {}
                (got, _) => panic!("{key}: {got:?}"),
            }
        }
    }

    #[test]
    fn always_means_local_domains_too() {
        let rules = rules(|r| r.always_rewrite = true);
        for domain in ["srs.example.net", "mail.example.net", "listed.example", "local.example"] {
            let got = rules.forward(&format!("x@{domain}"), &known(), NOW);
            assert!(matches!(got, Forward::Rewritten(_)), "{domain}: {got:?}");
        }
        assert_eq!(rules.forward("x@dotted.example", &known(), NOW), Forward::Left(Left::Excluded));
    }

    #[test]
    fn unknown_domains_leave_it_undecided_unless_settings_decide() {
        for knowledge in [Knowledge::Pending, Knowledge::Unknown] {
            let forward = |key| rules(|_| ()).forward(key, &knowledge, NOW);
            assert_eq!(forward("x@gmail.com"), Forward::Undecided);
            assert_eq!(forward("x@srs.example.net"), Forward::Left(Left::SrsDomain));
            assert_eq!(forward("x@excluded.example"), Forward::Left(Left::Excluded));
            assert_eq!(forward("nonsense"), Forward::Left(Left::NoDomain));
        }
    }

    #[test]
    fn own_addresses_and_missing_parts() {
        let key = "SRS0=lnpB=WC=gmail.com=user@foreign.example";
        let keep = rules(|r| r.keep_own_addresses = true);
        assert_eq!(keep.forward(key, &known(), NOW), Forward::Left(Left::AlreadyOurs));
        let forged = "SRS0=lnpC=WC=gmail.com=user@foreign.example";
        assert!(matches!(keep.forward(forged, &known(), NOW), Forward::Rewritten(_)));

        let no_secret = rules(|r| r.srs = Srs::new(r.srs.options().clone(), Secrets::default()));
        assert_eq!(no_secret.forward("x@gmail.com", &known(), NOW), Forward::Left(Left::Off));
        let no_domain = rules(|r| r.srs = Srs::new(srs::Options::default(), Secrets::new(["s"])));
        assert_eq!(no_domain.forward("x@gmail.com", &known(), NOW), Forward::Left(Left::Off));
        let short = srs::Options { max_local_part: 32, ..rules(|_| ()).srs.options().clone() };
        let short = rules(|r| r.srs = Srs::new(short, Secrets::new(["s"])));
        let long = "a-rather-long-local-part@gmail.com";
        assert_eq!(short.forward(long, &known(), NOW), Forward::Left(Left::TooLong));
    }
}
