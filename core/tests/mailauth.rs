//! DKIM and Authentication-Results against independent opinions: the `mail-auth` crate in both directions, and the
//! public suites when they lie beside the repository.

#![cfg(feature = "mailauth")]

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use outrider_core::codec::header;
use outrider_core::dns::{DnsError, MemoryResolver};
use outrider_core::mailauth::canonical::{BodyHasher, Canonicalization};
use outrider_core::mailauth::key::{Algorithm, KeyError, PrivateKey};
use outrider_core::mailauth::results::Results;
use outrider_core::mailauth::sign::{Options, SignedFields, Signer, SigningKey};
use outrider_core::mailauth::verify::{Outcome, Policy, Verdict, Verifier};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const NOW: u64 = 1_742_040_000;
const RSA_2048: &[u8] = include_bytes!("keys/rsa-2048.pem");
const RSA_1024: &[u8] = include_bytes!("keys/rsa-1024.pem");
const RSA_512: &[u8] = include_bytes!("keys/rsa-512.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519.pem");

const MESSAGE: &str = "Received: from a.test by b.test; Tue, 02 Jul 2024 09:12:34 +0200\r\n\
    From: Carol <carol@example.com>\r\n\
    To: x@remote.test,\r\n\t y@remote.test\r\n\
    Subject:  two   blanks \r\n\
    Date: Tue, 02 Jul 2024 09:12:33 +0200\r\n\
    Message-ID: <1@example.com>\r\n\
    X-Own: not signed\r\n\
    \r\n\
    Hello  \t Bob,\r\n\
    \r\n\
    .dots and trailing blanks \t\r\n\
    \r\n \t\r\n\r\n";

fn key(pem: &[u8], domain: &str, selector: &str) -> SigningKey {
    let key = Arc::new(PrivateKey::from_pem(pem).expect("a test key"));
    SigningKey { domain: domain.to_owned(), selector: selector.to_owned(), key }
}

fn zone(keys: &[SigningKey]) -> MemoryResolver {
    keys.iter().fold(MemoryResolver::new(), |zone, key| {
        let record = key.key.record().expect("a record");
        zone.with_txt(&format!("{}._domainkey.{}", key.selector, key.domain), &record)
    })
}

fn sign(signer: &Signer, candidates: &[&str], message: &str) -> String {
    let boundary = header::boundary(message.as_bytes()).expect("a header");
    let candidates: Vec<String> = candidates.iter().map(|c| (*c).to_owned()).collect();
    let mut out = message.to_owned();
    for plan in signer.plan(&candidates) {
        let mut hasher = BodyHasher::new(plan.body_hash_kind());
        hasher.update(&message.as_bytes()[boundary.body..]);
        let field = plan
            .sign(&message.as_bytes()[..boundary.header], &signer.fields, &hasher.finish(), NOW)
            .expect("signs");
        for line in field.split(|octet| *octet == b'\n') {
            assert!(line.len() < 80, "folded: {}", String::from_utf8_lossy(line));
        }
        out = String::from_utf8(field).expect("text") + &out;
    }
    out
}

async fn verify(message: &[u8], zone: &MemoryResolver, policy: Policy, now: u64) -> Vec<Outcome> {
    let boundary = header::boundary(message).expect("a header");
    let Some(mut verifier) = Verifier::new(&message[..boundary.header]) else { return Vec::new() };
    message[boundary.body..].chunks(7).for_each(|piece| verifier.body(piece));
    verifier.finish(zone, &policy, now).await
}

/// Answers of `mail-auth` come out of this cache, so that no name server is needed.
#[derive(Default)]
struct Cache(HashMap<String, Txt>);

impl ResolverCache<Box<str>, Txt> for Cache {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.0.iter().find(|(key, _)| {
            let boxed: Box<str> = key.as_str().into();
            Borrow::<Q>::borrow(&boxed) == name
        });
        found.map(|(_, txt)| txt.clone())
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

async fn second_opinion(message: &str, keys: &[SigningKey]) -> Vec<bool> {
    let mut cache = Cache::default();
    for key in keys {
        let record = DomainKey::parse(key.key.record().expect("a record").as_bytes()).expect("a key record");
        cache
            .0
            .insert(format!("{}._domainkey.{}.", key.selector, key.domain), Txt::DomainKey(Arc::new(record)));
    }
    let verifier =
        MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).expect("a resolver");
    let parsed = AuthenticatedMessage::parse(message.as_bytes()).expect("a message");
    let outputs = verifier.verify_dkim(Parameters::new(&parsed).with_txt_cache(&cache)).await;
    outputs.iter().map(|output| *output.result() == DkimResult::Pass).collect()
}

#[tokio::test]
async fn our_signatures_hold_for_us_and_for_mail_auth() {
    let pairs = [
        (Canonicalization::Relaxed, Canonicalization::Relaxed),
        (Canonicalization::Relaxed, Canonicalization::Simple),
        (Canonicalization::Simple, Canonicalization::Relaxed),
        (Canonicalization::Simple, Canonicalization::Simple),
    ];
    for (pem, algorithm) in [
        (RSA_2048, Algorithm::RsaSha256),
        (RSA_1024, Algorithm::RsaSha256),
        (ED25519, Algorithm::Ed25519Sha256),
    ] {
        for canonicalization in pairs {
            let keys = vec![key(pem, "example.com", "dkim")];
            assert_eq!(keys[0].key.algorithm(), algorithm);
            let options = Options { canonicalization: Some(canonicalization), ..Options::default() };
            let signer = Signer {
                keys: keys.clone(),
                options: [(".".to_owned(), options)].into(),
                fields: SignedFields::default(),
            };
            // The defect of mail-auth 0.13 with white space at the end of a relaxed body is not ours to repeat.
            let message = MESSAGE.trim_end().to_owned() + "\r\n";
            for text in [MESSAGE, &message] {
                let signed = sign(&signer, &["carol@example.com"], text);
                let outcomes = verify(signed.as_bytes(), &zone(&keys), Policy::STRICT, NOW).await;
                assert_eq!(outcomes.len(), 1);
                assert!(outcomes[0].passed(), "{canonicalization:?} {outcomes:?}\n{signed}");
                assert!(outcomes[0].is_by("carol@example.com"));
            }
            let signed = sign(&signer, &["carol@example.com"], &message);
            assert_eq!(second_opinion(&signed, &keys).await, [true], "{canonicalization:?}\n{signed}");
        }
    }
}

#[tokio::test]
async fn signatures_of_mail_auth_hold_for_us() {
    use mail_auth::common::crypto::{RsaKey, Sha256};
    use mail_auth::common::headers::HeaderWriter;
    use mail_auth::dkim::DkimSigner;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    let keys = [key(RSA_2048, "example.com", "dkim")];
    for (head, body) in [
        (Canonicalization::Relaxed, Canonicalization::Relaxed),
        (Canonicalization::Simple, Canonicalization::Simple),
    ] {
        let theirs = |canonicalization| match canonicalization {
            Canonicalization::Relaxed => mail_auth::dkim::Canonicalization::Relaxed,
            Canonicalization::Simple => mail_auth::dkim::Canonicalization::Simple,
        };
        let der = PrivateKeyDer::from_pem_slice(RSA_2048).expect("a key");
        let signer = DkimSigner::from_key(RsaKey::<Sha256>::from_key_der(der).expect("a key"))
            .domain("example.com")
            .selector("dkim")
            .headers(["From", "To", "Subject", "Date", "From"])
            .header_canonicalization(theirs(head))
            .body_canonicalization(theirs(body));
        let message = MESSAGE.trim_end().to_owned() + "\r\n\r\n\r\n";
        let field = signer.sign(message.as_bytes()).expect("signs").to_header();
        let outcomes = verify((field + &message).as_bytes(), &zone(&keys), Policy::STRICT, NOW).await;
        assert!(outcomes[0].passed(), "{outcomes:?}");
    }
}

#[tokio::test]
async fn changed_messages_and_bad_keys_get_amavisds_words() {
    let keys = [key(RSA_2048, "example.com", "dkim")];
    let ttl = Options { ttl: Some(60), ..Options::default() };
    let signer = Signer {
        keys: keys.to_vec(),
        options: [(".".to_owned(), ttl)].into(),
        fields: SignedFields::default(),
    };
    let signed = sign(&signer, &["carol@example.com"], MESSAGE);
    let good = zone(&keys);
    let name = "dkim._domainkey.example.com";
    type Case = (&'static str, String, MemoryResolver, u64, Verdict, Option<&'static str>);
    let table: Vec<Case> = vec![
        ("good", signed.clone(), zone(&keys), NOW, Verdict::Pass, None),
        (
            "subject changed",
            signed.replace("two   blanks", "three"),
            zone(&keys),
            NOW,
            Verdict::Fail,
            Some("fail (message has been altered)"),
        ),
        (
            "second From added",
            signed.replace("From: Carol", "From: Mallory <m@evil.test>\r\nFrom: Carol"),
            zone(&keys),
            NOW,
            Verdict::Fail,
            Some("fail (message has been altered)"),
        ),
        (
            "body changed",
            signed.replace("Hello", "Hallo"),
            zone(&keys),
            NOW,
            Verdict::Fail,
            Some("fail (body has been altered)"),
        ),
        ("expired", signed.clone(), zone(&keys), NOW + 61, Verdict::Fail, Some("good, but expired")),
        (
            "no key",
            signed.clone(),
            MemoryResolver::new(),
            NOW,
            Verdict::Neutral,
            Some("invalid (public key: not available)"),
        ),
        (
            "revoked",
            signed.clone(),
            MemoryResolver::new().with_txt(name, "v=DKIM1; p="),
            NOW,
            Verdict::Neutral,
            Some("invalid (public key: revoked)"),
        ),
        (
            "no key in the record",
            signed.clone(),
            MemoryResolver::new().with_txt(name, "v=DKIM1; p=!!!"),
            NOW,
            Verdict::Neutral,
            Some("invalid (public key: invalid data)"),
        ),
        (
            "server fails",
            signed.clone(),
            MemoryResolver::new().with_failure(name, DnsError::ServerFailure),
            NOW,
            Verdict::Neutral,
            Some("invalid (public key: DNS error: SERVFAIL)"),
        ),
        (
            "server silent",
            signed.clone(),
            MemoryResolver::new().with_failure(name, DnsError::Timeout),
            NOW,
            Verdict::Neutral,
            Some("invalid (public key: DNS error: query timed out)"),
        ),
        (
            "no selector",
            signed.replace(" s=dkim;", ""),
            good,
            NOW,
            Verdict::Neutral,
            Some("invalid (missing s tag)"),
        ),
    ];
    for (case, message, zone, now, verdict, reason) in table {
        let outcomes = verify(message.as_bytes(), &zone, Policy::AMAVISD, now).await;
        assert_eq!((outcomes[0].verdict, outcomes[0].reason.as_deref()), (verdict, reason), "{case}");
    }
}

#[tokio::test]
async fn weak_signatures_pass_only_where_old_behaviour_is_asked_for() {
    let strong = [key(RSA_2048, "example.com", "dkim")];
    let signer = Signer { keys: strong.to_vec(), ..Signer::default() };
    let signed = sign(&signer, &["carol@example.com"], MESSAGE);
    let appended = signed.clone() + "appended text\r\n";
    let strict = verify(appended.as_bytes(), &zone(&strong), Policy::STRICT, NOW).await;
    assert_eq!(strict[0].reason.as_deref(), Some("fail (body has been altered)"));
    assert_eq!(PrivateKey::from_pem(RSA_512).expect("a key").bits(), 512);
    let weak = [key(RSA_512, "example.com", "dkim")];
    let signer = Signer { keys: weak.to_vec(), ..Signer::default() };
    let signed = sign(&signer, &["carol@example.com"], MESSAGE);
    for (policy, verdict) in [(Policy::AMAVISD, Verdict::Pass), (Policy::STRICT, Verdict::Policy)] {
        let outcomes = verify(signed.as_bytes(), &zone(&weak), policy, NOW).await;
        assert_eq!((outcomes[0].verdict, outcomes[0].key_bits), (verdict, Some(512)));
    }
}

#[tokio::test]
async fn several_signatures_share_one_pass_and_only_ten_are_looked_at() {
    let keys = [key(RSA_2048, "example.com", "rsa"), key(ED25519, "example.com", "ed")];
    let both = Some(vec![Algorithm::RsaSha256, Algorithm::Ed25519Sha256]);
    let options = Options { algorithms: both, ..Options::default() };
    let signer = Signer {
        keys: keys.to_vec(),
        options: [(".".to_owned(), options)].into(),
        fields: SignedFields::default(),
    };
    let plans = signer.plan(&["carol@example.com".to_owned()]);
    assert_eq!(plans.len(), 2);
    assert_eq!(plans[0].body_hash_kind(), plans[1].body_hash_kind());
    let mut signed = sign(&signer, &["carol@example.com"], MESSAGE);
    let outcomes = verify(signed.as_bytes(), &zone(&keys), Policy::STRICT, NOW).await;
    assert!(outcomes.len() == 2 && outcomes.iter().all(Outcome::passed), "{outcomes:?}");
    for _ in 0..500 {
        signed.insert_str(0, "DKIM-Signature: v=1; b=\r\n");
    }
    assert_eq!(verify(signed.as_bytes(), &zone(&keys), Policy::STRICT, NOW).await.len(), 10);
}

#[test]
fn options_and_keys_are_found_as_amavisd_finds_them() {
    let keys = vec![
        key(ED25519, "example.com", "dkim"),
        key(ED25519, "*.example.net", "s2024"),
        key(ED25519, "second.test", "k1"),
        key(ED25519, "second.test", "k2"),
    ];
    let option = |domain: Option<&str>, selector: Option<&str>, ttl| Options {
        domain: domain.map(str::to_owned),
        selector: selector.map(str::to_owned),
        ttl,
        ..Options::default()
    };
    let signer = Signer {
        keys,
        options: [
            (".".to_owned(), option(Some("example.com"), None, Some(30))),
            (".example.net".to_owned(), option(Some("mail.example.net"), None, None)),
            ("second.test".to_owned(), option(Some("second.test"), None, None)),
            ("boss@second.test".to_owned(), option(None, Some("k2"), None)),
        ]
        .into(),
        fields: SignedFields::default(),
    };
    let table: [(&[&str], Option<&str>); 9] = [
        (&["carol@example.com"], Some("dkim:example.com")),
        (&["u@hosted.test"], Some("dkim:example.com")),
        (&["u@example.net"], Some("s2024:mail.example.net")),
        (&["u@sub.example.net"], Some("s2024:mail.example.net")),
        (&["u@second.test"], Some("k1:second.test")),
        (&["Boss@Second.Test"], Some("k2:second.test")),
        (&["", "u@second.test"], Some("k1:second.test")),
        (&[], None),
        (&[""], None),
    ];
    for (candidates, expected) in table {
        let candidates: Vec<String> = candidates.iter().map(|c| (*c).to_owned()).collect();
        let plans = signer.plan(&candidates);
        assert_eq!(plans.first().map(|plan| plan.name()).as_deref(), expected, "{candidates:?}");
    }
    let strict = Signer { options: Default::default(), ..signer };
    assert!(strict.plan(&["u@nokey.test".to_owned()]).is_empty());
    assert_eq!(strict.plan(&["u@nokey.test".to_owned(), "u@second.test".to_owned()]).len(), 1);
}

#[test]
fn the_field_has_amavisds_tags_in_amavisds_order() {
    let keys = vec![key(RSA_2048, "example.com", "dkim")];
    let options =
        Options { domain: Some("example.com".to_owned()), ttl: Some(2_592_000), ..Options::default() };
    let changes = ["to", "from", "subject", "message-id", "content-type", "date", "mime-version"];
    let fields = SignedFields::with(
        changes.iter().map(|name| ((*name).to_owned(), 1)).chain([("received".to_owned(), 0)]),
    );
    let signer = Signer { keys, options: [(".".to_owned(), options)].into(), fields };
    let signed = sign(&signer, &["carol@dept.example.com"], MESSAGE);
    let field = header::fields(signed.as_bytes()).next().expect("a field").text().replace('\t', " ");
    let expected = "v=1; a=rsa-sha256; c=relaxed/simple; d=example.com; s=dkim; t=1742040000; x=1744632000; \
        i=@dept.example.com; h=message-id:date:subject:to:from; bh=";
    let dense = |text: &str| text.replace(' ', "");
    assert!(dense(&field).starts_with(&dense(expected)), "{field}");
    let oversigned = Signer { fields: SignedFields::default(), ..signer }.signed_names(MESSAGE.as_bytes());
    assert_eq!(oversigned, ["message-id", "date", "date", "subject", "subject", "from", "from", "received"]);
}

#[test]
fn unusable_key_files_are_refused() {
    assert_eq!(PrivateKey::from_pem(b"").map(|_| ()), Err(KeyError::NotPem));
    assert_eq!(
        PrivateKey::from_pem(b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n").map(|_| ()),
        Err(KeyError::NotPem)
    );
    let secret = format!("{:?}", PrivateKey::from_pem(RSA_2048).expect("a key"));
    assert_eq!(secret, "PrivateKey(rsa-sha256, 2048 bits)");
}

/// The suites of the documentation, if they lie beside the repository.
fn suite(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("OUTRIDER_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let folder = root.join("suites").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no suite at {}", folder.display());
    None
}

fn crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, &octet) in text.iter().enumerate() {
        if octet == b'\n' && (at == 0 || text[at - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(octet);
    }
    out
}

#[tokio::test]
async fn suite_dkimpy() {
    let Some(folder) = suite("dkim-dkimpy") else { return };
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file of the suite");
    let text = |name: &str| String::from_utf8(read(name)).expect("text").trim().to_owned();
    // RFC 8463 appendix A: Ed25519 and RSA signatures of the message of RFC 6376.
    let football = || {
        MemoryResolver::new()
            .with_txt(
                "brisbane._domainkey.football.example.com",
                "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            )
            .with_txt("test._domainkey.football.example.com", &text("test.txt"))
    };
    let outcomes = verify(&crlf(&read("rfc6376.signed.msg")), &football(), Policy::STRICT, NOW).await;
    assert_eq!(
        outcomes.iter().map(|o| (o.verdict, o.key_bits)).collect::<Vec<_>>(),
        [(Verdict::Pass, Some(256)), (Verdict::Pass, Some(1024))]
    );
    let outcomes = verify(&crlf(&read("rfc6376.signed.rsa.msg")), &football(), Policy::STRICT, NOW).await;
    assert_eq!(outcomes[0].verdict, Verdict::Pass);
    let ed25519 = MemoryResolver::new().with_txt("sed._domainkey.test.ex", &text("eximtest.dns"));
    let outcomes = verify(&crlf(&read("ed25519test2.msg")), &ed25519, Policy::STRICT, NOW).await;
    assert_eq!(outcomes[0].verdict, Verdict::Pass, "{outcomes:?}");

    // Each message signed with each private key verifies with the published key, and not with a broken one.
    let pairs = [
        (PrivateKey::from_pem(&read("test.private")), "test.txt"),
        (PrivateKey::from_pem(&read("1024_testkey.key")), "1024_testkey_wo_markers.pub.txt"),
        (PrivateKey::from_pem(&read("1024_testkey.key")), "1024_testkey_wo_markers.pub.rsa.txt"),
        (PrivateKey::from_pem(&read("2048_testkey.key")), "2048_testkey_wo_markers.pub.txt"),
        (PrivateKey::from_pem(&read("2048_testkey.key")), "2048_testkey_wo_markers.pub.rsa.txt"),
        (PrivateKey::from_pem(&read("2048_testkey_PKCS8.key")), "2048_testkey_PKCS8.key.pub.txt"),
        (PrivateKey::from_ed25519_seed(&base64_seed(&read("ed25519test.key"))), "ed25519test.dns"),
    ];
    let messages = ["test.message", "test2.message", "rfc6376.msg", "rfc6376.w1258.msg", "ed25519test.msg"];
    for (key, record) in pairs {
        let key = Arc::new(key.expect("a key of the suite"));
        let signing = SigningKey { domain: "example.com".to_owned(), selector: "test".to_owned(), key };
        let options = Options { domain: Some("example.com".to_owned()), ..Options::default() };
        let signer = Signer {
            keys: vec![signing],
            options: [(".".to_owned(), options)].into(),
            fields: SignedFields::default(),
        };
        for name in messages {
            let message = crlf(&read(name));
            let boundary = header::boundary(&message).expect("a header");
            let plan = signer.plan(&["test@example.com".to_owned()]).remove(0);
            let mut hasher = BodyHasher::new(plan.body_hash_kind());
            hasher.update(&message[boundary.body..]);
            let field =
                plan.sign(&message[..boundary.header], &signer.fields, &hasher.finish(), NOW).expect("signs");
            let signed = [field, message.clone()].concat();
            let zone = MemoryResolver::new().with_txt("test._domainkey.example.com", &text(record));
            let outcomes = verify(&signed, &zone, Policy::STRICT, NOW).await;
            assert_eq!(outcomes[0].verdict, Verdict::Pass, "{name} with {record}: {outcomes:?}");
            for broken in ["badk.txt", "badversion.txt", "test_bad.txt", "test_tlsrpt.txt"] {
                let zone = MemoryResolver::new().with_txt("test._domainkey.example.com", &text(broken));
                let outcomes = verify(&signed, &zone, Policy::AMAVISD, NOW).await;
                assert!(!outcomes[0].passed(), "{name} with {broken}");
            }
        }
    }
}

fn base64_seed(text: &[u8]) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text.trim_ascii()).expect("base64")
}

#[test]
fn suite_authres() {
    let Some(folder) = suite("authres") else { return };
    let cases = std::fs::read_to_string(folder.join("cases.jsonl")).expect("a file of the suite");
    let mut played = 0;
    for line in cases.lines().filter(|line| !line.trim().is_empty()) {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let wire = format!("{}\r\n", case["header"].as_str().expect("a header"));
        let field = header::fields(wire.as_bytes()).next().expect("a field");
        let got = Results::parse(field.value());
        let expect = &case["expect"];
        if expect["authserv_id"].is_null() {
            assert!(got.is_err(), "{}: {got:?}", case["id"]);
        } else {
            let got = got.unwrap_or_else(|error| panic!("{}: {error}", case["id"]));
            let results: Vec<serde_json::Value> = got
                .results
                .iter()
                .map(|result| {
                    let properties: Vec<_> = result
                        .properties
                        .iter()
                        .map(|(kind, name, value)| serde_json::json!({"type": kind, "name": name, "value": value}))
                        .collect();
                    serde_json::json!({"method": result.method, "method_version": result.version,
                        "result": result.result, "reason": result.reason, "properties": properties})
                })
                .collect();
            let got = serde_json::json!({"authserv_id": got.authserv_id, "version": got.version, "results": results});
            assert_eq!(got, *expect, "{}", case["id"]);
        }
        played += 1;
    }
    println!("{played} cases");
    assert!(played > 0);
}
