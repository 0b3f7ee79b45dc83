//! Plain values: texts, numbers, `True`, `False`, `None`, and brackets around them.

use serde_json::{Map, Number, Value};

use super::Reason;
use super::cursor::Cursor;

/// Brackets in one another; no setting has more than three.
const DEEPEST: usize = 32;

const CALCULATED: Reason = "is calculated, not written out";
const BAD_TEXT: Reason = "holds a text that cannot be read";
const BAD_NUMBER: Reason = "holds a number that cannot be read";

/// A value behind a `=`, where a tuple may go without brackets.
pub(super) fn bare(cursor: &mut Cursor<'_>) -> Result<Value, Reason> {
    let first = value(cursor, false)?;
    cursor.skip_blank(false);
    if cursor.peek() != Some(',') {
        return Ok(first);
    }
    let mut items = vec![first];
    while cursor.take(",") {
        cursor.skip_blank(false);
        if cursor.peek().is_none_or(|next| matches!(next, '\n' | '#' | ';')) {
            break;
        }
        items.push(value(cursor, false)?);
        cursor.skip_blank(false);
    }
    Ok(Value::Array(items))
}

/// One value; what follows it is looked at by the caller.
pub(super) fn value(cursor: &mut Cursor<'_>, in_brackets: bool) -> Result<Value, Reason> {
    nested(cursor, in_brackets, DEEPEST)
}

fn nested(cursor: &mut Cursor<'_>, in_brackets: bool, deeper: usize) -> Result<Value, Reason> {
    cursor.skip_blank(in_brackets);
    let Some(next) = cursor.peek() else { return Err("has no value") };
    match next {
        '[' | '(' | '{' if deeper == 0 => Err("has more than 32 brackets in one another"),
        '[' => items(cursor, ']', deeper - 1).map(|(items, _)| Value::Array(items)),
        '(' => {
            let (mut items, commas) = items(cursor, ')', deeper - 1)?;
            // Brackets around one value are no tuple.
            Ok(match items.pop() {
                Some(only) if items.is_empty() && !commas => only,
                last => {
                    items.extend(last);
                    Value::Array(items)
                }
            })
        }
        '{' => dictionary(cursor, deeper - 1),
        '"' | '\'' => texts(cursor, in_brackets),
        '-' | '+' => {
            cursor.bump();
            cursor.skip_blank(in_brackets);
            number(cursor, next == '-')
        }
        '0'..='9' | '.' => number(cursor, false),
        _ => named(cursor, in_brackets),
    }
}

/// What stands between brackets, and whether there was a comma.
fn items(cursor: &mut Cursor<'_>, end: char, deeper: usize) -> Result<(Vec<Value>, bool), Reason> {
    cursor.bump();
    let (mut items, mut commas) = (Vec::new(), false);
    loop {
        cursor.skip_blank(true);
        if cursor.peek() == Some(end) {
            cursor.bump();
            return Ok((items, commas));
        }
        items.push(nested(cursor, true, deeper)?);
        cursor.skip_blank(true);
        let comma = cursor.take(",");
        commas |= comma;
        if !comma && cursor.peek() != Some(end) {
            return Err(CALCULATED);
        }
    }
}

fn dictionary(cursor: &mut Cursor<'_>, deeper: usize) -> Result<Value, Reason> {
    cursor.bump();
    let mut dictionary = Map::new();
    loop {
        cursor.skip_blank(true);
        if cursor.take("}") {
            return Ok(Value::Object(dictionary));
        }
        let Value::String(key) = nested(cursor, true, deeper)? else {
            return Err("holds a key that is no text");
        };
        cursor.skip_blank(true);
        if !cursor.take(":") {
            return Err("is no list and no dictionary");
        }
        dictionary.insert(key, nested(cursor, true, deeper)?);
        cursor.skip_blank(true);
        if !cursor.take(",") && cursor.peek() != Some('}') {
            return Err(CALCULATED);
        }
    }
}

/// What begins with a letter: the constants, and texts with a letter in front.
fn named(cursor: &mut Cursor<'_>, in_brackets: bool) -> Result<Value, Reason> {
    let mut ahead = *cursor;
    let word = ahead.word();
    if matches!(ahead.peek(), Some('"' | '\'')) && word.len() <= 2 {
        return texts(cursor, in_brackets);
    }
    let value = match word {
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        "None" => Value::Null,
        "" => return Err("is no plain value"),
        _ => return Err("is taken from somewhere else, not written out"),
    };
    *cursor = ahead;
    Ok(value)
}

/// Texts beside each other are one.
fn texts(cursor: &mut Cursor<'_>, in_brackets: bool) -> Result<Value, Reason> {
    let mut all = String::new();
    loop {
        let mut ahead = *cursor;
        ahead.skip_blank(in_brackets);
        let prefix = ahead.word();
        let Some(mark @ ('"' | '\'')) = ahead.peek() else { return Ok(Value::String(all)) };
        let raw = match prefix {
            "" | "u" | "U" => false,
            "r" | "R" => true,
            _ => return Err(BAD_TEXT),
        };
        *cursor = ahead;
        text(cursor, mark, raw, &mut all)?;
    }
}

fn text(cursor: &mut Cursor<'_>, mark: char, raw: bool, all: &mut String) -> Result<(), Reason> {
    let end = if mark == '"' { "\"\"\"" } else { "'''" };
    let triple = cursor.take(end);
    let end = if triple { end } else { &end[..1] };
    if !triple {
        cursor.bump();
    }
    loop {
        if cursor.take(end) {
            return Ok(());
        }
        match cursor.bump() {
            None => return Err(BAD_TEXT),
            Some('\n') if !triple => return Err(BAD_TEXT),
            Some('\\') if raw => {
                all.push('\\');
                // A quotation mark behind a backslash does not end it, and both stay.
                all.extend(cursor.bump());
            }
            Some('\\') => escape(cursor, all)?,
            Some(character) => all.push(character),
        }
    }
}

fn escape(cursor: &mut Cursor<'_>, all: &mut String) -> Result<(), Reason> {
    let character = match cursor.bump().ok_or(BAD_TEXT)? {
        '\n' => return Ok(()),
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        same @ ('\\' | '\'' | '"') => same,
        'x' => code(cursor, 2)?,
        'u' => code(cursor, 4)?,
        'U' => code(cursor, 8)?,
        'N' => return Err(BAD_TEXT),
        digit @ '0'..='7' => {
            let mut number = digit.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(digit) = cursor.peek().and_then(|digit| digit.to_digit(8)) else { break };
                number = number * 8 + digit;
                cursor.bump();
            }
            char::from_u32(number).ok_or(BAD_TEXT)?
        }
        other => {
            all.push('\\');
            other
        }
    };
    all.push(character);
    Ok(())
}

/// A character as hexadecimal digits.
fn code(cursor: &mut Cursor<'_>, digits: usize) -> Result<char, Reason> {
    let mut number = 0_u32;
    for _ in 0..digits {
        let digit = cursor.bump().and_then(|digit| digit.to_digit(16)).ok_or(BAD_TEXT)?;
        number = number.checked_mul(16).and_then(|number| number.checked_add(digit)).ok_or(BAD_TEXT)?;
    }
    char::from_u32(number).ok_or(BAD_TEXT)
}

fn number(cursor: &mut Cursor<'_>, negative: bool) -> Result<Value, Reason> {
    let mut written = cursor.take_while(is_of_number).to_owned();
    let is_based = ["0x", "0X", "0o", "0O", "0b", "0B"].iter().any(|base| written.starts_with(base));
    if !is_based && written.ends_with(['e', 'E']) && matches!(cursor.peek(), Some('+' | '-')) {
        written.extend(cursor.bump());
        written.push_str(cursor.take_while(is_of_number));
    }
    // An underline stands between two digits.
    let parts: Vec<&str> = written.split('_').collect();
    let ends = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if parts.len() > 1 && !parts.iter().all(ends) {
        return Err(BAD_NUMBER);
    }
    let digits = parts.concat();
    let radix = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    let whole = if radix == 10 { digits.as_str() } else { &digits[2..] };
    if whole.starts_with(|first: char| first.is_digit(radix))
        && whole.chars().all(|digit| digit.is_digit(radix))
    {
        if radix == 10 && whole.starts_with('0') && whole.bytes().any(|digit| digit != b'0') {
            return Err(BAD_NUMBER);
        }
        let number = i64::from_str_radix(whole, radix).map_err(|_| BAD_NUMBER)?;
        return Ok(Value::from(if negative { -number } else { number }));
    }
    let is_decimal = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let number = digits.parse::<f64>().ok().filter(|_| radix == 10 && is_decimal);
    let number = number.and_then(|number| Number::from_f64(if negative { -number } else { number }));
    number.map(Value::Number).ok_or(BAD_NUMBER)
}

fn is_of_number(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '.' || character == '_'
}
