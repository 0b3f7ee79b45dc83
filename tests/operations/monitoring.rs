//! Alert rules and dashboard ask for metrics that the daemons print, under those very names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrider_core::daemon::{DependencyHealth, PoolFigures};
use outrider_core::metrics::Metrics;
use outrider_core::sql::{Db, PoolOptions};
use outrider_tests::daemon::Daemon;
use outrider_tests::folder::Folder;
use outrider_tests::policy_client::PolicyClient;

use crate::failregex::packaged;

const ALERTS: &str = "prometheus/outrider-alerts.yml";
const DASHBOARD: &str = "grafana/outrider.json";

/// Each daemon with the least of settings.
const DAEMONS: [(&str, &str); 5] = [
    ("policyd", "listen = [\"127.0.0.1:0\"]\n"),
    (
        "srsd",
        "listen_forward = [\"127.0.0.1:0\"]\nlisten_reverse = [\"127.0.0.1:0\"]\nsrs_domain = \"mx.example.com\"\n\
         secrets = [\"a secret for tests only\"]\n",
    ),
    (
        "contentfilter",
        "listen_inbound = [\"127.0.0.1:0\"]\nlisten_originating = [\"127.0.0.1:0\"]\nlisten_lists = [\"127.0.0.1:0\"]\n",
    ),
    ("quota-status", "listen = [\"127.0.0.1:0\"]\n"),
    ("admin-api", "listen_lists = [\"127.0.0.1:0\"]\nlisten_accounts = [\"127.0.0.1:0\"]\n"),
];

/// What a daemon prints.
fn printed(daemon: &Daemon) -> Result<String> {
    let mut stream = TcpStream::connect(daemon.address("metrics")?)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
    Ok(text)
}

/// The metrics that a text names: words that begin as ours do.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("outrider_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The names in a text of OpenMetrics: those of its types. What has no sample yet is not there.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
        "info" => vec![format!("{name}_info")],
        _ => vec![name.to_owned()],
    });
    names.collect()
}

/// What every daemon prints once it has had a request, a time-out, and a dependency with connections.
fn of_the_frame(daemon: &str) -> BTreeSet<String> {
    let metrics = Metrics::new(daemon);
    metrics.request("policy", "pass", Duration::ZERO);
    metrics.timeout("request");
    let pool = Some(PoolFigures { used: 1, idle: 1, errors: vec![("timeout", 1)] });
    metrics.dependencies(&[DependencyHealth { name: "database", pool, ..DependencyHealth::default() }]);
    names(&metrics.render())
}

/// Lets policyd greylist a recipient and refuse a message because of a limit.
fn use_policyd(daemon: &Daemon, state: &Path) -> Result<()> {
    let row = "INSERT INTO throttle (account, kind, priority, period, msg_size) VALUES ('@.', 'outbound', 0, 60, 1)";
    tokio::runtime::Runtime::new()?
        .block_on(Db::open_file(&state.join("iredapd.db"), &PoolOptions::default()).execute_script(row))?;
    let mut client = PolicyClient::connect(daemon.address("policy")?)?;
    let common =
        [("client_address", "203.0.113.9"), ("sender", "a@example.com"), ("recipient", "b@example.org")];
    let ask = |client: &mut PolicyClient, more: &[(&str, &str)]| client.ask(&[&common[..], more].concat());
    let answer = ask(&mut client, &[("protocol_state", "RCPT"), ("reverse_client_name", "unknown")])?;
    ensure!(answer.starts_with("451 4.7.1 "), "{answer}");
    let end = [
        ("protocol_state", "END-OF-MESSAGE"),
        ("sasl_username", "a@example.com"),
        ("size", "10"),
        ("recipient_count", "1"),
    ];
    let answer = ask(&mut client, &end)?;
    ensure!(answer.starts_with("REJECT Message size"), "{answer}");
    Ok(())
}

#[test]
fn every_name_is_one_that_a_daemon_prints() -> Result<()> {
    let folder = Folder::new("monitoring")?;
    let mut known = BTreeSet::new();
    for (name, settings) in DAEMONS {
        let settings = format!("{settings}[metrics]\nlisten = [\"127.0.0.1:0\"]\n");
        let own = folder.sub(name)?;
        let daemon = Daemon::start(name, &own, &settings)?;
        if name == "policyd" {
            use_policyd(&daemon, &own.join("state"))?;
        }
        let text = printed(&daemon).with_context(|| format!("metrics of {name}"))?;
        known.extend(names(&text));
        known.extend(of_the_frame(name));
    }
    for file in [ALERTS, DASHBOARD] {
        let text = fs::read_to_string(packaged(file))?;
        let named = named(&text);
        assert!(named.len() > 20, "{file}: {named:?}");
        let unknown: Vec<&String> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}; printed are {known:?}");
    }
    Ok(())
}

/// An alert that forgets a daemon says nothing about it for ever.
#[test]
fn alerts_are_about_all_daemons() -> Result<()> {
    let text = fs::read_to_string(packaged(ALERTS))?;
    let named = named(&text);
    for (daemon, _) in DAEMONS {
        for metric in [
            "start_time_seconds",
            "degraded",
            "up_dependency",
            "db_errors_total",
            "panics_total",
            "timeouts_total",
            "config_last_reload_successful",
            "request_duration_seconds_bucket",
        ] {
            let name = format!("outrider_{}_{metric}", daemon.replace('-', "_"));
            assert!(named.contains(&name), "{name}");
        }
    }
    assert!(text.contains("up{job=~\"outrider.*\"} == 0") && text.contains("absent(up{"), "{text}");
    Ok(())
}

#[test]
fn the_dashboard_is_one() -> Result<()> {
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(packaged(DASHBOARD))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_i64().context("an id")?), "{panel}");
        let targets = panel["targets"].as_array().context("targets")?;
        assert!(
            !targets.is_empty() && panel["title"].is_string() && panel["gridPos"]["w"].is_i64(),
            "{panel}"
        );
        for target in targets {
            let expression = target["expr"].as_str().context("an expression")?;
            assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{expression}");
        }
    }
    assert!(panels.len() >= 8);
    Ok(())
}
