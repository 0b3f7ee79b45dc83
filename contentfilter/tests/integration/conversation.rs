//! Conversations as data: each file of `tests/conversations` is played against a session.
//!
//! ```text
//! # comment
//! @listener originating            role of the listener (default inbound)
//! @set smtpd_timeout = "5s"        a line of settings; {KEYS} is a folder with the test keys
//! @hop RCPT TO:<bob@ => 550 5.1.1 unknown     what the next hop says to lines that begin so
//! @hop keywords SIZE DSN           what it announces (default: everything)
//! @hop down                        it does not listen
//! C: MAIL FROM:<>                  the client sends this line and CR LF; \r \n \0 \\ \xHH are octets
//! C*3: text                        the same three times
//! C~ text                          the same without CR LF
//! S: 250 2.1.0 Sender <> OK        the next line of ours; * stands for anything
//! S$                               we hang up
//! N: MAIL FROM:<> BODY=7BIT        the next line that reached the next hop; a lone ... stands for any lines
//! ```
//!
//! What reached the next hop is compared when the client has gone, and has to match from the first line to the last.

use crate::parts::{self, Switchboard};
use outrider_contentfilter::Settings;
use outrider_contentfilter::session::{self, Origin};
use outrider_core::dns::MemoryResolver;
use outrider_core::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

const ALL_KEYWORDS: &str = "PIPELINING SIZE ENHANCEDSTATUSCODES 8BITMIME SMTPUTF8 DSN XFORWARD_NAME_ADDR_PORT_PROTO_HELO_IDENT_SOURCE";

/// A next hop that says what the file says, and remembers what it heard.
#[derive(Clone)]
struct Hop {
    keywords: Vec<String>,
    replies: Vec<(String, String)>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Hop {
    async fn serve(self, stream: DuplexStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b"220 hop ESMTP\r\n").await?;
        let (mut data, mut recipients) = (false, 0);
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let line = line.escape_ascii().to_string();
            let line =
                line.strip_suffix("\\r\\n").unwrap_or(&line).replace("\\\"", "\"").replace("\\t", "\t");
            self.heard.lock().expect("not poisoned").push(line.clone());
            let reply = if data {
                if line != "." {
                    continue;
                }
                data = false;
                self.reply(".").unwrap_or_else(|| "250 2.0.0 Ok: queued as 4bHOP".to_owned())
            } else if let Some(reply) = self.reply(&line) {
                reply
            } else {
                match line.get(..4).unwrap_or_default() {
                    "EHLO" => self.ehlo(),
                    "QUIT" => "221 2.0.0 Bye".to_owned(),
                    "DATA" if recipients > 0 => "354 go on".to_owned(),
                    "DATA" => "554 5.5.1 no valid recipients".to_owned(),
                    _ => "250 2.0.0 Ok".to_owned(),
                }
            };
            match line.get(..4).unwrap_or_default() {
                "MAIL" | "RSET" => recipients = 0,
                "RCPT" if reply.starts_with('2') => recipients += 1,
                "DATA" if reply.starts_with('3') => data = true,
                _ => {}
            }
            stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
    }

    fn reply(&self, line: &str) -> Option<String> {
        self.replies.iter().find(|(start, _)| line.starts_with(start)).map(|(_, reply)| reply.clone())
    }

    fn ehlo(&self) -> String {
        let mut lines = vec!["250-hop".to_owned()];
        lines.extend(self.keywords.iter().map(|keyword| format!("250-{}", keyword.replace('_', " "))));
        lines.push("250 HELP".to_owned());
        lines.join("\r\n")
    }
}

/// A file, taken apart.
struct Script {
    listener: &'static str,
    settings: String,
    hop: Option<Hop>,
    steps: Vec<Step>,
    expected: Vec<String>,
}

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Expect(String),
    Close,
}

impl Script {
    fn parse(text: &str, keys: &Path) -> Script {
        let mut hop = Hop { keywords: words(ALL_KEYWORDS), replies: Vec::new(), heard: Arc::default() };
        let (mut script_settings, mut down, mut listener) = (String::new(), false, "inbound");
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
            } else if let Some(role) = line.strip_prefix("@listener ") {
                listener = match role {
                    "inbound" => "inbound",
                    "originating" => "originating",
                    "lists" => "lists",
                    other => panic!("no listener {other}"),
                };
            } else if let Some(setting) = line.strip_prefix("@set ") {
                script_settings.push_str(&setting.replace("{KEYS}", &keys.display().to_string()));
                script_settings.push('\n');
            } else if line == "@hop down" {
                down = true;
            } else if let Some(keywords) = line.strip_prefix("@hop keywords") {
                hop.keywords = words(keywords);
            } else if let Some((start, reply)) =
                line.strip_prefix("@hop ").and_then(|rule| rule.split_once(" => "))
            {
                hop.replies.push((start.to_owned(), reply.to_owned()));
            } else if let Some(text) = line.strip_prefix("C: ") {
                steps.push(Step::Send([octets(text), b"\r\n".to_vec()].concat()));
            } else if line == "C:" {
                steps.push(Step::Send(b"\r\n".to_vec()));
            } else if let Some((count, text)) = line.strip_prefix("C*").and_then(|rest| rest.split_once(": "))
            {
                let count: usize = count.parse().expect("a number");
                steps.push(Step::Send([octets(text), b"\r\n".to_vec()].concat().repeat(count)));
            } else if let Some(text) = line.strip_prefix("C~ ") {
                steps.push(Step::Send(octets(text)));
            } else if let Some(pattern) = line.strip_prefix("S: ") {
                steps.push(Step::Expect(pattern.to_owned()));
            } else if line == "S$" {
                steps.push(Step::Close);
            } else if let Some(pattern) = line.strip_prefix("N: ") {
                expected.push(pattern.to_owned());
            } else if line == "N:" {
                expected.push(String::new());
            } else {
                panic!("what does this line mean? {line}");
            }
        }
        Script { listener, settings: script_settings, hop: (!down).then_some(hop), steps, expected }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `\r \n \t \0 \\ \xHH`
fn octets(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&octet, tail)) = rest.split_first() {
        let (octet, used) = match (octet, tail.first()) {
            (b'\\', Some(b'r')) => (b'\r', 1),
            (b'\\', Some(b'n')) => (b'\n', 1),
            (b'\\', Some(b't')) => (b'\t', 1),
            (b'\\', Some(b'0')) => (0, 1),
            (b'\\', Some(b'\\')) => (b'\\', 1),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(&tail[1..3]).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("two digits"), 3)
            }
            _ => (octet, 0),
        };
        out.push(octet);
        rest = &tail[used..];
    }
    out
}

/// `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// A lone `...` stands for any number of lines.
fn lines_match(patterns: &[String], lines: &[String]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((pattern, rest)) if pattern == "..." => {
            (0..=lines.len()).any(|skip| lines_match(rest, &lines[skip..]))
        }
        Some((pattern, rest)) => {
            lines.split_first().is_some_and(|(line, more)| matches(pattern, line) && lines_match(rest, more))
        }
    }
}

async fn play(file: &Path, keys: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let script = Script::parse(&text, keys);
    let settings: Settings = toml::from_str(&script.settings).map_err(|error| error.to_string())?;
    let (hop, heard) = (script.hop.clone(), script.hop.as_ref().map(|hop| hop.heard.clone()));
    let switchboard = Switchboard::new(Box::new(move |stream| match hop.clone() {
        Some(hop) => {
            tokio::spawn(hop.serve(stream));
            true
        }
        None => false,
    }));
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let forwarding = parts::forwarding(&settings, folder.path()).await;
    let filter = parts::filter(settings, switchboard, MemoryResolver::new(), 1, folder.path());
    filter.set_forwarding(forwarding);
    let (near, far) = tokio::io::duplex(parts::PIPE);
    let address = "127.0.0.1".parse().expect("an address");
    let origin = Origin { role: script.listener, peer: Some(address), local: Some((address, 10024)) };
    let session = tokio::spawn(async move { session::serve(far, origin, &filter, Shutdown::never()).await });
    let mut client = BufReader::new(near);
    for step in &script.steps {
        match step {
            Step::Send(octets) => {
                client.get_mut().write_all(octets).await.map_err(|error| error.to_string())?
            }
            Step::Expect(pattern) => {
                let line = next_line(&mut client).await?;
                if !matches(pattern, &line) {
                    return Err(format!("expected {pattern}\n     got {line}"));
                }
            }
            Step::Close => {
                let line = next_line(&mut client).await?;
                if !line.is_empty() {
                    return Err(format!("expected the end, got {line}"));
                }
            }
        }
    }
    drop(client);
    let _ = tokio::time::timeout(Duration::from_secs(10), session)
        .await
        .map_err(|_| "the session does not end")?;
    let heard = heard.map(|heard| heard.lock().expect("not poisoned").clone()).unwrap_or_default();
    if !script.expected.is_empty() && !lines_match(&script.expected, &heard) {
        return Err(format!(
            "the next hop should hear\n{}\nand heard\n{}",
            script.expected.join("\n"),
            heard.join("\n")
        ));
    }
    Ok(())
}

async fn next_line(client: &mut BufReader<DuplexStream>) -> Result<String, String> {
    let mut line = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(1000), client.read_until(b'\n', &mut line)).await;
    read.map_err(|_| "no reply".to_owned())?.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&line).into_owned();
    if text.is_empty() {
        return Ok(text);
    }
    text.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| format!("line without CR LF: {text:?}"))
}

/// The test keys of the core, with the permissions that a key must have.
fn keys() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../core/tests/keys");
    for name in ["rsa-1024.pem", "rsa-2048.pem", "ed25519.pem"] {
        let copy = folder.path().join(name);
        std::fs::copy(source.join(name), &copy).expect("a key");
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    }
    folder
}

#[test]
fn all_conversations() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let keys = keys();
    let mut failures = Vec::new();
    for file in &files {
        // Paused time: a timeout of minutes passes at once.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let result = runtime.expect("a runtime").block_on(play(file, keys.path()));
        if let Err(reason) = result {
            failures.push(format!("{}: {reason}", file.file_name().unwrap_or_default().display()));
        }
    }
    assert!(files.len() > 10, "only {} conversations found", files.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}
