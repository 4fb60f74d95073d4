//! Names and passwords of clients, as Apache's `htpasswd -B` writes them.

use std::collections::HashMap;
use std::fmt;

use super::Identity;

/// Costliest hash that is taken, in powers of two of bcrypt's rounds: 2^14 takes about a second, and every log-in with
/// a password not seen before costs it.
const COST_MAX: u32 = 14;

/// The least that is taken, as OWASP has it ("Password Storage Cheat Sheet": 10) less what `htpasswd -B` writes by
/// default (5), which is what people have.
const COST_MIN: u32 = 5;

/// Longest password that is looked at, in bytes. bcrypt itself hears the first 72 alone.
const PASSWORD_BYTES_MAX: usize = 72;

/// A file of names and hashes.
#[derive(Clone)]
pub struct PasswordFile {
    hashes: HashMap<String, String>,
    /// What is checked for a name that is not there, so that it takes as long as one that is.
    decoy: String,
}

/// Why a file is of no use, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFileError {
    /// A line is not `name:hash`.
    #[error("line {0} must be NAME:HASH, as `htpasswd -B` writes it")]
    Line(usize),
    /// A hash is not one of bcrypt, or costs too little or too much.
    #[error(
        "line {0} must hold a bcrypt hash of cost {COST_MIN} to {COST_MAX}, as `htpasswd -B` writes it"
    )]
    Hash(usize),
    /// A name stands there twice.
    #[error("line {0} names somebody who is named above already")]
    Twice(usize),
    /// Nobody is in it.
    #[error("names nobody")]
    Empty,
}

impl PasswordFile {
    /// Reads the text of a file. Empty lines and those that start with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, PasswordFileError> {
        let mut hashes = HashMap::new();
        let mut decoy = None;
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or(PasswordFileError::Line(number))?;
            let cost = hash
                .parse::<bcrypt::HashParts>()
                .map_err(|_| PasswordFileError::Hash(number))?
                .get_cost();
            if !(COST_MIN..=COST_MAX).contains(&cost) {
                return Err(PasswordFileError::Hash(number));
            }
            decoy.get_or_insert_with(|| hash.to_owned());
            if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(PasswordFileError::Twice(number));
            }
        }
        let decoy = decoy.ok_or(PasswordFileError::Empty)?;
        Ok(Self { hashes, decoy })
    }

    /// Who has this name and this password. Takes as long whether or not there is such a name, and blocks for some
    /// tens of milliseconds: that is what a hash of passwords is for. An empty password is never right.
    pub fn identify(&self, name: &str, password: &str) -> Option<Identity> {
        let known = self.hashes.get(name);
        let hash = known.unwrap_or(&self.decoy);
        let is_right = bcrypt::verify(password, hash).unwrap_or(false);
        let is_possible = !password.is_empty() && password.len() <= PASSWORD_BYTES_MAX;
        (is_right && known.is_some() && is_possible).then(|| Identity::proven(name))
    }
}

impl fmt::Debug for PasswordFile {
    /// Says how many there are: hashes can be guessed from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile")
            .field("names", &self.hashes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, password: &str) -> String {
        let hash = bcrypt::hash(password, COST_MIN).expect("a hash");
        format!("{name}:{hash}")
    }

    #[test]
    fn a_name_with_its_password_is_known_and_nothing_else() {
        let text = format!("# people\n\n{}\n{}\n", line("ci", "hunter2"), line("x", ""));
        let file = PasswordFile::parse(&text).expect("a file");
        let identify = |name, password| file.identify(name, password);
        assert_eq!(identify("ci", "hunter2"), Some(Identity::proven("ci")));
        for (name, password) in [("ci", "hunter3"), ("ci", ""), ("cj", "hunter2"), ("x", "")] {
            assert_eq!(identify(name, password), None, "{name}");
        }
        assert!(!format!("{file:?}").contains('$'));
    }

    #[test]
    fn what_is_no_password_file_is_refused() {
        let check = |text: &str, expected: PasswordFileError| {
            assert_eq!(PasswordFile::parse(text).err(), Some(expected), "{text:?}");
        };
        check("", PasswordFileError::Empty);
        check("# nobody\n", PasswordFileError::Empty);
        check("ci", PasswordFileError::Line(1));
        check(":x", PasswordFileError::Line(1));
        check("\nci:hunter2", PasswordFileError::Hash(2));
        check(
            "ci:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            PasswordFileError::Hash(1),
        );
        check("ci:$apr1$x$y", PasswordFileError::Hash(1));
        let (once, again) = (line("ci", "a"), line("ci", "b"));
        check(&format!("{once}\n{again}"), PasswordFileError::Twice(2));
    }
}
