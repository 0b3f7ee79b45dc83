//! What policyd is asked, and how many questions of each kind there are.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy_request::{PolicyRequest, Template};
use crate::wire::{Dialogue, Peer};

/// Triplets that have passed greylisting before the measurement.
pub(crate) const KNOWN: u64 = 1_000;
/// Mailboxes, one for each connection that sends with a login of its own.
pub(crate) const USERS: u64 = 64;
/// Sender domains, each with an SPF record.
pub(crate) const SENDER_DOMAINS: u64 = 100;

/// One kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// RCPT of a logged-in user.
    Submission,
    /// RCPT of a client never seen, from a sender never seen: greylisted.
    First,
    /// RCPT of clients and triplets that have passed greylisting.
    Known,
    /// END-OF-MESSAGE, all connections count for the same user.
    ThrottleOne,
    /// END-OF-MESSAGE, a user for each connection.
    ThrottleMany,
    /// No question: what one commit costs on this database.
    Commit,
    /// First contacts with and without others whose sender domain has a name server that never answers.
    SilentDns,
}

impl Case {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 7] = [
        Self::Commit,
        Self::Submission,
        Self::First,
        Self::Known,
        Self::ThrottleOne,
        Self::ThrottleMany,
        Self::SilentDns,
    ];
    /// Those that are a question to policyd alone.
    pub(crate) const QUESTIONS: [Self; 5] =
        [Self::Submission, Self::First, Self::Known, Self::ThrottleOne, Self::ThrottleMany];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::First => "first",
            Self::Known => "known",
            Self::ThrottleOne => "throttle-one",
            Self::ThrottleMany => "throttle-many",
            Self::Commit => "commit",
            Self::SilentDns => "silent-dns",
        }
    }

    /// The case of a name.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name)
    }

    /// Its name for a reader.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Submission => "submission at RCPT",
            Self::First => "first contact, greylisted",
            Self::Known => "known triplet",
            Self::ThrottleOne => "END-OF-MESSAGE, throttle, one user",
            Self::ThrottleMany => "END-OF-MESSAGE, throttle, a user per connection",
            Self::Commit => "bare commit",
            Self::SilentDns => "first contact beside a silent name server",
        }
    }

    /// Whether each answer waits for a change in the database.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::First | Self::ThrottleOne | Self::ThrottleMany | Self::Commit | Self::SilentDns)
    }

    /// The dialogue of one connection.
    pub(crate) fn dialogue(self, peer: Peer, connection: usize) -> Dialogue {
        let user = |number: u64| format!("u{}@local.example", number % USERS);
        let logged_in = |state, user: &str| {
            let request = PolicyRequest {
                state,
                sender: user,
                recipient: "bob@world.example",
                client: "203.0.113.9",
                user,
                size: if state == "RCPT" { 0 } else { 1024 },
            };
            Dialogue::constant(peer, request.text())
        };
        match self {
            Self::Submission => logged_in("RCPT", &user(0)),
            Self::ThrottleOne | Self::Commit => logged_in("END-OF-MESSAGE", &user(0)),
            Self::ThrottleMany => logged_in("END-OF-MESSAGE", &user(connection as u64)),
            Self::First | Self::SilentDns => first_contacts(peer),
            Self::Known => {
                let template = Template::unknown_client();
                let triplets: Vec<_> = (0..KNOWN).map(known).collect();
                // Every connection begins elsewhere.
                let start = connection * 131;
                Dialogue::new(peer, move |count, out| {
                    let (client, sender, recipient) = &triplets[(start + count as usize) % triplets.len()];
                    template.fill(client, sender, recipient, out);
                })
            }
        }
    }
}

/// Client, sender and recipient of a triplet that has passed.
pub(crate) fn known(number: u64) -> (String, String, String) {
    (
        format!("198.51.{}.{}", number / 250, number % 250 + 1),
        format!("k{number}@d{}.world.example", number % SENDER_DOMAINS),
        format!("u{}@local.example", number % USERS),
    )
}

/// Senders never seen before, of many domains, from many networks to all users. Neighbouring questions have distant keys, as in
/// the mail of a real server.
fn first_contacts(peer: Peer) -> Dialogue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let template = Template::unknown_client();
    let start = NEXT.fetch_add(1, Ordering::Relaxed) << 32;
    let [mut client, mut sender, mut recipient] = [const { String::new() }; 3];
    Dialogue::new(peer, move |count, out| {
        let number = mixed(start + count);
        for text in [&mut client, &mut sender, &mut recipient] {
            text.clear();
        }
        // Writing to a string cannot fail.
        // So many networks that none of them reaches greylisting.new_contacts_per_minute.
        let _ =
            write!(client, "100.{}.{}.{}", 64 + number % 64, (number >> 8) % 256, (number >> 16) % 250 + 1);
        let _ = write!(sender, "s{number:016x}@d{}.world.example", (number >> 16) % SENDER_DOMAINS);
        let _ = write!(recipient, "u{}@local.example", (number >> 24) % USERS);
        template.fill(&client, &sender, &recipient, out);
    })
}

/// First contacts whose sender domain nobody has asked about, below a domain whose name server is silent.
pub(crate) fn silent_senders(peer: Peer, connection: usize) -> Dialogue {
    let template = Template::unknown_client();
    let mut sender = String::new();
    Dialogue::new(peer, move |count, out| {
        sender.clear();
        let _ = write!(sender, "s@c{connection}n{count}.silent.example");
        template.fill("198.19.0.1", &sender, "u0@local.example", out);
    })
}

/// A bijection that scatters (the finalizer of SplitMix64): different numbers stay different.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn first_contacts_are_all_different() {
        let peer = Peer::policy(([127, 0, 0, 1], 1).into(), &[]);
        let mut seen = HashSet::new();
        for connection in 0..3 {
            let mut dialogue = Case::First.dialogue(peer, connection);
            for count in 0..1_000 {
                let mut out = Vec::new();
                (dialogue.question)(count, &mut out);
                assert!(seen.insert(out));
            }
        }
    }

    #[test]
    fn names_lead_back_to_their_case() {
        for case in Case::ALL {
            assert_eq!(Case::by_name(case.name()), Some(case));
        }
        assert_eq!(Case::by_name("nothing"), None);
    }
}
