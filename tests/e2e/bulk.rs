//! 200 messages by 10 clients, every one accounted for, also while daemons are killed or the database goes away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outrider_tests::message::{Message, body_hash, difficult_text, fields};
use outrider_tests::site::{BOB, CARLA, DOMAIN, Plan, Site, USERS};
use outrider_tests::smtp_client::SmtpClient;
use outrider_tests::store::Server;
use outrider_tests::wait::wait_for;

crate::on_both_servers!(two_hundred_messages_all_arrive, killed_daemons_lose_nothing);

/// Clients, and messages of each.
pub(crate) const CLIENTS: usize = USERS;
const EACH: usize = 20;
/// Each client sends two of three messages from outside to a user, and every third as that user to the outside.
const OUTBOUND_EVERY: usize = 3;
/// A sender tries a message again for this long; real ones do so for days.
const TRYING: Duration = Duration::from_secs(300);

/// The messages under way and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accepted: AtomicUsize,
    /// tag -> hash of the body that was sent.
    sent: Mutex<BTreeMap<String, String>>,
    /// Replies other than 2xx, with how often they were seen.
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Ledger {
    /// How many messages clients have got a 250 for.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until this many are accepted.
    pub(crate) fn wait_for_accepted(&self, count: usize) {
        wait_for(format_args!("{count} accepted messages"), || (self.accepted() >= count).then_some(()));
    }
}

/// Runs the clients; `meanwhile` runs beside them. Afterwards every message must have arrived at least once, unchanged; returns how many arrived twice.
pub(crate) fn send_all(
    site: &mut Site,
    meanwhile: impl FnOnce(&mut Site, &Ledger) -> Result<()>,
) -> Result<usize> {
    let ledger = Ledger::default();
    let (mx, submission) = (site.postfix.mx(), site.postfix.submission());
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let ledger = &ledger;
                scope.spawn(move || -> Result<()> {
                    for number in 0..EACH {
                        let outbound = number % OUTBOUND_EVERY == 0;
                        let user = format!("u{client}@{DOMAIN}");
                        let (from, to) = if outbound { (user.as_str(), CARLA) } else { (BOB, user.as_str()) };
                        let tag = format!("bulk-{client:02}-{number:02}");
                        let text =
                            Message::new(from, to, &tag).body(difficult_text(1_000 + 700 * number)).bytes();
                        ledger
                            .sent
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(tag.clone(), body_hash(&text));
                        let connect = || -> Result<SmtpClient> {
                            if outbound {
                                let mut session = SmtpClient::connect(submission)?;
                                let reply = session.login(&user, outrider_tests::account::PASSWORD)?;
                                ensure!(reply.code == 235, "login: {reply}");
                                Ok(session)
                            } else {
                                SmtpClient::connect_from(mx, "198.51.100.7", "mx.world.example")
                            }
                        };
                        send_until_accepted(ledger, &tag, connect, (from, to), &text)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let beside = meanwhile(site, &ledger);
        for client in clients {
            match client.join() {
                Ok(result) => result?,
                Err(_) => bail!("a client panicked"),
            }
        }
        beside
    })?;
    site.postfix.flush()?;
    let refusals = ledger.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (reply, count) in &refusals {
        println!("{count} x {reply}");
    }
    let sent = ledger.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
    account_for(site, &sent)
}

/// As a real sender: tries again after every temporary refusal and broken connection, gives up on a permanent one.
fn send_until_accepted(
    ledger: &Ledger,
    tag: &str,
    connect: impl Fn() -> Result<SmtpClient>,
    (from, to): (&str, &str),
    text: &[u8],
) -> Result<()> {
    let began = Instant::now();
    loop {
        let attempt = connect().and_then(|mut session| {
            let outcome = session.send(from, " BODY=8BITMIME", &[to], text)?;
            session.quit();
            Ok(outcome)
        });
        let trouble = match attempt {
            Ok(outcome) if outcome.accepted() => {
                ledger.accepted.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Ok(outcome) if outcome.decisive().is_permanent() => {
                bail!("{tag} was refused for good: {}", outcome.decisive())
            }
            Ok(outcome) => outcome.decisive().to_string(),
            Err(error) => format!("{error:#}"),
        };
        *ledger
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(trouble.clone())
            .or_default() += 1;
        ensure!(began.elapsed() < TRYING, "{tag} was not accepted within {} s: {trouble}", TRYING.as_secs());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Compares what arrived with what was sent; returns the number of surplus copies.
fn account_for(site: &Site, sent: &BTreeMap<String, String>) -> Result<usize> {
    assert_eq!(sent.len(), CLIENTS * EACH);
    site.postfix.wait_until_empty();
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let delivered = (0..USERS).flat_map(|user| site.dovecot.messages(&format!("u{user}@{DOMAIN}")));
    let gone_out = site.world.received().into_iter().map(|received| received.message);
    for message in delivered.chain(gone_out) {
        let id = fields(&message, "Message-ID")
            .first()
            .cloned()
            .context("a message without Message-ID arrived")?;
        let tag = id.trim_start_matches('<').split('@').next().unwrap_or_default().to_owned();
        copies.entry(tag).or_default().push(body_hash(&message));
    }
    let mut surplus = 0;
    let mut lost = Vec::new();
    for (tag, hash) in sent {
        match copies.remove(tag) {
            None => lost.push(tag.clone()),
            Some(arrived) => {
                ensure!(arrived.iter().all(|copy| copy == hash), "{tag} arrived changed");
                if arrived.len() > 1 {
                    println!("{tag} arrived {} times", arrived.len());
                }
                surplus += arrived.len() - 1;
            }
        }
    }
    ensure!(lost.is_empty(), "{} of {} messages are lost: {lost:?}", lost.len(), sent.len());
    ensure!(copies.is_empty(), "messages nobody sent: {:?}", copies.keys());
    Ok(surplus)
}

fn two_hundred_messages_all_arrive(server: Server) -> Result<()> {
    // Every daemon has a part in it.
    let mut site = Site::start(&Plan::full(server))?;
    let surplus = send_all(&mut site, |_, _| Ok(()))?;
    assert_eq!(surplus, 0, "nothing was interrupted, so nothing may arrive twice");
    Ok(())
}

/// Each daemon is killed (SIGKILL) in the middle and started again on the same ports.
///
/// Duplicates: a filter that is killed after the next hop said 250 and before it could say so to Postfix leaves Postfix no choice but to send again (RFC 5321
/// section 4.5.3.2.6 prefers a duplicate to a loss). At most the messages in the filter at that moment, one for each smtp-amavis process. The other daemons
/// carry no messages: killing them can delay but not double.
fn killed_daemons_lose_nothing(server: Server) -> Result<()> {
    const IN_THE_FILTER: usize = 4;
    let mut site = Site::start(&Plan::full(server))?;
    let surplus = send_all(&mut site, |site, ledger| {
        for (number, name) in ["policyd", "contentfilter", "srsd", "quota-status"].into_iter().enumerate() {
            ledger.wait_for_accepted(25 + 40 * number);
            let before = site.postfix.log().len();
            let daemon = site.daemon(name)?;
            daemon.kill()?;
            let addresses = daemon.addresses();
            wait_for(format_args!("Postfix to notice that {name} is gone"), || {
                let log = site.postfix.log();
                let fresh = log.get(before..)?;
                addresses
                    .iter()
                    .any(|address| fresh.contains(&format!(":{}: ", address.port())))
                    .then_some(())
            });
            let daemon = site.daemon(name)?;
            ensure!(!daemon.is_running(), "{name} survived SIGKILL");
            daemon.resume().with_context(|| format!("starting {name} again"))?;
        }
        Ok(())
    })?;
    println!("{surplus} messages arrived twice; at most {IN_THE_FILTER} can");
    ensure!(
        surplus <= IN_THE_FILTER,
        "{surplus} duplicates cannot be explained by the {IN_THE_FILTER} messages in the killed filter"
    );
    for name in ["policyd", "contentfilter", "srsd", "quota-status"] {
        site.daemon(name)?.terminate()?;
    }
    Ok(())
}
