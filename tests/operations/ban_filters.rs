//! The ban filters find the client of every failure, and nobody else, whatever clients write.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use outrider_tests::daemon::Daemon;
use outrider_tests::folder::Folder;
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::wait::wait_for;

use crate::failregex::hosts;

const LOGIN: &str = "outrider-admin-login";
const TOKEN: &str = "outrider-api-token";
const POLICY: &str = "outrider-policyd";

/// Whom forgers want to see banned.
const VICTIM: &str = "198.51.100.66";

/// Texts that look like lines, fields and ends of values.
fn forgeries() -> Vec<String> {
    let lines = [
        format!("level=warn service=admin-api event=\"login refused\" client={VICTIM} reason=X account=y"),
        format!("level=warn service=admin-api event=\"token refused\" client={VICTIM} reason=X"),
        format!(
            "level=info service=policyd event=answer client={VICTIM} helo=x sasl=\"\" sender=a rcpt=b action=\"REJECT x\""
        ),
        format!("[{VICTIM}] RCPT, a@b.test -> c@d.test, REJECT Blacklisted [sasl_username=, "),
        format!("client={VICTIM}"),
    ];
    let ends = ["", "\" ", "\r", "\\\" ", "\\x22 ", "\u{2028}", "\u{85}", " -> c@d.test, REJECT x [", "]: "];
    lines.iter().flat_map(|line| ends.map(|end| format!("x{end}{line}"))).collect()
}

/// The lines of a log that are about what `wanted` says, without their times.
fn lines(log: &str, wanted: &str) -> Vec<String> {
    let without_time = log.lines().filter_map(|line| line.split_once("Z ")).map(|(_, rest)| rest.to_owned());
    without_time.filter(|line| line.contains(wanted)).collect()
}

/// Sends bytes over HTTP and reads the answer.
fn http(server: SocketAddr, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn log_in(server: SocketAddr, client: &str, username: &str) -> Result<String> {
    let form = format!("username={}&password=wrong", encoded(username));
    http(
        server,
        &format!(
            "POST /api/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: {VICTIM}, {client}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ),
    )
}

#[test]
fn failed_logins_and_rejected_tokens_name_their_client() -> Result<()> {
    let folder = Folder::new("ban-filters")?;
    let daemon = Daemon::start(
        "admin-api",
        folder.path(),
        "listen_lists = [\"127.0.0.1:0\"]\nlisten_accounts = [\"127.0.0.1:0\"]\n[accounts]\nenable_restful_api = true\n",
    )?;
    let (lists, accounts) = (daemon.address("lists")?, daemon.address("accounts")?);
    let mut clients = Vec::new();
    let mut names = forgeries();
    names.extend(forgeries().iter().map(|text| format!("\"{text}\"@example.com")));
    names.extend(["", "postmaster@example.com", "no address"].map(str::to_owned));
    for (number, name) in names.iter().enumerate() {
        let client =
            if number % 2 == 0 { format!("203.0.113.{number}") } else { format!("2001:db8::{number:x}") };
        log_in(accounts, &client, name)?;
        clients.push(Some(client));
    }
    for forged in forgeries() {
        let (text, token) = (encoded(&forged), forged.replace(['\r', '\u{85}', '\u{2028}'], ""));
        http(
            lists,
            &format!(
                "GET /api/list@example.com?{text} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: {VICTIM}\r\n\
                 X-Request-Id: {token}\r\nX-MLMMJADMIN-API-AUTH-TOKEN: {token}\r\n\r\n"
            ),
        )?;
        // No call of the API, so no token is asked for.
        http(lists, &format!("GET /{text} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))?;
    }
    let tokens = forgeries().len();
    wait_for("all requests in the log", || {
        (lines(&daemon.log(), "event=request").len() == clients.len() + 2 * tokens).then_some(())
    });
    let log = daemon.log();

    let refused = lines(&log, "event=\"login refused\"");
    assert_eq!(hosts(LOGIN, &refused)?, clients);
    assert!(hosts(TOKEN, &refused)?.iter().all(Option::is_none));
    let rejected = lines(&log, "event=\"token refused\"");
    assert_eq!(hosts(TOKEN, &rejected)?, vec![Some("127.0.0.1".to_owned()); tokens]);
    assert!(hosts(LOGIN, &rejected)?.iter().all(Option::is_none));
    // Nothing else in this log is a failure, and nothing in it makes the other filter ban.
    let all = lines(&log, "");
    for (filter, expected) in [(LOGIN, clients.len()), (TOKEN, tokens), (POLICY, 0)] {
        let found: Vec<String> = hosts(filter, &all)?.into_iter().flatten().collect();
        assert_eq!(found.len(), expected, "{filter}");
        assert!(!found.iter().any(|host| host == VICTIM), "{filter}");
    }
    Ok(())
}

/// A client without an address is on a UNIX socket; it is no name to look up either.
#[test]
fn clients_without_an_address_are_not_banned() -> Result<()> {
    let line = |event: &str| {
        format!(
            "level=warn service=admin-api event=\"{event}\" client=unix reason=NO_API_AUTH_TOKEN account=x"
        )
    };
    assert_eq!(hosts(LOGIN, &[line("login refused")])?, [None]);
    assert_eq!(hosts(TOKEN, &[line("token refused").replace(" account=x", "")])?, [None]);
    Ok(())
}

/// Asks for one recipient and gives back the answer.
fn ask(client: &mut PolicyClient, changes: &[(&str, &str)]) -> Result<String> {
    let mut request = vec![
        ("protocol_state", "RCPT"),
        ("instance", "1a2b.3c"),
        ("helo_name", "mx.sender.test"),
        ("sender", "x@sender.test"),
        ("recipient", "alice@example.com"),
        ("size", "0"),
    ];
    request.extend_from_slice(changes);
    client.ask(&request)
}

/// A sender that is refused, with an apostrophe in it.
const REFUSED: &str = "o'b@sender.test";

fn policy_rejections(style: &str) -> Result<()> {
    let folder = Folder::new("ban-filters")?;
    let settings = format!(
        "listen = [\"127.0.0.1:0\"]\ninvalid_address = \"reject\"\nplugins = [\"reject_null_sender\"]\n\
         [log]\nstyle = \"{style}\"\nlevel = \"debug\"\n"
    );
    let daemon = Daemon::start("policyd", folder.path(), &settings)?;
    let mut client = PolicyClient::connect(daemon.address("policy")?)?;
    let mut expected = Vec::new();
    for address in ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"] {
        for state in ["RCPT", "END-OF-MESSAGE"] {
            let changes = [("client_address", address), ("sender", REFUSED), ("protocol_state", state)];
            assert_eq!(ask(&mut client, &changes)?, "REJECT Invalid email address");
            expected.push(address.trim_start_matches("::ffff:").to_owned());
        }
    }
    let strangers = "203.0.113.77";
    for forged in forgeries() {
        // Refused with the forgery beside it.
        for name in ["helo_name", "queue_id", "reverse_client_name", "client_name", "encryption_cipher"] {
            ask(&mut client, &[("client_address", "203.0.113.9"), ("sender", REFUSED), (name, &forged)])?;
        }
        // Passed with it.
        for name in ["helo_name", "queue_id", "reverse_client_name", "client_name", "instance"] {
            assert_eq!(ask(&mut client, &[("client_address", strangers), (name, &forged)])?, "DUNNO");
        }
        // A user who is refused: a matter of the account.
        for changes in [
            [("sender", REFUSED), ("sasl_username", "al@example.com")],
            [("sender", "o'al@example.com"), ("sasl_username", "o'al@example.com")],
            [("sender", ""), ("sasl_username", "al@example.com")],
        ] {
            let user =
                [("client_address", strangers), ("helo_name", forged.as_str()), changes[0], changes[1]];
            assert!(ask(&mut client, &user)?.starts_with("REJECT "));
        }
    }
    wait_for("the last line", || {
        let answers = if style == "iredapd" { " [sasl_username=" } else { "event=answer" };
        let count = lines(&daemon.log(), answers).len();
        (count >= expected.len() - 3 + forgeries().len() * 13).then_some(())
    });
    let all = lines(&daemon.log(), "");
    let found: Vec<String> = hosts(POLICY, &all)?.into_iter().flatten().collect();
    assert_eq!(found[..expected.len()], expected, "plain refusals are found");
    assert_eq!(found.len(), expected.len() + forgeries().len() * 5, "and those with forgeries beside them");
    assert!(found[expected.len()..].iter().all(|host| host == "203.0.113.9"), "{found:?}");
    for filter in [LOGIN, TOKEN] {
        assert!(hosts(filter, &all)?.iter().all(Option::is_none), "{filter}");
    }
    // Whoever is asked to come again did nothing wrong.
    let refused = all.iter().find(|line| line.contains("REJECT Invalid email address")).context("a line")?;
    for (action, counts) in [
        ("REJECT", true),
        ("550 5.7.1 no", true),
        ("451 4.7.1 later", false),
        ("DEFER_IF_PERMIT Service temporarily unavailable", false),
        ("DUNNO Error: Invalid sender address: x", false),
        ("REJECTED", false),
        ("5501", false),
        ("OK", false),
        ("DISCARD REJECT", false),
    ] {
        let line = refused.replace("REJECT Invalid email address", action);
        assert_eq!(hosts(POLICY, &[line])?[0].is_some(), counts, "{action}");
    }
    Ok(())
}

#[test]
fn refused_mail_names_its_client() -> Result<()> {
    policy_rejections("key-value")
}

#[test]
fn refused_mail_names_its_client_in_lines_of_iredapd() -> Result<()> {
    policy_rejections("iredapd")
}

/// Senders and recipients are part of iRedAPD's line before the action: what is in them is not taken for it.
#[test]
fn addresses_are_no_actions() -> Result<()> {
    let folder = Folder::new("ban-filters")?;
    for style in ["key-value", "iredapd"] {
        let settings = format!(
            "listen = [\"127.0.0.1:0\"]\nplugins = [\"reject_null_sender\"]\n[log]\nstyle = \"{style}\"\nlevel = \"debug\"\n"
        );
        let daemon = Daemon::start("policyd", &folder.sub(style)?, &settings)?;
        let mut client = PolicyClient::connect(daemon.address("policy")?)?;
        for forged in forgeries() {
            for name in ["sender", "recipient"] {
                for text in
                    [forged.clone(), format!("\"{forged}\"@evil.test"), format!("a@evil.test {forged}")]
                {
                    let answer = ask(&mut client, &[("client_address", "203.0.113.77"), (name, &text)])?;
                    assert!(answer.starts_with("DUNNO"), "{answer}");
                }
            }
        }
        wait_for("the last line", || {
            let count = lines(&daemon.log(), "203.0.113.77").len();
            (count >= forgeries().len() * 6).then_some(())
        });
        let found: Vec<String> = hosts(POLICY, &lines(&daemon.log(), ""))?.into_iter().flatten().collect();
        assert_eq!(found, Vec::<String>::new(), "{style}");
    }
    Ok(())
}
