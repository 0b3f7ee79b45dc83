//! Whole lines through the layer, in each style and to each target.

use std::os::unix::net::UnixDatagram;

use super::*;
use crate::settings::Facility;

fn file_settings(folder: &tempfile::TempDir) -> LogSettings {
    LogSettings { target: LogTarget::File, path: Some(folder.path().join("log")), ..LogSettings::default() }
}

/// What `act` logs into a file with these settings.
fn logged(settings: LogSettings, act: impl FnOnce()) -> String {
    let (layer, handle) = layer(&settings, "policyd").unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
    handle.flush();
    std::fs::read_to_string(settings.path.unwrap()).unwrap()
}

/// Lines without their time stamps, whose form is checked.
fn without_time(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            let (time, rest) = line.split_once(' ').unwrap();
            let time = time.strip_prefix("time=").unwrap();
            assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
            rest
        })
        .collect()
}

#[test]
fn fields_have_one_order_whatever_the_code_writes() {
    let folder = tempfile::tempdir().unwrap();
    let text = logged(file_settings(&folder), || {
        let _service = tracing::error_span!("service", service = "srsd").entered();
        let _mail = tracing::info_span!("mail", queue_id = "4XyZ").entered();
        tracing::info!(
            zebra = 1,
            action = "DUNNO",
            client = "192.0.2.1",
            event = "answer",
            elapsed_ms = 1.25,
            ok = true
        );
        tracing::info!(sender = &b"a\xff\n"[..], "text of the event");
        tracing::debug!("not shown");
    });
    assert_eq!(
        without_time(&text),
        [
            "level=info service=srsd event=answer queue_id=4XyZ client=192.0.2.1 action=DUNNO elapsed_ms=1.250 zebra=1 ok=true",
            "level=info service=srsd event=\"text of the event\" queue_id=4XyZ sender=a\\xff\\x0a",
        ]
    );
}

#[test]
fn threat_t52_hostile_text_forges_no_line_and_no_field() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "x\" client=203.0.113.9 \u{1b}[31m\r\ntime=0 level=error service=policyd event=forged client=203.0.113.9";
    let text = logged(file_settings(&folder), || {
        tracing::info!(sender = hostile, client = "192.0.2.1", event = "answer");
        tracing::info!(sender = "y".repeat(100_000), rcpt = hostile, event = "answer");
    });
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        assert!(!line.contains('\u{1b}') && line.len() < 9000);
        // A filter that wants `client=` at the start of a field, outside quotation marks, sees the true one only.
        let outside: String = line.split('"').step_by(2).collect();
        assert!(!outside.contains("203.0.113.9"), "{line}");
    }
    assert!(text.contains(&format!("sender={}… rcpt=\"x\\x22 client", "y".repeat(512))));
    assert!(text.lines().next().unwrap().contains("event=answer client=192.0.2.1 sender=\"x"));
}

#[test]
fn json_is_json_and_long_events_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let text = logged(LogSettings { style: LogStyle::Json, ..file_settings(&folder) }, || {
        tracing::warn!(
            event = "odd",
            reason = "quote \" backslash \\ line\nend",
            code = 451,
            degraded = true
        );
        let long = "z".repeat(600);
        tracing::info!(
            event = "long", a1 = %long, a2 = %long, a3 = %long, a4 = %long, a5 = %long, a6 = %long, a7 = %long,
            a8 = %long, a9 = %long, b1 = %long, b2 = %long, b3 = %long, b4 = %long, b5 = %long, b6 = %long,
            b7 = %long, b8 = %long, b9 = %long
        );
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["service"], "policyd");
    assert_eq!(lines[0]["level"], "warn");
    assert_eq!(lines[0]["reason"], "quote \\x22 backslash \\x5c line\\x0aend");
    assert_eq!(
        (&lines[0]["code"], &lines[0]["degraded"]),
        (&serde_json::json!(451), &serde_json::json!(true))
    );
    assert_eq!(lines[1]["cut"], true);
    assert!(text.lines().nth(1).unwrap().len() <= 8 * 1024 + 64);
}

#[test]
fn compatible_styles_write_the_line_alone() {
    let act = || {
        tracing::info!(event = "answer", action = "DUNNO", line = "[192.0.2.1] RCPT, a -> b, DUNNO \"x\"\n");
        tracing::info!(event = "started");
    };
    let folder = tempfile::tempdir().unwrap();
    let text = logged(LogSettings { style: LogStyle::Iredapd, ..file_settings(&folder) }, act);
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        ["[192.0.2.1] RCPT, a -> b, DUNNO \"x\"\\x0a", "level=info service=policyd event=started"]
    );
    let folder = tempfile::tempdir().unwrap();
    let text = logged(file_settings(&folder), act);
    assert_eq!(without_time(&text)[0], "level=info service=policyd event=answer action=DUNNO");
}

#[test]
fn repeated_warnings_are_said_once_but_those_about_clients_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let text = logged(file_settings(&folder), || {
        for _ in 0..100 {
            tracing::warn!(event = "database down", reason = "refused");
            tracing::warn!(event = "login failed", client = "192.0.2.1");
            tracing::info!(event = "answer");
        }
    });
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!((count("database down"), count("login failed"), count("event=answer")), (1, 100, 100));
}

#[test]
fn other_crates_are_heard_from_warnings_on() {
    let folder = tempfile::tempdir().unwrap();
    let text = logged(LogSettings { level: LogLevel::Debug, ..file_settings(&folder) }, || {
        tracing::info!(target: "sqlx::query", "select 1");
        tracing::warn!(target: "sqlx::query", "slow");
        tracing::debug!("our step");
    });
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn syslog_datagrams_look_like_those_of_the_mail_system() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.sock");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let settings = LogSettings {
        target: LogTarget::Syslog,
        syslog_socket: path,
        facility: Facility::Local5,
        tag: Some("iredapd".into()),
        ..LogSettings::default()
    };
    let (layer, handle) = layer(&settings, "policyd").unwrap();
    handle.start_writer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(event = "answer", action = "DUNNO");
        tracing::warn!(event = "second");
    });
    let datagram = || {
        let mut bytes = [0; 1024];
        let length = receiver.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let first = datagram();
    // <21*8+6>Mmm dd hh:mm:ss
    assert!(first.starts_with("<174>"), "{first}");
    assert_eq!(&first.as_bytes()[8..9], b" ");
    let rest = &first["<174>Mar  1 12:00:00".len()..];
    let expected =
        format!(" iredapd[{}]: level=info service=policyd event=answer action=DUNNO", std::process::id());
    assert_eq!(rest, expected);
    assert!(datagram().starts_with("<172>"));
}

#[test]
fn rotated_files_are_opened_again_and_settings_change_while_running() {
    let folder = tempfile::tempdir().unwrap();
    let settings = file_settings(&folder);
    let path = settings.path.clone().unwrap();
    let (layer, handle) = layer(&settings, "policyd").unwrap();
    handle.start_writer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!(event = "one");
        handle.flush();
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        tracing::info!(event = "two");
        handle.flush();
        handle.reopen().unwrap();
        tracing::info!(event = "three");
        handle.flush();
        assert!(std::fs::read_to_string(folder.path().join("log.1")).unwrap().contains("event=two"));
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(now.contains("event=three") && !now.contains("event=two"));

        handle.apply(&LogSettings { level: LogLevel::Warn, ..settings.clone() }).unwrap();
        tracing::info!(event = "four");
        let nowhere = LogSettings { path: Some("/nonexistent/log".into()), ..settings.clone() };
        assert!(matches!(handle.apply(&nowhere), Err(LogError::Open(..))));
        tracing::warn!(event = "five");
        handle.flush();
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(now.contains("event=five") && !now.contains("event=four"), "{now}");
    });
}

#[test]
fn time_stamps_follow_the_clock() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_742_040_000_007, "2025-03-15T12:00:00.007Z"),
        (1_742_040_000_999, "2025-03-15T12:00:00.999Z"),
        (1_742_040_001_000, "2025-03-15T12:00:01.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_742_040_000_007, "2025-03-15T12:00:00.007Z"),
    ] {
        assert_eq!(utc(millis), text);
    }
    let mut seconds: Vec<String> = (0..3).map(|second| local(1_742_040_000_000 + second * 1000)).collect();
    seconds.dedup();
    assert_eq!(seconds.len(), 3, "{seconds:?}");
}

#[test]
fn summary_of_repeats_is_written_in_both_spellings() {
    let folder = tempfile::tempdir().unwrap();
    let form = Form::new(&file_settings(&folder), "policyd");
    let line = "level=warn service=policyd event=\"database down\"";
    assert_eq!(summary(&form, line, 7, 0), format!("time=1970-01-01T00:00:00.000Z {line} repeated=7"));
    let form = Form { style: LogStyle::Json, ..form };
    let json: serde_json::Value = serde_json::from_str(&summary(&form, line, 7, 0)).unwrap();
    assert_eq!((&json["repeated"], &json["reason"]), (&serde_json::json!(7), &serde_json::json!(line)));
}
