//! DKIM in the filter: one pass over the body for everything that needs it, then verification and signing.

use crate::store::Message;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use md5::{Digest, Md5};
use outrider_core::codec::smtp::data::Outgoing;
use outrider_core::mailauth::canonical::{BodyHash, BodyHashKind, BodyHasher};
use outrider_core::mailauth::sign::{Plan, SignedFields};
use outrider_core::mailauth::verify::Verifier;
use std::io;

/// Everything that reads the body, fed in one pass.
pub struct BodyPass<'h> {
    verifier: Option<Verifier<'h>>,
    signers: Vec<BodyHasher>,
    digest: Option<LfDigest>,
}

/// What the pass found.
pub struct BodyFindings<'h> {
    /// The verifier, ready to fetch keys.
    pub verifier: Option<Verifier<'h>>,
    /// Body hashes for signing.
    pub hashes: Vec<(BodyHashKind, BodyHash)>,
    /// Nine characters of base64url(MD5(body with LF line ends)), for the log.
    pub digest: Option<String>,
}

impl<'h> BodyPass<'h> {
    /// Prepares the pass. Plans that need the same hash share it.
    pub fn new(verifier: Option<Verifier<'h>>, plans: &[Plan], digest: bool) -> BodyPass<'h> {
        let mut kinds: Vec<BodyHashKind> = Vec::new();
        for kind in plans.iter().map(Plan::body_hash_kind) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        BodyPass {
            verifier,
            signers: kinds.into_iter().map(BodyHasher::new).collect(),
            digest: digest.then(LfDigest::default),
        }
    }

    /// Reads the body of a message. The verifier sees it as it came, the signers as it leaves.
    ///
    /// # Errors
    /// The stored message could not be read.
    pub async fn run(mut self, message: &Message) -> io::Result<BodyFindings<'h>> {
        if self.verifier.is_some() || !self.signers.is_empty() || self.digest.is_some() {
            let mut cleaner = message.traits().needs_cleaning().then(Outgoing::default);
            let (mut pieces, mut cleaned) = (message.body(), Vec::new());
            while let Some(piece) = pieces.next().await? {
                if let Some(verifier) = &mut self.verifier {
                    verifier.body(piece);
                }
                if let Some(digest) = &mut self.digest {
                    digest.update(piece);
                }
                let outgoing = match &mut cleaner {
                    Some(cleaner) => {
                        cleaned.clear();
                        cleaner.push(piece, &mut cleaned);
                        &cleaned
                    }
                    None => piece,
                };
                self.signers.iter_mut().for_each(|signer| signer.update(outgoing));
                // Hashing a piece takes up to some milliseconds: let others run in between.
                tokio::task::yield_now().await;
            }
        }
        let hashes = self.signers.into_iter().map(|signer| (signer.kind(), signer.finish())).collect();
        Ok(BodyFindings { verifier: self.verifier, hashes, digest: self.digest.map(LfDigest::finish) })
    }
}

/// Makes the DKIM-Signature fields for a header section as it will leave. Returns them (the last plan on top) and
/// `selector:domain` of each that could be made.
pub fn sign(
    plans: &[Plan],
    fields: &SignedFields,
    header: &[u8],
    hashes: &[(BodyHashKind, BodyHash)],
    now: u64,
) -> (Vec<u8>, Vec<String>) {
    let (mut signatures, mut names) = (Vec::new(), Vec::new());
    for plan in plans {
        let Some((_, body)) = hashes.iter().find(|(kind, _)| *kind == plan.body_hash_kind()) else {
            continue;
        };
        match plan.sign(header, fields, body, now) {
            Ok(field) => {
                signatures.splice(0..0, field);
                names.push(plan.name());
            }
            // Unsigned mail is better than no mail.
            Err(error) => tracing::warn!(event = "not signed", reason = %error, dkim = plan.name().as_str()),
        }
    }
    (signatures, names)
}

/// MD5 over text whose CR LF count as LF, across any split of it.
#[derive(Default)]
struct LfDigest {
    md5: Md5,
    carriage_return: bool,
}

impl LfDigest {
    fn update(&mut self, piece: &[u8]) {
        let mut rest = piece;
        if std::mem::take(&mut self.carriage_return) && rest.first() != Some(&b'\n') {
            self.md5.update(b"\r");
        }
        while let Some(at) = memchr::memchr(b'\r', rest) {
            self.md5.update(&rest[..at]);
            match rest.get(at + 1) {
                Some(b'\n') => {}
                Some(_) => self.md5.update(b"\r"),
                None => self.carriage_return = true,
            }
            rest = &rest[at + 1..];
        }
        self.md5.update(rest);
    }

    fn finish(mut self) -> String {
        if self.carriage_return {
            self.md5.update(b"\r");
        }
        let mut text = URL_SAFE.encode(self.md5.finalize());
        text.truncate(9);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_with_lf_line_ends() {
        let bodies: [(&[u8], &[u8]); 4] =
            [(b"a\r\nb\r\n", b"a\nb\n"), (b"a\rb\r\n", b"a\rb\n"), (b"a\r\r\n\r", b"a\r\n\r"), (b"", b"")];
        for (body, lf) in bodies {
            let mut expected = URL_SAFE.encode(Md5::digest(lf));
            expected.truncate(9);
            for cut in 1..=body.len().max(1) {
                let mut digest = LfDigest::default();
                body.chunks(cut).for_each(|piece| digest.update(piece));
                assert_eq!(digest.finish(), expected, "{body:?} cut {cut}");
            }
        }
    }
}
