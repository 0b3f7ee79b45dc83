//! What the policy and quota services refuse, as a client of Postfix sees it.

use std::fs;

use anyhow::Result;
use nix::sys::signal::Signal;
use outrider_tests::message::Message;
use outrider_tests::port::Port;
use outrider_tests::process::Start;
use outrider_tests::site::{ALIAS_DOMAIN, ANNA, BOB, CARLA, FULL, Plan, Site};
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

/// The spam trap of the packaged example.
const TRAP: &str = "trap@example.com";

crate::on_both_servers!(
    unknown_triplet_is_greylisted_and_passes_later,
    forged_sender_is_refused,
    a_policy_server_of_ones_own_is_asked,
    sender_beyond_the_limit_is_refused,
    full_mailbox_is_refused_at_rcpt,
    deliveries_fill_a_mailbox_until_rcpt_refuses,
    true_size_and_alias_of_a_full_mailbox_are_refused,
);

fn unknown_triplet_is_greylisted_and_passes_later(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).policyd())?;
    site.store.execute(
        "iredapd",
        "DELETE FROM greylisting; \
         INSERT INTO greylisting (account, priority, sender, sender_priority, active) VALUES ('@.', 0, '@.', 0, 1)",
    )?;
    let text = Message::new(BOB, ANNA, "grey").bytes();
    for attempt in ["first contact", "too early"] {
        let outcome = site.from_outside()?.send(BOB, "", &[ANNA], &text)?;
        let reply = outcome.decisive();
        assert_eq!(reply.code, 451, "{attempt}: {outcome:?}");
        assert!(reply.text.starts_with("4.7.1 "), "{attempt}: {reply}");
    }
    // The block has its end in the table; moving that is what waiting would do.
    let rows = site.store.query(
        "iredapd",
        "SELECT blocked_count, passed FROM greylisting_tracking WHERE sender = 'bob@world.example'",
    )?;
    assert_eq!(rows.len(), 1, "{rows:?}");
    site.store.execute(
        "iredapd",
        "UPDATE greylisting_tracking SET block_expired = init_time - 1, init_time = init_time - 10",
    )?;
    let outcome = site.from_outside()?.send(BOB, "", &[ANNA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    site.dovecot.wait_for_message(ANNA, "<grey@");
    // Users who have logged in are never greylisted.
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "own").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    Ok(())
}

fn forged_sender_is_refused(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).policyd())?;
    let outcome = site.from_outside()?.send(
        "u1@local.example",
        "",
        &[ANNA],
        &Message::new("u1@local.example", ANNA, "forged").bytes(),
    )?;
    let reply = outcome.decisive();
    assert_eq!(reply.code, 554, "{outcome:?}");
    assert!(reply.text.contains("SMTP AUTH is required for users under this sender domain"), "{reply}");
    // Nor may one user write as another.
    let outcome = site.submission(ANNA)?.send(
        "u1@local.example",
        "",
        &[CARLA],
        &Message::new("u1@local.example", CARLA, "other").bytes(),
    )?;
    assert!(
        outcome.decisive().text.contains("Sender is not same as SMTP authenticate username"),
        "{outcome:?}"
    );
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "own").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    Ok(())
}

/// The packaged example of a ported plugin, behind policyd, behind Postfix.
fn a_policy_server_of_ones_own_is_asked(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).policyd())?;
    let port = Port::reserve()?;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/policy_server.py");
    let _own = Start::new("policy_server.py", "python3", site.folder.path().join("python.log"))
        .args([program.to_owned(), port.number().to_string()])
        .spawn()?;
    let send = || site.submission(ANNA)?.send(ANNA, "", &[TRAP], &Message::new(ANNA, TRAP, "trap").bytes());
    let outcome = send()?;
    assert!(outcome.accepted(), "{outcome:?}");
    let policyd = site.policyd.as_ref().expect("in the plan");
    let step = format!("[forward.custom]\naddress = '{}'\n", port.address());
    let fragments = site.folder.path().join("policyd.d");
    fs::create_dir(&fragments)?;
    fs::write(fragments.join("custom.toml"), step)?;
    policyd.signal(Signal::SIGHUP)?;
    wait_for("the step", || {
        let outcome = send().expect("a conversation");
        outcome.decisive().text.contains("Blacklisted").then_some(())
    });
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "own").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    Ok(())
}

fn sender_beyond_the_limit_is_refused(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).policyd())?;
    site.store.execute(
        "iredapd",
        "INSERT INTO throttle (account, kind, priority, period, max_msgs) VALUES ('anna@local.example', 'outbound', 100, 3600, 2)",
    )?;
    let mut client = site.submission(ANNA)?;
    for number in 1..=2 {
        let outcome = client.send(
            ANNA,
            "",
            &[CARLA],
            &Message::new(ANNA, CARLA, &format!("limit-{number}")).bytes(),
        )?;
        assert!(outcome.accepted(), "message {number}: {outcome:?}");
    }
    let outcome = client.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "limit-3").bytes())?;
    assert!(outcome.decisive().is_permanent(), "{outcome:?}");
    assert!(outcome.decisive().text.contains("Throttling quota exceeded"), "{outcome:?}");
    // Another user is not concerned.
    let outcome = site.submission("u1@local.example")?.send(
        "u1@local.example",
        "",
        &[CARLA],
        &Message::new("u1@local.example", CARLA, "limit-4").bytes(),
    )?;
    assert!(outcome.accepted(), "{outcome:?}");
    site.postfix.wait_until_empty();
    let sent = site.world.received().len();
    assert_eq!(sent, 3, "two messages of the limited user and one of the other");
    Ok(())
}

fn full_mailbox_is_refused_at_rcpt(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).quota())?;
    let text = Message::new(BOB, FULL, "full").bytes();
    let outcome = site.from_outside()?.send(BOB, "", &[FULL, ANNA], &text)?;
    assert_eq!(outcome.recipients[0].code, 552, "{outcome:?}");
    assert!(
        outcome.recipients[0].text.contains("5.2.2")
            && outcome.recipients[0].text.contains("Mailbox is full"),
        "{outcome:?}"
    );
    assert!(outcome.recipients[1].is_positive(), "{outcome:?}");
    // A message that is announced as larger than what is left.
    let outcome = site.from_outside()?.send(BOB, " SIZE=14000000", &["u1@local.example"], &text)?;
    assert!(outcome.accepted(), "no limit, no refusal: {outcome:?}");
    site.store.execute("vmail", "UPDATE mailbox SET quota = 10 WHERE username = 'u1@local.example'")?;
    let outcome = site.from_outside()?.send(BOB, " SIZE=14000000", &["u1@local.example"], &text)?;
    assert_eq!(outcome.decisive().code, 552, "{outcome:?}");
    Ok(())
}

/// `size` bytes, roughly.
fn large(to: &str, tag: &str, size: usize) -> Vec<u8> {
    let line = "A line of the large message, which is there to take room in a mailbox.\r\n";
    Message::new(BOB, to, tag).body(line.repeat(size / line.len())).bytes()
}

/// Nobody but Dovecot writes `used_quota` here.
fn deliveries_fill_a_mailbox_until_rcpt_refuses(server: Server) -> Result<()> {
    const USER: &str = "u2@local.example";
    let site = Site::start(&Plan::plain(server).quota())?;
    site.store.execute("vmail", &format!("UPDATE mailbox SET quota = 1 WHERE username = '{USER}'"))?;
    let outcome = site.from_outside()?.send(BOB, "", &[USER], &large(USER, "filling", 1_080_000))?;
    assert!(outcome.accepted(), "{outcome:?}");
    site.dovecot.wait_for_message(USER, "<filling@");
    let used = || -> Option<i64> {
        let sql = format!("SELECT bytes FROM used_quota WHERE username = '{USER}'");
        site.store.query("vmail", &sql).ok()?.first()?.trim().parse().ok()
    };
    wait_for("Dovecot to write what is used", || used().filter(|bytes| *bytes > 1 << 20));
    let small = Message::new(BOB, USER, "small").bytes();
    let outcome = site.from_outside()?.send(BOB, "", &[USER], &small)?;
    assert_eq!(outcome.recipients[0].code, 552, "{outcome:?}");
    assert!(outcome.recipients[0].text.contains("5.2.2"), "{outcome:?}");
    site.dovecot.expunge(USER)?;
    wait_for("Dovecot to write that the room is free", || used().filter(|bytes| *bytes < 1 << 20));
    let outcome = site.from_outside()?.send(BOB, "", &[USER], &small)?;
    assert!(outcome.accepted(), "{outcome:?}");
    site.dovecot.wait_for_message(USER, "<small@");
    Ok(())
}

fn true_size_and_alias_of_a_full_mailbox_are_refused(server: Server) -> Result<()> {
    const USER: &str = "u3@local.example";
    let site = Site::start(&Plan::plain(server).quota_with_extras())?;
    site.store.execute("vmail", &format!("UPDATE mailbox SET quota = 1 WHERE username = '{USER}'"))?;
    // A client that says nothing about the size passes at RCPT, and not when the message is there.
    let text = large(USER, "larger", 1_300_000);
    let outcome = site.from_outside()?.send(BOB, "", &[USER], &text)?;
    assert!(outcome.recipients[0].is_positive(), "{outcome:?}");
    assert_eq!(outcome.decisive().code, 552, "{outcome:?}");
    // For several recipients Postfix names none then.
    let outcome = site.from_outside()?.send(BOB, "", &[USER, ANNA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let outcome = site.from_outside()?.send(BOB, "", &[USER], &Message::new(BOB, USER, "fits").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    // The full mailbox under the other name of its domain.
    let alias = format!("full@{ALIAS_DOMAIN}");
    let outcome =
        site.from_outside()?.send(BOB, "", &[&alias], &Message::new(BOB, &alias, "alias").bytes())?;
    assert_eq!(outcome.decisive().code, 552, "{outcome:?}");
    assert!(!outcome.recipients[0].is_positive(), "{outcome:?}");
    Ok(())
}
