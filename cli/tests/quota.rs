//! `outrider import dovecot-quota` and `outrider quota explain`, as an administrator calls them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use outrider_core::schema::Database;
use outrider_core::settings;
use outrider_core::sql::{DatabaseSettings, Stmt};
use outrider_quota_status::{Grace, Settings, UsageSource};
use outrider_tests::prerequisite;

fn outrider(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrider")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A Dovecot as iRedMail configures it, as the installed Dovecot itself prints it; `None` where it is not installed.
fn doveconf(folder: &Path) -> Option<String> {
    let sql = folder.join("dovecot-mysql.conf");
    std::fs::write(
        &sql,
        "driver = mysql\ndefault_pass_scheme = CRYPT\n\
         connect = host=127.0.0.1 port=3307 dbname=vmail user=vmail password=geheim\n\
         user_query = SELECT home FROM mailbox\n",
    )
    .unwrap();
    let config = folder.join("dovecot.conf");
    std::fs::write(
        &config,
        format!(
            "protocols =\nauth_username_format = %Lu\nrecipient_delimiter = +\nmail_plugins = quota\n\
             doveadm_api_key = geheim\n\
             passdb {{\n  driver = sql\n  args = {sql}\n}}\nuserdb {{\n  driver = sql\n  args = {sql}\n}}\n\
             plugin {{\n  quota = dict:user::proxy::quotadict\n  quota_rule = *:storage=1G\n  quota_grace = 5%%\n  \
             quota_status_success = DUNNO\n  quota_status_nouser = DUNNO\n  \
             quota_status_overquota = \"552 5.2.2 Mailbox is full\"\n}}\n\
             service quota-status {{\n  executable = quota-status -p postfix\n  client_limit = 1\n  inet_listener {{\n    \
             address = 127.0.0.1\n    port = 12345\n  }}\n}}\n",
            sql = sql.display()
        ),
    )
    .unwrap();
    let output = Command::new("doveconf").arg("-n").arg("-c").arg(&config).output();
    if !prerequisite::met("Dovecot", output.is_ok()) {
        return None;
    }
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(text(&output.stdout))
}

#[test]
fn settings_from_the_installed_dovecot() {
    let folder = tempfile::tempdir().unwrap();
    let Some(printed) = doveconf(folder.path()) else { return };
    let (saved, target) = (folder.path().join("doveconf.txt"), folder.path().join("quota-status.toml"));
    std::fs::write(&saved, printed).unwrap();
    let (saved, target) = (saved.to_str().unwrap(), target.to_str().unwrap());
    let import = ["import", "dovecot-quota", "--dovecot-config", saved];
    let output = outrider(&[&import[..], &["--output", target]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let notes = text(&output.stderr);
    assert!(
        notes.contains("quota_rule = *:storage=1G") && notes.contains("/etc/outrider/vmail.password"),
        "{notes}"
    );
    let written = std::fs::read_to_string(target).unwrap();
    assert!(!written.contains("geheim") && !notes.contains("geheim"), "{written}{notes}");
    assert!(written.contains("# Dovecot: plugin / quota_grace, line "), "{written}");

    // The password is where the administrator puts it; the rest is good as it is.
    let password = folder.path().join("vmail.password");
    std::fs::write(&password, "geheim\n").unwrap();
    let ready = written.replace("/etc/outrider/vmail.password", password.to_str().unwrap());
    std::fs::write(target, &ready).unwrap();
    let loaded = settings::load_from::<Settings>(Some(Path::new(target)), "quota-status", &[]).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:12345"]);
    assert_eq!((settings.quota_grace, settings.usage), (Grace::Percent(5), UsageSource::Sql));
    assert_eq!(settings.quota_status_overquota, "552 5.2.2 Mailbox is full");
    assert_eq!(settings.recipient_delimiter, "+");
    assert_eq!(settings.database.vmail.unwrap().to_string(), "mysql://vmail@127.0.0.1:3307/vmail");

    // A file that is there stays, unless it is to be replaced.
    let output = outrider(&[&import[..], &["--output", target]].concat());
    assert!(
        !output.status.success() && text(&output.stderr).contains("--overwrite"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read_to_string(target).unwrap(), ready);
    assert!(outrider(&[&import[..], &["--output", target, "--overwrite"]].concat()).status.success());
    assert_eq!(std::fs::read_to_string(target).unwrap(), written);
    let output = outrider(&import);
    assert_eq!(text(&output.stdout), written);
}

#[test]
fn what_cannot_be_imported_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dovecot.conf");
    for (content, part) in [("!include conf.d/*.conf\n", "doveconf -n"), ("plugin {\n", "does not end")] {
        std::fs::write(&file, content).unwrap();
        let output = outrider(&["import", "dovecot-quota", "--dovecot-config", file.to_str().unwrap()]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{content}");
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    let output = outrider(&["import", "dovecot-quota", "--dovecot-config", "/nonexistent"]);
    assert!(!output.status.success() && text(&output.stderr).contains("/nonexistent"));
}

#[test]
fn explanations() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let explain = |arguments: &[&str]| {
        let common = ["quota", "explain", "--config", place, "--state-directory", place];
        outrider(&[&common[..], arguments].concat())
    };
    let output = explain(&["u@d.example"]);
    assert_eq!(output.status.code(), Some(66), "a folder that was named holds no settings");
    std::fs::write(folder.path().join("quota-status.toml"), "").unwrap();
    // Asking makes no database.
    let output = explain(&["u@d.example"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    assert!(!folder.path().join("vmail.db").exists());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = DatabaseSettings::default().open(Database::Vmail, folder.path()).await.unwrap();
        for stmt in [
            Stmt::same("INSERT INTO domain (domain) VALUES ('d.example')"),
            Stmt::same("INSERT INTO mailbox (username, domain, quota) VALUES ('full@d.example', 'd.example', 1)"),
            Stmt::same("INSERT INTO used_quota (username, bytes) VALUES ('full@d.example', 2000000)"),
            Stmt::same(
                "INSERT INTO forwardings (address, forwarding, domain) VALUES ('list@d.example', 'full@d.example', 'd.example')",
            ),
        ] {
            db.execute(&stmt, &[]).await.unwrap();
        }
    });
    let output = explain(&["Full+box@d.example", "--size", "1k"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in [
        "looked up  full@d.example",
        "size       1024 bytes",
        "limit    1048576 bytes (mailbox.quota)",
        "used     2000000 bytes (table used_quota)",
        "grace    104857 bytes",
        "message  full",
        "action=552 5.2.2 Mailbox is full",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = text(&explain(&["list@d.example"]).stdout);
    assert!(shown.contains("resolve_aliases is off") && shown.contains("action=DUNNO"), "{shown}");
    std::fs::write(folder.path().join("quota-status.toml"), "resolve_aliases = true\n").unwrap();
    let output = explain(&["list@d.example", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["action"], "552 5.2.2 Mailbox is full", "{told:#}");
    assert_eq!(told["addresses"][1]["mailbox"]["used_bytes"], 2_000_000, "{told:#}");
}
