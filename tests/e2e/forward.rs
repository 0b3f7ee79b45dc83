//! Forwarding through SRS, and the bounce that finds its way back.

use anyhow::{Context, Result};
use outrider_tests::message::{self, Message};
use outrider_tests::postfix::SrsProtocol;
use outrider_tests::sink::Mood;
use outrider_tests::site::{ANNA, AWAY, BOB, CARLA, HOST, Plan, Site};
use outrider_tests::store::Server;

crate::on_both_servers!(
    srs_by_tcp_table,
    srs_by_socketmap,
    postfix_bounces_a_refused_forward,
    only_what_leaves_is_rewritten,
);

fn srs_by_tcp_table(server: Server) -> Result<()> {
    there_and_back(server, SrsProtocol::TcpTable)
}

fn srs_by_socketmap(server: Server) -> Result<()> {
    there_and_back(server, SrsProtocol::Socketmap)
}

fn there_and_back(server: Server, protocol: SrsProtocol) -> Result<()> {
    let site = Site::start(&Plan::plain(server).srs(protocol))?;
    let mut outside = site.from_outside()?;
    let outcome = outside.send(BOB, "", &[AWAY], &Message::new(BOB, AWAY, "there").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    let forwarded = site.world.wait_for_text("<there@");
    assert_eq!(forwarded.recipients, [CARLA]);
    let rewritten = forwarded.sender;
    assert!(
        rewritten.starts_with("SRS0=") && rewritten.ends_with(&format!("=world.example=bob@{HOST}")),
        "{rewritten}"
    );
    assert_eq!(
        message::fields(&forwarded.message, "From"),
        [format!("<{BOB}>")],
        "only the envelope is rewritten"
    );

    // Carla's server sends a report to the rewritten address.
    let report = Message::new("mailer-daemon@far.example", &rewritten, "back").bytes();
    let outcome = outside.send("", "", &[&rewritten], &report)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let returned = site.world.wait_for_text("<back@");
    assert_eq!((returned.sender.as_str(), returned.recipients.as_slice()), ("", &[BOB.to_owned()][..]));
    assert!(
        message::fields(&returned.message, "To")[0].contains(BOB),
        "the header shows whom the report is for"
    );

    // A forged address is an unknown recipient, not an open relay.
    let forged = rewritten.replacen("SRS0=", "SRS0=x", 1);
    let outcome = outside.send("", "", &[&forged], &report)?;
    assert!(outcome.decisive().is_permanent(), "{outcome:?}");

    // A local sender keeps its address, with delivery and in the outside world.
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "own").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    assert_eq!(site.world.wait_for_text("<own@").sender, ANNA);
    Ok(())
}

/// The next hop refuses the forwarded message: Postfix itself writes the bounce, which must go to the original sender.
fn postfix_bounces_a_refused_forward(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server))?;
    site.world.set_mood(Mood::AnswerRecipient {
        containing: "far.example".into(),
        reply: "550 5.1.1 no such user".into(),
    });
    let outcome = site.from_outside()?.send(BOB, "", &[AWAY], &Message::new(BOB, AWAY, "refused").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    let bounce = site.world.wait_for_text("<refused@");
    assert_eq!((bounce.sender.as_str(), bounce.recipients.as_slice()), ("", &[BOB.to_owned()][..]));
    let text = String::from_utf8_lossy(&bounce.message).into_owned();
    assert!(text.contains("550 5.1.1 no such user"), "{text}");
    let queue = site.postfix.queue().context("reading the queue")?;
    assert!(queue.len() <= 1, "nothing else is under way: {queue:?}");
    Ok(())
}

/// One message to a mailbox here and to an alias that leads elsewhere: only the copy that leaves has an SRS sender, and
/// the bounce of that copy finds the way back.
fn only_what_leaves_is_rewritten(server: Server) -> Result<()> {
    let site = Site::start(&Plan::plain(server).selective_srs())?;
    let mut outside = site.from_outside()?;
    let outcome = outside.send(BOB, "", &[ANNA, AWAY], &Message::new(BOB, ANNA, "both").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    let forwarded = site.world.wait_for_text("<both@");
    assert_eq!(forwarded.recipients, [CARLA]);
    let rewritten = forwarded.sender;
    assert!(
        rewritten.starts_with("SRS0=") && rewritten.ends_with(&format!("=world.example=bob@{HOST}")),
        "{rewritten}"
    );
    let kept = site.dovecot.wait_for_message(ANNA, "<both@");
    assert_eq!(message::fields(&kept, "Return-Path"), [format!("<{BOB}>")], "delivered here as it came");

    let report = Message::new("mailer-daemon@far.example", &rewritten, "back").bytes();
    let outcome = outside.send("", "", &[&rewritten], &report)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let returned = site.world.wait_for_text("<back@");
    assert_eq!((returned.sender.as_str(), returned.recipients.as_slice()), ("", &[BOB.to_owned()][..]));

    // Mail for a mailbox alone, and mail of our own users, stays as it is.
    let outcome =
        site.submission(ANNA)?.send(ANNA, "", &[CARLA], &Message::new(ANNA, CARLA, "own").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    assert_eq!(site.world.wait_for_text("<own@").sender, ANNA);

    // Where the next hop refuses the copy, Postfix' own bounce goes to the true sender.
    site.world.set_mood(Mood::AnswerRecipient {
        containing: "far.example".into(),
        reply: "550 5.1.1 no such user".into(),
    });
    let outcome = outside.send(BOB, "", &[ANNA, AWAY], &Message::new(BOB, ANNA, "refused").bytes())?;
    assert!(outcome.accepted(), "{outcome:?}");
    let bounce = site.world.wait_for_text("<refused@");
    assert_eq!((bounce.sender.as_str(), bounce.recipients.as_slice()), ("", &[BOB.to_owned()][..]));
    Ok(())
}
