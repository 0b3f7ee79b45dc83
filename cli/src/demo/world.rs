//! The stage: five daemons, a name server, a next hop, sample accounts, and a clock that can be moved.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use outrider_admin_api::AdminApi;
use outrider_contentfilter::ContentFilter;
use outrider_core::clock::TestClock;
use outrider_core::daemon::{self, Daemon, Environment, Running, Shutdown, ShutdownTrigger};
use outrider_core::settings::{self, ListenAddress};
use outrider_core::sql::{DatabaseSettings, Databases, Stmt, Value};
use outrider_policyd::Policyd;
use outrider_quota_status::QuotaStatus;
use outrider_srsd::Srsd;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use super::next_hop::Delivered;
use super::{dns, next_hop};

/// The domain of the sample accounts.
pub(crate) const DOMAIN: &str = "demo.example";
/// The administrator who logs in on the account API.
pub(crate) const ADMIN: &str = "postmaster@admin.example";
/// Her password, for as long as the demonstration lasts.
pub(crate) const PASSWORD: &str = "Demo-Passw0rd";
/// The token of the mailing-list API.
pub(crate) const TOKEN: &str = "demo-token-0123456789abcdef";

/// Everything that runs.
pub(crate) struct World {
    /// The clock of all daemons.
    pub(crate) clock: Arc<TestClock>,
    /// Messages as the next hop received them.
    pub(crate) delivered: UnboundedReceiver<Delivered>,
    /// The embedded databases, for rows that have no interface of their own yet.
    pub(crate) databases: Databases,
    /// The state folder of all daemons, removed at the end.
    pub(crate) folder: TempDir,
    policyd: Running<Policyd>,
    srsd: Running<Srsd>,
    contentfilter: Running<ContentFilter>,
    quota_status: Running<QuotaStatus>,
    admin_api: Running<AdminApi>,
    trigger: ShutdownTrigger,
}

impl World {
    /// Starts the daemons with settings written to a temporary folder, as an administrator would write them.
    pub(crate) async fn start() -> Result<World> {
        let folder = tempfile::Builder::new()
            .prefix("outrider-demo-")
            .tempdir()
            .context("making a temporary folder")?;
        let home = folder.path();
        let public_key = write_key(&home.join("dkim.pem"))?;
        let zone =
            HashMap::from([(format!("demo._domainkey.{DOMAIN}"), format!("v=DKIM1; k=rsa; p={public_key}"))]);
        let name_server = dns::start(zone).await?;
        let (hop, delivered) = next_hop::start().await?;
        write_settings(home, name_server, hop)?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let clock = Arc::new(TestClock::new(i64::try_from(now).unwrap_or_default()));
        let databases = Databases::open(&DatabaseSettings::default(), home).await?;
        add_administrator(&databases).await?;

        let (trigger, shutdown) = Shutdown::new();
        let stage = Stage { home, clock: &clock, shutdown: &shutdown };
        Ok(World {
            policyd: stage.launch().await?,
            srsd: stage.launch().await?,
            contentfilter: stage.launch().await?,
            quota_status: stage.launch().await?,
            admin_api: stage.launch().await?,
            clock,
            delivered,
            databases,
            trigger,
            folder,
        })
    }

    /// Where clients of each daemon can connect, in the daemons' own words.
    pub(crate) fn ready_lines(&self) -> Vec<String> {
        vec![
            self.policyd.ready_line(),
            self.srsd.ready_line(),
            self.contentfilter.ready_line(),
            self.quota_status.ready_line(),
            self.admin_api.ready_line(),
        ]
    }

    /// The address of a daemon's listener with this role.
    pub(crate) fn address(&self, daemon: &str, role: &str) -> Result<SocketAddr> {
        let bound = match daemon {
            Policyd::NAME => &self.policyd.bound,
            Srsd::NAME => &self.srsd.bound,
            ContentFilter::NAME => &self.contentfilter.bound,
            QuotaStatus::NAME => &self.quota_status.bound,
            _ => &self.admin_api.bound,
        };
        match bound.iter().find(|listener| listener.role == role).map(|listener| &listener.address) {
            Some(ListenAddress::Tcp(address)) => Ok(*address),
            _ => Err(anyhow!("{daemon} does not listen as {role}")),
        }
    }

    /// Stops the daemons in good order and removes the folder.
    pub(crate) async fn stop(self) {
        self.trigger.request();
        self.policyd.finished().await;
        self.srsd.finished().await;
        self.contentfilter.finished().await;
        self.quota_status.finished().await;
        self.admin_api.finished().await;
    }
}

struct Stage<'a> {
    home: &'a Path,
    clock: &'a Arc<TestClock>,
    shutdown: &'a Shutdown,
}

impl Stage<'_> {
    async fn launch<D: Daemon>(&self) -> Result<Running<D>> {
        // Boxed because the state of five starting daemons is large for one stack frame.
        Box::pin(self.launch_from_file()).await
    }

    async fn launch_from_file<D: Daemon>(&self) -> Result<Running<D>> {
        let file = self.home.join(format!("{}.toml", D::NAME));
        let loaded = settings::load_from::<D::Settings>(Some(&file), D::NAME, &[])?;
        let mut env = Environment::system(D::NAME, self.home.to_path_buf());
        env.clock = self.clock.clone();
        daemon::launch::<D>(loaded.settings, env, self.shutdown.clone())
            .await
            .with_context(|| format!("starting {}", D::NAME))
    }
}

/// Makes an RSA key for DKIM, writes it as PEM and returns the public half in base64.
fn write_key(file: &Path) -> Result<String> {
    let pair = KeyPair::generate(KeySize::Rsa2048).context("making a DKIM key")?;
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).context("encoding the DKIM key")?;
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).context("encoding the DKIM key")?;
    let text = STANDARD.encode(private.as_ref());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    write_private(file, &pem)?;
    Ok(STANDARD.encode(public.as_ref()))
}

/// Writes a settings file a daemon. Everything that is not said is as in an empty file. Memory of accounts is switched
/// off, because the story changes them faster than an administrator would.
fn write_settings(home: &Path, name_server: SocketAddr, hop: SocketAddr) -> Result<()> {
    let key = home.join("dkim.pem");
    let files = [
        (
            "policyd",
            format!("listen = [\"127.0.0.1:0\"]\n\n[cache]\nlifetime = \"0s\"\n\n[dns]\nservers = [\"{name_server}\"]\n"),
        ),
        (
            "srsd",
            "listen_forward = [\"127.0.0.1:0\"]\nlisten_reverse = [\"127.0.0.1:0\"]\nsrs_domain = \"srs.demo.example\"\n\
             refresh = \"1s\"\n"
                .to_owned(),
        ),
        (
            "contentfilter",
            format!(
                "listen_inbound = [\"127.0.0.1:0\"]\nlisten_originating = [\"127.0.0.1:0\"]\nlisten_lists = [\"127.0.0.1:0\"]\n\
                 forward_method = \"smtp:[127.0.0.1]:{port}\"\nmyhostname = \"mail.{DOMAIN}\"\nmynetworks = []\n\n\
                 [[dkim.key]]\ndomain = \"{DOMAIN}\"\nselector = \"demo\"\nfile = \"{key}\"\n\n\
                 [dns]\nservers = [\"{name_server}\"]\n",
                port = hop.port(),
                key = key.display()
            ),
        ),
        ("quota-status", "listen = [\"127.0.0.1:0\"]\ncache_life = \"0s\"\n".to_owned()),
        (
            "admin-api",
            format!(
                "listen_lists = [\"127.0.0.1:0\"]\nlisten_accounts = [\"127.0.0.1:0\"]\n\n\
                 [lists]\nbackend = \"sql\"\napi_auth_tokens = [\"{TOKEN}\"]\n\n[accounts]\nenable_restful_api = true\n"
            ),
        ),
    ];
    for (name, text) in files {
        write_private(&home.join(format!("{name}.toml")), &text)?;
    }
    Ok(())
}

/// Writes a file that nobody else may read.
fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    opened.write_all(text.as_bytes()).with_context(|| format!("writing {}", file.display()))
}

/// The stand-alone global administrator that iRedMail's installer makes on a real server.
async fn add_administrator(databases: &Databases) -> Result<()> {
    const ADMIN_ROW: Stmt = Stmt::same("INSERT INTO admin (username, password, name) VALUES (?, ?, 'Demo')");
    const ALL_DOMAINS: Stmt = Stmt::same("INSERT INTO domain_admins (username, domain) VALUES (?, 'ALL')");
    let password = format!("{{PLAIN}}{PASSWORD}");
    databases.vmail.execute(&ADMIN_ROW, &[Value::from(ADMIN), Value::from(password)]).await?;
    databases.vmail.execute(&ALL_DOMAINS, &[Value::from(ADMIN)]).await?;
    Ok(())
}
