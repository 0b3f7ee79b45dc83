//! Settings of the content filter: `/etc/outrider/contentfilter.toml`.
//!
//! Where Amavisd has a setting of the same meaning, the key has its name.

use crate::bank;
use crate::hop::NextHop;
use ipnet::IpNet;
use outrider_core::bounded_file;
use outrider_core::directory::AccountSource;
use outrider_core::dns::DnsSettings;
use outrider_core::forwarding::SrsSettings;
use outrider_core::mailauth::canonical::Canonicalization;
use outrider_core::mailauth::key::{Algorithm, PrivateKey};
use outrider_core::mailauth::sign::{Options, SignedFields, Signer, SigningKey};
use outrider_core::mailauth::verify::Policy;
use outrider_core::settings::{
    DaemonSettings, Documented, Findings, FrameSettings, Interval, LimitSettings, ListenAddress,
    ListenerSpec, LogSettings, MetricsSettings, ProcessSettings, SectionDoc, Size,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a key file.
const LONGEST_KEY: u64 = 64 * 1024;

outrider_core::settings! {
    /// The content filter between Postfix and Postfix. An empty file serves an iRedMail server.
    pub struct Settings {
        /// Mail from outside (content_filter = smtp-amavis:[127.0.0.1]:10024): DKIM is verified.
        pub listen_inbound: Vec<ListenAddress> = vec![ListenAddress::local(10024)],
        /// Mail of own users (submission, pickup): policy bank ORIGINATING, DKIM is signed.
        pub listen_originating: Vec<ListenAddress> = vec![ListenAddress::local(10026)],
        /// Posts of mailing lists: policy bank MLMMJ, DKIM is signed.
        pub listen_lists: Vec<ListenAddress> = vec![ListenAddress::local(10027)],
        /// Where mail goes afterwards; list posts go to port 10028 (policy_bank.MLMMJ.forward_method).
        pub forward_method: NextHop = NextHop::local(10025),
        /// Where reports to senders go.
        pub notify_method: NextHop = NextHop::local(10025),
        /// Full name of this host; in Received, Authentication-Results and reports. The system's if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub myhostname: Option<String> = None,
        /// Name in EHLO towards the next hop and after "by" in Received; `myhostname` if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub localhost_name: Option<String> = None,
        /// Name under which we vouch for results (RFC 8601); `myhostname` if not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub myauthservid: Option<String> = None,
        /// Product word in Received and Authentication-Results. Amavisd's is "amavis".
        pub myproduct_name: String = "outrider".to_owned(),
        /// Recipients that count as local: "example.com", ".example.com" (it and all below), "." (everybody).
        /// Only local recipients get Authentication-Results.
        pub local_domains: Vec<String> = vec![".".to_owned()],
        /// Rewrite the envelope sender (SRS, section srs) of mail that a foreign sender wrote, for those recipients only
        /// that are outside the local domains: mail that is really forwarded. Use it in place of sender_canonical_maps;
        /// recipient_canonical_maps must lead to srsd with the same secrets, or bounces are lost.
        pub rewrite_forwarded: bool = false,
        /// Networks of own clients; their mail loads policy bank MYNETS on any port.
        pub mynetworks: Vec<IpNet> = default_networks(),
        /// Name of the field that says that mail was scanned.
        pub x_header_tag: String = "X-Virus-Scanned".to_owned(),
        /// Its text; nothing is added if empty. Amavisd's is "amavis at DOMAIN".
        pub x_header_line: String = String::new(),
        /// Fields that may (true) or may not (false) be added, by name; those not named may.
        pub allowed_added_header_fields: BTreeMap<String, bool> = BTreeMap::new(),
        /// Remove X-Spam-* fields of earlier hops.
        pub remove_existing_spam_headers: bool = true,
        /// Remove fields named like `x_header_tag` of earlier hops.
        pub remove_existing_x_scanned_headers: bool = false,
        /// Largest message in bytes; 0 is no limit (Amavisd's default: Postfix bounds it).
        pub smtpd_message_size_limit: Size = Size(100 * 1024 * 1024),
        /// Most recipients of one message.
        pub smtpd_recipient_limit: usize = 1100,
        /// A client that is silent for this long is disconnected.
        pub smtpd_timeout: Interval = Interval::seconds(480),
        /// Time for one message from its last octet to our reply; then it is deferred.
        pub child_timeout: Interval = Interval::seconds(480),
        /// A line feed without carriage return in a message: "accept" makes it a line end, "reject" refuses
        /// the message.
        pub bare_newline: BareNewline = BareNewline::Accept,
        /// The log line of a message with log.style = "amavis": "short" or "verbose" (iRedMail).
        pub log_templ: LogTemplate = LogTemplate::Short,
        /// Differences of policy banks, by name: ORIGINATING, MLMMJ, MYNETS or one of your own.
        pub policy_bank: BTreeMap<String, BankSettings> = BTreeMap::new(),
        /// Banks by the address of the first client; the first entry that holds it counts. Without any entry
        /// `mynetworks` load MYNETS.
        pub client_ipaddr_policy: Vec<ClientBank> = Vec::new(),
        pub dkim: DkimSettings = DkimSettings::default(),
        pub srs: SrsSettings = SrsSettings::default(),
        pub dns: DnsSettings = DnsSettings::default(),
        pub log: LogSettings = LogSettings::default(),
        pub metrics: MetricsSettings = MetricsSettings::default(),
        pub process: ProcessSettings = ProcessSettings::default(),
        pub limits: LimitSettings = LimitSettings {
            idle_timeout: Interval::seconds(480),
            request_timeout: Interval::seconds(480),
            grace: Interval::seconds(480),
            ..LimitSettings::default()
        },
    }
}

outrider_core::settings! {
    /// What a policy bank changes; keys that are not set leave things as they are.
    pub struct BankSettings {
        /// Mail comes from own users or machines.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub originating: Option<bool> = None,
        /// Sign with DKIM if there is a key.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_dkim_signing: Option<bool> = None,
        /// Verify DKIM signatures.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enable_dkim_verification: Option<bool> = None,
        /// Where mail goes afterwards.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub forward_method: Option<NextHop> = None,
        /// EHLO keywords that are not announced. Without 8BITMIME Postfix converts before we sign.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub smtpd_discard_ehlo_keywords: Option<Vec<String>> = None,
        /// Mail is not scanned, and so does not get the field `x_header_tag`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bypass_virus_checks: Option<bool> = None,
    }
}

outrider_core::settings! {
    /// Clients that load a policy bank.
    pub struct ClientBank {
        /// Their networks.
        pub networks: Vec<IpNet> = Vec::new(),
        /// The bank.
        pub bank: String = String::new(),
    }
}

outrider_core::settings! {
    /// DKIM keys and rules.
    pub struct DkimSettings {
        /// Keys to sign with; the first that fits is used.
        pub key: Vec<KeySettings> = Vec::new(),
        /// How to sign, by sender: "user@example.com", "user@", "example.com", ".example.com", "." (all).
        pub signature_options_bysender: BTreeMap<String, SignatureOptions> = BTreeMap::new(),
        /// Fields to sign that differ from the built-in list: 0 no, 1 yes, 2 also forbid another one.
        pub signed_header_fields: BTreeMap<String, u8> = BTreeMap::new(),
        /// Let signatures with SHA-1, with keys below 1024 bits or with text appended below them pass, as Amavisd
        /// does (RFC 8301 forbids it).
        pub accept_weak_signatures: bool = false,
        /// Sign mail that has several From fields, as Amavisd does.
        pub sign_several_from: bool = false,
    }
}

outrider_core::settings! {
    /// A DKIM key.
    pub struct KeySettings {
        /// The domain that signs; "*" stands for anything.
        pub domain: String = String::new(),
        /// The selector under which the public key is published.
        pub selector: String = String::new(),
        /// PEM file with an RSA or Ed25519 key that only the daemon may read.
        pub file: PathBuf = PathBuf::new(),
    }
}

outrider_core::settings! {
    /// How to sign; keys that are not set are looked for in the next wider entry.
    pub struct SignatureOptions {
        /// Signing domain; that of the sender if not set anywhere.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub d: Option<String> = None,
        /// Selector that the key must have.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub s: Option<String> = None,
        /// Algorithms, one signature each: "rsa-sha256", "ed25519-sha256", or both in a list.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub a: Option<OneOrMany> = None,
        /// Canonicalization of header and body, "relaxed/simple" if not set anywhere.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub c: Option<String> = None,
        /// Identity.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub i: Option<String> = None,
        /// How long the signature is good, from the arrival of the mail.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ttl: Option<Interval> = None,
        /// Further tags.
        pub extra: BTreeMap<String, String> = BTreeMap::new(),
    }
}

/// One text or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single one.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

/// Setting `bare_newline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// It becomes a line end.
    Accept,
    /// 550 5.5.2.
    Reject,
}

/// Setting `log_templ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTemplate {
    /// Amavisd's default line.
    Short,
    /// The line of iRedMail.
    Verbose,
}

fn default_networks() -> Vec<IpNet> {
    let text = ["127.0.0.0/8", "::1/128"];
    text.iter().filter_map(|network| network.parse().ok()).collect()
}

impl Settings {
    /// The longest wait for what rewriting has to know.
    pub fn srs_timeout(&self) -> Duration {
        self.srs.database.acquire_timeout.duration() + self.srs.database.statement_timeout.duration()
    }
}

impl DaemonSettings for Settings {
    fn listeners(&self) -> Vec<ListenerSpec> {
        let roles = [
            (bank::INBOUND, &self.listen_inbound),
            (bank::ORIGINATING, &self.listen_originating),
            (bank::LISTS, &self.listen_lists),
        ];
        let specs = roles.into_iter().flat_map(|(role, addresses)| {
            addresses.iter().map(move |address| ListenerSpec { role, address: address.clone() })
        });
        specs.collect()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        self.dns.check("dns", findings);
        if self.rewrite_forwarded {
            self.srs.check("srs", findings);
            let secret = self.srs.secrets.is_empty()
                && self.srs.secrets_file.is_none()
                && self.srs.iredapd_settings.is_none();
            if secret {
                findings.error(
                    "srs.secrets",
                    "rewrite_forwarded needs the secrets of srsd, which reverses the bounces",
                    "write those of srsd.toml, or \"file:/...\" of a copy that the content filter may read",
                );
            }
            let embedded = self.srs.directory_domains
                && self.srs.accounts == AccountSource::Sql
                && self.srs.database.vmail.is_none();
            if embedded && self.srs.domains.is_empty() && self.srs.domains_file.is_none() {
                findings.warning(
                    "srs.database.vmail",
                    "is not set, so that the only local domains are those of an embedded database",
                    "name the database that srsd uses, or list srs.domains",
                );
            }
        }
        for (key, name) in [
            ("myhostname", &self.myhostname),
            ("localhost_name", &self.localhost_name),
            ("myauthservid", &self.myauthservid),
        ] {
            if name.as_ref().is_some_and(|name| !is_word(name)) {
                findings.error(key, "must be a host name", "write a name such as \"mail.example.com\"");
            }
        }
        if !is_word(&self.myproduct_name) {
            findings.error("myproduct_name", "must be one word", "write \"outrider\" or \"amavis\"");
        }
        let token = |octet: u8| octet.is_ascii_graphic() && octet != b':';
        if self.x_header_tag.is_empty() || !self.x_header_tag.bytes().all(token) {
            findings.error("x_header_tag", "must be the name of a header field", "write \"X-Virus-Scanned\"");
        }
        if !self.x_header_line.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()) {
            findings.error("x_header_line", "must be printable ASCII text", "");
        }
        if self.smtpd_recipient_limit == 0 {
            findings.error("smtpd_recipient_limit", "must be at least 1", "the default is 1100");
        }
        for (key, value) in [("smtpd_timeout", self.smtpd_timeout), ("child_timeout", self.child_timeout)] {
            if value.duration().is_zero() {
                findings.error(key, "must be longer than nothing", "write \"480s\"");
            }
        }
        for (at, entry) in self.client_ipaddr_policy.iter().enumerate() {
            if entry.bank.is_empty() {
                findings.error(format!("client_ipaddr_policy.{at}.bank"), "is missing", "name a policy bank");
            }
        }
        self.dkim.check(findings);
    }

    fn describe() -> SectionDoc {
        Settings::document()
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_'))
}

impl DkimSettings {
    fn check(&self, findings: &mut Findings) {
        for (at, key) in self.key.iter().enumerate() {
            if key.domain.is_empty() || key.selector.is_empty() {
                findings.error(format!("dkim.key.{at}"), "needs domain, selector and file", "");
            } else if let Err(reason) = load_key(&key.file) {
                let reason = format!("{}: {reason}", key.file.display());
                findings.error(format!("dkim.key.{at}.file"), reason, "make one with openssl genrsa 2048");
            }
        }
        for (sender, options) in &self.signature_options_bysender {
            if let Err(reason) = options.parse() {
                let known = "known are a = \"rsa-sha256\" and \"ed25519-sha256\", c = \"relaxed/simple\" and the like";
                findings.error(format!("dkim.signature_options_bysender.{sender}"), reason, known);
            }
        }
        for (name, count) in &self.signed_header_fields {
            if *count > 2 {
                findings.error(format!("dkim.signed_header_fields.{name}"), "must be 0, 1 or 2", "");
            }
        }
    }

    /// Loads the keys and builds the tables to sign with.
    pub fn signer(&self) -> Result<Signer, String> {
        let mut signer =
            Signer { fields: SignedFields::with(self.signed_header_fields.clone()), ..Signer::default() };
        for key in &self.key {
            let loaded = load_key(&key.file).map_err(|reason| format!("{}: {reason}", key.file.display()))?;
            signer.keys.push(SigningKey {
                domain: key.domain.clone(),
                selector: key.selector.clone(),
                key: Arc::new(loaded),
            });
        }
        for (sender, options) in &self.signature_options_bysender {
            signer.options.insert(sender.to_ascii_lowercase(), options.parse()?);
        }
        Ok(signer)
    }

    /// What counts as a valid signature.
    pub fn policy(&self) -> Policy {
        if self.accept_weak_signatures { Policy::AMAVISD } else { Policy::STRICT }
    }
}

impl SignatureOptions {
    fn parse(&self) -> Result<Options, String> {
        let algorithms = match &self.a {
            None => None,
            Some(names) => {
                let parsed: Option<Vec<Algorithm>> = names.iter().map(Algorithm::parse).collect();
                let known = parsed.filter(|list| !list.is_empty() && !list.contains(&Algorithm::RsaSha1));
                Some(known.ok_or("a names an algorithm that cannot be signed with")?)
            }
        };
        let canonicalization = match &self.c {
            None => None,
            Some(text) => {
                let (header, body) = text.split_once('/').unwrap_or((text, "simple"));
                let both = Canonicalization::parse(header).zip(Canonicalization::parse(body));
                Some(both.ok_or("c is neither simple nor relaxed")?)
            }
        };
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|o| o.is_ascii_graphic() && o != b';');
        for (tag, value) in [("d", &self.d), ("s", &self.s), ("i", &self.i)] {
            if value.as_ref().is_some_and(|value| !plain(value)) {
                return Err(format!("{tag} cannot stand in a signature"));
            }
        }
        let reserved = ["v", "a", "b", "bh", "c", "d", "h", "i", "l", "s", "t", "x"];
        if self
            .extra
            .iter()
            .any(|(tag, value)| reserved.contains(&tag.as_str()) || !is_word(tag) || !plain(value))
        {
            return Err("extra holds a tag that cannot be given there".to_owned());
        }
        Ok(Options {
            domain: self.d.clone(),
            selector: self.s.clone(),
            algorithms,
            canonicalization,
            identity: self.i.clone(),
            ttl: self.ttl.map(|ttl| ttl.duration().as_secs()),
            extra: self.extra.clone(),
        })
    }
}

/// Reads a key file; one that everybody may read is refused.
fn load_key(path: &Path) -> Result<PrivateKey, String> {
    let (pem, about) = bounded_file::read(path, LONGEST_KEY).map_err(|error| error.to_string())?;
    if about.permissions().mode() & 0o007 != 0 {
        return Err("everybody may read this key; make it mode 0600 or 0640".to_owned());
    }
    PrivateKey::from_pem(&pem).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_core::settings::undocumented;

    #[test]
    fn every_key_is_documented() {
        assert_eq!(undocumented::<Settings>(), Vec::<String>::new());
    }

    #[test]
    fn defaults_are_sound() {
        let mut findings = Findings::default();
        outrider_core::settings::check(&Settings::default(), &mut findings);
        assert!(!findings.is_fatal());
    }

    #[test]
    fn rewriting_wants_the_secrets_and_the_domains_of_srsd() {
        let findings = |text: &str| {
            let settings: Settings = toml::from_str(text).expect("TOML");
            let mut findings = Findings::default();
            outrider_core::settings::check(&settings, &mut findings);
            (findings.is_fatal(), findings.to_string())
        };
        let (fatal, text) = findings("rewrite_forwarded = true");
        assert!(fatal && text.contains("srs.secrets") && text.contains("srs.database.vmail"), "{text}");
        let section = "rewrite_forwarded = true\n[srs]\nsecrets = ['a secret']\n";
        let (fatal, text) = findings(section);
        assert!(!fatal && text.contains("srs.database.vmail"), "{text}");
        let (fatal, text) = findings(&format!("{section}domains = ['local.example']\nhash_length = 3\n"));
        assert!(fatal && text.contains("srs.hash_length") && !text.contains("vmail"), "{text}");
        assert!(!findings("[srs]\nhash_length = 3\n").0, "not used, not checked");
    }

    #[test]
    fn signature_options() {
        let options = |text: &str| toml_options(text).parse();
        assert!(options("a = 'rsa-sha256'\nc = 'relaxed/relaxed'\nttl = '30d'").is_ok());
        assert!(options("a = ['rsa-sha256', 'ed25519-sha256']").is_ok());
        for wrong in ["a = 'rsa-sha1'", "a = []", "c = 'loose'", "d = 'a;b'", "extra = { bh = 'x' }"] {
            assert!(options(wrong).is_err(), "{wrong}");
        }
    }

    fn toml_options(text: &str) -> SignatureOptions {
        toml::from_str(text).expect("TOML")
    }
}
