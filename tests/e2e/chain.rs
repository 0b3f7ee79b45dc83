//! Delivery in and out: what arrives is what was sent.

use anyhow::{Context, Result};
use outrider_tests::message::{self, Message, body_hash, difficult_text};
use outrider_tests::site::{ANNA, BOB, CARLA, Plan, Site};
use outrider_tests::store::Server;

crate::on_both_servers!(
    plain_servers_deliver,
    mail_from_outside_reaches_the_mailbox,
    mail_of_a_user_leaves_signed,
    large_eight_bit_body_is_not_changed,
    null_sender_and_alias_domain_are_delivered,
    signature_of_a_sender_is_verified,
);

/// The surroundings by themselves, so that a failure elsewhere is not theirs.
fn plain_servers_deliver(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server))?;
    let text = Message::new(BOB, ANNA, "plain-in").body(difficult_text(50_000)).bytes();
    let outcome = site.from_outside()?.send(BOB, " BODY=8BITMIME", &[ANNA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    assert_eq!(body_hash(&site.dovecot.wait_for_message(ANNA, "<plain-in@")), body_hash(&text));
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "plain-out").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    assert_eq!(site.world.wait_for_text("<plain-out@").recipients, [CARLA]);
    site.postfix.wait_until_empty();
    Ok(())
}

fn mail_from_outside_reaches_the_mailbox(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server))?;
    let text = Message::new(BOB, ANNA, "in").bytes();
    let outcome = site.from_outside()?.send(BOB, "", &[ANNA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let stored = site.dovecot.wait_for_message(ANNA, "<in@");
    assert_eq!(body_hash(&stored), body_hash(&text));
    // It went through the filter: smtp-amavis had it, and it came back by the re-injection listener with the true client's address.
    let relayed = site.postfix.logged("postfix/amavis/smtp");
    assert!(
        relayed.iter().any(|line| line.contains("status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:")),
        "{relayed:?}"
    );
    let returned = site.postfix.logged("postfix/10025/smtpd");
    assert!(!returned.is_empty(), "nothing came back on the re-injection listener");
    let filter = site.contentfilter.as_ref().context("no filter")?.log();
    assert!(filter.contains("198.51.100.7"), "XFORWARD did not reach the filter:\n{filter}");
    site.postfix.wait_until_empty();
    Ok(())
}

fn mail_of_a_user_leaves_signed(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server))?;
    let text = Message::new(ANNA, CARLA, "out").body(difficult_text(20_000)).bytes();
    let outcome = site.submission(ANNA)?.send(ANNA, " BODY=8BITMIME", &[CARLA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let received = site.world.wait_for_text("<out@");
    assert_eq!((received.sender.as_str(), received.recipients.as_slice()), (ANNA, &[CARLA.to_owned()][..]));
    assert_eq!(body_hash(&received.message), body_hash(&text));
    let tags = site.key.verify(&received.message)?;
    assert!(
        tags.contains(&("d".into(), "local.example".into())) && tags.contains(&("s".into(), "dkim".into())),
        "{tags:?}"
    );
    Ok(())
}

fn large_eight_bit_body_is_not_changed(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server))?;
    let text = Message::new(BOB, ANNA, "large")
        .field("Content-Transfer-Encoding", "8bit")
        .body(difficult_text(5_000_000))
        .bytes();
    let outcome =
        site.from_outside()?.send(BOB, &format!(" BODY=8BITMIME SIZE={}", text.len()), &[ANNA], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let stored = site.dovecot.wait_for_message(ANNA, "<large@");
    assert_eq!(body_hash(&stored), body_hash(&text));
    Ok(())
}

fn null_sender_and_alias_domain_are_delivered(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server))?;
    let mut outside = site.from_outside()?;
    let report = Message::new("mailer-daemon@world.example", ANNA, "report").bytes();
    let outcome = outside.send("", "", &[ANNA], &report)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let stored = site.dovecot.wait_for_message(ANNA, "<report@");
    assert_eq!(message::fields(&stored, "Return-Path"), ["<>"]);

    let outcome = outside.send(
        BOB,
        "",
        &["anna@alias.example"],
        &Message::new(BOB, "anna@alias.example", "alias").bytes(),
    )?;
    assert!(outcome.accepted(), "{outcome:?}");
    site.dovecot.wait_for_message(ANNA, "<alias@");
    // The same local part must exist under the target domain.
    let outcome = outside.send(BOB, "", &["nobody@alias.example"], &report)?;
    assert_eq!(outcome.decisive().code, 550, "{outcome:?}");
    Ok(())
}

/// Our own signed mail comes back from outside: the filter verifies it against DNS.
fn signature_of_a_sender_is_verified(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).filter())?;
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "signed").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    let signed = site.world.wait_for_text("<signed@").message;
    for (tag, message) in
        [("pass", signed.clone()), ("fail", replaced(&signed, b"This is message", b"That is message"))]
    {
        let outcome = site.from_outside()?.send(CARLA, "", &[ANNA], &message)?;
        assert!(outcome.accepted(), "{outcome:?}");
        let stored = site
            .dovecot
            .wait_for_message(ANNA, if tag == "pass" { "This is message" } else { "That is message" });
        let results = message::fields(&stored, "Authentication-Results");
        assert!(
            results
                .iter()
                .any(|result| result.contains(&format!("dkim={tag}"))
                    && result.contains("header.d=local.example")),
            "{results:?}"
        );
    }
    Ok(())
}

fn replaced(message: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match message.windows(from.len()).position(|window| window == from) {
        Some(at) => [&message[..at], to, &message[at + from.len()..]].concat(),
        None => message.to_vec(),
    }
}
