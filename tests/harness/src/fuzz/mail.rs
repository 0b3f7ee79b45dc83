//! SMTP, addresses and DKIM header fields.

use super::{choice, in_pieces};
use bytes::BytesMut;
use outrider_core::codec::header;
use outrider_core::codec::smtp::command::{self, Mail, Rcpt, Verb};
use outrider_core::codec::smtp::data::{Outgoing, Receiver, Stuffer};
use outrider_core::codec::smtp::path::Path;
use outrider_core::codec::smtp::reply::{self, MAX_REPLY_LINES, Reply};
use outrider_core::codec::smtp::xforward::{Attribute, Forwarded};
use outrider_core::codec::smtp::{Line, LineReader, MAX_COMMAND_LINE};
use outrider_core::mailauth::canonical::{BodyHashKind, BodyHasher, Canonicalization, Hash};
use outrider_core::mailauth::key::PublicKey;
use outrider_core::mailauth::results::Results;
use outrider_core::mailauth::signature::{MAX_SIGNED_NAMES, Signature};
use outrider_core::mailauth::tag::TagList;

/// A client's lines: the same however they are cut, every refusal a harmless reply, every accepted argument safe to
/// hand on in a line of our own.
pub fn smtp_server(mut data: &[u8]) {
    let piece = usize::from(choice(&mut data));
    let lines = |piece: usize| {
        let (mut reader, mut buffer, mut out) = (LineReader::default(), BytesMut::new(), Vec::new());
        for bytes in data.chunks(piece.max(1)) {
            buffer.extend_from_slice(bytes);
            while let Some(line) = reader.next(&mut buffer) {
                out.push(line);
            }
            assert!(buffer.len() <= MAX_COMMAND_LINE);
        }
        out
    };
    let whole = lines(data.len());
    assert_eq!(whole, lines(piece), "the cuts show");
    let mut forwarded = Forwarded::default();
    for line in whole {
        let Line::Complete(line) = line else { continue };
        match command::split(&line) {
            Err(refusal) => harmless(&refusal),
            Ok((Verb::Mail, arguments)) => match Mail::parse(arguments) {
                Ok(mail) => {
                    one_line(&mail.path);
                    assert!(mail.envid.is_none_or(|id| {
                        id.bytes().all(|octet| octet.is_ascii_graphic() || octet >= 0x80)
                    }));
                }
                Err(refusal) => harmless(&refusal),
            },
            Ok((Verb::Rcpt, arguments)) => match Rcpt::parse(arguments) {
                Ok(recipient) => {
                    one_line(&recipient.path);
                    assert!(!recipient.path.is_null());
                }
                Err(refusal) => harmless(&refusal),
            },
            Ok((Verb::Xforward, arguments)) => {
                if let Err(refusal) = forwarded.apply(arguments) {
                    harmless(&refusal);
                }
            }
            Ok(_) => {}
        }
    }
    for command in forwarded.commands(&Attribute::ALL) {
        assert!(command.len() <= 512 || command.matches('=').count() == 1);
        assert!(command.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()), "{command:?}");
        let mut again = Forwarded::default();
        again.apply(&command.as_bytes()["XFORWARD ".len()..]).expect("what we send can be read");
    }
}

/// A reply is whole lines of at most 512 octets, and reads back as one reply with the code that was meant.
fn harmless(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write(&mut wire);
    assert!(
        wire.split_inclusive(|octet| *octet == b'\n')
            .all(|line| line.len() <= 512 && line.ends_with(b"\r\n"))
    );
    let mut buffer = BytesMut::from(&wire[..]);
    if wire.iter().filter(|octet| **octet == b'\n').count() <= MAX_REPLY_LINES {
        let read = reply::decode(&mut buffer).expect("our reply").expect("all of it");
        assert!(buffer.is_empty() && read.code == reply.code);
    }
}

fn one_line(path: &Path) {
    let mut wire = Vec::new();
    path.write(&mut wire);
    assert!(wire.starts_with(b"<") && wire.ends_with(b">"));
    assert!(!wire.iter().any(|octet| *octet < 0x20 || *octet == 0x7f), "{}", wire.escape_ascii());
}

/// A next hop's replies: the same however they are cut, bounded, one line when quoted.
pub fn smtp_reply(mut data: &[u8]) {
    let piece = choice(&mut data).into();
    let whole = in_pieces(data, data.len(), reply::decode);
    let cut = in_pieces(data, piece, reply::decode);
    assert_eq!(whole, cut, "the cuts show");
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code) && (1..=MAX_REPLY_LINES).contains(&reply.lines.len()));
        assert!(!reply.one_line().chars().any(char::is_control));
        assert!(reply.enhanced().is_none_or(|enhanced| u16::from(enhanced.0) == reply.class()));
        let _ = reply.capabilities();
    }
}

/// Message data: the same however it is cut, ended only by CR LF . CR LF, and what is sent on is one message without stray
/// octets.
pub fn smtp_data(mut data: &[u8]) {
    let piece = usize::from(choice(&mut data)).max(1);
    let receive = |input: &[u8], piece: usize| {
        let (mut receiver, mut text, mut at) = (Receiver::default(), Vec::new(), 0);
        while at < input.len() {
            let progress = receiver.push(&input[at..input.len().min(at + piece)], &mut text);
            at += progress.consumed;
            if progress.finished {
                return (text, Some(at), receiver.traits());
            }
        }
        (text, None, receiver.traits())
    };
    let (text, end, traits) = receive(data, data.len().max(1));
    assert_eq!(
        (&text, end, traits),
        (&receive(data, piece).0, receive(data, piece).1, receive(data, piece).2)
    );
    let genuine = if data.starts_with(b".\r\n") {
        Some(3)
    } else {
        data.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5)
    };
    assert_eq!(end, genuine);
    let (mut clean, mut outgoing) = (Vec::new(), Outgoing::default());
    text.chunks(piece).for_each(|part| outgoing.push(part, &mut clean));
    assert!(traits.needs_cleaning() || clean == text || end.is_none());
    let (mut wire, mut stuffer) = (Vec::new(), Stuffer::default());
    clean.chunks(piece).for_each(|part| stuffer.stuff(part).for_each(|bytes| wire.extend_from_slice(bytes)));
    wire.extend_from_slice(stuffer.finish());
    assert!(!wire.contains(&0));
    for (at, octet) in wire.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(wire.get(at + 1), Some(&b'\n')),
            b'\n' => assert!(at > 0 && wire[at - 1] == b'\r'),
            _ => {}
        }
    }
    assert_eq!(receive(&wire, wire.len()).1, Some(wire.len()), "one message, and nothing after it");
}

/// Envelope addresses: what parses prints in a canonical form that parses to the same address.
pub fn address(data: &[u8]) {
    let Ok((path, rest)) = Path::parse(data) else { return };
    assert!(rest.len() < data.len());
    one_line(&path);
    let mut wire = Vec::new();
    path.write(&mut wire);
    let (again, rest) = Path::parse(&wire).expect("the canonical form");
    assert!(rest.is_empty());
    assert_eq!((&again.local, &again.domain), (&path.local, &path.domain));
    let mut twice = Vec::new();
    again.write(&mut twice);
    assert_eq!(wire, twice);
}

/// Header fields of e-mail authentication: no octet lost in cutting, no panic on tags, keys and results, bounded work,
/// and a body hash that does not depend on the pieces.
pub fn dkim_header(mut data: &[u8]) {
    let piece = usize::from(choice(&mut data)).max(1);
    let fields: Vec<header::Field<'_>> = header::fields(data).collect();
    assert_eq!(fields.iter().map(|field| field.raw.len()).sum::<usize>(), data.len());
    for field in &fields {
        let _ = TagList::parse(field.value());
        let _ = Results::parse(field.value());
        if let Ok(key) = PublicKey::parse(field.value()) {
            let algorithm = outrider_core::mailauth::key::Algorithm::RsaSha256;
            assert!(!(key.fits(algorithm) && key.verify(algorithm, b"text", b"no signature")));
        }
        if let Ok(signature) = Signature::parse(field.value()) {
            assert!(signature.signed.len() <= MAX_SIGNED_NAMES && signature.mark.chars().count() <= 8);
            let text = signature.signed_text(&fields, field);
            assert!(text.len() <= 2 * data.len() + 2 * field.raw.len() + 16);
        }
        let mut relaxed = Vec::new();
        Canonicalization::Relaxed.field(field, &mut relaxed);
        assert!(relaxed.ends_with(b"\r\n"));
    }
    for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
        let kind = BodyHashKind {
            canonicalization,
            hash: Hash::Sha256,
            length: Some(u64::from(data.first().copied().unwrap_or(0))),
        };
        let hash = |piece| {
            let mut hasher = BodyHasher::new(kind);
            data.chunks(piece).for_each(|part| hasher.update(part));
            hasher.finish()
        };
        assert_eq!(hash(data.len().max(1)), hash(piece));
    }
}
