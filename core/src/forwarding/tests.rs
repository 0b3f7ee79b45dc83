//! The engine with its databases, on SQLite.

use super::*;
use crate::clock::TestClock;
use crate::schema::Database;
use crate::settings::Secret;
use crate::sql::{Db, DbUrl, PoolOptions, Stmt, Value};
use std::fs;

/// 2025-03-15 12:00 UTC, time stamp `WC`.
const NOW: i64 = 1_742_040_000;
const DAY: i64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(5);

struct World {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> World {
        World { folder: tempfile::tempdir().expect("a folder"), clock: Arc::new(TestClock::new(NOW)) }
    }

    fn settings(&self) -> SrsSettings {
        SrsSettings {
            srs_domain: Some("srs.example.net".into()),
            myhostname: Some("mail.example.net".into()),
            secrets: vec![Secret::new("secretOne")],
            directory_domains: false,
            exclude_table: false,
            original_envelope: OriginalEnvelope::DatabaseIfLong,
            ..SrsSettings::default()
        }
    }

    async fn open(&self, settings: &SrsSettings) -> Forwarding {
        let system = Environment::system("srsd", self.folder.path().to_path_buf());
        let env = Environment { clock: self.clock.clone(), ..system };
        Forwarding::open(settings, &env).await.expect("opens")
    }

    fn database(&self) -> Db {
        Db::open_file(&self.folder.path().join("envelopes.db"), &PoolOptions::default())
    }

    async fn number(&self, stmt: Stmt) -> i64 {
        let row = self.database().fetch_optional(&stmt, &[]).await.expect("read").expect("a row");
        row.int("n").expect("a number")
    }
}

const ROWS: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM kv");

fn long(number: usize) -> String {
    format!("a-very-long-local-part-such-as-mailing-lists-and-verp-make-{number}@sender.example")
}

async fn rewritten(forwarding: &Forwarding, sender: &str) -> String {
    match forwarding.forward(sender, PATIENCE).await {
        Forward::Rewritten(address) => address,
        other => panic!("{sender}: {other:?}"),
    }
}

async fn original(forwarding: &Forwarding, address: &str) -> String {
    match forwarding.reverse(address, PATIENCE).await {
        Reverse::Original(original) => original.address,
        other => panic!("{address}: {other:?}"),
    }
}

#[tokio::test]
async fn long_senders_travel_as_tokens_and_come_back_on_another_host() {
    let world = World::new();
    let forwarding = world.open(&world.settings()).await;
    assert_eq!(
        rewritten(&forwarding, "user@gmail.com").await,
        "SRS0=lnpB=WC=gmail.com=user@srs.example.net",
        "short senders need no database"
    );
    let sender = long(1);
    let address = rewritten(&forwarding, &sender).await;
    assert!(address.contains("=WC=1=") && address.find('@') == Some(47), "{address}");
    assert_eq!(rewritten(&forwarding, &sender).await, address);
    assert_eq!(world.number(ROWS).await, 1);
    let second = world.open(&world.settings()).await;
    for back in [address.clone(), address.to_lowercase()] {
        assert_eq!(original(&second, &back).await, sender);
    }
    // A host that makes no tokens reads them where the database is named.
    let file = world.folder.path().join("envelopes.db");
    let embedded = SrsSettings {
        original_envelope: OriginalEnvelope::Embedded,
        envelope_database: Some(DbUrl::sqlite(&file)),
        ..world.settings()
    };
    assert_eq!(original(&world.open(&embedded).await, &address).await, sender);
    let without = SrsSettings { envelope_database: None, ..embedded };
    assert_eq!(world.open(&without).await.reverse(&address, PATIENCE).await, Reverse::NoDatabase);
}

#[tokio::test]
async fn senders_are_kept_as_long_as_their_addresses_are_good() {
    let world = World::new();
    let forwarding = world.open(&world.settings()).await;
    let first = rewritten(&forwarding, &long(1)).await;
    world.clock.advance(20 * DAY);
    // Seen again: the row lives on for the new address.
    let second = rewritten(&forwarding, &long(1)).await;
    assert_ne!(first, second);
    let other = rewritten(&forwarding, &long(2)).await;
    forwarding.read_again().await;
    assert_eq!(world.number(ROWS).await, 2);
    world.clock.advance(21 * DAY);
    forwarding.read_again().await;
    assert!(matches!(forwarding.reverse(&first, PATIENCE).await, Reverse::Left(_)), "its stamp is too old");
    for (address, sender) in [(&second, long(1)), (&other, long(2))] {
        assert_eq!(original(&forwarding, address).await, sender);
    }
    world.clock.advance(DAY);
    forwarding.read_again().await;
    assert_eq!(world.number(ROWS).await, 0);
}

#[tokio::test]
async fn a_flood_of_senders_meets_a_limit() {
    let world = World::new();
    let settings = SrsSettings { envelope_database_limit: 3, ..world.settings() };
    let forwarding = world.open(&settings).await;
    for number in 0..3 {
        rewritten(&forwarding, &long(number)).await;
    }
    assert_eq!(forwarding.forward(&long(3), PATIENCE).await, Forward::Left(Left::TooLong));
    // Those known already are kept longer.
    world.clock.advance(DAY);
    rewritten(&forwarding, &long(1)).await;
    assert_eq!(world.number(ROWS).await, 3);
    let defer = SrsSettings { on_failure: OnFailure::Defer, ..settings };
    let defer = world.open(&defer).await;
    defer.read_again().await;
    assert_eq!(defer.forward(&long(4), PATIENCE).await, Forward::Unkept);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_stops_no_mail_unless_told_to() {
    const REFUSE: &str =
        "CREATE TRIGGER refuse BEFORE INSERT ON kv BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    let world = World::new();
    let always = SrsSettings { original_envelope: OriginalEnvelope::Database, ..world.settings() };
    let forwarding = world.open(&always).await;
    world.database().execute_script(REFUSE).await.expect("a trigger");
    assert_eq!(
        rewritten(&forwarding, "user@gmail.com").await,
        "SRS0=lnpB=WC=gmail.com=user@srs.example.net",
        "what fits is embedded"
    );
    assert_eq!(forwarding.forward(&long(1), PATIENCE).await, Forward::Left(Left::TooLong));
    let defer = world.open(&SrsSettings { on_failure: OnFailure::Defer, ..always }).await;
    assert_eq!(defer.forward("user@gmail.com", PATIENCE).await, Forward::Unkept);
    let unknown = "SRS0=jb8H=WC=1=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB@srs.example.net";
    assert_eq!(defer.reverse(unknown, PATIENCE).await, Reverse::UnknownToken);
    world.database().execute_script("DROP TABLE kv").await.expect("dropped");
    assert_eq!(forwarding.reverse(unknown, PATIENCE).await, Reverse::Unreadable);
}

/// PostSRSd 2 answers a part of such look-ups with "locked".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_at_once_lose_nothing() {
    let world = World::new();
    let mut hosts = Vec::new();
    for _ in 0..8 {
        // Each with connections of its own, as processes have.
        hosts.push(world.open(&world.settings()).await);
    }
    let writers = hosts.into_iter().enumerate().map(|(host, forwarding)| {
        tokio::spawn(async move {
            for number in 0..25 {
                rewritten(&forwarding, &long(host * 25 + number)).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("all were kept");
    }
    assert_eq!(world.number(ROWS).await, 200);
}

#[tokio::test]
async fn the_file_of_postsrsd_is_taken_over() {
    const PUT: Stmt = Stmt::same("INSERT INTO kv (k, v, lt) VALUES (?, ?, ?)");
    let world = World::new();
    let file = world.folder.path().join("postsrsd.db");
    let theirs = Db::open_file(&file, &PoolOptions::default());
    let table = "CREATE TABLE kv (k TEXT UNIQUE ON CONFLICT REPLACE, v TEXT, lt INTEGER)";
    theirs.execute_script(table).await.expect("a table");
    let token = Token::of("user@gmail.com");
    let row: [Value; 3] = [token.key().into(), "user@gmail.com".into(), (NOW + 5 * DAY).into()];
    theirs.execute(&PUT, &row).await.expect("a row");
    let settings = SrsSettings {
        original_envelope: OriginalEnvelope::Database,
        envelope_database: Some(DbUrl::sqlite(&file)),
        ..world.settings()
    };
    let forwarding = world.open(&settings).await;
    let address = forwarding.rules.srs.forward_token(&token, NOW).expect("made");
    assert_eq!(original(&forwarding, &address).await, "user@gmail.com");
    assert_eq!(rewritten(&forwarding, "user@gmail.com").await, address);
    // PostSRSd's constraint would replace the row; either way there is one, with the longer life.
    const LIFE: Stmt = Stmt::same("SELECT lt AS n FROM kv");
    let rows = theirs.fetch_all(&LIFE, &[]).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.int("n")).collect::<Vec<_>>(), [Some((NOW / DAY + 22) * DAY)]);
}

#[tokio::test]
async fn a_file_of_domains_is_followed() {
    let world = World::new();
    let file = world.folder.path().join("domains");
    let settings = SrsSettings { domains_file: Some(file.clone()), ..world.settings() };
    let write = |text: &str| fs::write(&file, text).expect("written");
    // A map of Postfix and a plain list read alike.
    write("# transport\nlocal.example\tOK\n.below.example lmtp:x\nplain.example\n");
    let forwarding = world.open(&settings).await;
    let left = async |domain: &str| {
        let outcome = forwarding.forward(&format!("x@{domain}"), PATIENCE).await;
        outcome == Forward::Left(Left::LocalDomain)
    };
    for (domain, local) in
        [("local.example", true), ("a.below.example", true), ("plain.example", true), ("OK.example", false)]
    {
        assert_eq!(left(domain).await, local, "{domain}");
    }
    write("new.example\n");
    forwarding.read_again().await;
    assert!(left("new.example").await && !left("local.example").await);
    fs::remove_file(&file).expect("removed");
    forwarding.read_again().await;
    assert!(left("new.example").await, "the domains of the last time count");
}

#[tokio::test]
async fn embedded_databases_are_read_once_somebody_has_made_them() {
    let world = World::new();
    let settings = SrsSettings { directory_domains: true, exclude_table: true, ..world.settings() };
    let forwarding = world.open(&settings).await;
    forwarding.read_again().await;
    assert_eq!((forwarding.is_local("here.example"), forwarding.failure()), (Some(false), None));
    for name in ["vmail.db", "iredapd.db"] {
        assert!(!world.folder.path().join(name).exists(), "{name} is not this program's to make");
    }
    const DOMAIN: Stmt = Stmt::same("INSERT INTO domain (domain, active) VALUES ('here.example', 1)");
    let vmail = settings.database.open(Database::Vmail, world.folder.path()).await.expect("made");
    vmail.execute(&DOMAIN, &[]).await.expect("a domain");
    forwarding.read_again().await;
    assert_eq!(forwarding.is_local("here.example"), Some(true));
}
