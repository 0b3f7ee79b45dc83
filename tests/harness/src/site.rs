//! A whole mail server: Postfix, Dovecot, SQL server, the daemons that are wanted, and the world outside.

use anyhow::{Context, Result};

use crate::account::Accounts;
use crate::daemon::Daemon;
use crate::dkim::Key;
use crate::dns_server::DnsServer;
use crate::dovecot::Dovecot;
use crate::folder::{Folder, keep_private};
use crate::mailing_list::Spool;
use crate::port::Port;
use crate::postfix::{Filter, Postfix, Srs, SrsProtocol, Wiring};
use crate::settings::{self, Caching, FilterSettings};
use crate::sink::Sink;
use crate::smtp_client::SmtpClient;
use crate::store::{self, Server, Store};

/// The hosted domain.
pub const DOMAIN: &str = "local.example";
/// Another name for it.
pub const ALIAS_DOMAIN: &str = "alias.example";
/// The server's name, which is the SRS domain too.
pub const HOST: &str = "mx.local.example";
/// The user of most scenarios.
pub const ANNA: &str = "anna@local.example";
/// A user whose mailbox is full.
pub const FULL: &str = "full@local.example";
/// A user whose mail is sent on to [`CARLA`].
pub const AWAY: &str = "away@local.example";
/// Somebody outside.
pub const CARLA: &str = "carla@far.example";
/// Somebody else outside, who writes from 198.51.100.7.
pub const BOB: &str = "bob@world.example";
/// A mailing list of u0, u1 and [`CARLA`].
pub const TEAM: &str = "team@local.example";
/// How many users `u0@local.example` and so on there are.
pub const USERS: usize = 10;

/// Which daemons are plugged in.
#[derive(Debug, Clone)]
pub struct Plan {
    server: Server,
    policyd: bool,
    quota: bool,
    quota_extras: bool,
    filter: bool,
    srs: Option<SrsProtocol>,
    selective: bool,
    list: bool,
    parameters: Vec<(String, String)>,
}

impl Plan {
    /// Postfix and Dovecot alone.
    pub fn plain(server: Server) -> Self {
        Self {
            server,
            policyd: false,
            quota: false,
            quota_extras: false,
            filter: false,
            srs: None,
            selective: false,
            list: false,
            parameters: Vec::new(),
        }
    }

    /// All four daemons that carry mail, SRS by tcp_table.
    pub fn full(server: Server) -> Self {
        Self {
            server,
            policyd: true,
            quota: true,
            quota_extras: false,
            filter: true,
            srs: Some(SrsProtocol::TcpTable),
            selective: false,
            list: false,
            parameters: Vec::new(),
        }
    }

    /// Adds policyd.
    pub fn policyd(mut self) -> Self {
        self.policyd = true;
        self
    }

    /// Adds quota-status.
    pub fn quota(mut self) -> Self {
        self.quota = true;
        self
    }

    /// Adds quota-status with what Dovecot's service does not do: aliases are followed, and the true size is looked at.
    pub fn quota_with_extras(mut self) -> Self {
        (self.quota, self.quota_extras) = (true, true);
        self
    }

    /// Adds the content filter.
    pub fn filter(mut self) -> Self {
        self.filter = true;
        self
    }

    /// Adds the mailing list [`TEAM`].
    pub fn list(mut self) -> Self {
        self.list = true;
        self
    }

    /// Sets a parameter of Postfix, whatever it is set to otherwise.
    pub fn parameter(mut self, name: &str, value: impl Into<String>) -> Self {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// Adds srsd.
    pub fn srs(mut self, protocol: SrsProtocol) -> Self {
        self.srs = Some(protocol);
        self
    }

    /// Adds srsd and the content filter, which alone rewrites senders.
    pub fn selective_srs(mut self) -> Self {
        self.selective = true;
        self.filter().srs(SrsProtocol::TcpTable)
    }
}

/// The running server. Fields are in the order in which they must stop.
#[derive(Debug)]
pub struct Site {
    /// The mail server.
    pub postfix: Postfix,
    /// Delivery and login.
    pub dovecot: Dovecot,
    /// Absent when not planned, as the following.
    pub policyd: Option<Daemon>,
    /// SRS.
    pub srsd: Option<Daemon>,
    /// Content filter.
    pub contentfilter: Option<Daemon>,
    /// Quota.
    pub quota_status: Option<Daemon>,
    /// Accounts and state.
    pub store: Box<dyn Store>,
    /// The lists, when planned.
    pub lists: Option<Spool>,
    /// Where mail for elsewhere goes.
    pub world: Sink,
    /// The name server of the daemons.
    pub dns: DnsServer,
    /// The key `dkim._domainkey.local.example`.
    pub key: Key,
    _ports: Vec<Port>,
    /// The settings, logs and state of the daemons.
    pub folder: Folder,
}

impl Site {
    /// Starts everything in `plan`, with the sample accounts.
    pub fn start(plan: &Plan) -> Result<Self> {
        let folder = Folder::new("site")?;
        let world = Sink::start()?;
        let dns = DnsServer::start()?;
        let key = Key::generate()?;
        dns.txt(&format!("dkim._domainkey.{DOMAIN}"), &key.record);
        let store = store::start(plan.server)?;
        let sql = store.access();
        let mut postfix = Postfix::reserve(HOST)?;
        let mut dovecot = Dovecot::reserve()?;
        sample_accounts(&*store, &dovecot.storage()).context("writing the sample accounts")?;

        let mut ports = Vec::new();
        let mut port = || -> Result<std::net::SocketAddr> {
            let port = Port::reserve()?;
            let address = port.address();
            ports.push(port);
            Ok(address)
        };
        let mut wiring = Wiring { extra: plan.parameters.clone(), ..Wiring::default() };
        let (mut policyd, mut srsd, mut contentfilter, mut quota_status) = (None, None, None, None);
        if plan.policyd {
            let address = port()?;
            let text = settings::policyd(address, &sql, dns.address(), Caching::Off);
            policyd = Some(Daemon::start("policyd", folder.path(), &text)?);
            wiring.policy = Some(address);
        }
        if plan.quota {
            let address = port()?;
            let mut text = settings::quota_status(address, &sql, Caching::Off);
            if plan.quota_extras {
                text.insert_str(0, "resolve_aliases = true\ncheck_end_of_message = true\n");
                let at_end = format!("check_policy_service inet:{address}");
                wiring.extra.push(("smtpd_end_of_data_restrictions".to_owned(), at_end));
            }
            quota_status = Some(Daemon::start("quota-status", folder.path(), &text)?);
            wiring.quota = Some(address);
        }
        if let Some(protocol) = plan.srs {
            let (forward, reverse) = (port()?, port()?);
            srsd = Some(Daemon::start("srsd", folder.path(), &settings::srsd(forward, reverse, HOST, &sql))?);
            wiring.srs = Some(Srs { protocol, forward: (!plan.selective).then_some(forward), reverse });
        }
        if plan.filter {
            let (inbound, originating, lists) = (port()?, port()?, port()?);
            let key_file = folder.write("dkim.pem", &key.private_pem)?;
            keep_private(&key_file)?;
            let text = settings::contentfilter(&FilterSettings {
                inbound,
                originating,
                lists,
                reinject: postfix.reinject(),
                reinject_lists: postfix.reinject_lists(),
                domain: DOMAIN,
                key_file: &key_file,
                dns: dns.address(),
            });
            let text = match plan.selective {
                true => format!("rewrite_forwarded = true\n{text}{}", settings::selective_srs(HOST, &sql)),
                false => text,
            };
            contentfilter = Some(Daemon::start("contentfilter", folder.path(), &text)?);
            wiring.filter = Some(Filter { inbound, originating });
        }
        let mut lists = None;
        if plan.list {
            let spool = Spool::new()?;
            let port = contentfilter
                .as_ref()
                .map_or(Ok(postfix.reinject_lists()), |filter| filter.address("lists"))?
                .port();
            spool.create(&*store, TEAM, &["u0@local.example", "u1@local.example", CARLA], port)?;
            wiring.lists = Some(spool.path().to_owned());
            lists = Some(spool);
        }
        postfix.configure(&sql, world.address(), &wiring)?;
        dovecot.start(&sql, &postfix.socket_folder())?;
        postfix.start()?;
        Ok(Self {
            postfix,
            dovecot,
            policyd,
            srsd,
            contentfilter,
            quota_status,
            store,
            lists,
            world,
            dns,
            key,
            _ports: ports,
            folder,
        })
    }

    /// An SMTP session from outside, as if from 198.51.100.7.
    pub fn from_outside(&self) -> Result<SmtpClient> {
        SmtpClient::connect_from(self.postfix.mx(), "198.51.100.7", "mx.world.example")
    }

    /// A session of a user who has logged in.
    pub fn submission(&self, user: &str) -> Result<SmtpClient> {
        let mut client = SmtpClient::connect(self.postfix.submission())?;
        let reply = client.login(user, crate::account::PASSWORD)?;
        anyhow::ensure!(reply.code == 235, "login of {user} refused: {reply}");
        Ok(client)
    }

    /// The daemon of that name.
    pub fn daemon(&mut self, name: &str) -> Result<&mut Daemon> {
        let daemon = match name {
            "policyd" => self.policyd.as_mut(),
            "srsd" => self.srsd.as_mut(),
            "contentfilter" => self.contentfilter.as_mut(),
            "quota-status" => self.quota_status.as_mut(),
            _ => None,
        };
        daemon.with_context(|| format!("{name} is not part of this server"))
    }
}

fn sample_accounts(store: &dyn Store, storage: &str) -> Result<()> {
    let accounts = Accounts::new(store, storage);
    accounts.domain(DOMAIN)?;
    accounts.alias_domain(ALIAS_DOMAIN, DOMAIN)?;
    accounts.user(ANNA, 100)?;
    accounts.user(FULL, 1)?;
    accounts.used_quota(FULL, 2 * 1024 * 1024)?;
    accounts.user(AWAY, 0)?;
    accounts.remove_forwarding(AWAY, AWAY)?;
    accounts.forwarding(AWAY, CARLA, "is_forwarding")?;
    for number in 0..USERS {
        accounts.user(&format!("u{number}@{DOMAIN}"), 0)?;
    }
    Ok(())
}
