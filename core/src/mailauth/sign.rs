//! DKIM signing: which key signs for whom, which fields are signed, and the field itself.
//!
//! The rules are those of Amavisd (`dkim_key`, `dkim_signature_options_bysender_maps`, `signed_header_fields`), so
//! that the tables of an existing server can be taken over as they are.

use super::canonical::{BodyHash, BodyHashKind, Canonicalization};
use super::key::{Algorithm, KeyError, PrivateKey};
use super::signature::{append_last, select};
use crate::codec::header::{self, Field};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields signed unless the settings say otherwise; 2 means one empty instance more than the mail has, so that
/// nobody can add another (RFC 6376 section 8.15).
const SIGNED_BY_DEFAULT: [(&str, u8); 50] = [
    ("from", 2),
    ("date", 2),
    ("subject", 2),
    ("content-type", 2),
    ("reply-to", 1),
    ("message-id", 1),
    ("in-reply-to", 1),
    ("references", 1),
    ("mime-version", 1),
    ("content-transfer-encoding", 1),
    ("content-id", 1),
    ("content-description", 1),
    ("content-location", 1),
    ("content-features", 1),
    ("content-disposition", 1),
    ("content-language", 1),
    ("content-alternative", 1),
    ("content-base", 1),
    ("content-md5", 1),
    ("content-duration", 1),
    ("content-class", 1),
    ("resent-date", 1),
    ("resent-from", 1),
    ("resent-sender", 1),
    ("resent-message-id", 1),
    ("list-id", 1),
    ("list-post", 1),
    ("list-owner", 1),
    ("list-subscribe", 1),
    ("list-unsubscribe", 1),
    ("list-help", 1),
    ("list-archive", 1),
    ("received", 1),
    ("precedence", 1),
    ("original-message-id", 1),
    ("message-context", 1),
    ("pics-label", 1),
    ("sensitivity", 1),
    ("solicitation", 1),
    ("accept-language", 1),
    ("auto-submitted", 1),
    ("archived-at", 1),
    ("vbr-info", 1),
    ("organization", 1),
    ("organisation", 1),
    ("user-agent", 1),
    ("x-mailer", 1),
    ("sender", 0),
    ("to", 0),
    ("cc", 0),
];

/// Which header fields a signature covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFields(BTreeMap<String, u8>);

impl Default for SignedFields {
    fn default() -> Self {
        SignedFields(SIGNED_BY_DEFAULT.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }
}

impl SignedFields {
    /// The defaults with some of them changed: 0 not signed, 1 signed, 2 signed with one empty instance more.
    pub fn with(changes: impl IntoIterator<Item = (String, u8)>) -> SignedFields {
        let mut fields = SignedFields::default();
        fields.0.extend(changes.into_iter().map(|(name, count)| (name.to_ascii_lowercase(), count)));
        fields
    }

    /// Names for `h=`: one for each occurrence, from the bottom of the header up.
    fn names(&self, fields: &[Field<'_>]) -> Vec<String> {
        let mut names = Vec::new();
        for (at, field) in fields.iter().enumerate().rev() {
            let name = String::from_utf8_lossy(field.name()).to_ascii_lowercase();
            let count = self.0.get(&name).copied().unwrap_or(0);
            if count == 0 {
                continue;
            }
            let topmost = !fields[..at].iter().any(|above| above.is(&name));
            if count > 1 && topmost {
                names.push(name.clone());
            }
            names.push(name);
        }
        names
    }
}

/// A key that may sign for a domain.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// The domain, or a pattern in which `*` stands for anything.
    pub domain: String,
    /// Selector under which the public key is published.
    pub selector: String,
    /// The private key.
    pub key: Arc<PrivateKey>,
}

impl SigningKey {
    fn serves(&self, domain: &str) -> bool {
        wildcard(&self.domain.to_ascii_lowercase(), domain)
    }
}

/// `*` matches any run of characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| wildcard(after, &rest[at..]))
        }),
    }
}

/// Options of a signature for one key of the sender table; an absent one is looked for in the next wider entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `d=`: signing domain; by default the domain of the candidate.
    pub domain: Option<String>,
    /// `s=`: selector that the key must have.
    pub selector: Option<String>,
    /// `a=`: one signature is made for each; by default one with the first key that fits.
    pub algorithms: Option<Vec<Algorithm>>,
    /// `c=`: header and body; by default relaxed/simple.
    pub canonicalization: Option<(Canonicalization, Canonicalization)>,
    /// `i=`
    pub identity: Option<String>,
    /// Seconds from `t=` to `x=`.
    pub ttl: Option<u64>,
    /// Tags that mean nothing to us.
    pub extra: BTreeMap<String, String>,
}

impl Options {
    fn or(mut self, wider: &Options) -> Options {
        self.domain = self.domain.or_else(|| wider.domain.clone());
        self.selector = self.selector.or_else(|| wider.selector.clone());
        self.algorithms = self.algorithms.or_else(|| wider.algorithms.clone());
        self.canonicalization = self.canonicalization.or(wider.canonicalization);
        self.identity = self.identity.or_else(|| wider.identity.clone());
        self.ttl = self.ttl.or(wider.ttl);
        for (tag, value) in &wider.extra {
            self.extra.entry(tag.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

/// The tables from which a signature is chosen.
#[derive(Debug, Clone, Default)]
pub struct Signer {
    /// Keys; the first that fits is used.
    pub keys: Vec<SigningKey>,
    /// Options by sender: `user@example.com`, `user@`, `example.com`, `.example.com` (and below), `.` (all).
    pub options: BTreeMap<String, Options>,
    /// Which fields are signed.
    pub fields: SignedFields,
}

/// One signature to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    key: SigningKey,
    domain: String,
    canonicalization: (Canonicalization, Canonicalization),
    identity: Option<String>,
    ttl: Option<u64>,
    extra: BTreeMap<String, String>,
}

impl Signer {
    /// Chooses key and options. `candidates` are addresses in the order in which they are asked: authors, resent
    /// fields, Sender, envelope sender. Empty when nobody among them has a key.
    pub fn plan(&self, candidates: &[String]) -> Vec<Plan> {
        let mut seen: Vec<&String> = Vec::new();
        for candidate in candidates {
            if candidate.is_empty() || seen.contains(&candidate) {
                continue;
            }
            seen.push(candidate);
            let plans = self.plan_for(candidate);
            if !plans.is_empty() {
                return plans;
            }
        }
        Vec::new()
    }

    fn plan_for(&self, address: &str) -> Vec<Plan> {
        let mut options = Options::default();
        for key in lookup_keys(address) {
            if let Some(entry) = self.options.get(&key) {
                options = options.or(entry);
            }
        }
        let author_domain = domain_of(address);
        let domain = options.domain.clone().unwrap_or_else(|| author_domain.clone()).to_ascii_lowercase();
        if domain.is_empty() {
            return Vec::new();
        }
        let below = |host: &str| host.strip_suffix(&domain).is_some_and(|parent| parent.ends_with('.'));
        let automatic = below(&author_domain).then(|| format!("@{author_domain}"));
        let fits = |key: &&SigningKey| {
            key.serves(&domain) && options.selector.as_ref().is_none_or(|selector| *selector == key.selector)
        };
        let plan = |key: &SigningKey| Plan {
            key: key.clone(),
            domain: domain.clone(),
            canonicalization: options
                .canonicalization
                .unwrap_or((Canonicalization::Relaxed, Canonicalization::Simple)),
            identity: options.identity.clone().or_else(|| automatic.clone()),
            ttl: options.ttl,
            extra: options.extra.clone(),
        };
        match &options.algorithms {
            None => self.keys.iter().find(fits).map(plan).into_iter().collect(),
            Some(algorithms) => algorithms
                .iter()
                .filter_map(|wanted| self.keys.iter().filter(fits).find(|key| key.key.algorithm() == *wanted))
                .map(plan)
                .collect(),
        }
    }

    /// The names that a signature of this header would cover, for tests and explanations.
    pub fn signed_names(&self, header: &[u8]) -> Vec<String> {
        self.fields.names(&header::fields(header).collect::<Vec<_>>())
    }
}

impl Plan {
    /// The body hash this signature needs. Several plans usually need the same one.
    pub fn body_hash_kind(&self) -> BodyHashKind {
        let hash = self.key.key.algorithm().hash();
        BodyHashKind { canonicalization: self.canonicalization.1, hash, length: None }
    }

    /// `d=`
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `selector:domain`, as logs name a signature.
    pub fn name(&self) -> String {
        format!("{}:{}", self.key.selector, self.domain)
    }

    /// Makes the DKIM-Signature field, line end included, for a header section exactly as it will be sent.
    /// `signed_at` is in seconds since 1970.
    pub fn sign(
        &self,
        header: &[u8],
        fields: &SignedFields,
        body: &BodyHash,
        signed_at: u64,
    ) -> Result<Vec<u8>, KeyError> {
        let parsed: Vec<Field<'_>> = header::fields(header).collect();
        let names = fields.names(&parsed);
        let mut line = Folded::new("DKIM-Signature: v=1;");
        line.tag("a", &self.key.key.algorithm().to_string());
        let (header_side, body_side) = self.canonicalization;
        if (header_side, body_side) != (Canonicalization::Simple, Canonicalization::Simple) {
            line.tag("c", &format!("{header_side}/{body_side}"));
        }
        line.tag("d", &self.domain);
        line.tag("s", &self.key.selector);
        line.tag("t", &signed_at.to_string());
        if let Some(ttl) = self.ttl {
            line.tag("x", &signed_at.saturating_add(ttl).to_string());
        }
        if let Some(identity) = &self.identity {
            line.tag("i", identity);
        }
        for (tag, value) in &self.extra {
            line.tag(tag, value);
        }
        line.list("h", &names);
        line.tag("bh", &STANDARD.encode(&body.digest));
        line.word(" b=");
        let mut text = select(&parsed, &names, header_side);
        append_last(line.text.as_bytes(), header_side, &mut text);
        line.base64(&STANDARD.encode(self.key.key.sign(&text)?));
        line.text.push_str("\r\n");
        Ok(line.text.into_bytes())
    }
}

/// A header field folded at about 76 columns.
struct Folded {
    text: String,
    column: usize,
}

const WIDTH: usize = 76;

impl Folded {
    fn new(start: &str) -> Folded {
        Folded { text: start.to_owned(), column: start.len() }
    }

    /// Appends a word that begins with the blank at which the line may be folded.
    fn word(&mut self, word: &str) {
        if self.column + word.len() > WIDTH {
            self.fold();
            self.text.push_str(word.trim_start());
            self.column += word.trim_start().len();
        } else {
            self.text.push_str(word);
            self.column += word.len();
        }
    }

    fn tag(&mut self, name: &str, value: &str) {
        self.word(&format!(" {name}={value};"));
    }

    /// A tag whose value is a list with colons, which may be folded after each.
    fn list(&mut self, name: &str, values: &[String]) {
        self.word(&format!(" {name}={}", values.first().map(String::as_str).unwrap_or_default()));
        for value in values.iter().skip(1) {
            self.text.push(':');
            self.column += 1;
            if self.column + value.len() + 1 > WIDTH {
                self.fold();
            }
            self.text.push_str(value);
            self.column += value.len();
        }
        self.text.push(';');
        self.column += 1;
    }

    fn base64(&mut self, text: &str) {
        for character in text.chars() {
            if self.column >= WIDTH {
                self.fold();
            }
            self.text.push(character);
            self.column += 1;
        }
    }

    fn fold(&mut self) {
        self.text.push_str("\r\n\t");
        self.column = 8;
    }
}

fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase()).unwrap_or_default()
}

/// From specific to general: the address, `user@`, the domain, the domain and its parents with a dot in front, `.`.
fn lookup_keys(address: &str) -> Vec<String> {
    let address = address.to_ascii_lowercase();
    let mut keys = vec![address.clone()];
    if let Some((local, domain)) = address.rsplit_once('@') {
        keys.push(format!("{local}@"));
        keys.push(domain.to_owned());
        let mut rest = Some(domain);
        while let Some(parent) = rest {
            keys.push(format!(".{parent}"));
            rest = parent.split_once('.').map(|(_, wider)| wider);
        }
    }
    keys.push(".".to_owned());
    keys
}
