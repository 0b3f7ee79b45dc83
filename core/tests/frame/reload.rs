//! SIGHUP with good and bad settings, log rotation, state dump.

use nix::sys::signal::Signal;

use crate::harness::Place;
use crate::health::get;

const BASE: &str = "listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\n";

fn settings(prefix: &str, rest: &str) -> String {
    format!("prefix = \"{prefix}\"\n{BASE}{rest}")
}

#[test]
fn sighup_takes_good_settings_and_keeps_the_old_when_they_are_bad() {
    let place = Place::new(&settings("one ", ""));
    let running = place.start();
    let metrics = running.addresses("metrics")[0].clone();
    let reloaded = |value: u8| {
        let text = get(&metrics, "/metrics", "").1;
        assert!(text.contains(&format!("outrider_echod_config_last_reload_successful {value}\n")), "{text}");
    };
    let (mut client, mut slow) = (running.client(), running.client());
    assert_eq!(client.ask("x"), "one x");
    slow.send("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(200));

    place.write("echod.toml", &settings("two ", ""));
    running.signal(Signal::SIGHUP);
    running.wait_for_log("settings reloaded");
    assert_eq!(client.ask("x"), "two x", "the connection stays and has the new settings");
    assert_eq!(slow.receive(), "one sleep 1000", "a request keeps the settings with which it began");
    reloaded(1);

    place.write("echod.toml", &settings("three ", "[answer]\ndelay = \"forever\"\n[log]\nlevel = \"x\"\n"));
    running.signal(Signal::SIGHUP);
    running.wait_for_log("reload failed");
    assert_eq!(client.ask("x"), "two x");
    reloaded(0);
    let log = running.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
    assert_eq!(errors.len(), 1, "one line: {errors:?}");
    assert!(
        errors[0].contains("echod.toml:6: error: answer.delay") && errors[0].contains("and 1 more"),
        "{}",
        errors[0]
    );

    place.write("echod.toml", &settings("no reload", ""));
    running.signal(Signal::SIGHUP);
    running.wait_for_log("asked not to reload");
    assert_eq!(client.ask("x"), "two x");

    place.write("echod.toml", &settings("four ", ""));
    running.signal(Signal::SIGHUP);
    crate::harness::wait_until("new prefix", || running.client().ask("x") == "four x", || running.log());
    reloaded(1);
}

#[test]
fn log_level_and_list_of_clients_follow_a_reload() {
    let place = Place::new(&settings("", ""));
    let running = place.start();
    assert_eq!(running.client().ask("said loudly"), "said loudly");
    running.wait_for_log("said loudly");
    place.write("echod.toml", &settings("", "[log]\nlevel = \"error\"\n"));
    running.signal(Signal::SIGHUP);
    // The reload is not announced at this level: wait for the counter of settings instead.
    let metrics = running.addresses("metrics")[0].clone();
    crate::harness::wait_until(
        "generation 2",
        || get(&metrics, "/metrics", "").1.contains("outrider_echod_config_generation 2\n"),
        || running.log(),
    );
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(running.client().ask("said softly"), "said softly");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!running.log().contains("said softly"), "{}", running.log());
}

#[test]
fn sigusr1_opens_the_log_again_and_sigusr2_writes_the_state() {
    let place = Place::new("");
    let log = place.path("echod.log");
    place.write(
        "echod.toml",
        &settings("", &format!("[log]\ntarget = \"file\"\npath = \"{}\"\n", log.display())),
    );
    let running = place.start();
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let wait = |text: &str| {
        crate::harness::wait_until(text, || read(&log).contains(text), || read(&log));
    };
    wait("event=started");
    let rotated = place.path("echod.log.1");
    std::fs::rename(&log, &rotated).unwrap();
    running.signal(Signal::SIGUSR1);
    wait("event=\"log reopened\"");
    assert!(!read(&log).contains("event=started"));

    let _client = running.client().ask("x");
    running.signal(Signal::SIGUSR2);
    wait("event=dependency reason=\"\" name=voice up=true");
    wait("name=outrider_echod_panics_total value=0");
    assert!(read(&log).contains("event=state connections="));
    assert_eq!(running.log(), "", "nothing goes to standard error");
}
