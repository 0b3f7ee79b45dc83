//! A list of texts in a settings file written in Python, which is read and never run.

use nom::branch::alt;
use nom::bytes::complete::{is_not, tag, take};
use nom::character::complete::{char, multispace1, not_line_ending};
use nom::combinator::{map, opt, value, verify};
use nom::multi::{fold_many0, many0_count, separated_list0};
use nom::sequence::{delimited, pair, preceded, terminated};
use nom::{IResult, Parser};

/// The texts in the last `NAME = [...]` at the beginning of a line.
///
/// # Errors
/// There is no such line, or something else than texts stands in the list.
pub(super) fn list_of_texts(settings: &str, name: &str) -> Result<Vec<String>, String> {
    let begins = |line: &&str| {
        let rest = line.strip_prefix(name).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with('=') && !rest.starts_with("=="))
    };
    let line = settings.lines().rfind(begins).ok_or(format!("there is no {name}"))?;
    // Lines are slices of the text, so the rest of the text is where the line begins.
    let start = line.as_ptr() as usize - settings.as_ptr() as usize;
    let (_, assigned) = settings[start..].split_once('=').unwrap_or_default();
    let list = assigned.trim_start_matches([' ', '\t']);
    list_of(list)
        .map(|(_, texts)| texts)
        .map_err(|_| format!("{name} is no list of texts in quotation marks"))
}

fn list_of(input: &str) -> IResult<&str, Vec<String>> {
    let comma = delimited(blank, char(','), blank);
    let texts = terminated(separated_list0(comma, text), opt(pair(blank, char(','))));
    delimited(pair(char('['), blank), texts, pair(blank, char(']'))).parse(input)
}

/// White space and remarks.
fn blank(input: &str) -> IResult<&str, ()> {
    let remark = value((), pair(char('#'), not_line_ending));
    value((), many0_count(alt((value((), multispace1), remark)))).parse(input)
}

fn text(input: &str) -> IResult<&str, String> {
    alt((quoted("'", "\\'\r\n"), quoted("\"", "\\\"\r\n"))).parse(input)
}

fn quoted<'a>(
    mark: &'static str,
    special: &'static str,
) -> impl Parser<&'a str, Output = String, Error = nom::error::Error<&'a str>> {
    let escaped = preceded(char('\\'), verify(take(1_usize), |it: &str| "\\'\"".contains(it)));
    let inner = fold_many0(alt((is_not(special), escaped)), String::new, |mut all, part: &str| {
        all.push_str(part);
        all
    });
    delimited(tag(mark), map(inner, |text| text), tag(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let table: &[(&str, Option<&[&str]>)] = &[
            ("srs_secrets = ['a', \"b\"]\n", Some(&["a", "b"])),
            ("x = 1\nsrs_secrets=['a']\nsrs_secrets = ['b']", Some(&["b"])),
            ("srs_secrets = [\n    'a',  # first\n    # none\n    'b',\n]\n", Some(&["a", "b"])),
            ("srs_secrets = []", Some(&[])),
            ("srs_secrets = ['a b#c', 'it\\'s', \"back\\\\slash\"]", Some(&["a b#c", "it's", "back\\slash"])),
            ("#srs_secrets = ['a']", None),
            ("  srs_secrets = ['a']", None),
            ("srs_secrets_old = ['a']", None),
            ("srs_secrets == ['a']", None),
            ("srs_secrets = [secret]", None),
            ("srs_secrets = ['a' 'b']", None),
            ("srs_secrets = ['a\n']", None),
            ("srs_secrets = ['\\x41']", None),
            ("srs_secrets = ['a'", None),
            ("srs_secrets = 'a'", None),
            ("", None),
        ];
        for (settings, expected) in table {
            let got = list_of_texts(settings, "srs_secrets").ok();
            assert_eq!(
                got.as_deref(),
                expected.map(|list| list.iter().map(|it| it.to_string()).collect::<Vec<_>>()).as_deref(),
                "{settings}"
            );
        }
    }
}
