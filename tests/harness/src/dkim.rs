//! A DKIM verifier (RFC 6376) of its own: written apart from the code that signs, so that the two check each other.

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::message::split;

/// A fresh RSA-2048 key: the private part for the signer's file, the public part for its DNS record.
#[derive(Debug)]
pub struct Key {
    /// PKCS#8 in PEM.
    pub private_pem: String,
    /// Text of the TXT record `SELECTOR._domainkey.DOMAIN`.
    pub record: String,
    public: Vec<u8>,
}

impl Key {
    /// Makes a key.
    pub fn generate() -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("generating an RSA key")?;
        let private = pair.as_der().context("encoding the private key")?;
        let mut private_pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in STANDARD.encode(private.as_ref()).as_bytes().chunks(64) {
            private_pem.push_str(&String::from_utf8_lossy(line));
            private_pem.push('\n');
        }
        private_pem.push_str("-----END PRIVATE KEY-----\n");
        // DNS has the SubjectPublicKeyInfo form (RFC 6376 section 3.6.1), verification here takes the bare RSAPublicKey.
        let info = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key())
            .context("encoding the public key")?;
        let record = format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(info.as_ref()));
        Ok(Self { private_pem, record, public: pair.public_key().as_ref().to_vec() })
    }

    /// Verifies the topmost signature of `message` and returns its tags.
    ///
    /// # Errors
    /// With the reason when there is no signature or it does not fit.
    pub fn verify(&self, message: &[u8]) -> Result<Vec<(String, String)>> {
        let (header, body) = split(message);
        let fields = raw_fields(header);
        let position =
            fields.iter().position(|field| has_name(field, "dkim-signature")).context("no DKIM-Signature")?;
        let signature = &fields[position];
        let value = signature.split_once(':').map_or("", |(_, value)| value);
        let tags: Vec<(String, String)> = value
            .split(';')
            .filter_map(|tag| tag.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.split_whitespace().collect()))
            .collect();
        let tag = |name: &str| tags.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        ensure!(tag("a") == Some("rsa-sha256"), "algorithm {:?}", tag("a"));
        ensure!(tag("l").is_none(), "a body length is signed");
        let (header_form, body_form) =
            tag("c").unwrap_or("simple/simple").split_once('/').unwrap_or(("relaxed", "simple"));

        let hash = STANDARD.encode(digest(&SHA256, &canonical_body(body, body_form)?));
        ensure!(tag("bh") == Some(&hash), "body hash is {:?}, computed {hash}", tag("bh"));

        let mut signed = Vec::new();
        let mut unused: Vec<Option<&String>> = fields.iter().map(Some).collect();
        for name in tag("h").context("no h=")?.split(':') {
            // Repeated names mean the occurrences from the bottom up; a name without occurrence adds nothing.
            if let Some(slot) =
                unused.iter_mut().rev().find(|slot| slot.is_some_and(|field| has_name(field, name)))
                && let Some(field) = slot.take()
            {
                signed.extend(canonical_field(field, header_form)?);
                signed.extend_from_slice(b"\r\n");
            }
        }
        let b_value = value.split(';').find(|tag| tag.trim_start().starts_with("b=")).context("no b=")?;
        let emptied = signature.replace(b_value, &b_value[..=b_value.find('=').unwrap_or(0)]);
        signed.extend(canonical_field(&emptied, header_form)?);
        let bytes = STANDARD.decode(tag("b").unwrap_or("")).context("b= is not base64")?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public).verify(&signed, &bytes).map_err(
            |_| {
                anyhow::anyhow!(
                    "the signature does not fit the header:\n{}",
                    String::from_utf8_lossy(&signed)
                )
            },
        )?;
        Ok(tags)
    }
}

/// The header fields with their folding but without their final line end; lines as CR LF.
fn raw_fields(header: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(header).replace("\r\n", "\n");
    let mut fields: Vec<String> = Vec::new();
    for line in text.lines() {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push_str("\r\n");
                last.push_str(line);
            }
            _ => fields.push(line.to_owned()),
        }
    }
    fields
}

fn has_name(field: &str, name: &str) -> bool {
    field.split_once(':').is_some_and(|(known, _)| known.trim_end().eq_ignore_ascii_case(name.trim()))
}

fn canonical_field(field: &str, form: &str) -> Result<Vec<u8>> {
    match form {
        "simple" => Ok(field.as_bytes().to_vec()),
        "relaxed" => {
            let (name, value) = field.split_once(':').context("a header field without colon")?;
            let value: Vec<&str> =
                value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
            Ok(format!("{}:{}", name.trim_end().to_ascii_lowercase(), value.join(" ")).into_bytes())
        }
        other => bail!("canonicalisation {other}"),
    }
}

fn canonical_body(body: &[u8], form: &str) -> Result<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = body
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        .collect();
    if form == "relaxed" {
        for line in &mut lines {
            let mut packed = Vec::new();
            for &byte in line.iter() {
                let blank = byte == b' ' || byte == b'\t';
                if !blank {
                    packed.push(byte);
                } else if packed.last() != Some(&b' ') {
                    packed.push(b' ');
                }
            }
            if packed.last() == Some(&b' ') {
                packed.pop();
            }
            *line = packed;
        }
    } else if form != "simple" {
        bail!("canonicalisation {form}");
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    let mut out = Vec::new();
    for line in &lines {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    if out.is_empty() && form == "simple" {
        // An empty body counts as one line end (RFC 6376 section 3.4.3).
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

    use super::*;

    #[test]
    fn bodies_as_in_the_standard() {
        // RFC 6376 section 3.4.5.
        let body = b" C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(canonical_body(body, "relaxed").unwrap(), b" C\r\nD E\r\n");
        assert_eq!(canonical_body(body, "simple").unwrap(), b" C \r\nD \t E\r\n");
        assert_eq!(canonical_body(b"", "simple").unwrap(), b"\r\n");
        assert_eq!(canonical_body(b"\r\n\r\n", "relaxed").unwrap(), b"");
    }

    #[test]
    fn accepts_a_true_signature_and_refuses_changes() {
        let key = Key::generate().unwrap();
        let der = STANDARD
            .decode(key.private_pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
            .unwrap();
        let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
        let body = b"Hello,\r\n world\r\n";
        let field = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=x.example; s=s;\r\n\th=From:Subject; bh={};\r\n\tb=",
            STANDARD.encode(digest(&SHA256, body))
        );
        let signed = format!(
            "from:<a@x.example>\r\nsubject:two words\r\n{}",
            String::from_utf8(canonical_field(&field, "relaxed").unwrap()).unwrap()
        );
        let mut bytes = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut bytes).unwrap();
        let b = STANDARD.encode(bytes);
        let (first, second) = b.split_at(60);
        let message = format!(
            "{field}{first}\r\n\t {second}\r\nFrom: <a@x.example>\r\nSubject:  two \r\n\twords\r\n\r\nHello,\r\n world\r\n"
        );
        let tags = key.verify(message.as_bytes()).unwrap();
        assert!(tags.contains(&("d".into(), "x.example".into())));
        for (from, to) in [("world", "World"), ("two", "three"), ("a@x", "b@x")] {
            assert!(
                key.verify(message.replacen(from, to, 1).as_bytes()).is_err(),
                "{from} -> {to} went unnoticed"
            );
        }
        assert!(Key::generate().unwrap().verify(message.as_bytes()).is_err());
    }
}
