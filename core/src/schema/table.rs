//! The description of the tables and how it becomes `CREATE TABLE` for each server.
//!
//! The `.tables` files beside this one say once what every table looks like:
//!
//! ```text
//! # a remark
//! table domain
//!   domain       varchar(255) = ''                             a column: name, type, default
//!   description  text null = NULL | text = ''                  MySQL | PostgreSQL where they differ
//!   id           bigint(20) unsigned auto | serial             counted up by the server
//!   rid          int(10) unsigned | integer >= 0               with a CHECK
//!   old          int(11) | -                                   not there on PostgreSQL
//!   primary (a, b)
//!   unique (a)
//!   index (a) (b, c)                                           two indexes
//!   foreign (tid) throttle (id)
//!   mysql index (d)                                            on one server only
//!   servers index (e)                                          on servers, which panels search; not on SQLite
//! mysql table elsewhere                                        a table of one server only
//! ```
//!
//! Columns are NOT NULL unless `null` follows the type; those of a primary key always are. SQLite takes its types
//! from PostgreSQL's (INTEGER, REAL, TEXT, BLOB), so that a value bound as text or as bytes suits both, and
//! defaults, null rules and keys from MySQL's; where PostgreSQL says `now()` it means local time as there.

use crate::sql::Engine;

/// One table as described.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    only: Option<Engine>,
    columns: Vec<Column>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    mysql: Option<Spelling>,
    pg: Option<Spelling>,
}

/// What one server makes of a column.
#[derive(Debug, Clone, PartialEq)]
struct Spelling {
    kind: &'static str,
    null: bool,
    auto: bool,
    default: Option<&'static str>,
    not_negative: bool,
}

#[derive(Debug)]
struct Key {
    only: Option<Engine>,
    /// Not on SQLite.
    servers: bool,
    kind: KeyKind,
    columns: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum KeyKind {
    Primary,
    Unique,
    Index,
    Foreign(&'static str, &'static str),
}

/// Reads a description.
///
/// # Errors
/// The line that cannot be read. The descriptions are part of the program and its tests read them all.
pub(crate) fn parse(text: &'static str) -> Result<Vec<Table>, String> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        let (only, servers, words) = match words.split_once(' ') {
            Some(("mysql", rest)) => (Some(Engine::MySql), false, rest),
            Some(("postgresql", rest)) => (Some(Engine::Postgres), false, rest),
            Some(("servers", rest)) => (None, true, rest),
            _ => (None, false, words),
        };
        let (first, rest) = words.split_once(' ').ok_or_else(|| line.to_owned())?;
        if first == "table" && !line.starts_with(' ') {
            tables.push(Table { name: rest, only, columns: Vec::new(), keys: Vec::new() });
            continue;
        }
        let table = tables.last_mut().ok_or_else(|| line.to_owned())?;
        match parse_keys(first, rest, only) {
            Some(keys) if !keys.is_empty() => {
                table.keys.extend(keys.into_iter().map(|key| Key { servers, ..key }));
            }
            Some(_) => return Err(line.to_owned()),
            None => table.columns.push(parse_column(first, rest).ok_or_else(|| line.to_owned())?),
        }
    }
    Ok(tables)
}

/// `None` when the line is no key but a column.
fn parse_keys(first: &str, rest: &'static str, only: Option<Engine>) -> Option<Vec<Key>> {
    if !rest.trim_start().starts_with('(') {
        return None;
    }
    let groups = || rest.split('(').skip(1).filter_map(|group| group.split_once(')'));
    let kind = match first {
        "primary" => KeyKind::Primary,
        "unique" => KeyKind::Unique,
        "index" => KeyKind::Index,
        "foreign" => {
            let mut groups = groups();
            let (column, table) = groups.next()?;
            let (target, _) = groups.next()?;
            let kind = KeyKind::Foreign(table.trim(), target);
            return Some(vec![Key { only, servers: false, kind, columns: vec![column] }]);
        }
        _ => return None,
    };
    let key = |(columns, _): (&'static str, &str)| Key {
        only,
        servers: false,
        kind,
        columns: columns.split(',').map(str::trim).collect(),
    };
    Some(groups().map(key).collect())
}

fn parse_column(name: &'static str, rest: &'static str) -> Option<Column> {
    let (mysql, pg) = rest.split_once(" | ").unwrap_or((rest, rest));
    let side = |text: &'static str| match text.trim() {
        "-" => Some(None),
        text => parse_spelling(text).map(Some),
    };
    Some(Column { name, mysql: side(mysql)?, pg: side(pg)? })
}

fn parse_spelling(text: &'static str) -> Option<Spelling> {
    let (text, not_negative) = match text.strip_suffix(">= 0") {
        Some(text) => (text.trim(), true),
        None => (text, false),
    };
    let (kind, default) = match text.split_once(" = ") {
        Some((kind, default)) => (kind.trim(), Some(default.trim_end_matches(' '))),
        None => (text, None),
    };
    // A default that is a quoted blank keeps it: only what follows the quote is cut.
    let (kind, null) = kind.strip_suffix(" null").map_or((kind, false), |kind| (kind, true));
    let (kind, auto) = kind.strip_suffix(" auto").map_or((kind, kind == "serial"), |kind| (kind, true));
    (!kind.is_empty()).then_some(Spelling { kind, null, auto, default, not_negative })
}

impl Table {
    /// The statements that create the table with its indexes; none when this server has no such table.
    pub(crate) fn create(&self, engine: Engine) -> Vec<String> {
        // SQLite follows MySQL in what there is.
        let like = if engine == Engine::Sqlite { Engine::MySql } else { engine };
        if self.only.is_some_and(|only| only != engine) {
            return Vec::new();
        }
        let is_wanted = |key: &&Key| {
            key.only.is_none_or(|only| only == like) && !(key.servers && engine == Engine::Sqlite)
        };
        let keys: Vec<&Key> = self.keys.iter().filter(is_wanted).collect();
        let primary = keys.iter().find(|key| key.kind == KeyKind::Primary);
        let in_primary = |name: &str| primary.is_some_and(|key| key.columns.contains(&name));
        let mut lines: Vec<String> = self
            .columns
            .iter()
            .filter_map(|column| column.define(engine, in_primary(column.name)))
            .map(|definition| format!("  {definition}"))
            .collect();
        let counted = self.columns.iter().any(|column| column.mysql.as_ref().is_some_and(|it| it.auto));
        let mut after = Vec::new();
        for key in keys {
            let columns = list(engine, &key.columns);
            let name = quote(engine, &format!("{}_{}_idx", self.name, key.columns.join("_")));
            match key.kind {
                // SQLite's counted column is the primary key already.
                KeyKind::Primary if engine == Engine::Sqlite && counted => {}
                KeyKind::Primary => lines.push(format!("  PRIMARY KEY ({columns})")),
                KeyKind::Unique if engine == Engine::MySql => {
                    lines.push(format!("  UNIQUE KEY {name} ({columns})"))
                }
                KeyKind::Unique => lines.push(format!("  UNIQUE ({columns})")),
                KeyKind::Index if engine == Engine::MySql => lines.push(format!("  KEY {name} ({columns})")),
                KeyKind::Index => {
                    after.push(format!("CREATE INDEX {name} ON {} ({columns})", quote(engine, self.name)));
                }
                KeyKind::Foreign(table, target) => lines.push(format!(
                    "  FOREIGN KEY ({columns}) REFERENCES {} ({})",
                    quote(engine, table),
                    quote(engine, target)
                )),
            }
        }
        let tail = if engine == Engine::MySql { " ENGINE=InnoDB ROW_FORMAT=DYNAMIC" } else { "" };
        let mut statements =
            vec![format!("CREATE TABLE {} (\n{}\n){tail}", quote(engine, self.name), lines.join(",\n"))];
        statements.append(&mut after);
        statements
    }
}

impl Column {
    fn define(&self, engine: Engine, in_primary: bool) -> Option<String> {
        let name = quote(engine, self.name);
        if engine == Engine::Sqlite {
            let mysql = self.mysql.as_ref()?;
            if mysql.auto {
                return Some(format!("{name} INTEGER PRIMARY KEY AUTOINCREMENT"));
            }
            let pg = self.pg.as_ref().unwrap_or(mysql);
            let default = match pg.default {
                Some("now()") => Some("(datetime('now','localtime'))"),
                _ => mysql.default,
            };
            return Some(finish(name, affinity(pg.kind), mysql, default, in_primary));
        }
        let spelling = if engine == Engine::MySql { self.mysql.as_ref()? } else { self.pg.as_ref()? };
        let kind = match spelling.kind.strip_suffix(" ascii") {
            Some(kind) => format!("{kind} CHARACTER SET ascii"),
            None => spelling.kind.to_owned(),
        };
        let mut text = finish(name.clone(), &kind, spelling, spelling.default, in_primary);
        if spelling.auto && engine == Engine::MySql {
            text.push_str(" AUTO_INCREMENT");
        }
        if spelling.not_negative {
            text.push_str(&format!(" CHECK ({name} >= 0)"));
        }
        Some(text)
    }
}

fn finish(name: String, kind: &str, spelling: &Spelling, default: Option<&str>, in_primary: bool) -> String {
    let null = if spelling.null && !in_primary { "NULL" } else { "NOT NULL" };
    let default = default.map_or(String::new(), |default| format!(" DEFAULT {default}"));
    format!("{name} {kind} {null}{default}")
}

/// What SQLite calls a column type of PostgreSQL.
fn affinity(kind: &str) -> &'static str {
    let first = kind.split(['(', ' ']).next().unwrap_or(kind);
    match first {
        "smallint" | "integer" | "bigint" | "serial" | "int" | "tinyint" => "INTEGER",
        "real" | "float" => "REAL",
        "bytea" | "varbinary" | "blob" => "BLOB",
        _ => "TEXT",
    }
}

fn list(engine: Engine, columns: &[&str]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| quote(engine, column)).collect();
    quoted.join(", ")
}

/// A name as the server wants it quoted: some are reserved words, some hold a hyphen.
pub(crate) fn quote(engine: Engine, name: &str) -> String {
    match engine {
        Engine::MySql => format!("`{name}`"),
        Engine::Postgres | Engine::Sqlite => format!("\"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "
# a remark
table t-x
  id     bigint(20) unsigned auto | serial
  when   datetime = '1970-01-01 01:01:01' | timestamp = now()
  blank  char(1) null = ' '
  part   int null = 0 | integer null = 0 >= 0
  raw    varbinary(16) | bytea
  gone   int(11) | -
  primary (id)
  unique (part, raw)
  index (blank) (when)
  foreign (part) other (id)
  postgresql index (raw)
  servers index (part)
mysql table elsewhere
  a  int(10)
";

    #[test]
    fn each_server_gets_its_spelling() {
        let tables = parse(SAMPLE).expect("readable");
        let mysql = tables[0].create(Engine::MySql);
        assert_eq!(
            mysql.join("\n"),
            "CREATE TABLE `t-x` (\n  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,\n  \
             `when` datetime NOT NULL DEFAULT '1970-01-01 01:01:01',\n  `blank` char(1) NULL DEFAULT ' ',\n  \
             `part` int NULL DEFAULT 0,\n  `raw` varbinary(16) NOT NULL,\n  `gone` int(11) NOT NULL,\n  \
             PRIMARY KEY (`id`),\n  UNIQUE KEY `t-x_part_raw_idx` (`part`, `raw`),\n  KEY `t-x_blank_idx` (`blank`),\n  \
             KEY `t-x_when_idx` (`when`),\n  FOREIGN KEY (`part`) REFERENCES `other` (`id`),\n  \
             KEY `t-x_part_idx` (`part`)\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
        );
        let pg = tables[0].create(Engine::Postgres);
        assert!(pg[0].contains("\"id\" serial NOT NULL,"), "{}", pg[0]);
        assert!(pg[0].contains("\"part\" integer NULL DEFAULT 0 CHECK (\"part\" >= 0)"), "{}", pg[0]);
        assert!(!pg[0].contains("gone"));
        assert_eq!(
            pg[pg.len() - 2..],
            [
                "CREATE INDEX \"t-x_raw_idx\" ON \"t-x\" (\"raw\")",
                "CREATE INDEX \"t-x_part_idx\" ON \"t-x\" (\"part\")"
            ]
        );
        let sqlite = tables[0].create(Engine::Sqlite);
        assert!(sqlite[0].contains("\"id\" INTEGER PRIMARY KEY AUTOINCREMENT"), "{}", sqlite[0]);
        assert!(
            sqlite[0].contains("\"when\" TEXT NOT NULL DEFAULT (datetime('now','localtime'))"),
            "{}",
            sqlite[0]
        );
        assert!(!sqlite.concat().contains("t-x_part_idx"), "no panel searches an embedded database");
        assert!(sqlite[0].contains("\"raw\" BLOB NOT NULL") && !sqlite[0].contains("PRIMARY KEY ("));
        assert!(tables[1].create(Engine::Postgres).is_empty() && !tables[1].create(Engine::MySql).is_empty());
    }

    #[test]
    fn lines_that_cannot_be_read_are_named() {
        for text in ["  a int", "table t\n  primary ()x\n  b", "table t\n  a  | int"] {
            let _ = parse(text);
        }
        assert_eq!(parse("  a int").expect_err("no table"), "  a int");
        assert_eq!(parse("table t\n  lonely").expect_err("no type"), "  lonely");
    }
}
