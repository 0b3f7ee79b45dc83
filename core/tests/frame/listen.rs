//! Listeners of all kinds, bounds on connections, faults in one of them.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::harness::{Client, Place, echod, shell};

#[test]
fn ipv4_ipv6_and_unix_sockets_serve_the_same() {
    let place = Place::new("");
    let socket = place.path("echod.sock");
    place.write(
        "echod.toml",
        &format!(
            "listen = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:{}\"]\nloud = [\"127.0.0.1:0\"]\n[process]\nsocket_mode = \"0606\"\n",
            socket.display()
        ),
    );
    let mut running = place.start();
    let echo = running.addresses("echo");
    assert_eq!(echo.len(), 3, "{}", running.ready);
    assert!(running.ready.starts_with("ready service=echod echo=127.0.0.1:"), "{}", running.ready);
    assert!(!echo[0].ends_with(":0") && echo[1].starts_with("[::1]:") && !echo[1].ends_with(":0"));
    assert_eq!(echo[2], format!("unix:{}", socket.display()));
    assert_eq!(Client::tcp(&echo[0]).ask("four"), "four");
    assert_eq!(Client::tcp(&echo[1]).ask("six"), "six");
    assert_eq!(Client::unix(&socket).ask("unix"), "unix");
    assert_eq!(Client::tcp(&running.addresses("loud")[0]).ask("loud"), "LOUD");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o606);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    assert!(!socket.exists(), "the socket goes with the daemon");
}

#[test]
fn taken_port_is_named_and_ends_with_71() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n");
    let first = place.start();
    let address = &first.addresses("echo")[0];
    let second = Place::new(&format!("listen = [\"{address}\"]\n"));
    let (status, _, stderr) = second.output(&[]);
    assert!(status == 71 && stderr.contains(address), "{status} {stderr}");
}

/// Starts echod as a service manager does: sockets are open as descriptors 3 and up before it runs.
const ACTIVATE: &str = r#"
import os, socket, sys
kinds, names, program = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
sockets = []
for kind in kinds:
    if kind.startswith("/"):
        s = socket.socket(socket.AF_UNIX); s.bind(kind)
    else:
        s = socket.socket(socket.AF_INET); s.bind(("127.0.0.1", 0))
    s.listen(16)
    sockets.append(s)
held = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(sockets)]
for i, fd in enumerate(held):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ.update(LISTEN_FDS=str(len(held)), LISTEN_PID=str(os.getpid()))
if names: os.environ["LISTEN_FDNAMES"] = names
os.execv(program[0], program)
"#;

fn activated(place: &Place, kinds: &str, names: &str) -> std::process::Command {
    let mut command = std::process::Command::new("python3");
    command.arg("-c").arg(ACTIVATE).arg(kinds).arg(names).arg(echod());
    command.arg("--config").arg(place.path("echod.toml")).arg("--state-directory").arg(place.path("state"));
    command
}

#[test]
fn inherited_sockets_replace_the_configured_ones_of_their_role() {
    // Port 1 cannot be meant: nothing may be opened there.
    let place = Place::new("listen = [\"127.0.0.1:1\"]\nloud = [\"127.0.0.1:0\"]\n");
    let socket = place.path("given.sock");
    let command = activated(&place, &format!("tcp,{}", socket.display()), "echo:echo");
    let mut running = place.start_command(command);
    let echo = running.addresses("echo");
    assert_eq!(echo.len(), 2, "{}", running.ready);
    assert_eq!(Client::tcp(&echo[0]).ask("tcp"), "tcp");
    assert_eq!(Client::unix(&socket).ask("unix"), "unix");
    assert_eq!(running.addresses("loud").len(), 1);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    assert!(socket.exists(), "the socket belongs to the service manager");

    // Without a name the only role is meant.
    let place = Place::new("listen = [\"127.0.0.1:1\"]\n");
    let running = place.start_command(activated(&place, "tcp", ""));
    assert_eq!(running.client().ask("x"), "x");

    // With two roles a nameless socket means nothing.
    let place = Place::new("listen = [\"127.0.0.1:0\"]\nloud = [\"127.0.0.1:0\"]\n");
    let output = activated(&place, "tcp", "other").output().unwrap();
    assert_eq!(output.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&output.stderr).contains("one of: echo, loud"));
}

#[test]
fn at_the_limit_the_connection_idle_for_longest_makes_room() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[limits]\nmax_connections = 2\n");
    let running = place.start();
    let (mut oldest, mut busy) = (running.client(), running.client());
    assert_eq!(oldest.ask("a"), "a");
    assert_eq!(busy.ask("b"), "b");
    busy.send("sleep 3000");
    let start = Instant::now();
    let mut third = running.client();
    assert_eq!(third.ask("c"), "c", "room was made");
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "but not at the cost of somebody who spoke just now"
    );
    assert_eq!(oldest.receive(), "", "the oldest was closed");
    assert_eq!(busy.receive(), "sleep 3000", "a request in progress is answered");
    running.wait_for_log("connection limit reached");
}

#[test]
fn panic_ends_its_own_connection_only() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\n");
    let running = place.start();
    let mut other = running.client();
    assert_eq!(other.ask("before"), "before");
    for _ in 0..3 {
        let mut victim = running.client();
        assert_eq!(victim.ask("panic"), "");
    }
    assert_eq!(other.ask("after"), "after");
    assert_eq!(running.client().ask("new"), "new");
    running.wait_for_log("reason=\"asked to panic\"");
    assert!(!running.log().contains("thread '"), "one log line, no free text:\n{}", running.log());
    let metrics = crate::health::get(&running.addresses("metrics")[0], "/metrics", "").1;
    assert!(metrics.contains("outrider_echod_panics_total 3\n"), "{metrics}");
    crate::harness::wait_until(
        "two open connections",
        || {
            let text = crate::health::get(&running.addresses("metrics")[0], "/metrics", "").1;
            text.contains("outrider_echod_connections{state=\"open\"} 1\n")
        },
        || crate::health::get(&running.addresses("metrics")[0], "/metrics", "").1,
    );
}

#[test]
fn threat_t38_without_file_descriptors_the_listener_waits_and_recovers() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n");
    let mut command = shell("ulimit -n 24; exec \"$0\" \"$@\"");
    let plain = place.command();
    command.arg(plain.get_program()).args(plain.get_args());
    let running = place.start_command(command);
    let mut clients: Vec<_> = (0..40).map(|_| running.client()).collect();
    running.wait_for_log("accept failed");
    assert_eq!(clients[0].ask("still"), "still", "those inside are served");
    clients.truncate(1);
    assert_eq!(running.client().ask("again"), "again");
    let failures = running.log().lines().filter(|line| line.contains("accept failed")).count();
    assert!(failures <= 3, "the same failure is logged once, not {failures} times");
}

#[test]
fn clients_from_elsewhere_are_turned_away() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address beside loopback");
        return;
    };
    let place = Place::new(&format!("listen = [\"{address}:0\"]\n[limits]\nallow = [\"203.0.113.0/24\"]\n"));
    let running = place.start();
    let mut refused = TcpStream::connect(&running.addresses("echo")[0]).unwrap();
    refused.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match refused.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("not turned away: {other:?}"),
    }
    running.wait_for_log("connection refused");

    let place = Place::new(&format!("listen = [\"{address}:0\"]\n[limits]\nallow = [\"{address}/32\"]\n"));
    assert_eq!(place.start().client().ask("allowed"), "allowed");
}

/// An IPv4 address of this machine that is not loopback.
fn own_address() -> Option<std::net::IpAddr> {
    // Choosing a route sends nothing.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
