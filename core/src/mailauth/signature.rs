//! The DKIM-Signature field (RFC 6376 section 3.5): parsed, checked, and as it enters its own hash.

use super::canonical::{BodyHashKind, Canonicalization};
use super::key::{Algorithm, LENIENT};
use super::tag::{TagError, TagList};
use crate::codec::header::Field;
use base64::Engine;

/// Most names in `h=`. A signature with more is not verified: looking them all up would be work for nothing.
pub const MAX_SIGNED_NAMES: usize = 512;

/// A well-formed signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// `a=`
    pub algorithm: Algorithm,
    /// Header side of `c=`.
    pub header: Canonicalization,
    /// Which body hash it names: body side of `c=`, hash of `a=`, `l=`.
    pub body: BodyHashKind,
    /// `d=`, lower case.
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `i=`, or `@` and the domain.
    pub identity: String,
    /// `h=`, lower case.
    pub signed: Vec<String>,
    /// `bh=`
    pub body_hash: Vec<u8>,
    /// `b=`
    pub value: Vec<u8>,
    /// First eight characters of `b=`, by which reports tell signatures apart.
    pub mark: String,
    /// `t=`, seconds since 1970.
    pub signed_at: Option<u64>,
    /// `x=`, seconds since 1970.
    pub expires_at: Option<u64>,
}

/// A signature that cannot be verified whatever the key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong, in Amavisd's words where it has some: `missing s tag`.
    pub reason: String,
    /// `d=`, if that much could be read.
    pub domain: Option<String>,
    /// First eight characters of `b=`.
    pub mark: String,
}

impl Signature {
    /// Parses the value of a DKIM-Signature field.
    pub fn parse(value: &[u8]) -> Result<Signature, Malformed> {
        let tags = TagList::parse(value).map_err(|error| {
            let reason = match error {
                TagError::Duplicate => "duplicate tag",
                _ => "malformed tag list",
            };
            Malformed { reason: reason.to_owned(), domain: None, mark: String::new() }
        })?;
        let domain = tags.get("d").map(str::to_ascii_lowercase);
        let mark: String = tags.dense("b").unwrap_or_default().chars().take(8).collect();
        Signature::from_tags(&tags, &mark).map_err(|reason| Malformed { reason, domain, mark })
    }

    fn from_tags(tags: &TagList<'_>, mark: &str) -> Result<Signature, String> {
        let required = |name: &str| {
            tags.dense(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("missing {name} tag"))
        };
        let version = required("v")?;
        if version != "1" {
            return Err("unsupported version".to_owned());
        }
        let algorithm =
            Algorithm::parse(&required("a")?).ok_or_else(|| "unsupported algorithm".to_owned())?;
        let domain = required("d")?.to_ascii_lowercase();
        let selector = required("s")?;
        let (header, body) = canonicalization(tags.dense("c").as_deref())?;
        let signed: Vec<String> = required("h")?.split(':').map(str::to_ascii_lowercase).collect();
        if signed.len() > MAX_SIGNED_NAMES {
            return Err("too many names in h tag".to_owned());
        }
        if !signed.iter().any(|name| name == "from") {
            return Err("from field not signed".to_owned());
        }
        if tags
            .dense("q")
            .is_some_and(|methods| !methods.split(':').any(|m| m.eq_ignore_ascii_case("dns/txt")))
        {
            return Err("unsupported query protocol".to_owned());
        }
        let identity = tags.dense("i").unwrap_or_else(|| format!("@{domain}"));
        if !within(&identity, &domain) {
            return Err("identity does not match domain".to_owned());
        }
        let decode =
            |name: &str| LENIENT.decode(required(name)?).map_err(|_| format!("malformed {name} tag"));
        let number = |name: &str| {
            let plain =
                |digits: &String| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            match tags.dense(name) {
                None => Ok(None),
                Some(digits) if plain(&digits) => Ok(Some(digits.parse::<u64>().unwrap_or(u64::MAX))),
                Some(_) => Err(format!("malformed {name} tag")),
            }
        };
        let (signed_at, expires_at) = (number("t")?, number("x")?);
        if let (Some(signed), Some(expires)) = (signed_at, expires_at)
            && expires < signed
        {
            return Err("expires before it was made".to_owned());
        }
        let body = BodyHashKind { canonicalization: body, hash: algorithm.hash(), length: number("l")? };
        let (body_hash, value) = (decode("bh")?, decode("b")?);
        let mark = mark.to_owned();
        Ok(Signature {
            algorithm,
            header,
            body,
            domain,
            selector,
            identity,
            signed,
            body_hash,
            value,
            mark,
            signed_at,
            expires_at,
        })
    }

    /// Name of the TXT record with the key.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// Domain of the identity, lower case.
    pub fn identity_domain(&self) -> String {
        self.identity.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase()
    }

    /// The text whose hash was signed: the named fields from the bottom up, then this signature with an empty `b=`.
    pub fn signed_text(&self, fields: &[Field<'_>], own: &Field<'_>) -> Vec<u8> {
        let mut text = select(fields, &self.signed, self.header);
        let mut stripped = own.raw.to_vec();
        let value_at = own.raw.len() - own.value().len();
        if let Some(range) = TagList::parse(own.value()).ok().and_then(|tags| tags.range("b")) {
            stripped.drain(value_at + range.start..value_at + range.end);
        }
        append_last(&stripped, self.header, &mut text);
        text
    }
}

/// Appends the signature field itself, which has no line end in the hash.
pub(super) fn append_last(raw: &[u8], header: Canonicalization, text: &mut Vec<u8>) {
    if let Some(field) = crate::codec::header::fields(raw).next() {
        header.field(&field, text);
    }
    while matches!(text.last(), Some(b'\r' | b'\n')) {
        text.pop();
    }
}

/// The named fields in canonical form. A name that occurs in `names` several times takes the fields of that name from
/// the bottom up; when they are used up it stands for nothing (RFC 6376 section 5.4.2).
pub(super) fn select(fields: &[Field<'_>], names: &[String], header: Canonicalization) -> Vec<u8> {
    let mut text = Vec::new();
    let mut next: Vec<(&str, usize)> = Vec::new();
    for name in names {
        let slot = match next.iter().position(|(seen, _)| seen == name) {
            Some(slot) => slot,
            None => {
                next.push((name, fields.len()));
                next.len() - 1
            }
        };
        let found = fields[..next[slot].1].iter().rposition(|field| field.is(name));
        next[slot].1 = found.unwrap_or(0);
        if let Some(at) = found {
            header.field(&fields[at], &mut text);
        }
    }
    text
}

fn canonicalization(value: Option<&str>) -> Result<(Canonicalization, Canonicalization), String> {
    let Some(value) = value else { return Ok(Default::default()) };
    let (header, body) = value.split_once('/').unwrap_or((value, "simple"));
    Canonicalization::parse(header)
        .zip(Canonicalization::parse(body))
        .ok_or_else(|| "unsupported canonicalization".to_owned())
}

/// True when the identity lies in the domain or below it.
fn within(identity: &str, domain: &str) -> bool {
    let Some((_, host)) = identity.rsplit_once('@') else { return false };
    let host = host.to_ascii_lowercase();
    host == domain || host.strip_suffix(domain).is_some_and(|parent| parent.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "v=1; a=rsa-sha256; d=example.com; s=sel; h=From:To; bh=AAAA; b=QUJDREVGR0hJSktM";

    #[test]
    fn reads_a_signature() {
        let signature = Signature::parse(GOOD.as_bytes()).expect("well-formed");
        assert_eq!(signature.key_name(), "sel._domainkey.example.com");
        assert_eq!(signature.identity, "@example.com");
        assert_eq!(signature.signed, ["from", "to"]);
        assert_eq!(signature.mark, "QUJDREVG");
        assert_eq!((signature.header, signature.body.canonicalization), Default::default());
    }

    #[test]
    fn threat_t25_refuses() {
        let long = "h=from".to_owned() + &":x".repeat(MAX_SIGNED_NAMES);
        let table = [
            ("s=sel; ", "", "missing s tag"),
            ("d=example.com; ", "", "missing d tag"),
            ("v=1", "v=2", "unsupported version"),
            ("rsa-sha256", "rsa-md5", "unsupported algorithm"),
            ("h=From:To", "h=To", "from field not signed"),
            ("h=From:To", &long, "too many names in h tag"),
            ("v=1", "v=1; i=a@other.test", "identity does not match domain"),
            ("v=1", "v=1; i=a@badexample.com", "identity does not match domain"),
            ("v=1", "v=1; c=nonsense", "unsupported canonicalization"),
            ("v=1", "v=1; t=5; x=4", "expires before it was made"),
            ("v=1", "v=1; l=-1", "malformed l tag"),
            ("v=1", "v=1; d=twice.test", "duplicate tag"),
            ("v=1", "v=1; q=http", "unsupported query protocol"),
            ("bh=AAAA", "bh=!!", "malformed bh tag"),
        ];
        for (from, to, reason) in table {
            let value = GOOD.replacen(from, to, 1);
            let got = Signature::parse(value.as_bytes()).map_err(|malformed| malformed.reason);
            assert_eq!(got, Err(reason.to_owned()), "{value}");
        }
    }

    #[test]
    fn a_name_named_twice_takes_the_next_field_up() {
        let header = b"To: 1\r\nFrom: 2\r\nTo: 3\r\n";
        let fields: Vec<_> = crate::codec::header::fields(header).collect();
        let names: Vec<String> = ["to", "to", "to", "from"].map(str::to_owned).to_vec();
        assert_eq!(select(&fields, &names, Canonicalization::Simple), b"To: 3\r\nTo: 1\r\nFrom: 2\r\n");
    }

    proptest! {
        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Signature::parse(&value);
        }
    }
}
