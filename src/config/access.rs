//! Who may read what: the keys of upstreams.

use super::problem::{Findings, Rule};
use super::raw::RawAccess;
use super::value;
use crate::upstream::{AccessMode, AccessPolicy};

/// The policy that an upstream's keys stand for. `has_clients` where `authentication` says who the clients are.
pub(super) fn policy(raw: &RawAccess, has_clients: bool, findings: &Findings) -> AccessPolicy {
    let usual = AccessPolicy::default();
    let duration = |written: &Option<_>| {
        let written = written.as_ref()?;
        findings.parse(written, value::duration)
    };
    let chosen = raw.mode.as_ref();
    AccessPolicy {
        mode: chosen
            .and_then(|written| findings.parse(written, |text| mode(text, has_clients)))
            .unwrap_or_default(),
        authz_ttl: duration(&raw.authz_ttl).unwrap_or(usual.authz_ttl),
        authz_grace: duration(&raw.authz_grace).unwrap_or(usual.authz_grace),
    }
}

fn mode(text: &str, has_clients: bool) -> Result<AccessMode, Rule> {
    match text {
        "auto" => Ok(AccessMode::Auto),
        "shared" => Ok(AccessMode::Shared),
        "verify" => Ok(AccessMode::Verify),
        "authenticated" if !has_clients => {
            Err("needs to know the clients: write them under `authentication`".into())
        }
        "authenticated" => Ok(AccessMode::Authenticated),
        _ => Err("must be auto, shared, verify or authenticated".into()),
    }
}
