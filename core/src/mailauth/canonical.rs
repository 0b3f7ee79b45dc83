//! DKIM canonicalization (RFC 6376 section 3.4) and hashing, in one pass over pieces of any size.

use crate::codec::header::Field;
use aws_lc_rs::digest::{self, Context};
use std::fmt;

/// How much a signature lets a relay change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Canonicalization {
    /// Nothing but empty lines at the end of the body.
    #[default]
    Simple,
    /// White space, line folds and the case of field names.
    Relaxed,
}

impl Canonicalization {
    /// Reads `simple` or `relaxed`, in any case.
    pub fn parse(text: &str) -> Option<Canonicalization> {
        if text.eq_ignore_ascii_case("simple") {
            Some(Canonicalization::Simple)
        } else if text.eq_ignore_ascii_case("relaxed") {
            Some(Canonicalization::Relaxed)
        } else {
            None
        }
    }

    /// Appends one header field as it enters the header hash, its CR LF included.
    pub fn field(self, field: &Field<'_>, out: &mut Vec<u8>) {
        match self {
            Canonicalization::Simple => out.extend_from_slice(field.raw),
            Canonicalization::Relaxed => {
                out.extend(field.name().iter().map(u8::to_ascii_lowercase));
                out.push(b':');
                relaxed_value(field.value(), out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

impl fmt::Display for Canonicalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Canonicalization::Simple => "simple",
            Canonicalization::Relaxed => "relaxed",
        })
    }
}

/// Unfolds, reduces white space to single blanks, drops it at both ends.
fn relaxed_value(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut blank = false;
    for (at, &octet) in value.iter().enumerate() {
        match octet {
            b' ' | b'\t' => blank = true,
            b'\r' if value.get(at + 1) == Some(&b'\n') => {}
            b'\n' => {}
            _ => {
                if std::mem::take(&mut blank) && out.len() > start {
                    out.push(b' ');
                }
                out.push(octet);
            }
        }
    }
}

/// The hash of a signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-1: only to read old signatures.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Hash {
    /// The algorithm of the crypto library.
    pub fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
        }
    }
}

/// Which body hash a signature needs. Signatures that agree in it share one hasher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyHashKind {
    /// Canonicalization of the body.
    pub canonicalization: Canonicalization,
    /// Hash algorithm.
    pub hash: Hash,
    /// `l=`: only so many octets of the canonical body are covered.
    pub length: Option<u64>,
}

/// Canonicalizes and hashes a body that comes in pieces.
pub struct BodyHasher {
    kind: BodyHashKind,
    context: Context,
    /// Octets of the canonical body so far.
    total: u64,
    /// Line ends not written yet: at the end of the body they would count as one.
    newlines: u64,
    /// A CR whose LF has not been seen yet.
    carriage_return: bool,
    /// White space not written yet (relaxed): at the end of a line it does not count.
    blank: bool,
    staged: Vec<u8>,
}

/// The hash of a whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyHash {
    /// The digest.
    pub digest: Vec<u8>,
    /// Length of the canonical body in octets, covered by `l=` or not.
    pub total: u64,
}

const STAGE: usize = 8 * 1024;

impl BodyHasher {
    /// A hasher at the beginning of a body.
    pub fn new(kind: BodyHashKind) -> BodyHasher {
        BodyHasher {
            kind,
            context: Context::new(kind.hash.algorithm()),
            total: 0,
            newlines: 0,
            carriage_return: false,
            blank: false,
            staged: Vec::with_capacity(STAGE + 16),
        }
    }

    /// What this hasher computes.
    pub fn kind(&self) -> BodyHashKind {
        self.kind
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        match self.kind.canonicalization {
            Canonicalization::Simple => self.update_simple(piece),
            Canonicalization::Relaxed => self.update_relaxed(piece),
        }
    }

    /// The hash of all pieces.
    pub fn finish(mut self) -> BodyHash {
        if self.carriage_return {
            self.content(b'\r');
        }
        // An empty body is CR LF in simple and nothing in relaxed canonicalization (section 3.4.3, 3.4.4).
        let anything = self.total > 0 || !self.staged.is_empty();
        if anything || self.kind.canonicalization == Canonicalization::Simple {
            self.staged.extend_from_slice(b"\r\n");
        }
        self.flush();
        BodyHash { digest: self.context.finish().as_ref().to_vec(), total: self.total }
    }

    /// Only the line ends at the end matter, so everything up to the last other octet is hashed where it lies.
    fn update_simple(&mut self, piece: &[u8]) {
        let end = piece.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |at| at + 1);
        if end > 0 {
            // A leading LF may complete a CR of the piece before.
            let start = usize::from(self.carriage_return && piece[0] == b'\n');
            if start == 1 {
                self.line_end_octet(b'\n');
            }
            self.pending();
            self.flush();
            self.hash(&piece[start..end]);
        }
        for &octet in &piece[end..] {
            self.line_end_octet(octet);
        }
    }

    fn update_relaxed(&mut self, piece: &[u8]) {
        for &octet in piece {
            match octet {
                b'\r' | b'\n' => self.line_end_octet(octet),
                b' ' | b'\t' => {
                    if self.carriage_return {
                        self.content_pending_cr();
                    }
                    self.blank = true;
                }
                _ => {
                    if self.newlines > 0 || self.carriage_return || self.blank {
                        self.pending();
                    }
                    self.staged.push(octet);
                }
            }
            if self.staged.len() >= STAGE {
                self.flush();
            }
        }
    }

    /// CR LF is counted; a CR or LF that stands alone is content.
    fn line_end_octet(&mut self, octet: u8) {
        match (octet, self.carriage_return) {
            (b'\n', true) => {
                self.carriage_return = false;
                self.blank = false;
                self.newlines += 1;
            }
            (b'\r', false) => self.carriage_return = true,
            (b'\r', true) => {
                self.content_pending_cr();
                self.carriage_return = true;
            }
            _ => self.content(octet),
        }
    }

    fn content_pending_cr(&mut self) {
        self.carriage_return = false;
        self.content(b'\r');
    }

    fn content(&mut self, octet: u8) {
        let cr = std::mem::take(&mut self.carriage_return) && octet != b'\r';
        self.write_newlines();
        if cr {
            self.staged.push(b'\r');
        }
        self.staged.push(octet);
    }

    /// Writes what was held back, because content follows it.
    fn pending(&mut self) {
        self.write_newlines();
        if std::mem::take(&mut self.carriage_return) {
            self.staged.push(b'\r');
        }
    }

    fn write_newlines(&mut self) {
        while self.newlines > 0 {
            self.newlines -= 1;
            self.staged.extend_from_slice(b"\r\n");
            if self.staged.len() >= STAGE {
                self.flush();
            }
        }
        if std::mem::take(&mut self.blank) {
            self.staged.push(b' ');
        }
    }

    fn flush(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        self.hash(&staged);
        self.staged = staged;
        self.staged.clear();
    }

    fn hash(&mut self, canonical: &[u8]) {
        let room = self.kind.length.map_or(u64::MAX, |length| length.saturating_sub(self.total));
        let covered = usize::try_from(room).map_or(canonical.len(), |room| room.min(canonical.len()));
        self.context.update(&canonical[..covered]);
        self.total += canonical.len() as u64;
    }
}

impl fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyHasher")
            .field("kind", &self.kind)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::header;
    use proptest::prelude::*;

    fn kind(canonicalization: Canonicalization) -> BodyHashKind {
        BodyHashKind { canonicalization, hash: Hash::Sha256, length: None }
    }

    fn hash(kind: BodyHashKind, body: &[u8], cut: usize) -> BodyHash {
        let mut hasher = BodyHasher::new(kind);
        body.chunks(cut.max(1)).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    /// The whole-message definition of the RFC, written without any thought of speed.
    fn reference(canonicalization: Canonicalization, body: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut rest = body;
        while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
            lines.push(rest[..at].to_vec());
            rest = &rest[at + 2..];
        }
        if !rest.is_empty() {
            lines.push(rest.to_vec());
        }
        if canonicalization == Canonicalization::Relaxed {
            for line in &mut lines {
                let mut out: Vec<u8> = Vec::new();
                for &octet in line.iter() {
                    match octet {
                        b' ' | b'\t' if out.last() == Some(&b' ') => {}
                        b' ' | b'\t' => out.push(b' '),
                        _ => out.push(octet),
                    }
                }
                if out.last() == Some(&b' ') {
                    out.pop();
                }
                *line = out;
            }
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        if lines.is_empty() && canonicalization == Canonicalization::Simple {
            lines.push(Vec::new());
        }
        lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect()
    }

    #[test]
    fn threat_t26_corners() {
        let bodies: [&[u8]; 17] = [
            b"",
            b"\r\n",
            b"\r\n\r\n\r\n",
            b" \t\r\n",
            b"Hi",
            b"Hi\r\n",
            b"Hi\r\n \t\r\n",
            b"Hi \r\n\r\n\t\r\n\r\n",
            b" C \r\nD \t E\r\n\r\n\r\n",
            b"a\rb\r\n",
            b"a\nb\r\n",
            b"a\r\r\n",
            b"a \r",
            b"\r",
            b"\n",
            b"a\r\n\r\n b\r\n",
            b"a \r \r\n",
        ];
        for body in bodies {
            for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
                let expected = reference(canonicalization, body);
                for cut in 1..=body.len().max(1) {
                    let got = hash(kind(canonicalization), body, cut);
                    let digest = digest::digest(&digest::SHA256, &expected);
                    assert_eq!(
                        got.digest,
                        digest.as_ref(),
                        "{canonicalization} {body:?} cut {cut}, want {expected:?}"
                    );
                    assert_eq!(got.total, expected.len() as u64, "{canonicalization} {body:?}");
                }
            }
        }
    }

    #[test]
    fn length_covers_a_part() {
        let covered = BodyHashKind { length: Some(4), ..kind(Canonicalization::Simple) };
        let whole = hash(kind(Canonicalization::Simple), b"Hi\r\n", 1);
        for cut in 1..10 {
            let got = hash(covered, b"Hi\r\nadded\r\n", cut);
            assert_eq!((got.digest, got.total), (whole.digest.clone(), 11));
        }
    }

    #[test]
    fn fields_as_in_rfc_6376_section_3_4_5() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"A: X\r\n", b"a:X\r\n"),
            (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
            (b"Subject:\r\n folded right after the colon\r\n", b"subject:folded right after the colon\r\n"),
            (b"X-Empty:\r\n", b"x-empty:\r\n"),
            (b"X-Blank:  \t \r\n", b"x-blank:\r\n"),
            (b"X: caf\xe9\r\n", b"x:caf\xe9\r\n"),
        ];
        for (raw, expected) in table {
            let field = header::fields(raw).next().expect("a field");
            let (mut relaxed, mut simple) = (Vec::new(), Vec::new());
            Canonicalization::Relaxed.field(&field, &mut relaxed);
            Canonicalization::Simple.field(&field, &mut simple);
            assert_eq!(relaxed, expected);
            assert_eq!(simple, raw);
        }
    }

    proptest! {
        #[test]
        fn streaming_is_whole(
            body in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'\t'), Just(b'a')], 0..60),
            cut in 1_usize..20,
        ) {
            for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
                let expected = digest::digest(&digest::SHA256, &reference(canonicalization, &body));
                let got = hash(kind(canonicalization), &body, cut);
                prop_assert_eq!(&got.digest[..], expected.as_ref(), "{} {:?}", canonicalization, body);
            }
        }
    }
}
