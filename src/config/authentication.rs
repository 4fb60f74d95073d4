//! Who may read what: the clients that the mirror knows, and the rules for them.

use super::file::Access;
use super::problem::{Findings, Place, Problem};
use super::reader::Section;
use super::value;
use super::written::Written;
use crate::access::{PasswordFile, Pattern, Rule, Rules};
use crate::registry::Authentication;

/// `authentication` as it was written.
pub(super) struct RawAuthentication {
    place: Place,
    htpasswd: Option<Written>,
    rules: Vec<RawRule>,
}

/// One element of `authentication.rules`.
struct RawRule {
    place: Place,
    users: Vec<Written>,
    repositories: Vec<Written>,
}

impl RawAuthentication {
    /// Takes the keys.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let rules = section.sections("rules", |rule| RawRule {
            place: rule.place(),
            users: rule.texts("users").unwrap_or_default(),
            repositories: rule.texts("repositories").unwrap_or_default(),
        });
        Self {
            place: section.place(),
            htpasswd: section.path("htpasswd"),
            rules: rules.map(|(_, rules)| rules).unwrap_or_default(),
        }
    }

    /// The clients and their rules, as far as they are right. `has_client_ca` where a listener knows them by certificate.
    pub(super) fn check(&self, has_client_ca: bool, findings: &Findings) -> Authentication {
        let wrong = |rule: &'static str| Problem::of_place(self.place.clone(), rule);
        if self.htpasswd.is_none() && !has_client_ca {
            findings.problem(wrong("has no htpasswd, the file that `htpasswd -B` writes"));
        }
        if self.rules.is_empty() {
            findings.problem(wrong("has no rules, so that nobody may read anything"));
        }
        let rules = self.rules.iter().map(|rule| rule.check(findings));
        let rules = Rules::new(rules.collect());
        let file = self.htpasswd.as_ref();
        Authentication {
            passwords: file.and_then(|file| passwords(file, findings)),
            rules,
        }
    }
}

impl RawRule {
    fn check(&self, findings: &Findings) -> Rule {
        for (texts, key) in [(&self.users, "users"), (&self.repositories, "repositories")] {
            if texts.is_empty() {
                let rule = format!("has no {key}; write '*' or '**' for all");
                findings.problem(Problem::of_place(self.place.clone(), rule));
            }
        }
        let patterns = |texts: &[Written]| {
            let parse = |text: &str| {
                text.parse::<Pattern>()
                    .map_err(|error| error.to_string().into())
            };
            let texts = texts.iter();
            texts
                .filter_map(|text| findings.parse(text, parse))
                .collect()
        };
        Rule {
            users: patterns(&self.users),
            repositories: patterns(&self.repositories),
        }
    }
}

fn passwords(file: &Written, findings: &Findings) -> Option<PasswordFile> {
    let path = findings.parse(file, value::path)?;
    let (text, access) = findings.parse(file, |_| {
        Ok(findings
            .read_text(&path)
            .map_err(|error| error.to_string())?)
    })?;
    if matches!(access, Access::World) {
        findings.warning(format!(
            "everybody on this machine may read the password file {}; `chmod o-r` it",
            path.display()
        ));
    }
    findings.parse(file, |_| {
        Ok(PasswordFile::parse(&text).map_err(|error| error.to_string())?)
    })
}
