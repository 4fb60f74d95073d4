//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` in the texts of a file.

use std::path::Path;

use super::Environment;
use super::file::FileError;
use super::problem::Rule;

/// Reads a file of text.
pub(super) type ReadText<'a> = &'a dyn Fn(&Path) -> Result<String, FileError>;

/// Fills in what `text` asks for. `$${` stands for `${` itself; a path that is relative starts at `base`.
///
/// `read` reads a file of text.
///
/// # Errors
/// What is missing or malformed. The rule names variables and paths, never their contents.
pub(super) fn fill(
    text: &str,
    environment: &Environment,
    base: &Path,
    read: ReadText<'_>,
) -> Result<String, Rule> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let (asked, after) = rest[at + 2..]
            .split_once('}')
            .ok_or("has a ${ without a }; write $${ where the characters themselves are meant")?;
        filled.push_str(&look_up(asked, environment, base, read)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What stands between `${` and `}`.
fn look_up(
    asked: &str,
    environment: &Environment,
    base: &Path,
    read: ReadText<'_>,
) -> Result<String, Rule> {
    if let Some(path) = asked.strip_prefix("file:") {
        let mut text = read(&base.join(path))
            .map_err(|error| format!("asks for a file, {path:?}, that {error}"))?;
        // Editors and `echo` end a file with a line feed that is no part of the secret.
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        return Ok(text);
    }
    let (name, default) = match asked.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (asked, None),
    };
    if !is_variable_name(name) {
        return Err(
            "has a ${…} that is neither ${VAR}, ${VAR:-default} nor ${file:PATH}; write $${ where the characters \
             themselves are meant"
                .into(),
        );
    }
    match (environment(name), default) {
        // As in the shell, `:-` also stands in for a variable that is set to nothing.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "asks for the variable {name}, which is not set; set it, or write ${{{name}:-default}}"
        )
        .into()),
    }
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{read_bytes, text_of};

    fn read(path: &Path) -> Result<String, FileError> {
        text_of(read_bytes(path)?.0)
    }

    fn filled(text: &str) -> Result<String, Rule> {
        let environment = |name: &str| match name {
            "USER" => Some("alice".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        fill(text, &environment, Path::new("/nowhere"), &read)
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        let check = |text: &str, expected: &str| assert_eq!(filled(text).as_deref(), Ok(expected));
        check("plain", "plain");
        check("", "");
        check("${USER}", "alice");
        check("a${USER}b${USER}c", "aalicebalicec");
        check("${USER:-bob}", "alice");
        check("${NOBODY:-bob}", "bob");
        check("${NOBODY:-}", "");
        check("${EMPTY:-bob}", "bob");
        check("${EMPTY}", "");
        check("${NOBODY:-a:-b}", "a:-b");
        check("$USER $ $$ {USER}", "$USER $ $$ {USER}");
        check("$${USER}", "${USER}");
        check("^v\\d{2}$", "^v\\d{2}$");
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        let rule = filled("${NOBODY}").expect_err("unset");
        assert!(
            rule.contains("NOBODY") && rule.contains("${NOBODY:-default}"),
            "{rule}"
        );
    }

    #[test]
    fn what_is_malformed_is_not_repeated() {
        for text in [
            "${hunter2",
            "${}",
            "${hunter 2}",
            "${2hunter}",
            "${hunter-2}",
        ] {
            let rule = filled(text).expect_err(text);
            assert!(!rule.contains("hunter"), "{rule}");
        }
    }

    #[test]
    fn a_file_is_filled_in_without_its_last_line_feed() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("token"), "s3cret\n").expect("written");
        let nothing = |_: &str| None;
        let fill = |text: &str| fill(text, &nothing, directory.path(), &read);
        assert_eq!(fill("<${file:token}>").as_deref(), Ok("<s3cret>"));
        let absolute = format!("${{file:{}}}", directory.path().join("token").display());
        assert_eq!(fill(&absolute).as_deref(), Ok("s3cret"));
        let rule = fill("${file:missing}").expect_err("missing");
        assert!(rule.contains("missing"), "{rule}");
    }
}
