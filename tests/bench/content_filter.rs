//! contentfilter, a bare SMTP relay, and Amavisd-new, with the same sink behind each.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use outrider_tests::daemon::Daemon;
use outrider_tests::dkim::Key;
use outrider_tests::dns_server::DnsServer;
use outrider_tests::folder::{Folder, keep_private};
use outrider_tests::message::{Message, dot_stuffed};
use outrider_tests::port::Port;
use outrider_tests::process::{Process, Start, run as run_program};
use outrider_tests::settings;

use crate::load::Exchange;
use crate::options::Plan;
use crate::report::{Report, conditions, package};
use crate::table::Table;
use crate::{bare_peer, wait_until_open};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let folder = Folder::new("bench")?;
    let dns = DnsServer::start()?;
    let sink_port = Port::reserve()?;
    let _sink = bare_peer(folder.path(), "smtp-sink", sink_port.address(), &[])?;
    let bare_port = Port::reserve()?;
    let bare =
        bare_peer(folder.path(), "smtp-relay", bare_port.address(), &[&sink_port.address().to_string()])?;

    let key = Key::generate()?;
    let key_file = folder.write("dkim.pem", &key.private_pem)?;
    keep_private(&key_file)?;
    // Amavisd reads it under its own account.
    let their_key_file = folder.write("their-dkim.pem", &key.private_pem)?;
    let (inbound, originating, lists) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
    let ours = Daemon::start(
        "contentfilter",
        folder.path(),
        &settings::contentfilter(&settings::FilterSettings {
            inbound: inbound.address(),
            originating: originating.address(),
            lists: lists.address(),
            reinject: sink_port.address(),
            reinject_lists: sink_port.address(),
            domain: "local.example",
            key_file: &key_file,
            dns: dns.address(),
        }),
    )?;
    let (their_inbound, their_originating) = (Port::reserve()?, Port::reserve()?);
    let workers = plan.connections.iter().copied().max().unwrap_or(1);
    let theirs = amavis(
        &folder,
        workers,
        &their_key_file.display().to_string(),
        &their_inbound,
        &their_originating,
        sink_port.address(),
    )?;

    let mut report = Report {
        title: "contentfilter".to_owned(),
        conditions: conditions(plan.seconds.as_secs()),
        ..Report::default()
    };
    report.conditions.push(package("amavisd-new"));
    for (size, label) in [(4_096, "4 KB"), (204_800, "200 KB")] {
        for (title, ports) in [
            ("inbound", (inbound.address(), their_inbound.address())),
            ("originating, DKIM RSA-2048", (originating.address(), their_originating.address())),
        ] {
            let mut table = Table::new(plan, &format!("{title} {label}: no scanning, sessions kept"));
            for (program, id, address) in [
                ("contentfilter", ours.id(), ports.0),
                ("bare SMTP relay", bare.id(), bare_port.address()),
                ("Amavisd-new", theirs.id(), ports.1),
            ] {
                table.sessions(program, id, &|connection| session(address, size, connection))?;
            }
            table.ratios();
            report.tables.push(table);
        }
    }
    report
        .remarks
        .push(format!("contentfilter resident {} KiB after the load", ours.resident_kib().unwrap_or(0)));
    report.finish(plan.markdown.as_deref())
}

/// A kept SMTP session; every exchange is one message.
fn session(address: SocketAddr, size: usize, connection: usize) -> Result<Exchange> {
    let mut writer = TcpStream::connect(address)?;
    writer.set_nodelay(true)?;
    writer.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(writer.try_clone()?);
    expect(&mut reader, 220)?;
    writer.write_all(b"EHLO bench.example\r\n")?;
    expect(&mut reader, 250)?;
    let line = "The quick brown fox jumps over the lazy dog and comes back again.\r\n";
    let body = line.repeat(size / line.len());
    Ok(Box::new(move |count| {
        let tag = format!("bench-{connection}-{count}");
        let message =
            Message::new("anna@local.example", "bob@local.example", &tag).body(body.as_bytes()).bytes();
        // As Postfix does: the true client's address with every message, so that no bank for local clients is loaded.
        writer.write_all(
            b"XFORWARD NAME=mx.world.example ADDR=198.51.100.7 PORT=51234\r\n\
              XFORWARD PROTO=ESMTP HELO=mx.world.example IDENT=4bXyZ1 SOURCE=REMOTE\r\n\
              MAIL FROM:<anna@local.example>\r\nRCPT TO:<bob@local.example>\r\nDATA\r\n",
        )?;
        for code in [250, 250, 250, 250, 354] {
            expect(&mut reader, code)?;
        }
        writer.write_all(&dot_stuffed(&message))?;
        expect(&mut reader, 250)
    }))
}

fn expect(reader: &mut impl BufRead, code: u16) -> Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.starts_with(&code.to_string()) {
            bail!("expected {code}, got {line:?}");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

/// Amavisd-new with every scanner bypassed and no SQL: what it costs by itself. `workers`: one for each connection, as it lets others wait.
fn amavis(
    folder: &Folder,
    workers: usize,
    key_file: &str,
    inbound: &Port,
    originating: &Port,
    next: SocketAddr,
) -> Result<Process> {
    let home = folder.sub("amavis")?;
    for name in ["tmp", "db", "var"] {
        folder.sub(&format!("amavis/{name}"))?;
    }
    // It refuses to run as root; the package brings its account.
    run_program("chown", &["-R", "amavis:amavis", &home.display().to_string()])?;
    let home = home.display();
    let (inbound, originating) = (inbound.number(), originating.number());
    let settings = folder.write(
        "amavis.conf",
        &format!(
            "use strict;\n\
             $max_servers = {workers}; $max_requests = 1000000; $child_timeout = 300;\n\
             $daemon_user = 'amavis'; $daemon_group = 'amavis';\n\
             $MYHOME = '{home}'; $TEMPBASE = '{home}/tmp'; $db_home = '{home}/db'; $pid_file = '{home}/amavisd.pid'; $lock_file = '{home}/amavisd.lock';\n\
             $mydomain = 'local.example'; $myhostname = 'mx.local.example';\n\
             @local_domains_maps = ( ['.local.example'] );\n\
             @mynetworks = qw( 127.0.0.0/8 );\n\
             $log_level = 0; $do_syslog = 0; $logfile = '{home}/amavis.log';\n\
             $enable_db = 0; $enable_zmq = 0; $nanny_details_level = 0;\n\
             $inet_socket_port = [{inbound}, {originating}]; $inet_socket_bind = '127.0.0.1'; @inet_acl = qw( 127.0.0.1 );\n\
             $forward_method = 'smtp:[127.0.0.1]:{next_port}'; $notify_method = $forward_method;\n\
             @bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1); @bypass_banned_checks_maps = (1); @bypass_header_checks_maps = (1);\n\
             @av_scanners = (); @av_scanners_backup = (); @decoders = ();\n\
             $virus_quarantine_method = undef; $spam_quarantine_method = undef; $banned_files_quarantine_method = undef; $bad_header_quarantine_method = undef;\n\
             $enable_dkim_verification = 0; $enable_dkim_signing = 1;\n\
             dkim_key('local.example', 'dkim', '{key_file}');\n\
             @dkim_signature_options_bysender_maps = ( {{ '.' => {{ a => 'rsa-sha256', c => 'relaxed/simple' }} }} );\n\
             $interface_policy{{'{originating}'}} = 'ORIGINATING';\n\
             $policy_bank{{'ORIGINATING'}} = {{ originating => 1 }};\n\
             $policy_bank{{'MYNETS'}} = {{ }};\n\
             1;\n",
            next_port = next.port()
        ),
    )?;
    let process = Start::new("Amavisd-new", "/usr/sbin/amavisd", folder.path().join("amavis.log"))
        .args(["-c", &settings.display().to_string(), "foreground"])
        .spawn()
        .context("starting Amavisd-new")?;
    wait_until_open("Amavisd-new", (std::net::Ipv4Addr::LOCALHOST, inbound).into());
    Ok(process)
}
