//! What is done with an address: pure functions of the address, the domains known and the time.

use super::domains::{Knowledge, Known};
use super::settings::LONGEST_LOCAL_PART;
use crate::srs::{
    self, AddressCheck, DomainList, ForwardError, NotRewritable, ReverseError, Reversed, Sender, Srs, Token,
};
use std::borrow::Cow;

/// Why a sender was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// It has no domain.
    #[error("it has no domain")]
    NoDomain,
    /// It is not an address that can be rewritten.
    #[error("it is no address that can be rewritten")]
    Unsuitable,
    /// Its domain is that of rewritten addresses.
    #[error("its domain is srs_domain")]
    SrsDomain,
    /// Its domain is the name of this host.
    #[error("its domain is the name of this host")]
    HostName,
    /// Its domain is a local one.
    #[error("its domain is local")]
    LocalDomain,
    /// Its domain is excluded.
    #[error("its domain is excluded")]
    Excluded,
    /// It is an SRS address of ours already.
    #[error("it is an SRS address of ours already")]
    AlreadyOurs,
    /// The rewritten address would be too long.
    #[error("the rewritten address would be too long")]
    TooLong,
    /// There is no secret, or no domain, to make an address with.
    #[error("there is no secret or no srs_domain")]
    Off,
}

/// What becomes of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// It is replaced by this one.
    Rewritten(String),
    /// It stays.
    Left(Left),
    /// Whether its domain is local could not be found out.
    Undecided,
    /// It could not be kept in the database, and such mail is to wait.
    Unkept,
}

/// What becomes of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverse {
    /// It is replaced by the original sender.
    Original(Reversed),
    /// It stays.
    Left(ReverseError),
    /// It is an address of ours with a token that the database does not know, or no longer.
    UnknownToken,
    /// It is an address of ours with a token, and there is no database to look into.
    NoDatabase,
    /// It is an address of ours with a token, and the database does not answer.
    Unreadable,
    /// A program fault left it undecided.
    Undecided,
}

/// What the rules say about a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// All is said.
    Done(Forward),
    /// The sender is to be kept under this token.
    Keep {
        token: Token,
        /// The address with the token.
        address: String,
        /// The address with the sender in it, if it is short enough for everybody.
        embedded: Option<String>,
    },
}

/// What is known about domains at the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// What the databases say.
    pub(super) knowledge: &'a Knowledge,
    /// What the file of domains says.
    pub(super) file: &'a DomainList,
}

/// The rules of one set of settings.
#[derive(Debug)]
pub(super) struct Rules {
    /// The engine; its domain is empty when there is no domain for rewritten addresses.
    pub(super) srs: Srs,
    /// Which senders are rewritten at all.
    pub(super) address_check: AddressCheck,
    /// The name of this host, in lower case.
    pub(super) host_name: String,
    /// Local domains of the settings.
    pub(super) local: DomainList,
    /// Excluded domains of the settings.
    pub(super) excluded: DomainList,
    /// Whether local domains are rewritten too.
    pub(super) always_rewrite: bool,
    /// Whether valid SRS addresses of ours are left alone.
    pub(super) keep_own_addresses: bool,
    /// The longest local part, in bytes, with the sender in it where tokens are made; `None` if they are not.
    pub(super) token_beyond: Option<usize>,
}

impl Rules {
    /// Decides about a sender.
    pub(super) fn decide(&self, key: &str, context: Context<'_>, now: i64) -> Decision {
        let sender = match Sender::parse(key, self.address_check) {
            Ok(sender) => sender,
            Err(NotRewritable::NoDomain) => return left(Left::NoDomain),
            Err(_) => return left(Left::Unsuitable),
        };
        let own = &self.srs.options().domain;
        if own.is_empty() {
            return left(Left::Off);
        }
        let domain = comparable(sender.domain());
        if !self.always_rewrite
            && let Some(why) = self.local_by_settings(&domain, context.file)
        {
            return left(why);
        }
        if self.excluded.contains(&domain) {
            return left(Left::Excluded);
        }
        match context.knowledge {
            Knowledge::Known(known) => {
                if let Some(why) = self.left_by(known, &domain) {
                    return left(why);
                }
            }
            Knowledge::Pending | Knowledge::Unknown => return Decision::Done(Forward::Undecided),
        }
        if self.keep_own_addresses && self.srs.reverse(key, now).is_ok() {
            return left(Left::AlreadyOurs);
        }
        self.rewrite(key, &sender, now)
    }

    fn rewrite(&self, key: &str, sender: &Sender<'_>, now: i64) -> Decision {
        let embedded = self.srs.forward(sender, now);
        if let Some(most) = self.token_beyond
            && !srs::is_second_hop(sender)
            && !matches!(&embedded, Ok(address) if local_part(address) <= most)
        {
            let token = Token::of(key);
            if let Ok(address) = self.srs.forward_token(&token, now) {
                let embedded = embedded.ok().filter(|address| local_part(address) <= LONGEST_LOCAL_PART);
                return Decision::Keep { token, address, embedded };
            }
        }
        match embedded {
            Ok(address) => Decision::Done(Forward::Rewritten(address)),
            Err(ForwardError::TooLong) => left(Left::TooLong),
            Err(_) => left(Left::Off),
        }
    }

    /// Whether a domain is local by the settings; it must be [`comparable`].
    fn local_by_settings(&self, domain: &str, file: &DomainList) -> Option<Left> {
        if srs::same_domain(domain, &self.srs.options().domain) {
            return Some(Left::SrsDomain);
        }
        if srs::same_domain(domain, &self.host_name) {
            return Some(Left::HostName);
        }
        (self.local.contains(domain) || file.contains(domain)).then_some(Left::LocalDomain)
    }

    /// Whether mail to a domain stays here; `None` while that is not known.
    pub(super) fn is_local(&self, domain: &str, context: Context<'_>) -> Option<bool> {
        let domain = comparable(domain);
        if self.local_by_settings(&domain, context.file).is_some() {
            return Some(true);
        }
        match context.knowledge {
            Knowledge::Known(known) => Some(known.local.contains(&*domain)),
            Knowledge::Pending | Knowledge::Unknown => None,
        }
    }

    fn left_by(&self, known: &Known, domain: &str) -> Option<Left> {
        if !self.always_rewrite && known.local.contains(domain) {
            return Some(Left::LocalDomain);
        }
        known.excluded.contains(domain).then_some(Left::Excluded)
    }
}

fn left(why: Left) -> Decision {
    Decision::Done(Forward::Left(why))
}

/// The length of the part before the last `@`, in bytes.
fn local_part(address: &str) -> usize {
    address.rfind('@').unwrap_or(address.len())
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
    use super::super::settings::SrsSettings;
    use super::*;
    use crate::srs::{ListStyle, Secrets};
    use std::sync::Arc;

    const NOW: i64 = 1_742_040_000;

    fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
        let options = SrsSettings::default().srs_options("srs.example.net");
        let mut rules = Rules {
            srs: Srs::new(options, Secrets::new(["secretOne"])),
            address_check: AddressCheck::Rfc5321,
            host_name: "mail.example.net".into(),
            local: DomainList::new(ListStyle::Postsrsd2, ["listed.example"]),
            excluded: DomainList::new(ListStyle::Iredapd, ["excluded.example"]),
            always_rewrite: false,
            keep_own_addresses: false,
            token_beyond: None,
        };
        change(&mut rules);
        rules
    }

    fn forward(rules: &Rules, key: &str, knowledge: &Knowledge) -> Forward {
        let file = DomainList::new(ListStyle::Postsrsd2, ["filed.example"]);
        match rules.decide(key, Context { knowledge, file: &file }, NOW) {
            Decision::Done(outcome) => outcome,
            Decision::Keep { .. } => panic!("{key}: a token"),
        }
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
            ("x@Filed.example", Some(Left::LocalDomain)),
            ("x@LOCAL.example.", Some(Left::LocalDomain)),
            ("x@sub.excluded.example", Some(Left::Excluded)),
            ("x@dotted.example", Some(Left::Excluded)),
            ("x@sub.local.example", None),
            ("x@a.srs.example.net", None),
            ("SRS0=lnpB=WC=gmail.com=user@foreign.example", None),
        ];
        for (key, left) in table {
            match (forward(&rules(|_| ()), key, &known()), left) {
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
            let got = forward(&rules, &format!("x@{domain}"), &known());
            assert!(matches!(got, Forward::Rewritten(_)), "{domain}: {got:?}");
        }
        assert_eq!(forward(&rules, "x@dotted.example", &known()), Forward::Left(Left::Excluded));
    }

    #[test]
    fn unknown_domains_leave_it_undecided_unless_settings_decide() {
        for knowledge in [Knowledge::Pending, Knowledge::Unknown] {
            let forward = |key| forward(&rules(|_| ()), key, &knowledge);
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
        assert_eq!(forward(&keep, key, &known()), Forward::Left(Left::AlreadyOurs));
        let forged = "SRS0=lnpC=WC=gmail.com=user@foreign.example";
        assert!(matches!(forward(&keep, forged, &known()), Forward::Rewritten(_)));

        let no_secret = rules(|r| r.srs = Srs::new(r.srs.options().clone(), Secrets::default()));
        assert_eq!(forward(&no_secret, "x@gmail.com", &known()), Forward::Left(Left::Off));
        let no_domain = rules(|r| r.srs = Srs::new(srs::Options::default(), Secrets::new(["s"])));
        assert_eq!(forward(&no_domain, "x@gmail.com", &known()), Forward::Left(Left::Off));
        let short = srs::Options { max_local_part: 32, ..rules(|_| ()).srs.options().clone() };
        let short = rules(|r| r.srs = Srs::new(short, Secrets::new(["s"])));
        let long = "a-rather-long-local-part@gmail.com";
        assert_eq!(forward(&short, long, &known()), Forward::Left(Left::TooLong));
    }

    #[test]
    fn tokens_where_they_are_wanted() {
        let long = format!("{}@gmail.com", "l".repeat(60));
        let second = format!("SRS0=abcd=WC=orig.example={}@gmail.com", "l".repeat(60));
        let keeps = |most, key: &str| {
            let rules = rules(|r| r.token_beyond = Some(most));
            let file = DomainList::default();
            match rules.decide(key, Context { knowledge: &known(), file: &file }, NOW) {
                Decision::Keep { token, address, embedded } => {
                    assert_eq!(token, Token::of(key));
                    assert!(address.contains(&format!("=1={}@", token.as_str())), "{address}");
                    Some(embedded.is_some())
                }
                Decision::Done(outcome) => {
                    assert!(matches!(outcome, Forward::Rewritten(_)), "{outcome:?}");
                    None
                }
            }
        };
        let table = [
            (0, "user@gmail.com", Some(true)),
            (0, long.as_str(), Some(false)),
            (64, "user@gmail.com", None),
            (64, long.as_str(), Some(false)),
            // Another forwarder's address is made SRS1, with everything in it.
            (0, second.as_str(), None),
        ];
        for (most, key, expected) in table {
            assert_eq!(keeps(most, key), expected, "{most} {key}");
        }
    }

    #[test]
    fn recipients_that_stay_here() {
        let rules = rules(|_| ());
        let file = DomainList::default();
        for (domain, with, without) in [
            ("Local.example", Some(true), None),
            ("listed.example", Some(true), Some(true)),
            ("srs.example.net.", Some(true), Some(true)),
            ("gmail.com", Some(false), None),
            // Left alone as a sender, but mail to it leaves all the same.
            ("excluded.example", Some(false), None),
        ] {
            assert_eq!(
                rules.is_local(domain, Context { knowledge: &known(), file: &file }),
                with,
                "{domain}"
            );
            let unknown = Context { knowledge: &Knowledge::Unknown, file: &file };
            assert_eq!(rules.is_local(domain, unknown), without, "{domain}");
        }
    }
}
