//! Tokens: what an address carries when the sender itself is kept in a database.
//!
//! A token is the SHA-1 of the sender in base32hex, in an SRS0 address whose HOST is `1`. That is how PostSRSd 2
//! writes them, so its database can be taken over. Equal senders have equal tokens on every server, and a sender
//! that is seen again needs no second row.

use aws_lc_rs::digest;
use std::fmt;

/// HOST of an address with a token; no mail domain has one label that is a number.
pub(super) const HOST: &str = "1";
/// Twenty octets, five bits a character.
const LENGTH: usize = 32;
const BASE32HEX: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// A name for a sender that says nothing about it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// The token of a sender, whose letter case counts.
    pub fn of(sender: &str) -> Token {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, sender.as_bytes());
        let (mut bits, mut held, mut text) = (0_u32, 0, String::with_capacity(LENGTH));
        for octet in digest.as_ref() {
            bits = bits << 8 | u32::from(*octet);
            held += 8;
            while held >= 5 {
                held -= 5;
                text.push(char::from(BASE32HEX[(bits >> held & 31) as usize]));
            }
        }
        Token(text)
    }

    /// Reads `TOKEN@1`, in whatever case it came back.
    pub(super) fn of_key(key: &str) -> Option<Token> {
        let (token, host) = key.split_once('@')?;
        let token = token.to_ascii_uppercase();
        let whole = token.len() == LENGTH && token.bytes().all(|b| BASE32HEX.contains(&b));
        (whole && host == HOST).then_some(Token(token))
    }

    /// The 32 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its row in the database: `TOKEN@1`.
    pub fn key(&self) -> String {
        format!("{}@{HOST}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srs::{Options, Secrets, Srs};

    #[test]
    fn tokens_are_sha1_in_base32hex() {
        // printf %s user@gmail.com | sha1sum | xxd -r -p | basenc --base32hex
        let long = format!("{}@example.org", "l".repeat(64));
        let table = [
            ("user@gmail.com", "B96D05JVQ9PGRBI463ULLAICF6K9O66K"),
            (long.as_str(), "UFNSJ760OQABRVDPVDRKQ2MLKNN8NPV4"),
        ];
        for (sender, token) in table {
            assert_eq!(Token::of(sender).as_str(), token);
            assert_eq!(Token::of(sender).key(), format!("{token}@1"));
        }
        assert_ne!(Token::of("user@gmail.com"), Token::of("User@gmail.com"));
    }

    #[test]
    fn what_comes_back_is_read_in_any_case() {
        let token = Token::of("user@gmail.com");
        for key in [token.key(), token.key().to_lowercase()] {
            assert_eq!(Token::of_key(&key).as_ref(), Some(&token));
        }
        let all = "A".repeat(32);
        let none = [
            "",
            "@1",
            "user@gmail.com",
            "AAAA@1",
            &format!("{all}@2"),
            &format!("{}W@1", "A".repeat(31)),
            &all,
        ];
        for key in none {
            assert_eq!(Token::of_key(key), None, "{key}");
        }
    }

    #[test]
    fn an_address_with_a_token_comes_back() {
        let options = Options { domain: "srs.example.net".into(), ..Options::default() };
        let srs = Srs::new(options, Secrets::new(["secretOne"]));
        let token = Token::of("user@gmail.com");
        let address = srs.forward_token(&token, 1_742_040_000).expect("made");
        let (local, _) = address.split_once('@').expect("an address");
        assert_eq!(local.len(), 47);
        let back = srs.reverse(&address.to_lowercase(), 1_742_040_000).expect("believed");
        assert_eq!(back.token(), Some(token));
        let plain =
            srs.reverse("SRS0=lnpB=WC=gmail.com=user@srs.example.net", 1_742_040_000).expect("believed");
        assert_eq!(plain.token(), None);
    }
}
