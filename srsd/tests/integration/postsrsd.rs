//! The real PostSRSd of the distribution and ours, with the same secret and the true clock: what one makes the other
//! reverses.

use super::{Server, settings};
use outrider_core::clock::SystemClock;
use outrider_core::daemon::Environment;
use outrider_core::settings::Secret;
use outrider_srsd::Settings;
use outrider_tests::port::Port;
use outrider_tests::process::{Process, Start};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROGRAM: &str = "/usr/sbin/postsrsd";

struct PostSrsd {
    forward: Port,
    reverse: Port,
    _process: Process,
}

impl PostSrsd {
    async fn start(folder: &Path, options: &[&str]) -> PostSrsd {
        let secret = folder.join("postsrsd.secret");
        std::fs::write(&secret, "secretOne\nsecretOld\n").expect("written");
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("hidden");
        let (forward, reverse) = (Port::reserve().expect("a port"), Port::reserve().expect("a port"));
        let process = Start::new("PostSRSd", PROGRAM, folder.join("postsrsd.log"))
            .args([&format!("-s{}", secret.display()), "-dsrs.example.net", "-4", "-l127.0.0.1"])
            .args([format!("-f{}", forward.number()), format!("-r{}", reverse.number())])
            .args(options.iter().copied())
            .spawn()
            .expect("starts");
        let server = PostSrsd { forward, reverse, _process: process };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(server.reverse.address()).await.is_err() {
            assert!(Instant::now() < deadline, "PostSRSd does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    async fn ask(&self, port: &Port, address: &str) -> String {
        let mut stream = TcpStream::connect(port.address()).await.expect("connects");
        stream.write_all(format!("get {address}\n").as_bytes()).await.expect("sends");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("receives"), 0, "{address}: closed");
        }
        String::from_utf8(answer).expect("text")
    }
}

#[tokio::test]
async fn what_postsrsd_and_srsd_make_the_other_reverses() {
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: postsrsd is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Settings {
        directory_domains: false,
        exclude_table: false,
        secrets: vec![Secret::new("secretOne"), Secret::new("secretOld")],
        ..settings()
    };
    let system = Environment::system("srsd", folder.path().to_path_buf());
    let server = Server::start_in(ours, Environment { clock: Arc::new(SystemClock), ..system }).await;
    for options in [&[][..], &["-a+"]] {
        let theirs = PostSrsd::start(folder.path(), options).await;
        for sender in [
            "user@gmail.com",
            "User.Name+tag@sub.Example.ORG",
            "prvs=1234=user@example.org",
            "bounce-1=user=example.com@lists.example",
            "SRS0=abcd=AA=orig.example=alice@first.example",
            "SRS0+abcd=AA=orig.example=alice@first.example",
            "SRS1=xxxx=first.example==abcd=AA=orig.example=alice@second.example",
        ] {
            let made_there = theirs.ask(&theirs.forward, sender).await;
            let made_here = server.ask("forward", &format!("get {sender}\n")).await;
            // The day may change between two questions; the parts that depend on it are compared by what comes back.
            let there = made_there
                .strip_prefix("200 ")
                .unwrap_or_else(|| panic!("{sender}: {made_there}"))
                .trim_end();
            let here =
                made_here.strip_prefix("200 ").unwrap_or_else(|| panic!("{sender}: {made_here}")).trim_end();
            let back = server.ask("reverse", &format!("get {there}\n")).await;
            assert_eq!(theirs.ask(&theirs.reverse, here).await, back, "{sender}");
            assert!(back.starts_with("200 "), "{sender}: {back}");
            if !sender.starts_with("SRS") {
                assert_eq!(back, format!("200 {sender}\n"));
            }
        }
    }
    server.stop().await;
}
