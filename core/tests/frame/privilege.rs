//! Started by root, the daemon ends up as somebody else.

use crate::harness::Place;

#[test]
fn root_is_given_up_for_good() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let place = Place::new("");
    let secret = place.write("secret", "hush\n");
    place.write(
        "echod.toml",
        &format!(
            "listen = [\"127.0.0.1:0\"]\npassword_file = \"{}\"\n[process]\nuser = \"nobody\"\n",
            secret.display()
        ),
    );
    let running = place.start();
    assert_eq!(running.client().ask("x"), "x");
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![nobody.gid.to_string(); 4]);
    assert_eq!(field("Groups:"), [nobody.gid.to_string()]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    for thread in std::fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", nobody.uid)), "every thread: {status}");
    }
    use std::os::unix::fs::MetadataExt;
    let state = std::fs::metadata(place.path("state")).unwrap();
    assert_eq!((state.uid(), state.mode() & 0o777), (nobody.uid.as_raw(), 0o700), "its folder is its own");
}

#[test]
fn account_that_does_not_exist_is_a_wrong_setting() {
    let place = Place::new("listen = [\"127.0.0.1:0\"]\n[process]\nuser = \"no-such-user-here\"\n");
    let (status, _, stderr) = place.output(&[]);
    assert!(status == 78 && stderr.contains("no-such-user-here"), "{status} {stderr}");
}
