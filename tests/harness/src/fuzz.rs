//! What is fuzzed: one function a target, fed with arbitrary bytes, that panics when a promise is broken.
//!
//! The fuzzer (`tests/fuzz`, nightly) and the smoke test below (stable) call the same functions. To add a target: a
//! function here, a line in [`TARGETS`], a file `tests/fuzz/targets/NAME.rs`, a `[[bin]]` in its `Cargo.toml`, and seeds in
//! `tests/fuzz/seeds/NAME/`.

#[path = "fuzz/mail.rs"]
mod mail;

use bytes::BytesMut;
pub use mail::{address, dkim_header, smtp_data, smtp_reply, smtp_server};
use outrider_core::codec::{netstring, policy, policy_answer, socketmap, tcp_table};
use outrider_core::python::Module;
use outrider_core::srs::{self, AddressCheck, Alphabet, Options, Secrets, Sender, Separator, Srs, Token};

/// A function that takes arbitrary bytes.
pub type Entry = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Entry)] = &[
    ("policy_parse", policy_parse),
    ("policy_answer", policy_answer),
    ("tcp_table", tcp_table),
    ("socketmap", socketmap),
    ("netstring", netstring),
    ("srs_roundtrip", srs_roundtrip),
    ("smtp_server", smtp_server),
    ("smtp_reply", smtp_reply),
    ("smtp_data", smtp_data),
    ("address", address),
    ("dkim_header", dkim_header),
    ("python_settings", python_settings),
];

/// Takes one byte from the front: a choice that the fuzzer can vary.
fn choice(data: &mut &[u8]) -> u8 {
    match data.split_first() {
        Some((first, rest)) => {
            *data = rest;
            *first
        }
        None => 0,
    }
}

/// Feeds `stream` to `decode` in pieces of `piece` bytes and collects what it gives until its first error; the
/// second value is whether there was one.
fn in_pieces<T, E>(
    stream: &[u8],
    piece: usize,
    mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, E>,
) -> (Vec<T>, bool) {
    let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
    for bytes in stream.chunks(piece.max(1)) {
        buffer.extend_from_slice(bytes);
        loop {
            match decode(&mut buffer) {
                Ok(Some(value)) => got.push(value),
                Ok(None) => break,
                Err(_) => return (got, true),
            }
        }
    }
    (got, false)
}

/// Policy requests: the same however they are cut, within their limits, and never two lines in an answer.
pub fn policy_parse(mut data: &[u8]) {
    let (shape, piece) = (choice(&mut data), choice(&mut data));
    let limits = match shape & 1 {
        0 => policy::Limits::default(),
        _ => policy::Limits { total: 96, line: 24, attributes: 5, strip_carriage_return: false },
    };
    let limits = policy::Limits { strip_carriage_return: shape & 2 != 0, ..limits };
    let decode = |piece| {
        let mut decoder = policy::Decoder::new(limits.clone());
        in_pieces(data, piece, |buffer| decoder.decode(buffer))
    };
    let whole = decode(data.len());
    assert_eq!(whole, decode(piece.into()), "the cuts show");
    for request in &whole.0 {
        assert!(request.iter().count() <= limits.attributes);
        let mut sent_on = BytesMut::new();
        request.encode(&mut sent_on);
        assert!(sent_on.len() <= limits.total);
        let again =
            policy::decode(&mut sent_on, &policy::Limits { strip_carriage_return: false, ..limits.clone() });
        let again = again.expect("within the limits").expect("whole");
        assert!(again.iter().eq(request.iter()), "sent on otherwise than received");
        assert!(request.repeated() < request.iter().count().max(1));
        for (name, value) in request.iter() {
            assert!(!name.contains(&b'=') && !name.contains(&b'\n') && !value.contains(&b'\n'));
            if let Ok(name) = std::str::from_utf8(name) {
                assert!(request.first(name).is_some() && request.last(name).is_some());
            }
            let mut out = BytesMut::new();
            policy::encode(&String::from_utf8_lossy(value), &mut out);
            assert!(out.starts_with(b"action=") && out.ends_with(b"\n\n") && out.len() > 9);
            assert_eq!(out.iter().filter(|byte| byte.is_ascii_control()).count(), 2);
        }
    }
}

/// Answers of policy servers: the same however they are cut, and what is read can be said to Postfix unchanged.
pub fn policy_answer(mut data: &[u8]) {
    let piece = choice(&mut data).into();
    let whole = in_pieces(data, data.len(), policy_answer::decode);
    assert_eq!(whole, in_pieces(data, piece, policy_answer::decode), "the cuts show");
    for action in whole.0 {
        let mut out = BytesMut::new();
        policy::encode(&action, &mut out);
        assert!(out.len() <= policy_answer::MAX_LENGTH);
        assert_eq!(policy_answer::decode(&mut out), Ok(Some(action)));
    }
}

/// tcp_table: the same however it is cut, every line an answer, every answer one short line that says what was meant.
pub fn tcp_table(mut data: &[u8]) {
    let piece = choice(&mut data).into();
    let whole = in_pieces(data, data.len(), tcp_table::decode);
    assert_eq!(whole, in_pieces(data, piece, tcp_table::decode), "the cuts show");
    for request in whole.0 {
        let key = match request {
            tcp_table::Request::Get(key) => key,
            tcp_table::Request::Malformed { line, .. } => line,
        };
        let text = String::from_utf8_lossy(&key).into_owned();
        for reply in [
            tcp_table::Reply::Found(key.clone()),
            tcp_table::Reply::NotFound(text.clone()),
            tcp_table::Reply::Temporary(text),
        ] {
            let mut out = BytesMut::new();
            tcp_table::encode(&reply, &mut out);
            assert!(out.len() <= tcp_table::MAX_LINE && out.ends_with(b"\n"));
            assert!(out[..out.len() - 1].iter().all(|byte| (0x20..0x7f).contains(byte)));
            if out.starts_with(b"200 ") {
                let mut back = BytesMut::from(&b"get "[..]);
                back.extend_from_slice(&out[4..]);
                assert_eq!(tcp_table::decode(&mut back), Ok(Some(tcp_table::Request::Get(key.clone()))));
            }
        }
    }
}

/// socketmap: the same however it is cut, every reply one netstring.
pub fn socketmap(mut data: &[u8]) {
    let piece = choice(&mut data).into();
    let whole = in_pieces(data, data.len(), socketmap::decode);
    assert_eq!(whole, in_pieces(data, piece, socketmap::decode), "the cuts show");
    for query in whole.0 {
        assert!(!query.map.contains(&b' '));
        let text = String::from_utf8_lossy(&query.key).into_owned();
        for reply in [
            socketmap::Reply::Ok(query.key.to_vec()),
            socketmap::Reply::NotFound(text.clone()),
            socketmap::Reply::Temp(text.clone()),
            socketmap::Reply::Timeout(text.clone()),
            socketmap::Reply::Perm(text),
        ] {
            let mut out = BytesMut::new();
            socketmap::encode(&reply, &mut out);
            let content = netstring::decode(&mut out, socketmap::MAX_LENGTH);
            let content = content.expect("a netstring").expect("a whole one");
            assert!(out.is_empty() && content.contains(&b' '));
        }
    }
}

/// Netstrings: the same however they are cut, nothing beyond the maximum, and encoding what was decoded gives it back.
pub fn netstring(mut data: &[u8]) {
    let (maximum, piece) = (usize::from(choice(&mut data)) * 4, choice(&mut data).into());
    let decode = |buffer: &mut BytesMut| netstring::decode(buffer, maximum);
    let whole = in_pieces(data, data.len(), decode);
    assert_eq!(whole, in_pieces(data, piece, decode), "the cuts show");
    for content in whole.0 {
        assert!(content.len() <= maximum);
        let mut out = BytesMut::new();
        netstring::encode(&[&content], &mut out);
        assert_eq!(netstring::decode(&mut out, maximum), Ok(Some(content)));
        assert!(out.is_empty());
    }
}

/// SRS: what was rewritten comes back, and nothing that we did not make is believed.
pub fn srs_roundtrip(mut data: &[u8]) {
    let (shape, days, length) = (choice(&mut data), choice(&mut data), choice(&mut data));
    let Ok(address) = std::str::from_utf8(data) else { return };
    let options = Options {
        domain: "srs.example.net".to_owned(),
        separator: [Separator::Equals, Separator::Plus, Separator::Dash][usize::from(shape % 3)],
        alphabet: if shape & 4 == 0 { Alphabet::Standard } else { Alphabet::UrlSafe },
        // Long enough that the fuzzer does not find a hash by trying.
        hash_length: 12 + usize::from(length % 16),
        hash_minimum: 12,
        ..Options::default()
    };
    let check = if shape & 8 == 0 { AddressCheck::Rfc5321 } else { AddressCheck::Iredapd };
    let ours = Srs::new(options.clone(), Secrets::new(["a secret", "an older secret"]));
    let now = 1_742_040_000;
    let later = now + i64::from(days % 22) * 86_400;

    assert!(ours.reverse(address, now).is_err(), "a forged address was believed");
    assert!(
        ours.inspect(address, now).is_none_or(|parts| parts.secret.is_none()),
        "a forged address was explained"
    );
    let token = Token::of(address);
    let with_token = ours.forward_token(&token, now).expect("there is a secret and no limit");
    let back = ours.reverse(&with_token.to_ascii_lowercase(), later).expect("our own address");
    assert_eq!(back.token(), Some(token));
    let Ok(sender) = Sender::parse(address, check) else { return };
    let rewritten = ours.forward(&sender, now).expect("there is a secret and no limit");
    assert!(srs::is_srs_address(&rewritten), "{rewritten}");
    assert!(rewritten.ends_with("@srs.example.net"), "{rewritten}");
    let back = ours.reverse(&rewritten, later).expect("our own address");
    if !back.srs1 {
        assert_eq!(back.address, address);
        assert!(ours.reverse(&rewritten, now + 22 * 86_400).is_err(), "{rewritten} never expires");
    } else if address.get(..4).is_some_and(|tag| tag.eq_ignore_ascii_case("SRS0")) {
        // The tag comes back in capitals, all else as it was.
        assert_eq!(back.address[4..], address[4..]);
    }
    // Mail servers on the way may change the case, and other servers have other secrets.
    assert!(ours.reverse(&rewritten.to_ascii_uppercase(), later).is_ok(), "{rewritten}");
    let rotated = Srs::new(options.clone(), Secrets::new(["a new secret", "a secret"]));
    assert_eq!(rotated.reverse(&rewritten, later).as_ref(), Ok(&back));
    let foreign = Srs::new(options, Secrets::new(["another secret"]));
    assert!(foreign.reverse(&rewritten, later).is_err(), "{rewritten} was believed by a stranger");
}

/// Settings in Python: values are those that are written, lines are not lost behind one that is not understood, and what
/// is not understood has no value.
pub fn python_settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let default = |name: &str| (name == "known").then(|| serde_json::json!(["+"]));
    let module = Module::read(text, default);
    let lines = text.replace("\r\n", "\n").replace('\r', "\n").matches('\n').count() + 1;
    for (name, assigned) in &module.assigned {
        assert!((1..=lines).contains(&assigned.line), "{name}");
        let mut written = format!("{name} = ");
        write_python(&assigned.value, &mut written);
        let again = Module::read(&written, |_| None);
        assert_eq!(again.assigned.get(name).map(|it| &it.value), Some(&assigned.value), "{written}");
    }
    for problem in &module.problems {
        assert!((1..=lines).contains(&problem.line));
    }
    // A name that is assigned once more has that value, whatever was in front, unless that has no end.
    let more = Module::read(&format!("{text}\n\nouter_q7 = 7\n"), default);
    let open = more.problems.last().is_some_and(|problem| problem.reason.contains("does not end"));
    assert!(open || more.assigned.get("outer_q7").is_some_and(|it| it.value == 7), "{:?}", more.problems);
    let lost = Module::read(&format!("{text}\n\nouter_q7 = f()\n"), default);
    assert!(!lost.assigned.contains_key("outer_q7"));
}

fn write_python(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    use std::fmt::Write as _;
    let text = |text: &str, out: &mut String| {
        out.push('"');
        for character in text.chars() {
            let _ = write!(out, "\\U{:08x}", u32::from(character));
        }
        out.push('"');
    };
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(content) => text(content, out),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_python(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (key, item) in entries {
                text(key, out);
                out.push(':');
                write_python(item, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;

    /// Mutations of each seed.
    const ROUNDS: usize = 400;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).expect("a seed")).collect()
    }

    /// The same numbers in every run (xorshift64*).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
        }

        /// One to four changes such as a fuzzer makes.
        fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
            const TELLING: &[u8] = b"\n\r\0 =:,+-%@.0aZ\x7f\xff";
            let mut data = seed.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(data.len() + 1);
                let telling = TELLING[self.below(TELLING.len())];
                match self.below(6) {
                    0 if at < data.len() => data[at] = telling,
                    1 if at < data.len() => data[at] ^= 1 << self.below(8),
                    2 => data.insert(at, telling),
                    3 => data.truncate(at),
                    4 => {
                        let tail = data.split_off(at);
                        data.extend_from_slice(&other[self.below(other.len())..]);
                        data.extend_from_slice(&tail);
                    }
                    _ if at < data.len() => drop(data.remove(at)),
                    _ => {}
                }
            }
            data
        }
    }

    fn try_on(name: &str, entry: Entry, data: &[u8]) {
        if catch_unwind(AssertUnwindSafe(|| entry(data))).is_err() {
            panic!("{name} fails on \"{}\"", data.escape_ascii());
        }
    }

    #[test]
    fn every_target_stands_its_seeds_and_their_mutations() {
        for (name, entry) in TARGETS {
            let seeds = seeds(name);
            assert!(seeds.len() >= 3, "{name} has too few seeds");
            try_on(name, *entry, b"");
            let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
            for seed in &seeds {
                try_on(name, *entry, seed);
                for _ in 0..ROUNDS {
                    let other = &seeds[dice.below(seeds.len())];
                    try_on(name, *entry, &dice.mutate(seed, other));
                }
            }
        }
    }

    /// A target that exists for the fuzzer exists here, and the other way round.
    #[test]
    fn targets_and_their_files_agree() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the targets")
            .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").display().to_string())
            .collect();
        files.sort();
        let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(files, names);
    }
}
