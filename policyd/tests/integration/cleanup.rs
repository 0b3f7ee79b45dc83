//! Removal of rows that have had their time.

use crate::world::{NOW, World};

const ROWS: i64 = 4500;

pub(crate) async fn old_rows_go_and_others_stay(world: &World) {
    world.empty().await;
    world.limit(1, "@.", "outbound", [5, -1]).await;
    let mut transaction = world.iredapd.begin().await.expect("begun");
    for number in 0..ROWS {
        // Two of three triplets are over, more than one step of the removal holds.
        let expired = NOW + if number % 3 == 0 { 100 } else { -100 };
        let insert = outrider_core::sql::Stmt::same(
            "INSERT INTO greylisting_tracking (sender, recipient, client_address, record_expired) VALUES (?, 'r', 'c', ?)",
        );
        transaction.execute(&insert, &[format!("s{number}").into(), expired.into()]).await.expect("inserted");
    }
    transaction.commit().await.expect("committed");
    for (account, begun) in [("old", NOW - 3601), ("new", NOW - 3600)] {
        let sql = "INSERT INTO throttle_tracking (tid, account, period, init_time) VALUES (1, ?, 3600, ?)";
        world.execute(&world.iredapd, sql, &[account.into(), begun.into()]).await;
    }
    world.script(&world.iredapd, "DELETE FROM senderscore_cache").await;
    for (client, time) in
        [("192.0.2.1", NOW - 2 * 86_400 - 1), ("192.0.2.2", NOW), ("192.0.2.3", 4_102_444_799)]
    {
        let sql = "INSERT INTO senderscore_cache (client_address, score, time) VALUES (?, 50, ?)";
        world.execute(&world.iredapd, sql, &[client.into(), time.into()]).await;
    }
    for time in [NOW - 7 * 86_400 - 1, NOW - 7 * 86_400] {
        world
            .execute(&world.iredapd, "INSERT INTO smtp_sessions (time_num) VALUES (?)", &[time.into()])
            .await;
    }
    world.daemon(&["greylisting"]).await.clean_up().await;
    for (sql, expected) in [
        ("SELECT COUNT(*) FROM greylisting_tracking", ROWS / 3),
        ("SELECT COUNT(*) FROM throttle_tracking WHERE account = 'new'", 1),
        ("SELECT COUNT(*) FROM throttle_tracking", 1),
        ("SELECT COUNT(*) FROM senderscore_cache", 2),
        ("SELECT COUNT(*) FROM smtp_sessions WHERE action = ''", 1),
    ] {
        assert_eq!(world.numbers(&world.iredapd, sql).await, [[expected]], "{sql}");
    }
}
