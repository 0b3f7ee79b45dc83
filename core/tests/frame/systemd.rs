//! The service manager's side, played by a datagram socket.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Place};

struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(place: &Place) -> Manager {
        let socket = UnixDatagram::bind(place.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket }
    }

    fn receive(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("no notification came");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next notification that contains the text, skipping others.
    fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let message = self.receive();
            if message.lines().any(|line| line.starts_with(text)) {
                return message;
            }
            assert!(Instant::now() < end, "no {text}");
        }
    }
}

#[test]
fn ready_reloading_and_stopping_are_told() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n");
    let manager = Manager::new(&place);
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let mut running = place.start_command(command);
    let first = manager.receive();
    assert!(first.lines().any(|line| line == "READY=1"), "{first}");
    assert!(first.lines().any(|line| line == "STATUS=0 connections"), "{first}");
    assert_eq!(running.client().ask("down"), "down");

    running.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("degraded: no voice"), "{ready}");

    running.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(running.wait().code(), Some(0));
}

#[test]
fn watchdog_is_fed_only_while_the_event_loop_turns() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[process]\nworker_threads = 1\n");
    let manager = Manager::new(&place);
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "200000");
    let running = place.start_command(command);
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
    }

    // One thread, and that one is stuck: signs of life must stay away, or nobody would restart the daemon.
    let mut client = running.client();
    client.send("block 6000");
    // Ten signs are due in this time.
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let end = Instant::now() + PATIENCE;
    while manager.socket.recv(&mut [0; 4096]).is_ok() {
        assert!(Instant::now() < end, "a stuck event loop gives signs of life");
    }
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.receive(), "block 6000");
    manager.wait_for("WATCHDOG=1");
}
