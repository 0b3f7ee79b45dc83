//! Rows in the tables, made by the database itself: accounts, what has passed greylisting, and as many strangers as asked for.

use std::time::Instant;

use anyhow::Result;

use super::case::{KNOWN, USERS, known};
use super::engine::{Engine, Kind};

/// From this many rows on it is faster to make the indexes afterwards.
const WITHOUT_INDEXES: u64 = 100_000;

/// Accounts, limits and known triplets: what the questions are about.
pub(crate) fn accounts(engine: &Engine) -> Result<()> {
    let each = |row: &dyn Fn(String) -> String| {
        (0..USERS).map(|number| row(format!("u{number}"))).collect::<Vec<_>>().join(", ")
    };
    let mailboxes = each(&|user| {
        format!(
            "('{user}@local.example', '{{PLAIN}}secret', '/var/vmail', 'vmail1', 'local.example/{user}/', 'local.example')"
        )
    });
    let forwardings = each(&|user| {
        format!("('{user}@local.example', '{user}@local.example', 'local.example', 'local.example', 1)")
    });
    engine.execute(
        "vmail",
        &format!(
            "INSERT INTO domain (domain, transport) VALUES ('local.example', 'dovecot'); \
             INSERT INTO mailbox (username, password, storagebasedirectory, storagenode, maildir, domain) VALUES {mailboxes}; \
             INSERT INTO forwardings (address, forwarding, domain, dest_domain, is_forwarding) VALUES {forwardings}"
        ),
    )?;
    let triplets: Vec<String> = (0..KNOWN)
        .map(|number| {
            let (client, sender, recipient) = known(number);
            let domain = sender.split_once('@').map_or("", |parts| parts.1);
            format!(
                "('{sender}', '{recipient}', '{client}', '{domain}', 'local.example', 1700000000, 1700000300, 4000000000, 1, 1)"
            )
        })
        .collect();
    // The embedded database comes with the first of these rows.
    engine.execute(
        "iredapd",
        "DELETE FROM greylisting; \
         INSERT INTO greylisting (account, priority, sender, sender_priority, active) VALUES ('@.', 0, '@.', 0, 1); \
         INSERT INTO throttle (account, kind, priority, period, max_msgs) VALUES ('@.', 'outbound', 0, 3600, 2000000000)",
    )?;
    // In pieces, as the servers' clients take a statement as one argument, which may have 128 KiB.
    for piece in triplets.chunks(250) {
        engine.execute(
            "iredapd",
            &format!(
                "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, \
                 block_expired, record_expired, blocked_count, passed) VALUES {}",
                piece.join(", ")
            ),
        )?;
    }
    Ok(())
}

/// Fills `greylisting_tracking` and `throttle_tracking` from `have` up to `rows` rows of strangers.
pub(crate) fn fill(engine: &Engine, have: u64, rows: u64) -> Result<()> {
    if rows <= have {
        return Ok(());
    }
    let began = Instant::now();
    for table in ["greylisting_tracking", "throttle_tracking"] {
        let insert = insert(engine.kind, table, have + 1, rows);
        if rows - have < WITHOUT_INDEXES {
            engine.execute("iredapd", &insert)?;
            continue;
        }
        match engine.kind {
            Kind::Sqlite => sqlite(engine, table, &insert)?,
            Kind::MariaDb => mariadb(engine, table, &insert)?,
            Kind::Postgres => postgres(engine, table, &insert)?,
        }
    }
    println!("  {} rows in each tracking table after {:.0} s", rows, began.elapsed().as_secs_f64());
    Ok(())
}

/// One statement that makes the rows numbered `first` to `last`: senders of 20 000 domains, recipients of 50, two million possible clients,
/// a fifth of the triplets passed, nothing due to be removed.
fn insert(kind: Kind, table: &str, first: u64, last: u64) -> String {
    let series = match kind {
        Kind::Sqlite => format!(
            "(WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last}) SELECT n FROM series)"
        ),
        Kind::MariaDb => format!("(SELECT seq AS n FROM seq_{first}_to_{last})"),
        Kind::Postgres => format!("(SELECT generate_series({first}::bigint, {last}::bigint) AS n)"),
    };
    let now = match kind {
        Kind::Sqlite => "CAST(strftime('%s', 'now') AS INTEGER)",
        Kind::MariaDb => "UNIX_TIMESTAMP()",
        Kind::Postgres => "extract(epoch FROM now())::bigint",
    };
    // An odd factor modulo 2^32 scatters the numbers and keeps different ones different.
    let numbers = format!("SELECT n, (n * 2654435761) % 4294967296 AS h FROM {series} AS series");
    if table == "throttle_tracking" {
        let account = kind.concat(&["'u'", "(100000000 + n)", "'@d'", "n % 1000", "'.example'"]);
        return format!(
            "INSERT INTO throttle_tracking (tid, account, period, cur_msgs, cur_quota, init_time, last_time) \
             SELECT (SELECT MIN(id) FROM throttle), {account}, 86400, h % 50, h % 1000000, {now}, {now} FROM ({numbers}) AS numbers"
        );
    }
    let sender = kind.concat(&["'s'", "h", "'@d'", "h % 20000", "'.example'"]);
    let recipient = kind.concat(&["'r'", "h % 997", "'@h'", "h % 50", "'.example'"]);
    let client = kind.concat(&["'10.'", "h % 199", "'.'", "h % 103", "'.'", "h % 101"]);
    let sender_domain = kind.concat(&["'d'", "h % 20000", "'.example'"]);
    let recipient_domain = kind.concat(&["'h'", "h % 50", "'.example'"]);
    format!(
        "INSERT INTO greylisting_tracking (sender, recipient, client_address, sender_domain, rcpt_domain, init_time, block_expired, \
         record_expired, blocked_count, passed) SELECT {sender}, {recipient}, {client}, {sender_domain}, {recipient_domain}, \
         {now} - h % 40000, {now} - h % 40000 + 900, {now} + 5000000 + h % 40000, 1, CASE WHEN h % 5 = 0 THEN 1 ELSE 0 END \
         FROM ({numbers}) AS numbers{}",
        // The unique key cannot be left out there, so it is filled in its own order.
        if kind == Kind::Sqlite { " ORDER BY 1" } else { "" }
    )
}

fn sqlite(engine: &Engine, table: &str, insert: &str) -> Result<()> {
    let indexes = engine.query(
        "iredapd",
        &format!(
            "SELECT name, replace(sql, char(10), ' ') FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL"
        ),
    )?;
    let (drop, create): (Vec<_>, Vec<_>) = indexes
        .iter()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, sql)| (format!("DROP INDEX \"{name}\";"), format!("{sql};")))
        .unzip();
    // Nobody else has the file open and a failed load is thrown away, so nothing needs to survive.
    engine.execute(
        "iredapd",
        &format!(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-500000; \
             {} {insert}; {} ANALYZE; PRAGMA journal_mode=WAL;",
            drop.concat(),
            create.concat()
        ),
    )
}

fn mariadb(engine: &Engine, table: &str, insert: &str) -> Result<()> {
    let indexes = engine.query(
        "iredapd",
        &format!(
            "SELECT INDEX_NAME, IF(NON_UNIQUE, '', 'UNIQUE'), GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX) \
             FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'iredapd' AND TABLE_NAME = '{table}' AND INDEX_NAME <> 'PRIMARY' \
             GROUP BY INDEX_NAME, NON_UNIQUE"
        ),
    )?;
    // The counters' only index serves a foreign key and stays; it is filled in its own order.
    let (mut drop, mut create) = (Vec::new(), Vec::new());
    for line in indexes.iter().filter(|_| table == "greylisting_tracking") {
        let mut words = line.split('\t');
        if let (Some(name), Some(unique), Some(columns)) = (words.next(), words.next(), words.next()) {
            drop.push(format!("DROP INDEX `{name}`"));
            create.push(format!("ADD {unique} INDEX `{name}` ({columns})"));
        }
    }
    let alter = |changes: &[String]| match changes {
        [] => String::new(),
        changes => format!("ALTER TABLE {table} {};", changes.join(", ")),
    };
    engine.execute(
        "iredapd",
        &format!(
            "SET foreign_key_checks = 0; {} {insert}; {} ANALYZE TABLE {table}; FLUSH TABLES {table} FOR EXPORT; UNLOCK TABLES",
            alter(&drop),
            alter(&create)
        ),
    )
}

fn postgres(engine: &Engine, table: &str, insert: &str) -> Result<()> {
    let indexes = engine.query(
        "iredapd",
        &format!(
            "SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', '{table}', conname), \
             format('ALTER TABLE %I ADD CONSTRAINT %I %s', '{table}', conname, pg_get_constraintdef(oid)) \
             FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'u' \
             UNION ALL SELECT format('DROP INDEX %I', indexname), indexdef FROM pg_indexes \
             WHERE tablename = '{table}' AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        ),
    )?;
    // Without triggers no foreign key is looked up.
    let mut statements = vec![
        "SET session_replication_role = replica".to_owned(),
        "SET maintenance_work_mem = '512MB'".to_owned(),
    ];
    statements.extend(indexes.iter().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())));
    statements.push(insert.to_owned());
    statements.extend(indexes.iter().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())));
    engine.execute("iredapd", &statements.join("; "))?;
    for statement in [format!("VACUUM ANALYZE {table}"), "CHECKPOINT".to_owned()] {
        engine.execute("iredapd", &statement)?;
    }
    Ok(())
}
