//! `tls` of a listener: its certificates, keys and authorities.

use std::path::Path;

use super::file::{Access, read_bytes};
use super::problem::{Findings, Place, Problem, Rule};
use super::reader::Section;
use super::value;
use super::written::Written;
use crate::clock::Clock;
use crate::server::{CertificateFiles, ClientCertificate, TlsFiles};

/// `tls` as it was written.
pub(super) struct RawTls {
    place: Place,
    /// The pair at the top, and then those of `certificates`.
    pairs: Vec<RawPair>,
    client_ca: Option<Written>,
    client_certificate: Option<Written>,
}

/// A certificate and its key.
struct RawPair {
    place: Place,
    certificate: Option<Written>,
    key: Option<Written>,
}

impl RawTls {
    /// Takes the keys.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut pairs = vec![RawPair::read(section)];
        if let Some((_, further)) = section.sections("certificates", RawPair::read) {
            // What stands in the list alone is enough.
            pairs.retain(|first| !first.is_empty() || further.is_empty());
            pairs.extend(further);
        }
        Self {
            place: section.place(),
            pairs,
            client_ca: section.path("client_ca"),
            client_certificate: section.text("client_certificate"),
        }
    }

    /// Whether clients are known there by their certificates.
    pub(super) fn has_client_ca(&self) -> bool {
        self.client_ca.is_some()
    }

    /// The files, all of which can be used; `None` after a problem was taken down.
    pub(super) fn check(&self, findings: &Findings) -> Option<TlsFiles> {
        let pairs: Vec<_> = self.pairs.iter().map(|pair| pair.check(findings)).collect();
        let client_ca = self.client_ca.as_ref();
        let client_ca = client_ca.map(|path| findings.parse(path, value::path));
        let client_certificate = self.client_certificate.as_ref();
        let client_certificate = client_certificate.map(|written| {
            if client_ca.is_none() {
                let rule =
                    "is about certificates of clients, but there is no client_ca to judge them by";
                findings.problem(written.problem(rule));
            }
            findings.parse(written, whether_clients_need_one)
        });
        let files = TlsFiles {
            certificates: pairs.into_iter().collect::<Option<_>>()?,
            client_ca: match client_ca {
                Some(path) => Some(path?),
                None => None,
            },
            client_certificate: client_certificate.flatten().unwrap_or_default(),
        };
        let loaded = files.clone().load();
        findings.keep(loaded.map_err(|error| {
            Problem::of_place(self.place.clone(), format!("cannot be used: {error}"))
        }))?;
        for warning in files.warnings(Clock::system().now()) {
            findings.warning(warning);
        }
        Some(files)
    }
}

impl RawPair {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place(),
            certificate: section.path("certificate"),
            key: section.path("key"),
        }
    }

    fn is_empty(&self) -> bool {
        self.certificate.is_none() && self.key.is_none()
    }

    fn check(&self, findings: &Findings) -> Option<CertificateFiles> {
        let path = |written: &Option<Written>, missing: &'static str| {
            let Some(written) = written else {
                findings.problem(Problem::of_place(self.place.clone(), missing));
                return None;
            };
            findings.parse(written, value::path)
        };
        let certificate = path(&self.certificate, "has no certificate");
        let key = path(&self.key, "has no key");
        if let Some(key) = &key {
            warn_of_readers("key", key, findings);
        }
        Some(CertificateFiles {
            certificate: certificate?,
            key: key?,
        })
    }
}

/// Warns where everybody on the machine may read `path`, which holds a secret. What cannot be read is not judged here.
pub(super) fn warn_of_readers(what: &str, path: &Path, findings: &Findings) {
    match read_bytes(path) {
        Ok((_, Access::World)) => findings.warning(format!(
            "everybody on this machine may read the {what} {}; `chmod o-r` it",
            path.display()
        )),
        Ok((_, Access::Restricted)) | Err(_) => {}
    }
}

fn whether_clients_need_one(text: &str) -> Result<ClientCertificate, Rule> {
    match text {
        "required" => Ok(ClientCertificate::Required),
        "optional" => Ok(ClientCertificate::Optional),
        _ => Err("must be required or optional".into()),
    }
}
