//! What is remembered for those who come often is read anew in the background, before it is too old.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use outrider_core::sql::{Stmt, Value};
use outrider_policyd::settings::CacheSettings;
use outrider_policyd::store::triplet::{Triplet, TripletStore};
use outrider_policyd::store::wblist::{Flag, WblistStore};
use tokio::time::{Instant, sleep};

use crate::world::World;

/// More than half and less than all of the default lifetime.
const DUE: Duration = Duration::from_millis(2_600);
/// The default lifetime.
const LIFETIME: Duration = Duration::from_secs(5);

/// Pairs asked about together get each their own answer.
pub(crate) async fn lists_are_read_anew_for_each_pair(world: &World) {
    const USER: Stmt = Stmt::same("INSERT INTO users (id, priority, policy_id, email) VALUES (?, ?, 0, ?)");
    const ADDRESS: Stmt = Stmt::same("INSERT INTO mailaddr (id, priority, email) VALUES (?, ?, ?)");
    const INBOUND: Stmt = Stmt::same("INSERT INTO wblist (rid, sid, wb) VALUES (?, ?, ?)");
    const OUTBOUND: Stmt = Stmt::same("INSERT INTO outbound_wblist (sid, rid, wb) VALUES (?, ?, ?)");
    world.empty().await;
    let names = |number: i64| (format!("u{number}@example.com"), format!("s{number}@sender.test"));
    for number in 1..=4 {
        let (user, sender) = names(number);
        let id: Value = number.into();
        for (stmt, args) in [
            (USER, [id.clone(), 10.into(), Value::bytes(user)]),
            (ADDRESS, [id.clone(), 10.into(), Value::bytes(sender)]),
        ] {
            world.amavisd.execute(&stmt, &args).await.expect("inserted");
        }
    }
    let cache = CacheSettings { lifetime: "5s".parse().expect("an interval"), ..CacheSettings::default() };
    let store = WblistStore::new(world.amavisd.clone(), &cache);
    let all = async || {
        let mut flags = Vec::new();
        for (recipient, sender) in [(1, 1), (2, 2), (1, 2), (3, 3)] {
            let (recipients, senders) = (vec![names(recipient).0], vec![names(sender).1]);
            let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
            flags.push(store.inbound(&recipients, &senders, Some(client)).await.expect("read"));
        }
        let (senders, recipients) = (vec![names(4).0], vec![names(4).1]);
        flags.push(store.outbound(&senders, &recipients).await.expect("read"));
        flags
    };
    assert_eq!(all().await, [None; 5]);
    let read = Instant::now();
    for (stmt, account, other, letter) in [
        (INBOUND, 1, 1, "W"),
        (INBOUND, 2, 2, "B"),
        (INBOUND, 4, 4, "B"),
        (OUTBOUND, 4, 4, "B"),
        (OUTBOUND, 3, 3, "B"),
    ] {
        world.amavisd.execute(&stmt, &[account.into(), other.into(), letter.into()]).await.expect("inserted");
    }
    sleep(DUE).await;
    let (white, black) = (Some(Flag::White), Some(Flag::Black));
    let then = [white, black, None, None, black];
    // They are remembered yet, unless this machine has slept.
    let before = all().await;
    assert!(before == [None; 5] || read.elapsed() > LIFETIME, "{before:?}");
    for _ in 0..1000 {
        let flags = all().await;
        let is_own = |(flag, then): (&Option<Flag>, &Option<Flag>)| flag.is_none() || flag == then;
        assert!(flags.iter().zip(&then).all(is_own), "of another pair: {flags:?}");
        if flags == then {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("what is new is not seen");
}

/// A client whose rows an administrator has removed is not known any more.
pub(crate) async fn known_clients_are_looked_up_anew(world: &World) {
    world.empty().await;
    world
        .script(
            &world.iredapd,
            "INSERT INTO greylisting_tracking (sender, recipient, client_address, record_expired, passed) \
             VALUES ('x@sender.test', 'bob@example.com', '203.0.113.9', 4000000000, 1)",
        )
        .await;
    let store = TripletStore::new(world.iredapd.clone(), &CacheSettings::default());
    let triplet = Triplet {
        sender: "y@sender.test".to_owned(),
        sender_domain: "sender.test".to_owned(),
        recipient: "alice@example.com".to_owned(),
        recipient_domain: "example.com".to_owned(),
        client: "203.0.113.9".to_owned(),
    };
    let is_known = async || store.seen(&triplet).await.expect("read").client_passed.is_some();
    assert!(is_known().await);
    world.script(&world.iredapd, "DELETE FROM greylisting_tracking").await;
    sleep(DUE).await;
    for _ in 0..1000 {
        if !is_known().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the client is known for ever");
}
