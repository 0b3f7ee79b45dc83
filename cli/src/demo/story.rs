//! The story, chapter by chapter.

use anyhow::{Context, Result};
use outrider_core::sql::{Stmt, Value};
use tokio::time::{Duration, timeout};

use super::client::{self, HttpAnswer};
use super::narrator::Narrator;
use super::next_hop::Delivered;
use super::world::{ADMIN, DOMAIN, PASSWORD, TOKEN, World};

/// Tells the whole story. An error means that it could not go on; broken promises are counted by the narrator.
pub(crate) async fn tell(world: &mut World, narrator: &mut Narrator) -> Result<()> {
    accounts(world, narrator).await?;
    greylisting(world, narrator).await?;
    forged_sender(world, narrator).await?;
    throttle(world, narrator).await?;
    sender_rewriting(world, narrator).await?;
    let signed = outgoing(world, narrator).await?;
    incoming(world, narrator, &signed).await?;
    quota(world, narrator).await?;
    mailing_list(world, narrator).await
}

async fn accounts(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("An administrator creates a domain and two accounts over HTTP (admin-api)");
    let api = world.address("admin-api", "accounts")?;
    narrator.sent(format_args!("POST /api/login username={ADMIN}"));
    let login = format!("username={ADMIN}&password={PASSWORD}");
    let answer = client::http(api, "POST", "/api/login", &[], &login).await?;
    narrator.received(&answer.body);
    let cookie = answer.cookies.join("; ");
    for (path, form) in [
        (format!("/api/domain/{DOMAIN}"), "name=Demonstration"),
        (format!("/api/user/alice@{DOMAIN}"), "name=Alice&password=Str0ng-enough&quota=1"),
        (format!("/api/user/bob@{DOMAIN}"), "name=Bob&password=Str0ng-enough&quota=0"),
    ] {
        narrator.sent(format_args!("POST {path}"));
        let answer = client::http(api, "POST", &path, &[("Cookie", &cookie)], form).await?;
        narrator.received(&answer.body);
        narrator.promise("it exists now", succeeded(&answer));
    }
    let path = format!("/api/user/alice@{DOMAIN}");
    narrator.sent(format_args!("GET {path}                      (without having logged in)"));
    let answer = client::http(api, "GET", &path, &[], "").await?;
    narrator.received(&answer.body);
    narrator.promise("every request is authenticated by itself", !succeeded(&answer));
    Ok(())
}

fn succeeded(answer: &HttpAnswer) -> bool {
    let parsed: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
    parsed.and_then(|value| value.get("_success")?.as_bool()).unwrap_or(false)
}

/// The attributes of an unauthenticated RCPT, as Postfix sends them.
fn at_rcpt<'a>(sender: &'a str, recipient: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("protocol_state", "RCPT"),
        ("protocol_name", "ESMTP"),
        ("client_address", "192.0.2.10"),
        ("client_name", "mail.sender.example"),
        ("reverse_client_name", "mail.sender.example"),
        ("helo_name", "mail.sender.example"),
        ("sender", sender),
        ("recipient", recipient),
        ("sasl_username", ""),
        ("size", "0"),
        ("recipient_count", "0"),
    ]
}

async fn ask(world: &World, narrator: &Narrator, attributes: &[(&str, &str)], shown: &str) -> Result<String> {
    narrator.sent(shown);
    let action = client::policy(world.address("policyd", "policy")?, attributes).await?;
    narrator.received(format_args!("action={action}"));
    Ok(action)
}

async fn greylisting(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("A sender nobody has seen before has to come back (policyd)");
    let recipient = format!("alice@{DOMAIN}");
    let attributes = at_rcpt("carol@sender.example", &recipient);
    let shown = format!("RCPT carol@sender.example -> {recipient} from 192.0.2.10");
    let first = ask(world, narrator, &attributes, &shown).await?;
    narrator.promise("the first attempt is put off with a temporary error", first.starts_with("451 4.7.1 "));
    narrator.remark("sixteen minutes later the same server tries again");
    world.clock.advance(16 * 60);
    let second = ask(world, narrator, &attributes, &shown).await?;
    narrator.promise("the second is let in", second == "DUNNO");
    let third = ask(
        world,
        narrator,
        &at_rcpt("dave@sender.example", &recipient),
        "RCPT dave@sender.example, same server",
    )
    .await?;
    narrator.promise("and so is everybody else behind that server", third == "DUNNO");
    Ok(())
}

async fn forged_sender(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("Somebody outside claims to be one of our users (policyd)");
    let (sender, recipient) = (format!("bob@{DOMAIN}"), format!("alice@{DOMAIN}"));
    let shown = format!("RCPT {sender} -> {recipient} from 192.0.2.10, not logged in");
    let action = ask(world, narrator, &at_rcpt(&sender, &recipient), &shown).await?;
    narrator.promise("the forged sender is refused", action.starts_with("REJECT "));
    let mut attributes = at_rcpt(&sender, "friend@elsewhere.example");
    attributes.retain(|(name, _)| *name != "sasl_username");
    attributes.push(("sasl_username", &sender));
    let action = ask(
        world,
        narrator,
        &attributes,
        &format!("RCPT {sender} -> friend@elsewhere.example, logged in as {sender}"),
    )
    .await?;
    narrator.promise("the real one may send", action == "DUNNO");
    Ok(())
}

async fn throttle(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("An account sends more than it may (policyd)");
    const LIMIT: Stmt = Stmt::same(
        "INSERT INTO throttle (account, kind, priority, period, max_msgs) VALUES (?, 'outbound', 100, 3600, 2)",
    );
    let sender = format!("bob@{DOMAIN}");
    world.databases.iredapd.execute(&LIMIT, &[Value::from(sender.as_str())]).await?;
    narrator.remark(format_args!("{sender} may send two messages an hour"));
    let mut attributes = at_rcpt(&sender, "friend@elsewhere.example");
    attributes
        .retain(|(name, _)| !["protocol_state", "sasl_username", "size", "recipient_count"].contains(name));
    attributes.extend([
        ("protocol_state", "END-OF-MESSAGE"),
        ("sasl_username", &*sender),
        ("size", "4096"),
        ("recipient_count", "1"),
    ]);
    let mut actions = Vec::new();
    for number in 1..=3 {
        actions.push(
            ask(
                world,
                narrator,
                &attributes,
                &format!("END-OF-MESSAGE number {number}, logged in as {sender}"),
            )
            .await?,
        );
    }
    narrator.promise("two messages pass", actions[0] == "DUNNO" && actions[1] == "DUNNO");
    narrator.promise("the third is refused", actions[2].starts_with("REJECT "));
    world.clock.advance(3601);
    let later = ask(world, narrator, &attributes, "END-OF-MESSAGE an hour later").await?;
    narrator.promise("an hour later it may send again", later == "DUNNO");
    Ok(())
}

async fn sender_rewriting(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("A forwarded message gets a sender of ours, and its bounce finds home (srsd)");
    let (forward, reverse) = (world.address("srsd", "forward")?, world.address("srsd", "reverse")?);
    let original = "carol@sender.example";
    narrator.sent(format_args!("get {original}                                (tcp_table)"));
    let reply = client::tcp_table(forward, original).await?;
    narrator.received(&reply);
    let rewritten = reply.strip_prefix("200 ").map(decode_percent).unwrap_or_default();
    narrator.promise(
        "the sender is rewritten",
        rewritten.starts_with("SRS0=") && rewritten.ends_with("@srs.demo.example"),
    );
    narrator.sent(format_args!("reverse {rewritten}      (socketmap, same port)"));
    let reply = client::socketmap(reverse, "reverse", &rewritten).await?;
    narrator.received(&reply);
    narrator.promise("the bounce goes to the real sender", reply == format!("OK {original}"));
    let tampered = rewritten.replace("carol", "mallory");
    narrator.sent(format_args!("reverse {tampered}"));
    let reply = client::socketmap(reverse, "reverse", &tampered).await?;
    narrator.received(&reply);
    narrator.promise("an address we did not make goes nowhere", reply.starts_with("NOTFOUND "));
    let local = format!("alice@{DOMAIN}");
    // The set of local domains is kept in memory and read again every second here.
    let mut reply = String::new();
    for _ in 0..50 {
        reply = client::tcp_table(forward, &local).await?;
        if reply.starts_with("500 ") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    narrator.sent(format_args!("get {local}"));
    narrator.received(&reply);
    narrator.promise("senders of our own domains stay as they are", reply.starts_with("500 "));
    Ok(())
}

/// Decodes the %XX of a tcp_table reply.
fn decode_percent(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digits = (byte == b'%').then(|| [bytes.next(), bytes.next()]);
        match digits {
            Some([Some(high), Some(low)]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
                out.push(digit(high) << 4 | digit(low));
            }
            Some(_) => break,
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn outgoing(world: &mut World, narrator: &mut Narrator) -> Result<String> {
    narrator.chapter("An outgoing message leaves with a DKIM signature (contentfilter)");
    let message = format!(
        "From: Bob <bob@{DOMAIN}>\r\nTo: friend@elsewhere.example\r\nSubject: Hello\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <demo-1@{DOMAIN}>\r\n\r\nA body with a dot on its own line:\r\n.\r\nand the end.\r\n"
    );
    let sender = format!("bob@{DOMAIN}");
    narrator.sent(format_args!("a message from {sender} to friend@elsewhere.example"));
    let reply = client::smtp(
        world.address("contentfilter", "originating")?,
        &sender,
        "friend@elsewhere.example",
        &message,
    )
    .await?;
    narrator.received(&reply);
    narrator.promise(
        "250 was said after the next hop's 250",
        reply.starts_with("250 2.0.0 from MTA(") && reply.contains("queued as DEMO"),
    );
    let delivered = next(world).await?;
    let field = field(&delivered.message, "DKIM-Signature");
    narrator.received(format_args!("at the next hop: {field}"));
    narrator.promise(
        "it is signed by our domain",
        field.contains(&format!("d={DOMAIN};")) && field.contains("s=demo;"),
    );
    let same = body(&delivered.message) == body(&message);
    narrator.promise("its body is the same, byte for byte", same);
    Ok(delivered.message)
}

async fn incoming(world: &mut World, narrator: &mut Narrator, signed: &str) -> Result<()> {
    narrator.chapter("Incoming messages are told apart: signed, and altered on the way (contentfilter)");
    let recipient = format!("alice@{DOMAIN}");
    let sender = format!("bob@{DOMAIN}");
    let altered = signed.replace("and the end.", "and the END.");
    for (what, message, wanted) in [
        ("the message of the last chapter comes back in", signed, "dkim=pass"),
        ("the same with one word changed", &*altered, "dkim=fail"),
    ] {
        narrator.sent(what);
        let reply =
            client::smtp(world.address("contentfilter", "inbound")?, &sender, &recipient, message).await?;
        narrator.received(&reply);
        let delivered = next(world).await?;
        narrator.remark(format_args!(
            "next hop got it from <{}> for <{}>",
            delivered.sender,
            delivered.recipients.join(">, <")
        ));
        let results = field(&delivered.message, "Authentication-Results");
        narrator.received(format_args!("at the next hop: {results}"));
        narrator.promise(&format!("the recipient reads {wanted}"), results.contains(wanted));
    }
    Ok(())
}

async fn next(world: &mut World) -> Result<Delivered> {
    let delivered = timeout(Duration::from_secs(20), world.delivered.recv())
        .await
        .context("the next hop got no message")?;
    delivered.context("the next hop has gone")
}

/// The first header field of this name, unfolded.
fn field(message: &str, name: &str) -> String {
    let header = message.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let found = unfolded
        .split("\r\n")
        .find(|line| line.split(':').next().is_some_and(|field| field.eq_ignore_ascii_case(name)));
    found.unwrap_or_default().to_owned()
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

async fn quota(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("A full mailbox is refused before the message is sent (quota-status)");
    const USED: Stmt = Stmt::same("INSERT INTO used_quota (username, bytes, messages) VALUES (?, ?, 1)");
    let address = world.address("quota-status", "quota")?;
    let recipient = format!("alice@{DOMAIN}");
    let attributes = [("protocol_state", "RCPT"), ("recipient", &*recipient), ("size", "50000")];
    narrator.sent(format_args!("RCPT {recipient}, 50000 bytes, an empty mailbox of 1 MB"));
    let before = client::policy(address, &attributes).await?;
    narrator.received(format_args!("action={before}"));
    narrator.promise("there is room", before == "DUNNO");
    world.databases.vmail.execute(&USED, &[Value::from(recipient.as_str()), Value::Int(1 << 20)]).await?;
    narrator.remark("the mailbox fills up");
    narrator.sent(format_args!("RCPT {recipient}, 50000 bytes"));
    let after = client::policy(address, &attributes).await?;
    narrator.received(format_args!("action={after}"));
    narrator.promise("now it is full", after.starts_with("552 5.2.2 "));
    Ok(())
}

async fn mailing_list(world: &World, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("A mailing list is made with one HTTP request (admin-api)");
    let api = world.address("admin-api", "lists")?;
    let path = format!("/api/news@{DOMAIN}");
    let token = [("X-MLMMJADMIN-API-AUTH-TOKEN", TOKEN)];
    narrator.sent(format_args!("POST {path}                             (without a token)"));
    let refused = client::http(api, "POST", &path, &[], "name=News").await?;
    narrator.received(&refused.body);
    narrator.promise("nobody gets in without a token", !succeeded(&refused));
    narrator.sent(format_args!("POST {path} name=News"));
    let created =
        client::http(api, "POST", &path, &token, &format!("name=News&owner=alice@{DOMAIN}")).await?;
    narrator.received(&created.body);
    narrator.promise("the list exists", succeeded(&created));
    let people = format!("{path}/subscribers");
    narrator.sent(format_args!("POST {people} add_subscribers=carol@sender.example"));
    let added = client::http(api, "POST", &people, &token, "add_subscribers=carol@sender.example").await?;
    narrator.received(&added.body);
    let spool = world.folder.path().join("mlmmj").join(DOMAIN).join("news");
    let subscribed = std::fs::read_to_string(spool.join("subscribers.d/c")).unwrap_or_default();
    narrator.received(format_args!("subscribers.d/c in mlmmj's spool: {subscribed}"));
    narrator.promise("its subscriber stands in mlmmj's own files", subscribed == "carol@sender.example\n");
    narrator.sent(format_args!("DELETE {path}"));
    let removed = client::http(api, "DELETE", &path, &token, "").await?;
    narrator.received(&removed.body);
    narrator.promise("and it can be removed again, archived", succeeded(&removed) && !spool.exists());
    Ok(())
}
