//! Metrics and health over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Place};

/// Asks with HTTP/1.1 and gives status and body.
pub(crate) fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

#[test]
fn live_ready_healthy_and_metrics() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\n");
    let mut running = place.start();
    let address = running.addresses("metrics")[0].clone();
    assert!(running.ready.ends_with(&format!(" metrics={address}")), "{}", running.ready);
    assert_eq!(get(&address, "/livez", ""), (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/readyz", ""), (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/nothing", "").0, 404);

    let mut client = running.client();
    client.ask("down");
    assert_eq!(get(&address, "/readyz", ""), (200, "degraded\n".to_owned()), "degraded is ready");
    let (status, body) = get(&address, "/healthz", "");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["status"]), (200, &serde_json::json!("degraded")));
    assert_eq!(
        health["dependencies"][0],
        serde_json::json!({"name": "voice", "up": false, "detail": "hoarse"})
    );
    let metrics = get(&address, "/metrics", "").1;
    for line in [
        "outrider_echod_build_info{version=\"",
        "outrider_echod_up_dependency{name=\"voice\"} 0\n",
        "outrider_echod_degraded 1\n",
        "outrider_echod_connections{state=\"open\"} 1\n",
        "outrider_echod_connections_accepted_total 1\n",
        "outrider_echod_inflight 0\n",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    // While it stops, monitoring sees it alive and not ready.
    client.send("sleep 1500");
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.signal(Signal::SIGTERM);
    running.wait_for_log("event=stopping");
    assert_eq!((get(&address, "/livez", "").0, get(&address, "/readyz", "").0), (200, 503));
    assert_eq!(client.receive(), "sleep 1500");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn taken_metrics_port_is_a_warning() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new(&format!("listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"{address}\"]\n"));
    let running = place.start();
    assert_eq!(running.addresses("metrics"), Vec::<String>::new());
    assert_eq!(running.client().ask("x"), "x");
    running.wait_for_log(&format!("event=\"no metrics\" reason=\"cannot listen on {address}"));
}

#[test]
fn token_is_asked_for() {
    let place = Place::new(
        "listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\ntoken = \"open sesame\"\n",
    );
    let running = place.start();
    let address = running.addresses("metrics")[0].clone();
    assert_eq!(get(&address, "/livez", "").0, 200);
    assert_eq!(get(&address, "/metrics", "").0, 401);
    assert_eq!(get(&address, "/metrics", "Authorization: Bearer open sesame\r\n").0, 200);
    assert!(!running.log().contains("sesame"));
}
