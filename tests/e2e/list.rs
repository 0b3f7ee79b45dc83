//! A post to an mlmmj list: through Postfix to mlmmj, from there through the filter's list port back to Postfix, and out to the subscribers.

use anyhow::{Context, Result};
use outrider_tests::message::{Message, fields, split};
use outrider_tests::site::{CARLA, Plan, Site, TEAM};
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

crate::on_both_servers!(plain_list_reaches_its_subscribers, post_is_signed_and_reaches_all_subscribers);

fn plain_list_reaches_its_subscribers(server: Server) -> Result<()> {
    post(&Site::start(&Plan::plain(server).list())?, "plain-post").map(drop)
}

fn post_is_signed_and_reaches_all_subscribers(server: Server) -> Result<()> {
    let site = Site::start(&Plan::full(server).list())?;
    let copy = post(&site, "post")?;
    let tags = site.key.verify(&copy)?;
    assert!(tags.contains(&("d".into(), "local.example".into())), "{tags:?}");
    let returned = site.postfix.logged("postfix/10028/smtpd");
    assert!(!returned.is_empty(), "nothing came back on the list listener");
    Ok(())
}

/// Posts as u0 and returns the copy that went outside.
fn post(site: &Site, tag: &str) -> Result<Vec<u8>> {
    let from = "u0@local.example";
    let text = Message::new(from, TEAM, tag).bytes();
    let outcome = site.submission(from)?.send(from, "", &[TEAM], &text)?;
    assert!(outcome.accepted(), "{outcome:?}");
    let mark = format!("<{tag}@");
    for subscriber in ["u0@local.example", "u1@local.example"] {
        let copy = site.dovecot.wait_for_message(subscriber, &mark);
        // mlmmj itself adds an empty line at the end.
        assert_eq!(split(&copy).1.trim_ascii_end(), split(&text).1.trim_ascii_end());
        assert_eq!(fields(&copy, "List-Id"), ["<team.local.example>"]);
    }
    let copy = site.world.wait_for_text(&mark);
    assert_eq!(copy.recipients, [CARLA]);
    assert!(copy.sender.starts_with("team+bounces-"), "{}", copy.sender);
    let lists = site.lists.as_ref().context("no lists")?;
    wait_for("the post in the archive", || (lists.archived(TEAM) == 1).then_some(()));
    Ok(copy.message)
}
