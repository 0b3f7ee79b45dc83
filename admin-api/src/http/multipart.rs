//! `multipart/form-data` (RFC 7578) as far as forms without files need it.
//!
//! Only the name of each part is looked at; a file name or a content type changes nothing, because no call of
//! these interfaces takes a file.

use super::parameters::{MAX_FIELDS, ParameterError};

/// Longest header block of one part, in bytes.
const MAX_PART_HEADER: usize = 4096;

/// Appends the fields of `body` to `fields`; `content_type` names the boundary.
pub(super) fn decode(
    content_type: &str,
    body: &[u8],
    fields: &mut Vec<(String, String)>,
) -> Result<(), ParameterError> {
    let boundary = boundary(content_type).ok_or(ParameterError::Multipart)?;
    let delimiter = format!("--{boundary}");
    let mut rest = match memchr::memmem::find(body, delimiter.as_bytes()) {
        // What stands before the first delimiter is a preamble; the delimiter has to start a line.
        Some(at) if at == 0 || body[..at].ends_with(b"\r\n") => &body[at + delimiter.len()..],
        _ => return Err(ParameterError::Multipart),
    };
    let separator = format!("\r\n{delimiter}");
    loop {
        if rest.starts_with(b"--") {
            return Ok(());
        }
        rest = rest.strip_prefix(b"\r\n").ok_or(ParameterError::Multipart)?;
        let end = memchr::memmem::find(rest, separator.as_bytes()).ok_or(ParameterError::Multipart)?;
        if fields.len() >= MAX_FIELDS {
            return Err(ParameterError::TooManyFields);
        }
        fields.push(part(&rest[..end])?);
        rest = &rest[end + separator.len()..];
    }
}

/// The boundary parameter, with or without quotation marks.
fn boundary(content_type: &str) -> Option<&str> {
    let value = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (!value.is_empty() && value.len() <= 70).then_some(value)
}

/// Name and value of one part: header lines, an empty line, the value.
fn part(text: &[u8]) -> Result<(String, String), ParameterError> {
    let end = memchr::memmem::find(text, b"\r\n\r\n").ok_or(ParameterError::Multipart)?;
    if end > MAX_PART_HEADER {
        return Err(ParameterError::Multipart);
    }
    let header = std::str::from_utf8(&text[..end]).map_err(|_| ParameterError::NotUtf8)?;
    let value = std::str::from_utf8(&text[end + 4..]).map_err(|_| ParameterError::NotUtf8)?;
    let name = header
        .split("\r\n")
        .find_map(|line| {
            let (field, rest) = line.split_once(':')?;
            field.trim().eq_ignore_ascii_case("content-disposition").then_some(rest)
        })
        .and_then(field_name)
        .ok_or(ParameterError::Multipart)?;
    Ok((name, value.to_owned()))
}

/// The `name` of a Content-Disposition value. Browsers write `%22` for a quotation mark inside.
fn field_name(disposition: &str) -> Option<String> {
    disposition.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("name").then(|| value.trim().trim_matches('"').replace("%22", "\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(content_type: &str, body: &str) -> Result<Vec<(String, String)>, ParameterError> {
        let mut fields = Vec::new();
        decode(content_type, body.as_bytes(), &mut fields).map(|()| fields)
    }

    #[test]
    fn parts_become_fields() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nmp\r\n--x\r\n\
                    Content-Type: text/plain\r\ncontent-disposition: form-data; name=\"t\"\r\n\r\n\r\na\r\n\r\n--x--\r\n";
        let expected = vec![("name".to_owned(), "mp".to_owned()), ("t".to_owned(), "\r\na\r\n".to_owned())];
        for kind in ["multipart/form-data; boundary=x", "multipart/form-data; Boundary=\"x\"; charset=utf-8"]
        {
            assert_eq!(fields(kind, body), Ok(expected.clone()), "{kind}");
        }
        assert_eq!(fields("multipart/form-data; boundary=x", &format!("preamble\r\n{body}")), Ok(expected));
        assert_eq!(fields("multipart/form-data; boundary=x", "--x--\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let kind = "multipart/form-data; boundary=x";
        for body in [
            "",
            "no delimiter",
            "--x\r\n",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nno end",
            "--x\r\nno header\r\n--x--",
            "--x\r\nContent-Type: text/plain\r\n\r\nno name\r\n--x--",
            "--xContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n--x--",
        ] {
            assert_eq!(fields(kind, body), Err(ParameterError::Multipart), "{body:?}");
        }
        assert_eq!(fields("multipart/form-data", "--x--"), Err(ParameterError::Multipart));
    }
}
