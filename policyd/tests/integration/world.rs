//! A policy service in this process, its databases and its clock.

use std::sync::Arc;
use std::time::Duration;

use outrider_core::clock::TestClock;
use outrider_core::daemon::{Daemon, Environment, Peer, Shutdown, ShutdownTrigger};
use outrider_core::metrics::Metrics;
use outrider_core::policy_session::SessionLimits;
use outrider_core::schema::Database;
use outrider_core::settings::Interval;
use outrider_core::sql::{Db, DbUrl, Engine, Stmt, Value};
use outrider_policyd::settings::{CacheSettings, CounterSettings, CounterStore, OnFailure};
use outrider_policyd::store::Stores;
use outrider_policyd::store::counters::ValkeyStores;
use outrider_policyd::{Policyd, Settings};
use outrider_tests::folder::Folder;
use outrider_tests::store::Store;
use outrider_tests::valkey::Valkey;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Unix seconds at which every test begins.
pub(crate) const NOW: i64 = 1_742_040_000;

/// What belongs to one database server.
pub(crate) struct World {
    pub(crate) store: Option<Box<dyn Store>>,
    /// Where counters and triplets are kept, if not in the database.
    pub(crate) valkey: Option<Valkey>,
    pub(crate) settings: Settings,
    pub(crate) folder: Folder,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) vmail: Db,
    pub(crate) amavisd: Db,
    pub(crate) iredapd: Db,
}

/// Settings for tests: nothing remembered, no look-ups beyond this machine, no mail to anybody.
fn quiet() -> Settings {
    let mut settings = Settings { myhostname: Some("mx.host.invalid".into()), ..Settings::default() };
    settings.cache.lifetime = Interval::seconds(0);
    settings.greylisting.bypass_spf = false;
    settings.reject_sender_login_mismatch.check_spf = false;
    settings.notification.recipients.clear();
    // A rule that cannot decide must not look like one that lets pass, nor a busy machine like a fault.
    settings.on_failure.vmail = OnFailure::Defer;
    settings.on_failure.amavisd = OnFailure::Defer;
    settings.on_failure.iredapd = OnFailure::Defer;
    settings.on_failure.valkey = OnFailure::Defer;
    settings.on_failure.deadline = OnFailure::Defer;
    settings.database.acquire_timeout = Interval::seconds(30);
    settings.database.statement_timeout = Interval::seconds(30);
    settings.dns.servers = vec![([127, 0, 0, 1], 9).into()];
    settings.dns.timeout = Interval(Duration::from_millis(200));
    settings
}

impl World {
    pub(crate) async fn sqlite() -> World {
        World::new(None, quiet()).await
    }

    /// Limits in SQLite, counters and triplets on a Valkey server.
    pub(crate) async fn valkey(server: Valkey) -> World {
        let mut settings = quiet();
        settings.counters = CounterSettings {
            store: CounterStore::Valkey,
            url: server.url().parse().expect("an address"),
            response_timeout: Interval::seconds(30),
            connect_timeout: Interval::seconds(30),
            ..CounterSettings::default()
        };
        let mut world = World::new(None, settings).await;
        world.valkey = Some(server);
        world
    }

    pub(crate) async fn server(store: Box<dyn Store>) -> World {
        let url = |database| -> Option<DbUrl> { Some(store.access().url(database).parse().expect("a URL")) };
        let mut settings = quiet();
        settings.database.vmail = url("vmail");
        settings.database.amavisd = url("amavisd");
        settings.database.iredapd = url("iredapd");
        World::new(Some(store), settings).await
    }

    async fn new(store: Option<Box<dyn Store>>, settings: Settings) -> World {
        let folder = Folder::new("policyd").expect("a folder");
        let open = async |database| settings.database.open(database, folder.path()).await.expect("opened");
        let world = World {
            vmail: open(Database::Vmail).await,
            amavisd: open(Database::Amavisd).await,
            iredapd: open(Database::Iredapd).await,
            clock: Arc::new(TestClock::new(NOW)),
            folder,
            store,
            valkey: None,
            settings,
        };
        world.empty().await;
        world
    }

    pub(crate) fn engine(&self) -> Engine {
        self.iredapd.engine()
    }

    /// Empties the tables that tests fill.
    pub(crate) async fn empty(&self) {
        for (db, sql) in [
            (&self.iredapd, "DELETE FROM throttle_tracking"),
            (&self.iredapd, "DELETE FROM throttle"),
            (&self.iredapd, "DELETE FROM greylisting"),
            (&self.iredapd, "DELETE FROM greylisting_tracking"),
            (&self.iredapd, "DELETE FROM greylisting_whitelists"),
            (&self.iredapd, "DELETE FROM smtp_sessions"),
            (&self.amavisd, "DELETE FROM wblist"),
            (&self.amavisd, "DELETE FROM outbound_wblist"),
            (&self.amavisd, "DELETE FROM mailaddr"),
            (&self.amavisd, "DELETE FROM users"),
            (&self.vmail, "DELETE FROM forwardings"),
            (&self.vmail, "DELETE FROM alias_domain"),
            (&self.vmail, "DELETE FROM domain"),
            (&self.vmail, "DELETE FROM alias"),
            (&self.vmail, "DELETE FROM maillists"),
            (&self.vmail, "DELETE FROM moderators"),
        ] {
            self.script(db, sql).await;
        }
        if let Some(valkey) = &self.valkey {
            assert_eq!(valkey.command(&["FLUSHALL"]).expect("flushed"), "+OK");
        }
        self.clock.set(NOW);
    }

    /// `[tid, messages, bytes]` of every throttle counter.
    pub(crate) async fn counters(&self) -> Vec<Vec<i64>> {
        const COUNTERS: &str = "SELECT tid, cur_msgs, cur_quota FROM throttle_tracking ORDER BY tid, account";
        let Some(valkey) = &self.valkey else { return self.numbers(&self.iredapd, COUNTERS).await };
        let keys = valkey.command(&["KEYS", "outrider:throttle:*"]).expect("listed");
        let mut keys: Vec<&str> = keys.lines().filter(|line| line.starts_with("outrider:")).collect();
        keys.sort_unstable();
        let row = |key: &&str| {
            let values = valkey.command(&["HMGET", key, "msgs", "quota"]).expect("read");
            let numbers = values.lines().filter(|line| !line.starts_with(['*', '$']));
            let tid = key.split(':').nth(2).expect("a number");
            [tid].into_iter().chain(numbers).map(|text| text.parse().expect("a number")).collect()
        };
        keys.iter().map(row).collect()
    }

    /// The stores of a daemon.
    pub(crate) fn stores(&self) -> Stores {
        let cache = CacheSettings::default();
        let valkey = ValkeyStores::from_settings(&self.settings.counters, &cache, self.clock.clone());
        Stores { valkey: valkey.expect("an address"), ..Stores::new(&self.iredapd, &self.amavisd, &cache) }
    }

    /// Runs fixed text.
    pub(crate) async fn script(&self, db: &Db, sql: &'static str) {
        db.execute_script(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// One row of `throttle`.
    pub(crate) async fn limit(&self, id: i64, account: &str, kind: &str, [msgs, quota]: [i64; 2]) {
        const INSERT: Stmt = Stmt::same(
            "INSERT INTO throttle (id, account, kind, priority, period, max_msgs, max_quota) \
             VALUES (?, ?, ?, 10, 3600, ?, ?)",
        );
        let args = [id.into(), account.into(), kind.into(), msgs.into(), quota.into()];
        self.iredapd.execute(&INSERT, &args).await.expect("inserted");
    }

    /// The integers of all rows of a query.
    pub(crate) async fn numbers(&self, db: &Db, sql: &'static str) -> Vec<Vec<i64>> {
        let rows = db.fetch_all(&Stmt::same(sql), &[]).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
        let columns = |row: &outrider_core::sql::Row| {
            (0..row.names().count()).map(|at| row.int_at(at).unwrap_or(i64::MIN)).collect()
        };
        rows.iter().map(columns).collect()
    }

    /// Runs a statement with values.
    pub(crate) async fn execute(&self, db: &Db, sql: &'static str, args: &[Value]) {
        db.execute(&Stmt::same(sql), args).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// A daemon with these rules on the databases.
    pub(crate) async fn daemon(&self, plugins: &[&str]) -> Service {
        self.daemon_with(plugins, |_| {}).await
    }

    /// A daemon with these rules and changed settings.
    pub(crate) async fn daemon_with(&self, plugins: &[&str], change: impl FnOnce(&mut Settings)) -> Service {
        let mut settings = self.settings.clone();
        settings.plugins = plugins.iter().map(|&name| name.to_owned()).collect();
        change(&mut settings);
        let mut env = Environment::system("policyd", self.folder.path().to_owned());
        env.clock = self.clock.clone();
        let metrics = env.metrics.clone();
        let daemon = Arc::new(Policyd::start(Arc::new(settings), env).await.expect("started"));
        let (stop, shutdown) = Shutdown::new();
        tokio::spawn(daemon.clone().background(shutdown));
        Service { daemon, metrics, stop }
    }
}

/// A daemon in this process; it stops, and gives its database connections back, when it is dropped.
pub(crate) struct Service {
    daemon: Arc<Policyd>,
    pub(crate) metrics: Arc<Metrics>,
    stop: ShutdownTrigger,
}

impl std::ops::Deref for Service {
    type Target = Arc<Policyd>;

    fn deref(&self) -> &Arc<Policyd> {
        &self.daemon
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// A connection to a daemon in this process.
pub(crate) struct Client {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(daemon: &Arc<Policyd>) -> Client {
        Client::with_deadline(daemon, Duration::from_secs(60))
    }

    /// A client whose requests have this long.
    pub(crate) fn with_deadline(daemon: &Arc<Policyd>, request: Duration) -> Client {
        let (stream, server) = tokio::io::duplex(64 * 1024);
        let daemon = daemon.clone();
        tokio::spawn(async move {
            let limits = SessionLimits { request, ..SessionLimits::default() };
            daemon.converse(server, Peer::Unix, &limits, std::future::pending()).await;
        });
        Client { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Everything up to the end of one answer; `None` if the connection was closed before.
    pub(crate) async fn answer(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let answer: Vec<u8> = self.read.drain(..end + 2).collect();
                let text = String::from_utf8(answer).expect("text");
                return Some(
                    text.strip_prefix("action=").expect("an action").trim_end_matches('\n').to_owned(),
                );
            }
            let mut buffer = [0; 4096];
            let wait = tokio::time::timeout(Duration::from_secs(70), self.stream.read(&mut buffer));
            match wait.await.expect("an answer within 70 s").expect("read") {
                0 => return None,
                length => self.read.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// One request of `name=value` pairs.
    pub(crate) async fn ask(&mut self, attributes: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for (name, value) in attributes {
            text.push_str(&format!("{name}={value}\n"));
        }
        self.send(format!("{text}\n").as_bytes()).await;
        self.answer().await.expect("an answer")
    }
}

/// Asks once, on a connection of its own.
pub(crate) async fn ask(daemon: &Arc<Policyd>, attributes: &[(&str, &str)]) -> String {
    Client::connect(daemon).ask(attributes).await
}

/// A message of our user `sender` at its end.
pub(crate) fn submission<'a>(sender: &'a str, recipients: &'a str, size: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("request", "smtpd_access_policy"),
        ("protocol_state", "END-OF-MESSAGE"),
        ("client_address", "192.0.2.7"),
        ("sender", sender),
        ("recipient", "pal@remote.test"),
        ("sasl_username", sender),
        ("recipient_count", recipients),
        ("size", size),
    ]
}

/// A stranger's recipient.
pub(crate) fn arrival<'a>(sender: &'a str, recipient: &'a str, client: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("client_address", client),
        ("reverse_client_name", "unknown"),
        ("sender", sender),
        ("recipient", recipient),
    ]
}
