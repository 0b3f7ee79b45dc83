//! Settings files written in Python, such as iRedAPD's settings.py, which are read and never run.
//!
//! What is understood are assignments of plain values: texts, numbers, `True`, `False`, `None`, lists, tuples and
//! dictionaries of them; further `NAME += [...]` and `NAME['key'] = ...`. Everything else is named with its line and what
//! it may have changed counts as unknown, for a guess would be a setting that nobody made. That is every name where all
//! names of another file are taken, and where a call stands alone.

mod cursor;
mod literal;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use cursor::{Cursor, Skipped, is_keyword};

/// The defaults are in this module of iRedAPD; whoever asks for them knows them.
const DEFAULTS: &str = "libs.default_settings";

const NOT_READ: Reason = "takes names from another file, which is not read";

/// Why a line is not understood. Never quotes the line: it may hold a password.
pub(crate) type Reason = &'static str;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// Names and what was assigned last.
    pub assigned: BTreeMap<String, Assigned>,
    /// What was not understood, in the order of the lines.
    pub problems: Vec<Problem>,
    unknown: BTreeSet<String>,
    /// The last line that may have changed every name, and why: a name that is not assigned behind it is not known.
    every: Option<(usize, Reason)>,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// The value; tuples are arrays.
    pub value: Value,
    /// The line, counted from 1.
    pub line: usize,
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// Names that it may assign to or change: their values are not known. Empty if these may be any, or are not known.
    pub names: Vec<String>,
    /// Why.
    pub reason: &'static str,
}

impl Module {
    /// Reads a file. `default` are the values that names have before the file assigns to them.
    pub fn read(text: &str, default: impl Fn(&str) -> Option<Value>) -> Module {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
        let mut module = Module::default();
        let mut cursor = Cursor::new(&text);
        while !cursor.at_end() {
            let start = cursor;
            let indented = cursor.skip_blank(false);
            if cursor.end_line() {
                continue;
            }
            let outcome = if indented {
                Err("stands in a block, which is not run")
            } else {
                module.line(&mut cursor, &default)
            };
            if let Err(mut reason) = outcome {
                cursor = start;
                let Skipped { mut names, every, ended } = cursor.skip_statement();
                if let Some(every) = every {
                    reason = every;
                    names.clear();
                    module.assigned.clear();
                    module.every = Some((start.line(), every));
                }
                if !ended {
                    reason = "opens a bracket or a text that does not end: nothing behind it is read";
                }
                for name in &names {
                    module.assigned.remove(name);
                    module.unknown.insert(name.clone());
                }
                module.problems.push(Problem { line: start.line(), names, reason });
            }
        }
        module
    }

    /// The texts in the list of a name.
    ///
    /// # Errors
    /// There is no such name, it could not be read, or something else than texts stands in the list.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let Some(assigned) = self.assigned.get(name) else {
            let about = |problem: &&Problem| problem.names.iter().any(|known| known == name);
            let named = self.problems.iter().rev().find(about).map(|problem| (problem.line, problem.reason));
            return Err(match named.or(self.every) {
                Some((line, reason)) => format!("line {line}, {name}: {reason}"),
                None => format!("there is no {name}"),
            });
        };
        let text = |item: &Value| item.as_str().map(str::to_owned);
        let texts = assigned.value.as_array().and_then(|list| list.iter().map(text).collect());
        texts.ok_or(format!("{name} is no list of texts in quotation marks"))
    }

    /// One line, which may hold several statements.
    fn line(
        &mut self,
        cursor: &mut Cursor<'_>,
        default: &impl Fn(&str) -> Option<Value>,
    ) -> Result<(), Reason> {
        loop {
            self.statement(cursor, default)?;
            cursor.skip_blank(false);
            if cursor.end_line() {
                return Ok(());
            }
            if !cursor.take(";") {
                return Err("is calculated, not written out");
            }
            cursor.skip_blank(false);
            if cursor.end_line() {
                return Ok(());
            }
        }
    }

    fn statement(
        &mut self,
        cursor: &mut Cursor<'_>,
        default: &impl Fn(&str) -> Option<Value>,
    ) -> Result<(), Reason> {
        let (line, start) = (cursor.line(), *cursor);
        let name = match cursor.word() {
            "pass" => return Ok(()),
            "import" => return self.import(cursor),
            // Where nothing is assigned the defaults replace nothing.
            "from" if self.assigned.is_empty() => return import_from(cursor),
            "from" => return Err(NOT_READ),
            // A text that describes the file.
            _ if start.peek().is_some_and(|first| first == '"' || first == '\'') => {
                return literal::value(cursor, false).map(drop);
            }
            "" => return Err("is no assignment"),
            word if is_keyword(word) => return Err("is no assignment of a plain value"),
            name => name,
        };
        cursor.skip_blank(false);
        if cursor.take("+=") {
            let added = literal::bare(cursor)?;
            let value = sum(self.before(name, default)?, added)?;
            self.assign(name, value, line);
        } else if cursor.take("[") {
            let key = literal::value(cursor, true)?;
            cursor.skip_blank(true);
            let closed = cursor.take("]");
            cursor.skip_blank(false);
            let (Value::String(key), true, true) = (key, closed, cursor.take_assignment()) else {
                return Err("is no assignment of a plain value");
            };
            let added = literal::bare(cursor)?;
            let Value::Object(mut dictionary) = self.before(name, default)? else {
                return Err("is no dictionary");
            };
            dictionary.insert(key, added);
            self.assign(name, Value::Object(dictionary), line);
        } else if cursor.take_assignment() {
            let mut names = vec![name];
            while let Some(name) = next_target(cursor) {
                names.push(name);
            }
            let value = literal::bare(cursor)?;
            for name in names {
                self.assign(name, value.clone(), line);
            }
        } else {
            return Err("is no assignment of a plain value");
        }
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Value, line: usize) {
        self.unknown.remove(name);
        self.assigned.insert(name.to_owned(), Assigned { value, line });
    }

    /// What a name stands for before a statement that changes it. The value is taken out: either the statement puts a new
    /// one in its place or nothing is known any more.
    fn before(&mut self, name: &str, default: &impl Fn(&str) -> Option<Value>) -> Result<Value, Reason> {
        if let Some(assigned) = self.assigned.remove(name) {
            return Ok(assigned.value);
        }
        if self.every.is_some() || self.unknown.contains(name) {
            return Err("changes something that could not be read");
        }
        default(name).ok_or("changes something that is not known")
    }

    /// What is imported can be used in calculations only, which are reported themselves, unless it takes the name of a
    /// value.
    fn import(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Reason> {
        for name in imported(cursor)? {
            if self.assigned.contains_key(name) {
                return Err("gives the name to another file, which is not read");
            }
            self.unknown.insert(name.to_owned());
        }
        Ok(())
    }
}

/// `b = ` of `a = b = 1`.
fn next_target<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let mut ahead = *cursor;
    ahead.skip_blank(false);
    let name = ahead.word();
    ahead.skip_blank(false);
    if name.is_empty() || is_keyword(name) || !ahead.take_assignment() {
        return None;
    }
    *cursor = ahead;
    Some(name)
}

/// The names that stand for modules behind `import`.
fn imported<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<&'a str>, Reason> {
    let mut names = Vec::new();
    loop {
        cursor.skip_blank(false);
        let module = cursor.dotted();
        if module.is_empty() {
            return Err("is no import");
        }
        let mut name = module.split('.').next().unwrap_or(module);
        cursor.skip_blank(false);
        let mut ahead = *cursor;
        if ahead.word() == "as" {
            *cursor = ahead;
            cursor.skip_blank(false);
            name = cursor.word();
            cursor.skip_blank(false);
        }
        names.push(name);
        if !cursor.take(",") {
            return Ok(names);
        }
    }
}

fn import_from(cursor: &mut Cursor<'_>) -> Result<(), Reason> {
    cursor.skip_blank(false);
    let module = cursor.dotted();
    cursor.skip_blank(false);
    let is_import = cursor.word() == "import";
    cursor.skip_blank(false);
    if module == DEFAULTS && is_import && cursor.take("*") {
        return Ok(());
    }
    Err(NOT_READ)
}

fn sum(before: Value, added: Value) -> Result<Value, Reason> {
    match (before, added) {
        (Value::Array(mut list), Value::Array(more)) => {
            list.extend(more);
            Ok(Value::Array(list))
        }
        (Value::String(text), Value::String(more)) => Ok(Value::String(text + &more)),
        _ => Err("is calculated, not written out"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Module {
        Module::read(text, |name| match name {
            "KNOWN" => Some(json!(["+"])),
            "PRIORITIES" => Some(json!({})),
            _ => None,
        })
    }

    fn value(text: &str) -> Option<Value> {
        read(text).assigned.remove("x").map(|assigned| assigned.value)
    }

    #[test]
    fn no_keyword_is_a_name() {
        for text in ["x = import = 81", "x = 1; import = 2", "x = from = [1]\n", "if = 3"] {
            let module = read(text);
            assert!(module.assigned.is_empty() && module.problems.len() == 1, "{text}: {module:?}");
        }
        assert_eq!(value("x = imports = 81"), Some(json!(81)));
    }

    #[test]
    fn literals() {
        let table = [
            ("x = 'a'", json!("a")),
            ("x=\"it's\" # remark", json!("it's")),
            ("x = 'a' \"b\" 'c'", json!("abc")),
            ("x = ('a'\n     'b')  # one text\n", json!("ab")),
            ("x = 'a' \\\n 'b'", json!("ab")),
            ("x = 'a\\\nb'", json!("ab")),
            ("x = '''a\n'b\"\n'''", json!("a\n'b\"\n")),
            ("x = \"\"\"a\"\"b\\\"\"\"\"", json!("a\"\"b\"")),
            ("x = ''", json!("")),
            ("x = ''''''", json!("")),
            ("x = 'a b#c'", json!("a b#c")),
            (
                "x = 'it\\'s \\\\ \\n\\t\\x41\\101\\u00e4\\U0001F600\\0\\q'",
                json!("it's \\ \n\tAA\u{e4}\u{1f600}\0\\q"),
            ),
            ("x = r'a\\nb\\'c'", json!("a\\nb\\'c")),
            ("x = u'a' R'\\d'", json!("a\\d")),
            ("x = 7777", json!(7777)),
            ("x = -1", json!(-1)),
            ("x = - 1", json!(-1)),
            ("x = 1_000", json!(1000)),
            ("x = 0x1F", json!(31)),
            ("x = 0o17", json!(15)),
            ("x = 0b11", json!(3)),
            ("x = 00", json!(0)),
            ("x = 3.0", json!(3.0)),
            ("x = .5", json!(0.5)),
            ("x = 1e3", json!(1000.0)),
            ("x = 2.5E-1", json!(0.25)),
            ("x = 9223372036854775807", json!(i64::MAX)),
            ("x = True", json!(true)),
            ("x = False;", json!(false)),
            ("x = None", json!(null)),
            ("x = []", json!([])),
            ("x = ()", json!([])),
            ("x = (1)", json!(1)),
            ("x = (1,)", json!([1])),
            ("x = 1, 'a',", json!([1, "a"])),
            ("x = [1, 'a', [True], (None, 2), {}]", json!([1, "a", [true], [null, 2], {}])),
            ("x = [\n    'a',  # first\n    # none\n\n  'b'\n, ]", json!(["a", "b"])),
            ("x = {'a': 1, 'b': ['c'], 'a': 2,}", json!({"a": 2, "b": ["c"]})),
            ("x = {\n'a':\n1}", json!({"a": 1})),
            ("x = 1; y = 2", json!(1)),
            ("y = x = 1", json!(1)),
            ("x = 1\nx = 2", json!(2)),
            ("x = 1\r\nx = [\r\n2]\r\n", json!([2])),
            ("\u{feff}x = 1", json!(1)),
            ("x = ['a']\nx += ['b']\nx += ('c',)", json!(["a", "b", "c"])),
            ("x = 'a'\nx += 'b'", json!("ab")),
            ("x = {}\nx['a'] = 1\nx [ \"b\" ] = 'c'", json!({"a": 1, "b": "c"})),
        ];
        for (text, expected) in table {
            let module = read(text);
            assert_eq!(value(text), Some(expected), "{text}");
            assert_eq!(module.problems, [], "{text}");
        }
    }

    #[test]
    fn what_is_no_plain_value_is_named_and_never_guessed() {
        for text in [
            "x = y",
            "x = os.environ['x']",
            "x = 1 + 2",
            "x = 60 * 60",
            "x = -'a'",
            "x = 'a' + 'b'",
            "x = 'a %s' % 'b'",
            "x = 'a'.upper()",
            "x = ['a' if y else 'b']",
            "x = [y for y in z]",
            "x = ['a']['b']",
            "x = [1 2]",
            "x = [,]",
            "x = {'a'}",
            "x = {1: 2}",
            "x = {'a': 1, **y}",
            "x = [*y]",
            "x = f'{y}'",
            "x = b'a'",
            "x = '\\N{BULLET}'",
            "x = '\\ud800'",
            "x = '\\x4'",
            "x = 'a\n",
            "x = 1j",
            "x = 0123",
            "x = 1__0",
            "x = 1_",
            "x = 9223372036854775808",
            "x = 1e999",
            "x = True and False",
            "x = lambda: 0",
            "x = 1 if y else 2",
            "x = not True",
            "x: int = 1",
            "x == 1",
            "x, y = 1, 2",
            "x = 1\n(y, x) = 1, 2",
            "x = 1\n[y, x] = 1, 2",
            "x = 1\nx = y",
            "x = 1\nx -= 1",
            "x = 1\ndel x",
            "x = 1\ndel y, x",
            "x = ['a']\nx.append('b')",
            "x = {'a': 1}\nx.update({'a': 2})",
            "x = ['a']\nx[0] = 'b'",
            "x = ['a']\nx['a'] = 'b'",
            "x = ['a']\nx += y",
            "x = ['a']\nx += 'b'",
            "x = 1\nif y: x = 2",
            "x = 1\nif y:\n    x = 2\n",
            "x = 1\nfor y in z:\n\tx += y\n",
            "x = 1; x = y",
            "x = 1\nx = y; z = 1",
            "x = 1\nx = z = y",
        ] {
            let module = read(text);
            assert!(!module.assigned.contains_key("x"), "{text}: {module:?}");
            assert!(
                module.problems.iter().any(|problem| problem.names.contains(&"x".to_owned())),
                "{text}: {module:?}"
            );
        }
        assert_eq!(value("x = y\nx = 1"), Some(json!(1)), "assigned again");
        assert_eq!(value("if x == 1: y = 2\nx = 1"), Some(json!(1)));
        assert_eq!(value("x = 1\nif x: y = 2"), Some(json!(1)), "only looked at");
    }

    #[test]
    fn a_line_that_may_change_every_name() {
        for line in [
            "from local import *",
            "from .local import *",
            "from libs.default_settings import *",
            "from local import *; y = 1",
            "try: from local import *",
            "try:\n    from local import *\nexcept ImportError:\n    pass",
            "exec(open('local.py').read())",
            "exec(\n  'x = 2'\n)",
            "exec ('x = 2')",
            "exec 'x = 2'",
            "y = exec('x = 2')",
            "load()",
            "y = 1; load()",
            "if y: load()",
            "if y():\n    load()",
            "with open('local.py') as y: exec(y.read())",
            "local.load()",
            "y.append('a').load()",
            "y.append('a')('b')",
            "y['a']('b')",
            "(load)()",
            "[load(it) for it in y]",
            "globals()['x'] = 2",
            "globals().update(x=2)",
            "load(",
        ] {
            let module = read(&format!("x = 1\n{line}\n"));
            assert!(module.assigned.is_empty(), "{line}: {module:?}");
            assert!(module.problems.iter().any(|problem| problem.names.is_empty()), "{line}: {module:?}");
            assert!(module.texts("x").is_err_and(|why| why.starts_with("line ")), "{line}");
        }
        let behind = "x = 1\nfrom local import *\nx = ['a']\nx += ['b']\nKNOWN += ['-']\n";
        assert_eq!(value(behind), Some(json!(["a", "b"])), "what is assigned behind it is certain");
        let module = read(behind);
        assert!(!module.assigned.contains_key("KNOWN"), "whether it is the default is not known");
        let found: Vec<(usize, usize)> =
            module.problems.iter().map(|problem| (problem.line, problem.names.len())).collect();
        assert_eq!(found, [(2, 0), (5, 1)]);
        let why = read("from local import *\n").texts("x").unwrap_err();
        assert!(why.starts_with("line 1, x: takes all names"), "{why}");
    }

    #[test]
    fn a_line_that_changes_the_names_that_it_binds() {
        for line in [
            "import os",
            "import os.path, local.x as y",
            "from os import path",
            "from x import y",
            "from local import x as y",
            "from .x import (y,\n    z)",
            "try: import y",
            "y = load()",
            "y = load(); z += load()",
            "y: int = load()",
            "if load(): y = 1",
            "sys.path.append('/opt')",
            "y.update({'a': load()})",
            "y . extend (load())",
            "del y[load()]",
            "y = (load(), 1)",
            "y",
        ] {
            let module = read(&format!("x = 1\n{line}\n"));
            assert!(module.assigned.contains_key("x"), "{line}: {module:?}");
        }
        for line in [
            "import x",
            "import x.y",
            "import y, z.u as x",
            "from local import x",
            "from local import y as x",
            "from local import (y,\n    x)",
            "try: import x",
            "for x in y:",
            "with y as x:",
            "def x():",
            "if y: x: int = 2",
        ] {
            let module = read(&format!("z = 1\nx = 1\n{line}\n"));
            let named = |problem: &Problem| problem.names.contains(&"x".to_owned());
            assert!(module.problems.iter().any(named), "{line}: {module:?}");
            assert!(
                module.assigned.contains_key("z") && !module.assigned.contains_key("x"),
                "{line}: {module:?}"
            );
        }
    }

    #[test]
    fn lines_and_names_of_problems() {
        let module = read(
            "\"\"\"Settings.\n\"\"\"\nfrom libs.default_settings import *\nimport os, sys as system\npass\n\n\
             a = os.getenv('Kanarienvogel',\n  'b')\nif a == 'Kanarienvogel':\n    b = 1\nfrom custom import c\nd = 1\n",
        );
        let found: Vec<(usize, String)> =
            module.problems.iter().map(|problem| (problem.line, problem.names.join(" "))).collect();
        let expected = [(7, "a"), (9, ""), (10, "b"), (11, "c")];
        assert_eq!(found, expected.map(|(line, names)| (line, names.to_owned())));
        assert_eq!(module.assigned["d"], Assigned { value: json!(1), line: 12 });
        assert!(!format!("{module:?}").contains("Kanarienvogel"));
    }

    #[test]
    fn defaults_are_changed() {
        let module = read("KNOWN += ['-']\nPRIORITIES['a'] = 10\nPRIORITIES['b'] = 20\nOTHER += ['a']\n");
        assert_eq!(module.assigned["KNOWN"].value, json!(["+", "-"]));
        assert_eq!(module.assigned["PRIORITIES"].value, json!({"a": 10, "b": 20}));
        assert_eq!((module.problems.len(), module.problems[0].line), (1, 4));
        let module = read("KNOWN = f()\nKNOWN += ['-']\n");
        assert_eq!(
            (module.assigned.len(), module.problems.len()),
            (0, 2),
            "what was lost is not the default again"
        );
    }

    #[test]
    fn texts_of_a_list() {
        let table: &[(&str, Option<&[&str]>)] = &[
            ("x = ['a', \"b\"]\n", Some(&["a", "b"])),
            ("y = 1\nx=['a']\nx = ['b']", Some(&["b"])),
            ("x = []", Some(&[])),
            ("x = ['a' 'b']", Some(&["ab"])),
            ("#x = ['a']", None),
            ("  x = ['a']", None),
            ("x_old = ['a']", None),
            ("x = [secret]", None),
            ("x = [1]", None),
            ("x = ['a\n']", None),
            ("x = ['a'", None),
            ("x = 'a'", None),
            ("", None),
        ];
        for (text, expected) in table {
            let got = read(text).texts("x");
            assert_eq!(
                got.as_deref().ok(),
                expected.map(|list| list.iter().map(|it| it.to_string()).collect::<Vec<_>>()).as_deref(),
                "{text}"
            );
        }
        assert!(read("\nx = [y]").texts("x").is_err_and(|why| why.contains("line 2")));
    }

    #[test]
    fn nothing_exhausts_stack_or_time() {
        let many = 100_000;
        for (text, line) in [
            (format!("x = {}", "[".repeat(many)), 1),
            (format!("x = {}{}\ny = 1", "[".repeat(many), "]".repeat(many)), 1),
            (format!("x = {}", "{'a':".repeat(many)), 1),
            (format!("x = {}1", "(".repeat(many)), 1),
            (format!("x = {}1", "-".repeat(many)), 1),
            (format!("x = {}1", "not ".repeat(many)), 1),
            (format!("x = {}1", "a = ".repeat(many)), 0),
            (format!("x = {}", "'a' ".repeat(many)), 0),
            (format!("x = {}", "1;".repeat(many)), 1),
            ("x = [\n".repeat(many), 1),
            ("x = '''\n".repeat(many + 1), many + 1),
            ("x = '\\\n".repeat(many), 1),
            (format!("x = '{}", "\\".repeat(many)), 1),
            ("]".repeat(many), 1),
            (")]}\n".repeat(many), 1),
            ("x['a'] = [".repeat(many), 1),
        ] {
            let module = read(&text);
            let begin: String = text.chars().take(20).collect();
            assert_eq!(module.problems.first().map_or(0, |problem| problem.line), line, "{begin}");
        }
        assert_eq!(
            read(&format!("x = {}{}\ny = 1", "[".repeat(many), "]".repeat(many))).assigned["y"].line,
            2
        );
        assert_eq!(value(&format!("x = {}{}", "[".repeat(20), "]".repeat(20))).map(|_| ()), Some(()));
        let long = format!("{}\n", "KNOWN += ['a']\n".repeat(20_000));
        assert_eq!(read(&long).assigned["KNOWN"].value.as_array().map(Vec::len), Some(20_001));
    }
}
