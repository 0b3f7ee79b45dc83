//! A running daemon and an HTTP client that sends exactly what it is told.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use outrider_admin_api::{AdminApi, Backend, Settings};
use outrider_core::daemon::{Environment, Running, Shutdown, ShutdownTrigger, StartError, launch};
use outrider_core::settings::{ListenAddress, Secret};
use outrider_core::sql::{Db, PoolOptions, Stmt, Value as SqlValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The token of the list API in these tests.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The password of every account that [`Server::add_admin`] and [`Server::add_user`] make.
pub(crate) const PASSWORD: &str = "Adm1n#Secret";

/// Settings are large; a start is kept out of the futures of the tests.
pub(crate) type Starting<T> = Pin<Box<dyn Future<Output = T>>>;

/// A daemon that stops when this is dropped.
pub(crate) struct Server {
    pub(crate) running: Running<AdminApi>,
    pub(crate) folder: tempfile::TempDir,
    _stop: StopOnDrop,
}

struct StopOnDrop(ShutdownTrigger);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Settings for free ports, both APIs on, lists in the database.
pub(crate) fn settings() -> Settings {
    let any_port = || vec![ListenAddress::Tcp(([127, 0, 0, 1], 0).into())];
    let mut settings =
        Settings { listen_lists: any_port(), listen_accounts: any_port(), ..Settings::default() };
    settings.lists.backend = Backend::Sql;
    settings.lists.api_auth_tokens = vec![Secret::new(TOKEN)];
    settings.accounts.enable_restful_api = true;
    settings
}

impl Server {
    pub(crate) fn start(settings: Settings) -> Starting<Self> {
        let started = Self::try_start(settings);
        Box::pin(async { started.await.unwrap() })
    }

    pub(crate) fn try_start(settings: Settings) -> Starting<Result<Self, StartError>> {
        Box::pin(async {
            let folder = tempfile::tempdir().unwrap();
            let environment = Environment::system("admin-api", folder.path().to_owned());
            let (trigger, shutdown) = Shutdown::new();
            let running = launch::<AdminApi>(settings, environment, shutdown).await?;
            Ok(Self { running, folder, _stop: StopOnDrop(trigger) })
        })
    }

    /// A connection to the API of this role.
    pub(crate) async fn connect(&self, role: &str) -> TcpStream {
        let bound = self.running.bound.iter().find(|bound| bound.role == role).unwrap();
        let ListenAddress::Tcp(address) = &bound.address else { panic!("not TCP") };
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends bytes on a connection of their own and reads one answer; `None` if the connection ends without one.
    pub(crate) async fn raw(&self, role: &str, request: &[u8]) -> Option<Reply> {
        let mut stream = self.connect(role).await;
        // The server may close before it has read everything.
        let _ = stream.write_all(request).await;
        read_reply(&mut stream).await
    }

    /// A call of the list API with the token.
    pub(crate) async fn list(&self, method: &str, path: &str, form: &str) -> Reply {
        let head = format!("X-MLMMJADMIN-API-AUTH-TOKEN: {TOKEN}\r\n");
        self.raw("lists", request(method, path, &head, form).as_bytes()).await.unwrap()
    }

    /// A call of the account API with a session cookie.
    pub(crate) async fn account(&self, session: &str, method: &str, path: &str, form: &str) -> Reply {
        let head = format!("Cookie: iRedAdmin={session}\r\n");
        self.raw("accounts", request(method, path, &head, form).as_bytes()).await.unwrap()
    }

    /// Logs in and returns the id of the session.
    pub(crate) async fn login(&self, username: &str) -> String {
        let reply = self.try_login(username, PASSWORD).await;
        assert_eq!(reply.json(), json!({"_success": true}), "login of {username}");
        let cookie = reply.header("set-cookie").unwrap();
        cookie.split(';').next().unwrap().strip_prefix("iRedAdmin=").unwrap().to_owned()
    }

    pub(crate) async fn try_login(&self, username: &str, password: &str) -> Reply {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", username)
            .append_pair("password", password)
            .finish();
        self.raw("accounts", request("POST", "/api/login", "", &form).as_bytes()).await.unwrap()
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.path().join("mlmmj")
    }

    pub(crate) fn vmail(&self) -> Db {
        Db::open_file(&self.folder.path().join("vmail.db"), &PoolOptions::default())
    }

    pub(crate) async fn sql(&self, sql: &'static str, args: &[SqlValue]) {
        self.vmail().execute(&Stmt::same(sql), args).await.unwrap();
    }

    /// The number that a `SELECT COUNT(*)` gives.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let row = self.vmail().fetch_optional(&Stmt::same(sql), &[]).await.unwrap();
        row.and_then(|row| row.int_at(0)).unwrap()
    }

    pub(crate) async fn add_domain(&self, domain: &str) {
        self.sql("INSERT INTO domain (domain, active) VALUES (?, 1)", &[domain.into()]).await;
    }

    /// A stand-alone administrator of these domains; `ALL` is everything.
    pub(crate) async fn add_admin(&self, username: &str, domains: &[&str]) {
        let password = format!("{{PLAIN}}{PASSWORD}");
        self.sql(
            "INSERT INTO admin (username, password, active) VALUES (?, ?, 1)",
            &[username.into(), password.into()],
        )
        .await;
        for domain in domains {
            self.sql(
                "INSERT INTO domain_admins (username, domain, active) VALUES (?, ?, 1)",
                &[username.into(), (*domain).into()],
            )
            .await;
        }
    }

    pub(crate) async fn add_user(&self, username: &str) {
        let domain = username.rsplit_once('@').unwrap().1;
        let password = format!("{{PLAIN}}{PASSWORD}");
        self.sql(
            "INSERT INTO mailbox (username, password, domain, active) VALUES (?, ?, ?, 1)",
            &[username.into(), password.into(), domain.into()],
        )
        .await;
        self.sql(
            "INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_forwarding, active) \
             VALUES (?, ?, ?, ?, 1, 1)",
            &[username.into(), username.into(), domain.into(), domain.into()],
        )
        .await;
    }
}

/// A well-formed request that ends its connection.
pub(crate) fn request(method: &str, path: &str, head: &str, form: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
}

/// Reads one answer, as long as its `Content-Length` says.
pub(crate) async fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut reply = Reply { status: 0, head, body: String::new() };
            reply.status = reply.head.split(' ').nth(1).unwrap().parse().unwrap();
            let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                reply.body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                return Some(reply);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
