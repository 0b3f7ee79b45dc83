//! Several policy services that share one database: together they let through what one would, to the message.

use std::thread;

use anyhow::{Context, Result, ensure};
use outrider_tests::daemon::Daemon;
use outrider_tests::dns_server::DnsServer;
use outrider_tests::folder::Folder;
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::port::Port;
use outrider_tests::settings::{self, Caching};
use outrider_tests::store::{self, Server};

crate::on_both_servers!(three_processes_never_exceed_a_limit);

const LIMIT: usize = 60;
const PASSED: &str = "DUNNO";
const REFUSED: &str = "REJECT Throttling quota exceeded";

/// A message of one user at its end.
const MESSAGE: [(&str, &str); 7] = [
    ("protocol_state", "END-OF-MESSAGE"),
    ("client_address", "198.51.100.7"),
    ("sender", "anna@local.example"),
    ("recipient", "carla@far.example"),
    ("sasl_username", "anna@local.example"),
    ("recipient_count", "1"),
    ("size", "1000"),
];

fn three_processes_never_exceed_a_limit(server: Server) -> Result<()> {
    let store = store::start(server)?;
    store.execute(
        "iredapd",
        &format!(
            "INSERT INTO throttle (account, kind, priority, period, max_msgs) \
             VALUES ('@local.example', 'outbound', 60, 3600, {LIMIT})"
        ),
    )?;
    let dns = DnsServer::start()?;
    let folder = Folder::new("throttle")?;
    let mut daemons = Vec::new();
    for number in 0..3 {
        let port = Port::reserve()?;
        let settings = settings::policyd(port.address(), &store.access(), dns.address(), Caching::Off);
        // A busy machine must not look like a fault, nor a fault like an answer.
        let patient = "[database]\nacquire_timeout = \"40s\"\nstatement_timeout = \"40s\"\n";
        let settings = format!(
            "{}[limits]\nrequest_timeout = \"60s\"\n[on_failure]\niredapd = \"defer\"\nvmail = \"defer\"\n",
            settings.replace("[database]\n", patient)
        );
        let own = folder.sub(&format!("host-{number}"))?;
        daemons.push((Daemon::start("policyd", &own, &settings)?, port));
    }
    let addresses = daemons.iter().map(|(daemon, _)| daemon.address("policy")).collect::<Result<Vec<_>>>()?;
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let address = addresses[number % addresses.len()];
            thread::spawn(move || -> Result<usize> {
                let mut client = PolicyClient::connect(address)?;
                let mut passed = 0;
                for _ in 0..10 {
                    let answer = client.ask(&MESSAGE)?;
                    ensure!(answer == PASSED || answer == REFUSED, "{answer}");
                    passed += usize::from(answer == PASSED);
                }
                Ok(passed)
            })
        })
        .collect();
    let mut passed = 0;
    for client in clients {
        passed += client.join().ok().context("a client panicked")??;
    }
    ensure!(passed == LIMIT, "{passed} messages passed, {LIMIT} are allowed");
    let counters = store.query("iredapd", "SELECT account, cur_msgs, cur_quota FROM throttle_tracking")?;
    let expected = format!("anna@local.example\t{LIMIT}\t{}", LIMIT * 1000);
    ensure!(counters == [expected], "{counters:?}");
    // The counter is in the database and not in a process.
    let (daemon, _) = &mut daemons[0];
    daemon.kill()?;
    daemon.resume()?;
    let answer = PolicyClient::connect(daemon.address("policy")?)?.ask(&MESSAGE)?;
    ensure!(answer == REFUSED, "after a restart: {answer}");
    Ok(())
}
