//! Steps of the chain that are other policy servers: real ones.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use outrider_core::daemon::Daemon as _;
use outrider_policyd::Settings;
use outrider_policyd::settings::{ForwardSettings, OnFailure};
use outrider_tests::daemon::Daemon;
use outrider_tests::folder::Folder;
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::port::Port;
use outrider_tests::process::Start;
use outrider_tests::wait::wait_for;

use crate::world::{Client, World, arrival};

const NULL_SENDER: &str = "REJECT Policy rejection due to null sender";
const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";

/// Of a login with the null sender.
const FORGED: [(&str, &str); 5] = [
    ("protocol_state", "RCPT"),
    ("client_address", "203.0.113.10"),
    ("sender", ""),
    ("recipient", "pal@remote.test"),
    ("sasl_username", "a@example.com"),
];

/// A step that asks `address` and waits as long as a busy machine may need.
pub(crate) fn step(address: &str) -> ForwardSettings {
    ForwardSettings {
        address: Some(address.parse().expect("an address")),
        timeout: outrider_core::settings::Interval::seconds(60),
        on_failure: OnFailure::Defer,
        ..ForwardSettings::default()
    }
}

/// Takes the steps, with time enough for their time-outs.
pub(crate) fn with_steps(settings: &mut Settings, steps: &[(&str, ForwardSettings)]) {
    settings.limits.request_timeout = outrider_core::settings::Interval::seconds(120);
    settings.forward = steps.iter().map(|(name, step)| ((*name).to_owned(), step.clone())).collect();
}

/// A policyd on a UNIX socket with one rule, and the socket.
fn second_policyd(folder: &Path) -> (Daemon, String) {
    let address = format!("unix:{}", folder.join("second.sock").display());
    let settings =
        format!("listen = ['{address}']\nplugins = ['reject_null_sender']\nmyhostname = 'mx.host.invalid'\n");
    let daemon = Daemon::start("policyd", &folder.join("second"), &settings).expect("started");
    (daemon, address)
}

#[test]
fn one_policyd_asks_another() {
    let folder = Folder::new("forward").expect("a folder");
    let (mut second, address) = second_policyd(folder.path());
    let base = "listen = ['127.0.0.1:0']\nplugins = []\nmyhostname = 'mx.host.invalid'\n";
    let first =
        |on_failure| format!("{base}[forward.second]\naddress = '{address}'\non_failure = '{on_failure}'\n");
    let daemon = Daemon::start("policyd", &folder.path().join("first"), base).expect("started");
    let mut client = PolicyClient::connect(daemon.address("policy").expect("listens")).expect("connected");
    let mut asks = |attributes: &[(&str, &str)]| client.ask(attributes).expect("an answer");
    assert_eq!(asks(&FORGED), "DUNNO No enabled plugins");

    // A reload takes new steps, for open connections too.
    let reload = |settings: &str| {
        daemon.write_settings(settings).expect("written");
        daemon.signal(Signal::SIGHUP).expect("sent");
    };
    reload(&first("pass"));
    wait_for("the new step", || (asks(&FORGED) == NULL_SENDER).then_some(()));
    let mut ordinary = FORGED;
    ordinary[2].1 = "a@example.com";
    assert_eq!(asks(&ordinary), "DUNNO");
    let mut end = FORGED;
    end[0].1 = "END-OF-MESSAGE";
    assert_eq!(asks(&end), "DUNNO", "it is asked at RCPT only");

    second.kill().expect("killed");
    assert_eq!(asks(&FORGED), "DUNNO", "on_failure = pass");
    reload(&first("defer"));
    wait_for("the new settings", || (asks(&FORGED) == DEFER).then_some(()));
    second.resume().expect("started again");
    assert_eq!(asks(&FORGED), NULL_SENDER);
    reload(base);
    wait_for("the step to go", || (asks(&FORGED) == "DUNNO No enabled plugins").then_some(()));
}

/// The example that the documentation gives to those who have custom plugins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ported_plugin_chooses_relays_and_traps_spam() {
    let world = World::sqlite().await;
    let port = Port::reserve().expect("a port");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/policy_server.py");
    let _server = Start::new("policy_server.py", "python3", world.folder.path().join("python.log"))
        .args([program.to_owned(), port.number().to_string()])
        .spawn()
        .expect("started");
    let address = format!("127.0.0.1:{}", port.number());
    wait_for("the server", || std::net::TcpStream::connect(&address).ok());
    let daemon = world
        .daemon_with(&["reject_null_sender"], |settings| with_steps(settings, &[("custom", step(&address))]))
        .await;
    let mut client = Client::connect(&daemon);
    for (sender, recipient, expected) in [
        ("x@sender.test", "alice@example.com", "DUNNO"),
        ("x@sender.test", "Trap@example.com", "REJECT Blacklisted"),
        ("newsletter@example.com", "pal@remote.test", "FILTER smtp:[192.0.2.25]:25"),
        ("x@sender.test", "alice@example.com", "DUNNO"),
    ] {
        assert_eq!(client.ask(&arrival(sender, recipient, "203.0.113.10")).await, expected, "{sender}");
    }
    // The rules in front of it decide first.
    assert_eq!(client.ask(&FORGED).await, NULL_SENDER);
    let text = daemon.metrics.render();
    for line in [
        "decisions_total{check=\"forward.custom\",action=\"forwarded\"} 2",
        "decisions_total{check=\"reject_null_sender\",action=\"null_sender\"} 1",
        "decisions_total{check=\"none\",action=\"pass\"} 2",
        "forwarded_total{check=\"forward.custom\",result=\"answer\"} 2",
        "forwarded_total{check=\"forward.custom\",result=\"dunno\"} 2",
    ] {
        assert!(text.contains(&format!("\noutrider_policyd_{line}\n")), "{line}\n{text}");
    }
    assert!(
        daemon.health().iter().any(|one| one.name == "forward.custom" && one.up && one.detail == address)
    );
    // Whom it refused is in the table.
    let rows = async || {
        world.numbers(&world.iredapd, "SELECT COUNT(*) FROM smtp_sessions WHERE action = 'FILTER'").await
    };
    for _ in 0..1000 {
        if rows().await == [[1]] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no row: {:?}", rows().await);
}
