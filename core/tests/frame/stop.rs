//! Orderly and disorderly ends.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Place, wait_until};

#[test]
fn sigterm_finishes_the_request_in_progress_and_accepts_no_more() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new("listen = [\"127.0.0.1:0\"]\n");
        let mut running = place.start();
        let address = running.addresses("echo")[0].clone();
        let (mut busy, mut idle) = (running.client(), running.client());
        assert_eq!(idle.ask("x"), "x");
        busy.send("sleep 1500");
        std::thread::sleep(Duration::from_millis(200));
        running.signal(signal);
        assert_eq!(idle.receive(), "", "an idle connection is closed");
        wait_until("the listener to close", || TcpStream::connect(&address).is_err(), String::new);
        assert_eq!(busy.receive(), "sleep 1500");
        assert_eq!(busy.receive(), "");
        assert_eq!(running.wait().code(), Some(0));
        assert!(running.log().contains("event=stopped"), "{}", running.log());
    }
}

#[test]
fn grace_is_limited() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[limits]\ngrace = \"500ms\"\n");
    let mut running = place.start();
    let mut busy = running.client();
    busy.send("sleep 30000");
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    // That it ends before the request does is what `wait` sees to: it is not patient enough for the request.
    assert!(start.elapsed() >= Duration::from_millis(450));
    assert!(running.log().contains("stop forced"));
}

#[test]
fn second_signal_leaves_at_once() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let place = Place::new("listen = [\"127.0.0.1:0\"]\n[limits]\ngrace = \"30s\"\n");
        let mut running = place.start();
        let address = running.addresses("echo")[0].clone();
        let (mut busy, mut idle) = (running.client(), running.client());
        assert_eq!(idle.ask("x"), "x");
        busy.send("sleep 30000");
        std::thread::sleep(Duration::from_millis(200));
        running.signal(signal);
        running.wait_for_log("event=stopping");
        // Idle connections and the listener do not wait for the busy one: the exit code shows that it was still busy.
        assert_eq!(idle.receive(), "", "an idle connection is closed at once");
        wait_until("the listener to close", || TcpStream::connect(&address).is_err(), String::new);
        running.signal(signal);
        let status = running.wait();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}
