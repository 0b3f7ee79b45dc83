//! Senders behind tokens, kept where several hosts find them.

use crate::ground::Ground;
use outrider_core::clock::TestClock;
use outrider_core::daemon::Environment;
use outrider_core::forwarding::{
    Forward, Forwarding, OnFailure, OriginalEnvelope, Reverse, SrsSettings, create_statements,
};
use outrider_core::settings::Secret;
use outrider_core::sql::{Engine, Stmt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// 2025-03-15 12:00 UTC.
const NOW: i64 = 1_742_040_000;
const DAY: i64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(10);

async fn host(settings: &SrsSettings, state: &Path, clock: &Arc<TestClock>) -> Forwarding {
    let system = Environment::system("srsd", state.to_path_buf());
    let env = Environment { clock: clock.clone(), ..system };
    Forwarding::open(settings, &env).await.expect("opens")
}

/// Two hosts on one database: what one keeps the other finds; rows live as long as addresses, and no longer.
pub(crate) async fn senders_behind_tokens_are_shared(ground: &Ground) {
    const COUNT: Stmt = Stmt::per_engine(
        "SELECT COUNT(*) AS n FROM srs_envelope",
        "SELECT COUNT(*) AS n FROM srs_envelope",
        "SELECT COUNT(*) AS n FROM kv",
    );
    let (db, url) = (&ground.vmail, ground.url());
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let clock = Arc::new(TestClock::new(NOW));
    let settings = SrsSettings {
        srs_domain: Some("srs.example.net".into()),
        myhostname: Some("mail.example.net".into()),
        secrets: vec![Secret::new("secretOne")],
        directory_domains: false,
        exclude_table: false,
        original_envelope: OriginalEnvelope::Database,
        envelope_database: Some(url),
        on_failure: OnFailure::Defer,
        ..SrsSettings::default()
    };
    let first = host(&settings, one.path(), &clock).await;
    if db.engine() != Engine::Sqlite {
        let unmade = first.forward("user@gmail.com", PATIENCE).await;
        assert_eq!(unmade, Forward::Unkept, "nothing is created on a server");
        for statement in create_statements(db.engine()) {
            db.execute_script(*statement).await.expect("the table");
        }
    }
    let second = host(&settings, two.path(), &clock).await;
    let senders =
        ["user@gmail.com", "User@gmail.com", "o'brien\"@example.org", "m\u{fc}ller+\u{1f4e7}@example.org"];
    let mut kept = Vec::new();
    for sender in senders {
        if let Forward::Rewritten(address) = first.forward(sender, PATIENCE).await {
            assert_eq!(second.forward(sender, PATIENCE).await, Forward::Rewritten(address.clone()));
            let Reverse::Original(back) = second.reverse(&address.to_lowercase(), PATIENCE).await else {
                panic!("{sender} is not found");
            };
            assert_eq!(back.address, sender);
            kept.push(address);
        }
    }
    assert_eq!(kept.len(), 3, "a quotation mark is no part of an address that can be rewritten");
    let count = async || {
        let row = db.fetch_optional(&COUNT, &[]).await.expect("read").expect("a row");
        row.int("n")
    };
    assert_eq!(count().await, Some(3));
    // Seen again on the last day: the row is good for as long as the new address.
    clock.advance(20 * DAY);
    let Forward::Rewritten(later) = second.forward("user@gmail.com", PATIENCE).await else {
        panic!("not rewritten")
    };
    clock.advance(2 * DAY);
    first.read_again().await;
    assert_eq!(count().await, Some(1));
    assert!(matches!(first.reverse(&later, PATIENCE).await, Reverse::Original(_)));
    clock.advance(20 * DAY);
    second.read_again().await;
    assert_eq!(count().await, Some(0));
}
