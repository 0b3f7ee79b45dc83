//! Values go in as they are and come out as they are.

use outrider_core::sql::{Engine, Row, Stmt, Value};

use crate::ground::Ground;

/// Text that breaks whoever builds statements by joining strings.
pub(crate) const CANARIES: &[&str] = &[
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "' OR '1'='1",
    "'; DROP TABLE domain; --",
    "x' UNION SELECT password FROM mailbox --",
    "%",
    "_",
    "a%b_c!d",
    "?",
    "$1",
    ":word",
    "{0}",
    "`domain`",
    "/* */ -- #",
    "\u{1a}\r\n\t",
    "ä\u{1F4E7}\u{202e}",
    "( ) , ;",
];

/// Every column type of the iRedMail tables, at its ends and empty.
pub(crate) async fn columns_of_every_width(ground: &Ground) {
    let (create, insert) = match ground.engine() {
        Engine::MySql => (
            "CREATE TABLE w (i1 tinyint(1), i2 tinyint unsigned, i3 smallint, i4 mediumint unsigned, i5 int, \
             i6 int unsigned, i7 bigint, i8 bigint unsigned, d decimal(20,2), f float, t varchar(255), c char(1), \
             x text, b varbinary(255), l blob, dt datetime, ts timestamp NULL, da date)",
            "INSERT INTO w VALUES (-1, 255, -32768, 16777215, -2147483648, 4294967295, -9223372036854775808, \
             18446744073709551615, 12345678901.50, 6.2, 'é', 'y', '', x'00ff', x'', '9999-12-31 23:59:59', \
             '2025-03-15 12:00:00', '0001-01-01')",
        ),
        Engine::Postgres => (
            "CREATE TABLE w (i1 smallint, i2 smallint, i3 smallint, i4 integer, i5 integer, i6 bigint, i7 bigint, \
             i8 numeric(20), d numeric(20,2), f real, t varchar(255), c char(1), x text, b bytea, l bytea, \
             dt timestamp, ts timestamp, da date)",
            "INSERT INTO w VALUES (-1, 255, -32768, 16777215, -2147483648, 4294967295, -9223372036854775808, \
             9223372036854775807, 12345678901.50, 6.2, 'é', 'y', '', '\\x00ff', '', '9999-12-31 23:59:59', \
             '2025-03-15 12:00:00', '0001-01-01')",
        ),
        Engine::Sqlite => (
            "CREATE TABLE w (i1 INTEGER, i2 INTEGER, i3 INTEGER, i4 INTEGER, i5 INTEGER, i6 INTEGER, i7 INTEGER, \
             i8 INTEGER, d NUMERIC, f REAL, t TEXT, c TEXT, x TEXT, b BLOB, l BLOB, dt TEXT, ts TEXT, da TEXT)",
            "INSERT INTO w VALUES (-1, 255, -32768, 16777215, -2147483648, 4294967295, -9223372036854775808, \
             9223372036854775807, 12345678901.50, 6.2, 'é', 'y', '', x'00ff', x'', '9999-12-31 23:59:59', \
             '2025-03-15 12:00:00', '0001-01-01')",
        ),
    };
    ground.script(create).await;
    ground.script(insert).await;
    ground.script("INSERT INTO w (i1) VALUES (NULL)").await;
    const ALL: Stmt = Stmt::same("SELECT * FROM w ORDER BY i2 IS NULL");
    let rows = ground.vmail.fetch_all(&ALL, &[]).await.expect("read");
    let [full, empty] = rows.as_slice() else { panic!("{rows:?}") };
    let ints: [(&str, i64); 8] = [
        ("i1", -1),
        ("i2", 255),
        ("i3", -32768),
        ("i4", 16_777_215),
        ("i5", i64::from(i32::MIN)),
        ("i6", i64::from(u32::MAX)),
        ("i7", i64::MIN),
        ("i8", i64::MAX),
    ];
    for (column, expected) in ints {
        assert_eq!(full.int(column), Some(expected), "{column}");
    }
    assert_eq!(full.int("d"), Some(12_345_678_901));
    assert_eq!(full.real("d"), Some(12_345_678_901.5));
    assert_eq!(full.real("f"), Some(6.2));
    for (column, expected) in [("t", "é"), ("c", "y"), ("x", ""), ("l", "")] {
        assert_eq!(full.text(column), Some(expected), "{column}");
    }
    assert_eq!(full.bytes("b"), Some(&[0x00, 0xff][..]));
    for (column, expected) in
        [("dt", "9999-12-31 23:59:59"), ("ts", "2025-03-15 12:00:00"), ("da", "0001-01-01")]
    {
        assert_eq!(full.text(column), Some(expected), "{column}");
    }
    for name in full.names() {
        assert!(empty.is_null(name), "{name}");
        assert_eq!((empty.int(name), empty.text(name), empty.bytes(name)), (None, None, None), "{name}");
    }
    const SUMS: Stmt = Stmt::same("SELECT SUM(i5) AS s, COUNT(*) AS n, MAX(i6) AS m FROM w");
    let row = ground.vmail.fetch_optional(&SUMS, &[]).await.expect("read").expect("a row");
    assert_eq!(
        (row.int("s"), row.int("n"), row.int("m")),
        (Some(i64::from(i32::MIN)), Some(2), Some(i64::from(u32::MAX)))
    );
}

const INSERT: Stmt = Stmt::same("INSERT INTO canary (name, text, raw, n, r, at) VALUES (?, ?, ?, ?, ?, ?)");
const READ: Stmt = Stmt::same("SELECT name, text, raw, n, r, at FROM canary WHERE text = ?");
const CLEAR: Stmt = Stmt::same("DELETE FROM canary").repeatable();

async fn canary_table(ground: &Ground) {
    ground
        .script(match ground.engine() {
            Engine::MySql => {
                "CREATE TABLE IF NOT EXISTS canary (name varchar(255), text text, raw blob, n int, r double, \
                 at datetime) COLLATE utf8mb4_bin"
            }
            Engine::Postgres => {
                "CREATE TABLE IF NOT EXISTS canary (name varchar(255), text text, raw bytea, n integer, \
                 r double precision, at timestamp)"
            }
            Engine::Sqlite => {
                "CREATE TABLE IF NOT EXISTS canary (name TEXT, text TEXT, raw BLOB, n INTEGER, r REAL, at TEXT)"
            }
        })
        .await;
    ground.vmail.execute(&CLEAR, &[]).await.expect("emptied");
}

async fn insert_and_read(ground: &Ground, text: &str) -> Vec<Row> {
    let args = [
        Value::from(text.chars().take(255).collect::<String>()),
        Value::from(text),
        Value::bytes(text),
        Value::from(7),
        Value::from(0.5),
        Value::time("2025-03-15 12:00:00"),
    ];
    let done = ground.vmail.execute(&INSERT, &args).await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(done.rows_affected, 1, "{text:?}");
    ground.vmail.fetch_all(&READ, &[Value::from(text)]).await.expect("read")
}

/// Canaries through every kind of parameter, alone and in lists.
pub(crate) async fn bound_text_stays_text(ground: &Ground) {
    canary_table(ground).await;
    for text in CANARIES {
        let rows = insert_and_read(ground, text).await;
        let [row] = rows.as_slice() else { panic!("{text:?}: {rows:?}") };
        assert_eq!(row.text("text"), Some(*text));
        assert_eq!(row.bytes("raw"), Some(text.as_bytes()));
        assert_eq!(row.int("n"), Some(7));
        assert_eq!(row.real("r"), Some(0.5));
        assert_eq!(row.text("at"), Some("2025-03-15 12:00:00"));
    }
    const LISTED: Stmt = Stmt::same("SELECT text FROM canary WHERE text IN (?) AND raw IN (?)");
    let args = [Value::list(CANARIES.iter().copied()), Value::bytes_list(CANARIES)];
    let rows = ground.vmail.fetch_all(&LISTED, &args).await.expect("read");
    assert_eq!(rows.len(), CANARIES.len());
    let none = [Value::List(Vec::new()), Value::bytes_list(CANARIES)];
    assert!(ground.vmail.fetch_all(&LISTED, &none).await.expect("read").is_empty());
    // PostgreSQL cannot hold NUL: it is stored as the replacement character and found again by the same question.
    let rows = insert_and_read(ground, "a\0b").await;
    assert_eq!(rows.len(), 1);
    let expected = if ground.engine() == Engine::Postgres { "a\u{fffd}b" } else { "a\0b" };
    assert_eq!(rows[0].text("text"), Some(expected));
    assert_eq!(rows[0].bytes("raw"), Some(&b"a\0b"[..]));
    // The same statement with NULL in any place, in turns with values: prepared statements keep their types.
    let full = [
        Value::from("n"),
        Value::from("t"),
        Value::bytes("r"),
        Value::from(1),
        Value::from(1.0),
        Value::time("2025-03-15"),
    ];
    for place in 0..full.len() {
        let mut args = full.clone();
        args[place] = Value::Null;
        for args in [&args, &full] {
            ground.vmail.execute(&INSERT, args).await.unwrap_or_else(|error| panic!("{args:?}: {error}"));
        }
    }
}

/// Ten megabytes in one value, there and back.
pub(crate) async fn large_values_pass(ground: &Ground) {
    if ground.engine() == Engine::MySql {
        ground.script("ALTER TABLE canary MODIFY text longtext, MODIFY raw longblob").await;
    }
    canary_table(ground).await;
    let large = "0123456789".repeat(1_000_000);
    let half = &large[..5_000_000];
    let args = |text: &str| {
        ["large".into(), Value::from(text), Value::bytes(half), 1.into(), 1.0.into(), Value::Null]
    };
    ground.vmail.execute(&INSERT, &args(&large)).await.expect("inserted");
    if ground.engine() == Engine::MySql {
        // Beyond max_allowed_packet the server hangs up, with or without a word: that must not trouble the next statement.
        assert!(ground.vmail.execute(&INSERT, &args(&large.repeat(2))).await.is_err());
        ground.vmail.execute(&INSERT, &args("small")).await.expect("inserted");
        const SMALL: Stmt = Stmt::same("DELETE FROM canary WHERE text = ?").repeatable();
        ground.vmail.execute(&SMALL, &["small".into()]).await.expect("deleted");
    }
    const BY_NAME: Stmt = Stmt::same("SELECT text, raw FROM canary WHERE name = ?");
    let row = ground.vmail.fetch_optional(&BY_NAME, &["large".into()]).await.expect("read").expect("a row");
    assert_eq!(row.text("text"), Some(&*large));
    assert_eq!(row.bytes("raw"), Some(half.as_bytes()));
    ground.vmail.execute(&CLEAR, &[]).await.expect("emptied");
}

/// As above with text made at random from a printed seed.
pub(crate) async fn random_text_comes_back(ground: &Ground) {
    canary_table(ground).await;
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |it| it.as_nanos() as u64);
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut next = |bound: usize| {
        // xorshift: any spread will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    const PIECES: &[&str] = &[
        "'",
        "\"",
        "\\",
        "%",
        "_",
        "?",
        "$2",
        ";",
        "--",
        "a",
        "Z",
        "@",
        "é",
        "\u{10ffff}",
        "\n",
        " ",
        "\u{1}",
    ];
    for _ in 0..200 {
        let length = next(40);
        let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
        ground.vmail.execute(&CLEAR, &[]).await.expect("emptied");
        let rows = insert_and_read(ground, &text).await;
        assert_eq!(rows.first().and_then(|row| row.text("text")), Some(&*text), "seed {seed}");
    }
}

/// Duplicate keys are told apart; a transaction counts as a whole or not at all.
pub(crate) async fn keys_and_transactions(ground: &Ground) {
    const ADD: Stmt = Stmt::same("INSERT INTO domain (domain) VALUES (?)");
    const HOW_MANY: Stmt = Stmt::same("SELECT COUNT(*) AS n FROM domain WHERE domain IN (?)");
    const REMOVE: Stmt = Stmt::same("DELETE FROM domain WHERE domain IN (?)").repeatable();
    const WRONG: Stmt = Stmt::same("INSERT INTO nowhere (a) VALUES (?)");
    let names = || Value::list(["one.example", "two.example"]);
    let count = async || {
        let row = ground.vmail.fetch_optional(&HOW_MANY, &[names()]).await.expect("read").expect("a row");
        row.int("n")
    };
    let db = &ground.vmail;
    let mut transaction = db.begin().await.expect("begun");
    transaction.execute(&ADD, &["one.example".into()]).await.expect("added");
    drop(transaction);
    assert_eq!(count().await, Some(0));
    let mut transaction = db.begin().await.expect("begun");
    for name in ["one.example", "two.example"] {
        transaction.execute(&ADD, &[name.into()]).await.expect("added");
    }
    transaction.commit().await.expect("committed");
    assert_eq!(count().await, Some(2));
    let error = db.execute(&ADD, &["one.example".into()]).await.expect_err("the key is taken");
    assert!(error.is_duplicate_key() && !error.is_temporary(), "{error}");
    let error = db.execute(&WRONG, &["x".into()]).await.expect_err("no such table");
    assert!(!error.is_duplicate_key() && !error.is_temporary(), "{error}");
    let done = db.execute(&REMOVE, &[names()]).await.expect("removed");
    assert_eq!(done.rows_affected, 2);
    assert_eq!(count().await, Some(0));
}
