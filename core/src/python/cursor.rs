//! A place in a Python text, and how to get over what is not understood.

use std::collections::BTreeSet;

use super::Reason;

/// Where words of their own meaning begin a statement; they are no names that could be assigned to.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// What reaches all names of a file without naming them.
const REACHING: [&str; 5] = ["exec", "execfile", "globals", "locals", "vars"];

/// What changes the list or dictionary it is called on, and nothing else.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// Whether a word cannot be the name of anything.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

const TAKES_ALL: Reason =
    "takes all names of another file, which is not read: what no line below assigns is not known";
const CALLS: Reason = "calls something that may change every name: what no line below assigns is not known";

/// A place in a text whose lines end with `\n`.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { rest: text, line: 1 }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    /// The next character, which is left behind.
    pub(super) fn bump(&mut self) -> Option<char> {
        let first = self.peek()?;
        self.rest = &self.rest[first.len_utf8()..];
        self.line += usize::from(first == '\n');
        Some(first)
    }

    /// Leaves `text`, which holds no line end, behind if it is what comes next.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A `=` that is not half of `==`.
    pub(super) fn take_assignment(&mut self) -> bool {
        !self.starts_with("==") && self.take("=")
    }

    /// The characters for which `wanted` is true.
    pub(super) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !wanted(character)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }

    /// A name or keyword; empty if none comes next.
    pub(super) fn word(&mut self) -> &'a str {
        match self.peek() {
            Some(first) if first.is_alphabetic() || first == '_' => {
                self.take_while(|character| character.is_alphanumeric() || character == '_')
            }
            _ => "",
        }
    }

    /// The name of a module.
    pub(super) fn dotted(&mut self) -> &'a str {
        self.take_while(|character| character.is_alphanumeric() || character == '_' || character == '.')
    }

    /// Blanks and continued lines; within brackets line ends and remarks too. Says whether there were any.
    pub(super) fn skip_blank(&mut self, in_brackets: bool) -> bool {
        let before = self.rest.len();
        loop {
            self.take_while(|character| {
                matches!(character, ' ' | '\t' | '\u{c}') || (in_brackets && character == '\n')
            });
            if self.starts_with("\\\n") {
                self.bump();
                self.bump();
            } else if in_brackets && self.peek() == Some('#') {
                self.take_while(|character| character != '\n');
            } else {
                return self.rest.len() < before;
            }
        }
    }

    /// The end of a line with a remark in front of it, or of the text. Says whether that is what comes next.
    pub(super) fn end_line(&mut self) -> bool {
        match self.peek() {
            None => true,
            Some('#' | '\n') => {
                self.take_while(|character| character != '\n');
                self.bump();
                true
            }
            Some(_) => false,
        }
    }

    /// Leaves a line with all that belongs to it behind: continued lines, what stands in brackets and texts.
    pub(super) fn skip_statement(&mut self) -> Skipped {
        let mut targets = Targets::default();
        let mut depth = 0_usize;
        loop {
            self.skip_blank(depth > 0);
            let word = self.word();
            let Some(next) = self.peek() else {
                targets.word(word, depth);
                return targets.skipped(depth == 0);
            };
            let is_prefix = word.len() <= 2 && (next == '"' || next == '\'');
            if !word.is_empty() && !is_prefix {
                targets.word(word, depth);
                continue;
            }
            if next == '"' || next == '\'' {
                if !self.skip_text() {
                    return targets.skipped(false);
                }
                targets.other();
                continue;
            }
            if depth == 0 && self.end_line() {
                return targets.skipped(true);
            }
            self.bump();
            match next {
                '(' | '[' | '{' => {
                    targets.bracket(next, depth);
                    depth += 1;
                }
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                '0'..='9' => {
                    // So that the letters in 0x1f or 1e3 are no names.
                    self.take_while(|character| character.is_alphanumeric() || character == '_');
                }
                '=' | '!' | '<' | '>' if self.take("=") => {}
                '.' => targets.after_dot = true,
                _ if depth == 0 => targets.sign(next),
                _ => {}
            }
            if next != '.' {
                targets.other();
            }
            // What a call or a list gave may be called.
            targets.callable = matches!(next, ')' | ']');
        }
    }

    /// Leaves a text in quotation marks behind. False if the file ends in it.
    fn skip_text(&mut self) -> bool {
        let Some(mark) = self.peek() else { return false };
        let triple = if mark == '"' { "\"\"\"" } else { "'''" };
        let is_triple = self.take(triple);
        if !is_triple {
            self.bump();
        }
        loop {
            if is_triple && self.take(triple) {
                return true;
            }
            if !is_triple && self.peek() == Some('\n') {
                return true;
            }
            match self.bump() {
                None => return !is_triple,
                Some('\\') => {
                    self.bump();
                }
                Some(character) if !is_triple && character == mark => return true,
                Some(_) => {}
            }
        }
    }
}

/// What was left behind.
pub(super) struct Skipped {
    /// The names to which it may assign.
    pub(super) names: Vec<String>,
    /// Why it may change every name there is, if it may.
    pub(super) every: Option<Reason>,
    /// Whether it ends before the text does.
    pub(super) ended: bool,
}

/// The names to which a statement may assign. Rather one too many than one too few.
#[derive(Default)]
struct Targets<'a> {
    found: Vec<&'a str>,
    /// Names since the last sign that says what they are.
    current: Vec<&'a str>,
    /// Why it may be all names.
    every: Option<Reason>,
    /// Whether there was a `=` since the beginning or the last `;`.
    assigned: bool,
    /// Whether the first word was a keyword such as `if`.
    compound: Option<bool>,
    /// Whether the first sign was a bracket: `(a, b) = ...`.
    within: bool,
    after_dot: bool,
    import: Import,
    /// Whether a keyword such as `for` was seen, which gives a name to something.
    binds: bool,
    /// Whether something is called, other than what is in `CHANGING`.
    calls: bool,
    /// Whether a bracket that comes next would be such a call.
    callable: bool,
}

/// Where in an import.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Import {
    #[default]
    None,
    /// Behind `from`.
    Module,
    /// Behind `import`.
    Names,
}

impl<'a> Targets<'a> {
    fn word(&mut self, word: &'a str, depth: usize) {
        if word.is_empty() {
            return;
        }
        let is_keyword = is_keyword(word);
        let is_first = self.compound.is_none();
        self.compound.get_or_insert(is_keyword);
        match word {
            "from" if is_first => self.import = Import::Module,
            "import" if is_first || self.import == Import::Module => self.import = Import::Names,
            // The name behind it is bound instead.
            "as" if self.import == Import::Names => {
                self.current.pop();
            }
            "as" | "class" | "def" | "for" => self.binds = true,
            _ => {}
        }
        if REACHING.contains(&word) && !self.after_dot && self.import == Import::None {
            self.every.get_or_insert(CALLS);
        }
        let is_name = !is_keyword && !self.after_dot && self.import != Import::Module;
        if (depth == 0 || self.within || self.import == Import::Names) && is_name {
            self.current.push(word);
        }
        self.callable = !(is_keyword || self.after_dot && CHANGING.contains(&word));
        self.after_dot = false;
    }

    fn sign(&mut self, sign: char) {
        match sign {
            '=' => {
                self.found.append(&mut self.current);
                self.assigned = true;
            }
            // `if NAME:` looks at a name only, `for NAME in ...:` does not; `NAME: type = ...` is about it.
            ':' if !self.assigned && self.compound == Some(true) => {
                if self.binds {
                    self.found.append(&mut self.current);
                }
                self.current.clear();
                self.begin();
            }
            ':' if !self.assigned => {
                self.found.append(&mut self.current);
                self.assigned = true;
            }
            ';' => self.end(),
            '*' if self.import == Import::Names => {
                self.every.get_or_insert(TAKES_ALL);
            }
            _ => {}
        }
    }

    /// An opening bracket.
    fn bracket(&mut self, bracket: char, depth: usize) {
        self.within |= self.compound.is_none();
        self.calls |= bracket == '(' && self.callable && (depth == 0 || self.within);
    }

    fn other(&mut self) {
        self.after_dot = false;
        self.callable = false;
    }

    /// Another statement in the same line.
    fn begin(&mut self) {
        self.binds = false;
        self.assigned = false;
        self.compound = None;
        self.within = false;
        self.import = Import::None;
        self.calls = false;
    }

    fn end(&mut self) {
        // What is called for its value, as in `NAME = f()` or `if f():`, is not suspected.
        if self.calls && !self.assigned && self.compound != Some(true) {
            self.every.get_or_insert(CALLS);
        }
        if self.assigned {
            self.current.clear();
        }
        self.found.append(&mut self.current);
        self.begin();
    }

    fn skipped(mut self, ended: bool) -> Skipped {
        self.end();
        let names: BTreeSet<&str> = self.found.into_iter().collect();
        Skipped { names: names.into_iter().map(str::to_owned).collect(), every: self.every, ended }
    }
}
