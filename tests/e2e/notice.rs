//! The notice about an exceeded limit through Postfix' submission service: STARTTLS, login by Dovecot, into a mailbox.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use outrider_tests::account::PASSWORD;
use outrider_tests::folder::Folder;
use outrider_tests::policy_client::PolicyClient;
use outrider_tests::process::run;
use outrider_tests::settings::{self, Caching};
use outrider_tests::site::{ANNA, Plan, Site};
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

crate::on_both_servers!(
    arrives_by_submission,
    a_refused_login_blocks_nobody,
    a_certificate_must_be_of_the_authority_that_is_trusted,
);

/// The login that notices are sent with.
const SENDER: &str = "u9@local.example";
const PASSED: &str = "DUNNO";
const REFUSED: &str = "REJECT Throttling quota exceeded";

/// Certificates for `localhost`, which is what iRedMail's installer makes: signed with their own key.
struct Certificate {
    folder: Folder,
}

impl Certificate {
    fn new() -> Result<Self> {
        let folder = Folder::new("cert")?;
        let certificate = Self { folder };
        let (file, key) = (certificate.file(), certificate.key());
        let (file, key) = (file.display().to_string(), key.display().to_string());
        let kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
        let name =
            ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
        run("openssl", &[&kind[..], &name, &["-keyout", &key, "-out", &file]].concat())?;
        Ok(certificate)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }
}

/// A server whose submission service takes logins behind TLS only, and `u0` to `u8` with a limit of one message.
fn site(server: Server, certificate: &Certificate) -> Result<Site> {
    let plan = Plan::plain(server)
        .policyd()
        .parameter("smtpd_tls_security_level", "may")
        .parameter("smtpd_tls_auth_only", "yes")
        .parameter("smtpd_tls_cert_file", certificate.file().display().to_string())
        .parameter("smtpd_tls_key_file", certificate.key().display().to_string());
    let site = Site::start(&plan)?;
    for number in 0..9 {
        site.store.execute(
            "iredapd",
            &format!(
                "INSERT INTO throttle (account, kind, priority, period, max_msgs) \
                 VALUES ('u{number}@local.example', 'outbound', 100, 3600, 1)"
            ),
        )?;
    }
    Ok(site)
}

/// Gives policyd a section `[notification]` with these lines beside the usual ones.
fn notify(site: &mut Site, lines: &str) -> Result<()> {
    let (sql, dns) = (site.store.access(), site.dns.address());
    let port = site.postfix.submission().port();
    let daemon = site.daemon("policyd")?;
    let text = settings::policyd(daemon.address("policy")?, &sql, dns, Caching::Off);
    daemon.write_settings(&format!(
        "{text}[notification]\nsendmail = \"/bin/false\"\nsender = \"{SENDER}\"\nsmtp_port = {port}\n{lines}\n"
    ))?;
    let before = daemon.log().matches("settings reloaded").count();
    daemon.signal(Signal::SIGHUP)?;
    wait_for("the new settings", || {
        (daemon.log().matches("settings reloaded").count() > before).then_some(())
    });
    Ok(())
}

/// Lets a user exceed the limit.
fn exceed(site: &mut Site, user: &str) -> Result<()> {
    let mut client = PolicyClient::connect(site.daemon("policyd")?.address("policy")?)?;
    let message = [
        ("protocol_state", "END-OF-MESSAGE"),
        ("client_address", "198.51.100.7"),
        ("sender", user),
        ("recipient", "carla@far.example"),
        ("sasl_username", user),
        ("recipient_count", "1"),
        ("size", "1000"),
    ];
    for expected in [PASSED, REFUSED] {
        let answer = client.ask(&message)?;
        ensure!(answer == expected, "{user}: {answer}");
    }
    Ok(())
}

/// Waits for a warning of policyd with both texts, and returns it.
fn warning(site: &mut Site, text: &str, other: &str) -> Result<String> {
    let daemon = site.daemon("policyd")?;
    Ok(wait_for(format_args!("a line about {text} and {other}"), || {
        daemon.log().lines().find(|line| line.contains(text) && line.contains(other)).map(str::to_owned)
    }))
}

fn arrives_by_submission(server: Server) -> Result<()> {
    let certificate = Certificate::new()?;
    let mut site = site(server, &certificate)?;
    // Nobody has told us about this certificate, but the server is this machine.
    notify(
        &mut site,
        &format!("recipients = [\"nobody@local.example\", \"{ANNA}\"]\nsmtp_password = \"{PASSWORD}\""),
    )?;
    exceed(&mut site, "u0@local.example")?;
    let mail = site.dovecot.wait_for_message(ANNA, "Throttle quota exceeded: u0@local.example, max_msgs=1");
    let mail = String::from_utf8(mail).context("text")?;
    // Encrypted and logged in, as Postfix saw it (RFC 3848).
    ensure!(mail.contains(" with ESMTPSA "), "{mail}");
    ensure!(mail.contains(&format!("Return-Path: <{SENDER}>")), "{mail}");
    ensure!(mail.contains(&format!("\nFrom: No Reply <{SENDER}>")), "{mail}");
    ensure!(mail.contains("\nDate: ") && mail.contains("\nMessage-ID: <"), "{mail}");
    ensure!(
        mail.contains("- User: u0@local.example") && mail.contains("- Throttle type: outbound"),
        "{mail}"
    );
    ensure!(!site.postfix.logged(&format!("sasl_username={SENDER}")).is_empty(), "{}", site.postfix.log());
    // One who is not there does not keep it from the others.
    let line = warning(&mut site, "a recipient of throttle notices is refused", "nobody@local.example")?;
    ensure!(line.contains("550"), "{line}");
    ensure!(!site.daemon("policyd")?.log().contains(PASSWORD), "the password is in the log");
    Ok(())
}

fn a_refused_login_blocks_nobody(server: Server) -> Result<()> {
    let certificate = Certificate::new()?;
    let mut site = site(server, &certificate)?;
    notify(&mut site, &format!("recipients = [\"{ANNA}\"]\nsmtp_password = \"Kanarienvogel\""))?;
    exceed(&mut site, "u0@local.example")?;
    let line = warning(&mut site, "cannot send a throttle notice", "login at localhost")?;
    ensure!(line.contains("535"), "{line}");
    exceed(&mut site, "u1@local.example")?;
    let log = site.daemon("policyd")?.log();
    // Neither as it is nor as AUTH sends it: the login's length lets its base64 begin anew.
    ensure!(!log.contains("Kanarienvogel") && !log.contains("S2FuYXJpZW52b2dlbA"), "{log}");
    notify(&mut site, &format!("recipients = [\"{ANNA}\"]\nsmtp_password = \"{PASSWORD}\""))?;
    exceed(&mut site, "u2@local.example")?;
    site.dovecot.wait_for_message(ANNA, "Throttle quota exceeded: u2@local.example");
    ensure!(site.dovecot.messages(ANNA).len() == 1, "notices that were refused came all the same");
    Ok(())
}

fn a_certificate_must_be_of_the_authority_that_is_trusted(server: Server) -> Result<()> {
    let (certificate, other) = (Certificate::new()?, Certificate::new()?);
    let mut site = site(server, &certificate)?;
    let trusting = |certificate: &Certificate, name: &str| {
        format!(
            "recipients = [\"{ANNA}\"]\nsmtp_password = \"{PASSWORD}\"\nsmtp_server = \"{name}\"\n\
             smtp_ca_file = \"{}\"",
            certificate.file().display()
        )
    };
    notify(&mut site, &trusting(&other, "localhost"))?;
    exceed(&mut site, "u0@local.example")?;
    let line = warning(&mut site, "cannot send a throttle notice", "STARTTLS at localhost")?;
    ensure!(line.contains("certificate"), "{line}");
    notify(&mut site, &trusting(&certificate, "127.0.0.1"))?;
    exceed(&mut site, "u1@local.example")?;
    let line = warning(&mut site, "cannot send a throttle notice", "STARTTLS at 127.0.0.1")?;
    ensure!(line.contains("certificate"), "{line}");
    ensure!(site.postfix.logged("sasl_username=").is_empty(), "there was a login");
    notify(&mut site, &trusting(&certificate, "localhost"))?;
    exceed(&mut site, "u2@local.example")?;
    site.dovecot.wait_for_message(ANNA, "Throttle quota exceeded: u2@local.example");
    ensure!(site.dovecot.messages(ANNA).len() == 1, "notices that were refused came all the same");
    Ok(())
}
