//! What is counted, under the names of the specification.

use outrider_core::settings::Interval;

use crate::world::{Client, NOW, World, arrival, submission};

pub(crate) async fn have_the_names_that_alerts_know(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [1, -1]).await;
    world
        .script(&world.iredapd, "INSERT INTO greylisting (account, sender, active) VALUES ('@.', '@.', 1)")
        .await;
    let remember =
        |settings: &mut outrider_policyd::Settings| settings.cache.lifetime = Interval::seconds(600);
    let daemon = world.daemon_with(&["greylisting", "throttle"], remember).await;
    let mut client = Client::connect(&daemon);
    for _ in 0..2 {
        client.ask(&submission("a@example.com", "1", "1")).await;
    }
    let contact = arrival("x@sender.test", "alice@example.com", "203.0.113.10");
    // A new one, one that passes, one that is known on the server, one that is known here.
    for after in [0, 900, 901, 902] {
        world.clock.set(NOW + after);
        client.ask(&contact).await;
    }
    let text = daemon.metrics.render();
    for line in [
        "decisions_total{check=\"greylisting\",action=\"greylisted\"} 1",
        "decisions_total{check=\"throttle\",action=\"quota_exceeded\"} 1",
        "greylist_total{result=\"greylisted\"} 1",
        "greylist_total{result=\"passed\"} 1",
        "greylist_total{result=\"known\"} 2",
        "throttle_rejected_total{kind=\"max_msgs\",direction=\"outbound\"} 1",
        "cache_hits_total{cache=\"known_clients\"} 1",
        "cache_size{cache=\"known_clients\"} 1",
    ] {
        assert!(text.contains(&format!("\noutrider_policyd_{line}\n")), "{line}\n{text}");
    }
}
