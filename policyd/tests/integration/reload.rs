//! New settings and changed rows take effect, when they should.

use std::sync::Arc;
use std::time::Duration;

use outrider_core::daemon::Daemon as _;
use outrider_core::settings::Interval;

use crate::world::{Client, World, arrival, ask};

const BLACK: &str = "REJECT Blacklisted";

fn from_bad_host() -> Vec<(&'static str, &'static str)> {
    let mut request = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    request.retain(|(name, _)| *name != "reverse_client_name");
    request.push(("reverse_client_name", "mx.bad.test"));
    request
}

#[tokio::test]
async fn a_reload_reaches_open_connections_and_empties_the_caches() {
    let world = World::sqlite().await;
    let slow = |settings: &mut outrider_policyd::Settings| settings.cache.lifetime = Interval::seconds(10);
    let daemon = world.daemon_with(&["wblist_rdns"], slow).await;
    let mut client = Client::connect(&daemon);
    assert_eq!(client.ask(&from_bad_host()).await, "DUNNO");
    world.script(&world.iredapd, "INSERT INTO wblist_rdns (rdns, wb) VALUES ('.bad.test', 'B')").await;
    assert_eq!(client.ask(&from_bad_host()).await, "DUNNO", "remembered for a moment");
    let mut settings = world.settings.clone();
    settings.plugins = vec!["wblist_rdns".into()];
    settings.wblist.discard = true;
    daemon.reload(Arc::new(settings)).await.expect("reloaded");
    assert_eq!(client.ask(&from_bad_host()).await, "DISCARD Policy discard");
}

#[tokio::test]
async fn a_change_in_the_panel_works_soon() {
    let world = World::sqlite().await;
    let quick = |settings: &mut outrider_policyd::Settings| {
        settings.cache.lifetime = Interval(Duration::from_millis(50));
    };
    let daemon = world.daemon_with(&["wblist_rdns"], quick).await;
    assert_eq!(ask(&daemon, &from_bad_host()).await, "DUNNO");
    world.script(&world.iredapd, "INSERT INTO wblist_rdns (rdns, wb) VALUES ('.bad.test', 'B')").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(ask(&daemon, &from_bad_host()).await, BLACK);
}
