//! Statements: `?` marks a value on every server.
//!
//! MySQL and SQLite take `?` as it is. PostgreSQL gets `$1::text` and so on: the cast follows the bound value, so
//! that one prepared statement always has the same parameter types. A `?` bound to a list becomes `?,?,?`, one bound to
//! rows `(?,?),(?,?)`. A part in braces bound to rows, as in `{SELECT a FROM t WHERE n = ?}`, is there once for each of
//! them, joined by `UNION ALL`: how a statement is asked about many keys at once where a list would not use the index.

use super::{Engine, Value};
use std::borrow::Cow;

/// One statement in the spelling of each server.
#[derive(Debug, Clone, Copy)]
pub struct Stmt {
    mysql: &'static str,
    pg: &'static str,
    sqlite: &'static str,
    repeatable: bool,
}

impl Stmt {
    /// A statement that all three servers read alike.
    pub const fn same(sql: &'static str) -> Stmt {
        Stmt { mysql: sql, pg: sql, sqlite: sql, repeatable: false }
    }

    /// A statement with a spelling for each server; `?` marks a value in all of them.
    pub const fn per_engine(mysql: &'static str, pg: &'static str, sqlite: &'static str) -> Stmt {
        Stmt { mysql, pg, sqlite, repeatable: false }
    }

    /// Marks a write that may run twice with the same outcome (a delete, an update to fixed values): it is tried
    /// again when its connection breaks. Statements that only read always are.
    pub const fn repeatable(self) -> Stmt {
        Stmt { repeatable: true, ..self }
    }

    /// The text for one server, with `?` still in it.
    pub fn sql(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::MySql => self.mysql,
            Engine::Postgres => self.pg,
            Engine::Sqlite => self.sqlite,
        }
    }

    /// Whether the statement changes nothing.
    pub(crate) fn only_reads(&self, engine: Engine) -> bool {
        let sql = self.sql(engine).trim_start_matches([' ', '(', '{']);
        sql.get(..6).is_some_and(|verb| verb.eq_ignore_ascii_case("SELECT"))
    }

    /// Whether it may be sent again after its connection broke.
    pub(crate) fn may_repeat(&self, engine: Engine) -> bool {
        self.repeatable || self.only_reads(engine)
    }

    /// The text to send and the values in its order, lists unfolded.
    pub(crate) fn render<'a>(
        &self,
        engine: Engine,
        args: &'a [Value],
    ) -> (Cow<'static, str>, Vec<&'a Value>) {
        let plain = !args.iter().any(|value| matches!(value, Value::List(_) | Value::Rows(_)));
        if plain && engine != Engine::Postgres {
            return (Cow::Borrowed(self.sql(engine)), args.iter().collect());
        }
        let sql = self.sql(engine);
        let mut text = String::with_capacity(sql.len() + 16 * args.len());
        let mut bound = Vec::with_capacity(args.len());
        let mut next = args.iter();
        push_statement(&mut text, &mut bound, engine, sql, &mut next);
        // Too many values: pass them on, the server says so.
        bound.extend(next);
        (Cow::Owned(text), bound)
    }
}

fn push_statement<'a>(
    text: &mut String,
    bound: &mut Vec<&'a Value>,
    engine: Engine,
    sql: &str,
    next: &mut std::slice::Iter<'a, Value>,
) {
    let mut rest = sql;
    while let Some(at) = rest.find(['?', '{', '\'', '"', '`']) {
        text.push_str(&rest[..at]);
        let mark = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match mark {
            b'{' => {
                let (part, after) = rest.split_once('}').unwrap_or((rest, ""));
                rest = after;
                let rows = if let Some(Value::Rows(rows)) = next.next() { rows.as_slice() } else { &[] };
                for (at, row) in rows.iter().enumerate() {
                    text.push_str(if at > 0 { " UNION ALL " } else { "" });
                    push_statement(text, bound, engine, part, &mut row.iter());
                }
            }
            b'?' => match next.next() {
                Some(Value::List(values)) => push_list(text, bound, engine, values),
                Some(Value::Rows(rows)) => push_rows(text, bound, engine, rows),
                Some(value) => push_value(text, bound, engine, value),
                // Too few values: the server says so.
                None => text.push('?'),
            },
            // What is in quotation marks is passed on up to the other mark.
            quote => {
                let end = rest.bytes().position(|byte| byte == quote).map_or(rest.len(), |end| end + 1);
                text.push(char::from(quote));
                text.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    text.push_str(rest);
}

fn push_rows<'a>(text: &mut String, bound: &mut Vec<&'a Value>, engine: Engine, rows: &'a [Vec<Value>]) {
    for (at, row) in rows.iter().enumerate() {
        text.push_str(if at > 0 { ",(" } else { "(" });
        for (place, value) in row.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            push_value(text, bound, engine, value);
        }
        text.push(')');
    }
}

fn push_list<'a>(text: &mut String, bound: &mut Vec<&'a Value>, engine: Engine, values: &'a [Value]) {
    let Some(last) = values.last() else {
        text.push_str("NULL");
        return;
    };
    // 1, 2, 4, 8 ... values: the same few statements stay prepared for lists of any length.
    for place in 0..values.len().next_power_of_two() {
        if place > 0 {
            text.push(',');
        }
        push_value(text, bound, engine, values.get(place).unwrap_or(last));
    }
}

fn push_value<'a>(text: &mut String, bound: &mut Vec<&'a Value>, engine: Engine, value: &'a Value) {
    if engine != Engine::Postgres {
        bound.push(value);
        text.push('?');
        return;
    }
    let cast = match value {
        // A bound NULL would let the server choose the type, and the next value would not fit it.
        Value::Null | Value::List(_) | Value::Rows(_) => {
            text.push_str("NULL");
            return;
        }
        Value::Int(_) => "int8",
        Value::Real(_) => "float8",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytea",
        Value::Time(_) => "timestamp",
    };
    bound.push(value);
    text.push('$');
    text.push_str(&bound.len().to_string());
    text.push_str("::");
    text.push_str(cast);
}

/// Escapes `%`, `_` and the escape character `!` itself in a value used within `LIKE ? ESCAPE '!'`.
pub fn escape_like(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '%' | '_' | '!') {
            text.push('!');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_follow_the_server_and_the_value() {
        let stmt = Stmt::same("SELECT '?' FROM t WHERE a=? AND \"b?\" IN (?) AND c=?");
        let args = [Value::from(1), Value::list(["x", "y", "z"]), Value::Null];
        let (sql, bound) = stmt.render(Engine::Postgres, &args);
        assert_eq!(
            sql,
            "SELECT '?' FROM t WHERE a=$1::int8 AND \"b?\" IN ($2::text,$3::text,$4::text,$5::text) AND c=NULL"
        );
        assert_eq!(bound.len(), 5);
        let (sql, bound) = stmt.render(Engine::MySql, &args);
        assert_eq!(sql, "SELECT '?' FROM t WHERE a=? AND \"b?\" IN (?,?,?,?) AND c=?");
        assert_eq!(bound.len(), 6);
        assert_eq!(bound[4], &Value::from("z"));
    }

    #[test]
    fn statements_and_rows_are_multiplied() {
        let args = [Value::Rows(vec![vec![1.into(), "a".into()], vec![2.into(), "b".into()]])];
        let insert = Stmt::same("INSERT INTO t (n, s) VALUES ?");
        let (sql, bound) = insert.render(Engine::Postgres, &args);
        assert_eq!(sql, "INSERT INTO t (n, s) VALUES ($1::int8,$2::text),($3::int8,$4::text)");
        assert_eq!(bound.len(), 4);
        assert_eq!(insert.render(Engine::MySql, &args).0, "INSERT INTO t (n, s) VALUES (?,?),(?,?)");
        let args = [Value::Rows(vec![vec![1.into()], vec![2.into()]]), 3.into()];
        let (sql, bound) =
            Stmt::same("{SELECT a FROM t WHERE n = ?} LIMIT ?").render(Engine::Postgres, &args);
        assert_eq!(
            sql,
            "SELECT a FROM t WHERE n = $1::int8 UNION ALL SELECT a FROM t WHERE n = $2::int8 LIMIT $3::int8"
        );
        assert_eq!(bound.len(), 3);
    }

    #[test]
    fn an_empty_list_matches_nothing() {
        let args = [Value::List(Vec::new())];
        let (sql, bound) = Stmt::same("SELECT 1 WHERE 1 IN (?)").render(Engine::Sqlite, &args);
        assert_eq!((&*sql, bound.len()), ("SELECT 1 WHERE 1 IN (NULL)", 0));
    }

    #[test]
    fn reads_are_told_from_writes() {
        assert!(Stmt::same(" select 1").only_reads(Engine::MySql));
        assert!(!Stmt::same("DELETE FROM t").may_repeat(Engine::MySql));
        assert!(Stmt::same("DELETE FROM t").repeatable().may_repeat(Engine::MySql));
    }

    #[test]
    fn like_values_lose_their_magic() {
        assert_eq!(escape_like("50%_a!b\\c"), "50!%!_a!!b\\c");
    }
}
