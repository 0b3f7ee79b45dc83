//! Policy servers that hang, cut, talk nonsense, answer too late or go away: mail goes on as the settings say, and no
//! question gets the answer to another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_core::daemon::Daemon as _;
use outrider_core::settings::Interval;
use outrider_policyd::settings::{ForwardSettings, OnFailure, ProtocolState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::forward::{step, with_steps};
use crate::log::Events;
use crate::world::{Client, Service, World, arrival};

const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const BLACK: &str = "REJECT Policy rejection due to null sender";

/// What a server does with one question.
#[derive(Clone)]
enum Deed {
    /// These bytes, and the connection stays.
    Say(Vec<u8>),
    /// These bytes, and the end.
    SayAndClose(Vec<u8>),
    /// These bytes, and when the test says so, those.
    SayMore(&'static [u8], &'static [u8]),
    /// Nothing until the client goes, or the test says so; then these bytes.
    Wait(&'static [u8]),
    /// Bytes without an end.
    Flood,
    /// A byte now and then, without an end.
    Drip,
}

fn say(action: &str) -> Deed {
    Deed::Say(format!("action={action}\n\n").into_bytes())
}

/// What a server knows.
#[derive(Default)]
struct Known {
    deeds: Mutex<VecDeque<Deed>>,
    /// Questions as they came, each with the number of its connection.
    questions: Mutex<Vec<(usize, String)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    go_on: Notify,
}

/// A policy server that does what it is told, and says DUNNO when it was told nothing.
struct Fake {
    address: String,
    known: Arc<Known>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn new(deeds: impl IntoIterator<Item = Deed>) -> Fake {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let known = Arc::new(Known { deeds: Mutex::new(deeds.into_iter().collect()), ..Known::default() });
        let shared = known.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                shared.most.fetch_max(open, Ordering::SeqCst);
                let known = shared.clone();
                tokio::spawn(async move {
                    // A client that goes away is what many of these tests are about.
                    let _ = serve(stream, number, &known).await;
                    known.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Fake { address, known, accepting }
    }

    /// The connections on which questions came, in their order.
    fn used(&self) -> Vec<usize> {
        self.known.questions.lock().expect("whole").iter().map(|(number, _)| *number).collect()
    }

    async fn until_open(&self, count: usize) {
        for _ in 0..6000 {
            if self.known.open.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections are open", self.known.open.load(Ordering::SeqCst));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, number: usize, known: &Known) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\n\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let question = String::from_utf8_lossy(&std::mem::take(&mut read)).into_owned();
        known.questions.lock().expect("whole").push((number, question));
        let deed = known.deeds.lock().expect("whole").pop_front();
        match deed.unwrap_or_else(|| say("DUNNO")) {
            Deed::Say(bytes) => stream.write_all(&bytes).await?,
            Deed::SayAndClose(bytes) => return stream.write_all(&bytes).await,
            Deed::SayMore(first, second) => {
                stream.write_all(first).await?;
                known.go_on.notified().await;
                stream.write_all(second).await?;
            }
            Deed::Wait(bytes) => {
                tokio::select! {
                    () = known.go_on.notified() => {}
                    _ = stream.read_u8() => {}
                }
                stream.write_all(bytes).await?;
            }
            Deed::Flood => loop {
                stream.write_all(&[b'x'; 4096]).await?;
            },
            Deed::Drip => loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            },
        }
    }
}

/// A step that gives up soon.
fn hasty(fake: &Fake) -> ForwardSettings {
    ForwardSettings { timeout: Interval(Duration::from_millis(400)), ..step(&fake.address) }
}

async fn daemon(world: &World, step: ForwardSettings) -> Service {
    world.daemon_with(&[], |settings| with_steps(settings, &[("fake", step)])).await
}

async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn recipient() -> Vec<(&'static str, &'static str)> {
    arrival("x@sender.test", "alice@example.com", "203.0.113.10")
}

fn is_up(daemon: &Service) -> bool {
    daemon.health().iter().any(|one| one.name == "forward.fake" && one.up)
}

#[tokio::test]
async fn questions_are_the_requests_as_received() {
    let world = World::sqlite().await;
    let fake = Fake::new([]).await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let mut client = Client::connect(&daemon);
    let lines = "zebra=1\nprotocol_state=rcpt\nsender=A+x@Sender.Test\nsender=b@SENDER.test\nrecipient=C@example.com\n\
                 policy_context=a=b\nnew_in_postfix_9=\nhelo_name=x\u{1}\r";
    client.send(format!("{lines}\nno attribute\n\n").as_bytes()).await;
    assert_eq!(client.answer().await.as_deref(), Some("DUNNO"));
    // What no rule may see, no other server sees either.
    client.send(b"protocol_state=RCPT\nsender=none\nrecipient=a@example.com\n\n").await;
    assert_eq!(client.answer().await.as_deref(), Some("DUNNO Error: Invalid sender address: none"));
    assert_eq!(*fake.known.questions.lock().expect("whole"), [(1, format!("{lines}\n\n"))]);
}

#[tokio::test]
async fn answers_are_taken_as_they_are() {
    let world = World::sqlite().await;
    let fake = Fake::new([]).await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let mut client = Client::connect(&daemon);
    for (action, expected) in [
        ("OK", "OK"),
        ("dunno", "DUNNO"),
        ("Dunno, says the text behind it", "Dunno, says the text behind it"),
        ("dUNNO says the text behind it", "DUNNO"),
        ("dunno_what", "dunno_what"),
        ("reject 5.7.1 f\u{fc}r  niemand", "reject 5.7.1 f\u{fc}r  niemand"),
        ("450 4.2.0 later", "450 4.2.0 later"),
        ("PREPEND X-Policy: a=b", "PREPEND X-Policy: a=b"),
    ] {
        fake.known.deeds.lock().expect("whole").push_back(say(action));
        assert_eq!(client.ask(&recipient()).await, expected);
    }
    // One client, one question at a time: one connection.
    assert_eq!(fake.used(), [1; 8]);
}

#[tokio::test]
async fn steps_stand_where_their_priority_puts_them() {
    let world = World::sqlite().await;
    let [early, late] = [Fake::new([]).await, Fake::new([]).await];
    let early_step = ForwardSettings { priority: 101, ..step(&early.address) };
    let states = vec![ProtocolState::Rcpt, ProtocolState::Data];
    let late_step = ForwardSettings { states, ..step(&late.address) };
    let daemon = world
        .daemon_with(&["reject_null_sender"], |settings| {
            with_steps(settings, &[("late", late_step), ("early", early_step)]);
        })
        .await;
    let mut client = Client::connect(&daemon);
    let mut forged = arrival("", "pal@remote.test", "203.0.113.10");
    forged.push(("sasl_username", "a@example.com"));
    assert_eq!(client.ask(&forged).await, BLACK);
    assert_eq!((early.used().len(), late.used().len()), (1, 0));
    assert_eq!(client.ask(&recipient()).await, "DUNNO");
    assert_eq!((early.used().len(), late.used().len()), (2, 1));
    early.known.deeds.lock().expect("whole").push_back(say("OK"));
    assert_eq!(client.ask(&forged).await, "OK");
    let mut data = recipient();
    data.push(("protocol_state", "DATA"));
    late.known.deeds.lock().expect("whole").push_back(say("HOLD"));
    assert_eq!(client.ask(&data).await, "HOLD");
    assert_eq!((early.used().len(), late.used().len()), (3, 2));
}

#[tokio::test]
async fn threat_t36_what_is_no_answer_is_a_failure() {
    let world = World::sqlite().await;
    let fake = Fake::new([]).await;
    let deferring = daemon(&world, hasty(&fake)).await;
    let passing = daemon(&world, ForwardSettings { on_failure: OnFailure::Pass, ..hasty(&fake) }).await;
    let long = format!("action=REJECT {}\n\n", "x".repeat(10_000));
    let nonsense: Vec<Deed> = [
        &b"\n"[..],
        b"hello\n\n",
        b"action=\n\n",
        b"action=OK\r\n\r\n",
        b"action=OK\naction=REJECT\n\n",
        b"action=REJECT \xfc\n\n",
        b"action=REJECT\x1b[2J\n\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        long.as_bytes(),
    ]
    .map(|bytes| Deed::Say(bytes.to_vec()))
    .into_iter()
    .chain([b"action=REJ".as_slice(), b"action=REJECT\n"].map(|bytes| Deed::SayAndClose(bytes.to_vec())))
    .chain([Deed::Flood, Deed::Drip, Deed::Wait(b"")])
    .collect();
    for (number, deed) in nonsense.into_iter().enumerate() {
        for (daemon, expected) in [(&deferring, DEFER), (&passing, "DUNNO")] {
            fake.known.deeds.lock().expect("whole").push_back(deed.clone());
            let mut client = Client::connect(daemon);
            assert_eq!(client.ask(&recipient()).await, expected, "{number}");
            assert!(!is_up(daemon), "{number}");
            // Nothing of it is left for the next question.
            fake.known.deeds.lock().expect("whole").push_back(say("OK"));
            assert_eq!(client.ask(&recipient()).await, "OK", "{number}");
            assert!(is_up(daemon), "{number}");
        }
        // Of each daemon the last one.
        fake.until_open(2).await;
    }
    let text = deferring.metrics.render();
    assert!(text.contains("forwarded_total{check=\"forward.fake\",result=\"failed\"} 14\n"), "{text}");
    assert!(text.contains("decisions_total{check=\"forward.fake\",action=\"unavailable\"} 14\n"), "{text}");
}

#[tokio::test]
async fn late_answers_are_nobodys() {
    let world = World::sqlite().await;
    let fake = Fake::new([Deed::Wait(b"action=REJECT late\n\n"), say("OK on time")]).await;
    let daemon = daemon(&world, hasty(&fake)).await;
    let mut client = Client::connect(&daemon);
    assert_eq!(client.ask(&recipient()).await, DEFER);
    fake.known.go_on.notify_waiters();
    assert_eq!(client.ask(&recipient()).await, "OK on time");
    assert_eq!(client.ask(&recipient()).await, "DUNNO");
    assert_eq!(fake.used(), [1, 2, 2], "the connection of the late answer is closed");
}

/// The same when it is the client's request that is over.
#[tokio::test]
async fn given_up_requests_take_their_connection_with_them() {
    let world = World::sqlite().await;
    let fake = Fake::new([Deed::Wait(b"action=REJECT late\n\n"), say("OK on time")]).await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let request = Client::connect(&daemon);
    let (mut stream, server) = tokio::io::duplex(4096);
    let limits = outrider_core::policy_session::SessionLimits {
        request: Duration::from_millis(200),
        ..Default::default()
    };
    let handler = daemon.clone();
    tokio::spawn(async move {
        let peer = outrider_core::daemon::Peer::Unix;
        outrider_core::policy_session::serve(server, peer, &*handler, &limits, std::future::pending()).await;
    });
    stream.write_all(b"protocol_state=RCPT\nsender=\nrecipient=a@example.com\n\n").await.expect("sent");
    let mut answer = vec![0; format!("action={DEFER}\n\n").len()];
    stream.read_exact(&mut answer).await.expect("answered");
    fake.until_open(0).await;
    let mut client = request;
    assert_eq!(client.ask(&recipient()).await, "OK on time");
    assert_eq!(fake.used(), [1, 2]);
}

#[tokio::test]
async fn second_answers_are_nobodys() {
    let world = World::sqlite().await;
    let fake = Fake::new([
        Deed::Say(b"action=OK\n\naction=REJECT for nobody\n\n".to_vec()),
        // As `print("action=OK\n\n")` writes it.
        Deed::Say(b"action=OK\n\n\n".to_vec()),
        say("DUNNO"),
    ])
    .await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let mut client = Client::connect(&daemon);
    for expected in ["OK", "OK", "DUNNO"] {
        assert_eq!(client.ask(&recipient()).await, expected);
    }
    assert_eq!(fake.used(), [1, 2, 3]);
    // Between two questions.
    let more = Deed::SayMore(b"action=OK\n\n", b"action=REJECT for nobody\n\n");
    fake.known.deeds.lock().expect("whole").push_back(more);
    assert_eq!(client.ask(&recipient()).await, "OK");
    fake.known.go_on.notify_one();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.ask(&recipient()).await, "DUNNO");
    assert_eq!(fake.used(), [1, 2, 3, 3, 4]);
}

#[tokio::test]
async fn closed_connections_are_opened_again_once() {
    let world = World::sqlite().await;
    // After its answer.
    let fake = Fake::new([Deed::SayAndClose(b"action=OK\n\n".to_vec()), say("OK")]).await;
    let first = daemon(&world, step(&fake.address)).await;
    let mut client = Client::connect(&first);
    assert_eq!(client.ask(&recipient()).await, "OK");
    fake.until_open(0).await;
    assert_eq!(client.ask(&recipient()).await, "OK");
    assert_eq!(fake.used(), [1, 2]);
    // Upon the next question, the first time.
    fake.known.deeds.lock().expect("whole").extend([Deed::SayAndClose(Vec::new()), say("OK again")]);
    assert_eq!(client.ask(&recipient()).await, "OK again");
    assert_eq!(fake.used(), [1, 2, 2, 3]);
    // Not more often than that.
    fake.known
        .deeds
        .lock()
        .expect("whole")
        .extend([Deed::SayAndClose(Vec::new()), Deed::SayAndClose(Vec::new())]);
    assert_eq!(client.ask(&recipient()).await, DEFER);
    assert_eq!(fake.used(), [1, 2, 2, 3, 3, 4]);
    assert_eq!(client.ask(&recipient()).await, "DUNNO");
}

#[tokio::test]
async fn connections_are_bounded() {
    let world = World::sqlite().await;
    let fake = Fake::new(vec![Deed::Wait(b"action=OK\n\n"); 6]).await;
    let two = ForwardSettings { max_connections: 2, ..step(&fake.address) };
    let first = daemon(&world, two).await;
    let mut asking = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(&first);
        asking.push(tokio::spawn(async move { client.ask(&recipient()).await }));
    }
    let mut answered = 0;
    for client in asking {
        while !client.is_finished() {
            fake.known.go_on.notify_waiters();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(client.await.expect("no panic"), "OK");
        answered += 1;
    }
    assert_eq!((answered, fake.known.most.load(Ordering::SeqCst)), (6, 2));
    assert_eq!(fake.known.connections.load(Ordering::SeqCst), 2, "they are kept");

    // Who finds none free waits no longer than for an answer.
    let fake = Fake::new([Deed::Wait(b"")]).await;
    let second = daemon(&world, ForwardSettings { max_connections: 1, ..hasty(&fake) }).await;
    let [mut one, mut two] = [Client::connect(&second), Client::connect(&second)];
    let request = recipient();
    let answers = tokio::join!(one.ask(&request), two.ask(&request));
    assert!(answers.0 == DEFER, "{answers:?}");
    assert_eq!(fake.known.most.load(Ordering::SeqCst), 1);
    assert_eq!(one.ask(&request).await, "DUNNO");
}

/// T36: a server that hangs is found out by a few requests, the others do not wait for it.
#[tokio::test]
async fn threat_t36_a_server_that_hangs_is_left_alone() {
    let world = World::sqlite().await;
    let fake = Fake::new(vec![Deed::Wait(b""); 20]).await;
    let daemon = daemon(&world, ForwardSettings { max_connections: 1, ..hasty(&fake) }).await;
    let mut client = Client::connect(&daemon);
    for _ in 0..20 {
        assert_eq!(client.ask(&recipient()).await, DEFER);
    }
    let asked = fake.used().len();
    assert!((5..=10).contains(&asked), "{asked} of 20 asked it");
    assert!(!is_up(&daemon));
    // Some time later one of them finds it well.
    for _ in 0..6000 {
        if client.ask(&recipient()).await == "DUNNO" {
            break;
        }
        fake.known.deeds.lock().expect("whole").clear();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_up(&daemon));
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed() {
    let world = World::sqlite().await;
    let fake = Fake::new([Deed::Wait(b"action=OK\n\n"), Deed::Wait(b"action=OK\n\n")]).await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let [mut one, mut two] = [Client::connect(&daemon), Client::connect(&daemon)];
    let request = recipient();
    let both = async {
        fake.until_open(2).await;
        while fake.used().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fake.known.go_on.notify_waiters();
    };
    tokio::join!(one.ask(&request), two.ask(&request), both);
    // One question at a time: the other connection belongs to a busier hour.
    for _ in 0..2 {
        later(31).await;
        assert_eq!(one.ask(&request).await, "DUNNO");
    }
    fake.until_open(1).await;
    let used = fake.used();
    assert_eq!(used[2], used[3], "{used:?}");
    // None at all for longer than that.
    later(61).await;
    assert_eq!(one.ask(&request).await, "DUNNO");
    assert_eq!(fake.used()[4], 3);
}

/// However many hang: the deadline of the request leaves each of them what the others left.
#[tokio::test]
async fn several_that_hang_do_not_outlast_the_deadline() {
    let world = World::sqlite().await;
    let fake = Fake::new(vec![Deed::Wait(b""); 5]).await;
    let steps = ["a", "b", "c", "d", "e"]
        .map(|name| (name, ForwardSettings { on_failure: OnFailure::Pass, ..hasty(&fake) }));
    let daemon = world
        .daemon_with(&["reject_null_sender"], |settings| {
            with_steps(settings, &steps);
            settings.limits.request_timeout = Interval::seconds(1);
            settings.plugin_priorities.insert("reject_null_sender".into(), -1);
        })
        .await;
    let mut forged = arrival("", "pal@remote.test", "203.0.113.10");
    forged.push(("sasl_username", "a@example.com"));
    let start = std::time::Instant::now();
    assert_eq!(Client::connect(&daemon).ask(&forged).await, BLACK, "the rules behind them are asked");
    // 400 ms and what is left of 800 ms; five times 400 ms would be the fault.
    assert!(fake.used().len() <= 3, "{:?} after {:?}", fake.used(), start.elapsed());
    let down = daemon.health().iter().filter(|one| one.name.starts_with("forward.") && !one.up).count();
    assert_eq!(down, fake.used().len(), "of those that were not asked nothing is known");
}

#[tokio::test]
async fn failures_and_recoveries_have_one_line_each() {
    let world = World::sqlite().await;
    let nonsense = || Deed::Say(b"action=OK\x1b[2J\n\n".to_vec());
    let fake = Fake::new([nonsense(), nonsense(), say("OK"), say("OK"), nonsense(), say("OK")]).await;
    let daemon = daemon(&world, step(&fake.address)).await;
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let mut client = Client::connect(&daemon);
    for _ in 0..6 {
        client.ask(&recipient()).await;
    }
    let lines = events.lines();
    let told: Vec<&String> = lines.iter().filter(|line| !line.contains("event=\"answer\"")).collect();
    let [failure, recovery] = told[..] else { panic!("{lines:?}") };
    for part in ["WARN ", "check=\"forward.fake\"", "times=1", &fake.address, "control character"] {
        assert!(failure.contains(part), "{part}: {failure}");
    }
    assert!(recovery.starts_with("INFO ") && recovery.contains("check=\"forward.fake\""), "{recovery}");
    assert!(!lines.iter().any(|line| line.contains('\u{1b}')));
    // A minute later the next line counts all since.
    later(61).await;
    fake.known.deeds.lock().expect("whole").push_back(nonsense());
    client.ask(&recipient()).await;
    assert_eq!(events.lines().iter().filter(|line| line.contains("times=3")).count(), 1);
    // The answers have theirs.
    let answer = lines.iter().find(|line| line.contains("action=\"OK\"")).expect("a line");
    assert!(answer.contains("check=\"forward.fake\""), "{answer}");
}

/// A server that is not there, and one behind a socket that is none.
#[tokio::test]
async fn nobody_there() {
    let world = World::sqlite().await;
    let fake = Fake::new([]).await;
    let address = fake.address.clone();
    drop(fake);
    let socket = format!("unix:{}", world.folder.path().join("none.sock").display());
    for address in [address, socket] {
        let daemon = daemon(&world, step(&address)).await;
        assert_eq!(Client::connect(&daemon).ask(&recipient()).await, DEFER, "{address}");
        assert!(!is_up(&daemon));
    }
}
