//! Names of a message in logs, headers and (later) the database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use md5::{Digest, Md5};
use outrider_core::random::Random;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out log ids, `PPPPP-NN` for each connection as Amavisd's workers number theirs.
#[derive(Debug)]
pub struct Connections {
    base: u64,
    count: AtomicU64,
}

impl Connections {
    /// Numbers that start from the process id.
    pub fn new(process: u32) -> Connections {
        Connections { base: u64::from(process), count: AtomicU64::new(0) }
    }

    /// The log id of the next connection. Two digits count connections, and where a hundred are used up the next
    /// "worker" takes over, so that an id does not come again while the daemon runs.
    pub fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let worker = (self.base + count / 100) % 100_000_000;
        format!("{worker:05}-{:02}", count % 100)
    }
}

/// The log id of a transaction: from the second one of a connection on it carries its number.
pub fn log_id(connection: &str, transaction: u64) -> String {
    if transaction <= 1 { connection.to_owned() } else { format!("{connection}-{transaction}") }
}

/// A mail_id and the secret that proves the right to release what is stored under it.
#[derive(Clone, PartialEq, Eq)]
pub struct MailId {
    /// Twelve characters: the beginning of base64url(MD5(secret)).
    pub id: String,
    /// Nine random octets as base64url.
    pub secret: String,
}

impl MailId {
    /// A new one. The first and last character of the id are letters or digits, so that it can be selected with a
    /// double click and stand in a file name.
    pub fn new(random: &dyn Random) -> MailId {
        loop {
            let mut octets = [0; 9];
            random.fill(&mut octets);
            let mut id = URL_SAFE.encode(Md5::digest(octets));
            id.truncate(12);
            let good = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
            if good(id.as_bytes().first()) && good(id.as_bytes().last()) {
                return MailId { id, secret: URL_SAFE.encode(octets) };
            }
        }
    }
}

impl std::fmt::Debug for MailId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailId").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::random::SeededRandom;

    #[test]
    fn log_ids() {
        let connections = Connections::new(77);
        assert_eq!(connections.next(), "00077-01");
        let rest: Vec<String> = (0..300).map(|_| connections.next()).collect();
        assert_eq!(rest[98], "00078-00");
        let mut unique = rest.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), rest.len());
        assert_eq!(log_id("00077-01", 1), "00077-01");
        assert_eq!(log_id("00077-01", 2), "00077-01-2");
    }

    #[test]
    fn mail_ids_follow_from_their_secret() {
        let random = SeededRandom::new(7);
        for _ in 0..200 {
            let mail = MailId::new(&random);
            let octets = URL_SAFE.decode(&mail.secret).expect("base64url");
            assert!(URL_SAFE.encode(Md5::digest(octets)).starts_with(&mail.id));
            assert_eq!((mail.id.len(), mail.secret.len()), (12, 12));
            assert!(!mail.id.starts_with(['-', '_']) && !mail.id.ends_with(['-', '_']));
        }
    }
}
