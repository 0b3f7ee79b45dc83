//! A database that goes away and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_core::daemon::Daemon as _;
use outrider_core::settings::Interval;
use outrider_policyd::settings::OnFailure;
use outrider_policyd::{Policyd, Settings};

use crate::world::{World, arrival, ask};

const DEFER: &str = "DEFER_IF_PERMIT Service temporarily unavailable";
const BLACK: &str = "REJECT Blacklisted";

async fn asks(daemon: &Arc<Policyd>, reverse_name: &str) -> String {
    let mut request = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    request.retain(|(name, _)| *name != "reverse_client_name");
    request.push(("reverse_client_name", reverse_name));
    ask(daemon, &request).await
}

pub(crate) async fn a_stopped_database_is_what_the_settings_say(world: &mut World) {
    world.empty().await;
    world.script(&world.iredapd, "DELETE FROM wblist_rdns").await;
    world.script(&world.iredapd, "INSERT INTO wblist_rdns (rdns, wb) VALUES ('.bad.test', 'B')").await;
    let quick = |settings: &mut Settings| {
        settings.database.acquire_timeout = Interval::seconds(2);
        settings.cache.lifetime = Interval(Duration::from_millis(1));
    };
    let passing = world
        .daemon_with(&["wblist_rdns"], |settings| {
            quick(settings);
            settings.on_failure.iredapd = OnFailure::Pass;
        })
        .await;
    let deferring = world.daemon_with(&["wblist_rdns"], quick).await;
    assert_eq!(asks(&passing, "mx.bad.test").await, BLACK);
    assert_eq!(asks(&deferring, "mx.good.test").await, "DUNNO");

    world.store.as_mut().expect("a server").stop().expect("stopped");
    let start = Instant::now();
    assert_eq!(asks(&passing, "new.bad.test").await, "DUNNO", "nothing is known about it");
    assert_eq!(asks(&passing, "mx.bad.test").await, BLACK, "known from before");
    assert_eq!(asks(&deferring, "new.bad.test").await, DEFER);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(passing.health().iter().any(|dependency| dependency.name == "iredapd" && !dependency.up));

    world.store.as_mut().expect("a server").resume().expect("started again");
    let start = Instant::now();
    while asks(&passing, "new.bad.test").await != BLACK || asks(&deferring, "new.bad.test").await != BLACK {
        assert!(start.elapsed() < Duration::from_secs(20), "it was not found again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
