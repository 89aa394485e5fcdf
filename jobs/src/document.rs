//! Small text documents from outside: read no further than a cap, their schema looked at before their fields, TOML or
//! JSON by their first character. Knows nothing of what the fields mean.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::digest::regular_file_bytes;
use crate::error::{JobsError, Result, clip};

/// The one field that is read before all others; the rest is left alone.
#[derive(Deserialize)]
struct Header {
    schema: String,
}

/// Reads a text file of at most `limit_bytes`.
pub(crate) fn read_capped(path: &Path, limit_bytes: u64) -> Result<String> {
    let too_large = |found_bytes| JobsError::TooLarge { path: path.to_owned(), found_bytes, limit_bytes };
    let read_error = |source| JobsError::Read { path: path.to_owned(), source };
    let found_bytes = regular_file_bytes(path)?;
    if found_bytes > limit_bytes {
        return Err(too_large(found_bytes));
    }
    let mut bytes = Vec::new();
    // The file may grow between the two looks at it.
    File::open(path).map_err(read_error)?.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(too_large(limit_bytes + 1));
    }
    String::from_utf8(bytes).map_err(|error| JobsError::Syntax {
        path: path.to_owned(),
        detail: format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()),
    })
}

/// As [`parse`], of JSON alone.
pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, text: &str, expected: &'static str) -> Result<T> {
    if text.trim_start().starts_with('{') {
        return parse(path, text, expected);
    }
    Err(JobsError::Syntax { path: path.to_owned(), detail: "does not start as a JSON object".to_owned() })
}

/// Parses a document whose `schema` must be exactly `expected` (`name/number`).
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str, expected: &'static str) -> Result<T> {
    let syntax = |detail: String| JobsError::Syntax { path: path.to_owned(), detail };
    let header: Header = parse_any(text).map_err(syntax)?;
    if header.schema == expected {
        return parse_any(text).map_err(syntax);
    }
    let (path, found) = (path.to_owned(), clip(&header.schema));
    Err(if is_newer(&header.schema, expected) {
        JobsError::NewerSchema { path, found, expected }
    } else {
        JobsError::ForeignSchema { path, found, expected }
    })
}

fn parse_any<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| clip_detail(&error.to_string()));
    }
    toml::from_str(text).map_err(|error| {
        let place = error.span().and_then(|span| text.get(..span.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
            format!(" at line {line} column {column}")
        });
        clip_detail(error.message()) + &place.unwrap_or_default()
    })
}

/// A parser's words on one line: they quote what the file holds.
fn clip_detail(detail: &str) -> String {
    const LIMIT_CHARS: usize = 300;
    let one_line = detail.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|c| !c.is_control()).take(LIMIT_CHARS).collect()
}

fn is_newer(found: &str, expected: &str) -> bool {
    let split = |schema: &str| -> Option<(String, u64)> {
        let (name, number) = schema.rsplit_once('/')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    match (split(found), split(expected)) {
        (Some((found_name, found_number)), Some((name, number))) => found_name == name && found_number > number,
        _ => false,
    }
}
