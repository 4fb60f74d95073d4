//! Whether what upstream sent is the manifest that was asked for.

use super::{Error, Manifest};
use crate::oci::{Algorithm, Descriptor, Digest, ManifestError, Reference, check_manifest};
use crate::storage::Audience;
use crate::upstream::ManifestAnswer;

/// Holds an answer against what was asked for, what upstream claims, and what a manifest is.
pub(super) fn verify(answer: ManifestAnswer, reference: &Reference) -> Result<Manifest, Error> {
    let ManifestAnswer {
        content_type,
        digest: claimed,
        bytes,
    } = answer;
    let asked = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => None,
    };
    // A claim may be in another algorithm than the question; each is checked in its own.
    for expected in asked.iter().chain(&claimed) {
        let found = Digest::of(expected.algorithm(), &bytes);
        if found != *expected {
            return Err(Error::WrongDigest { found });
        }
    }
    let media_type = content_type
        .parse()
        .map_err(|_| ManifestError::MediaType(content_type.clone()))?;
    check_manifest(&bytes, &media_type)?;
    let digest = asked
        .or(claimed)
        .unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
    let size = bytes.len() as u64;
    let descriptor = Descriptor {
        media_type,
        digest,
        size,
    };
    Ok(Manifest::new(descriptor, bytes, Audience::Entitled))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const BODY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

    fn answer(content_type: &str, digest: Option<Digest>) -> ManifestAnswer {
        let content_type = content_type.to_owned();
        ManifestAnswer {
            content_type,
            digest,
            bytes: Bytes::from_static(BODY),
        }
    }

    fn tag() -> Reference {
        "v1".parse().expect("a tag")
    }

    #[test]
    fn the_digest_is_computed_when_upstream_does_not_say() {
        let manifest = verify(answer(INDEX, None), &tag()).expect("a manifest");
        assert_eq!(
            manifest.descriptor.digest,
            Digest::of(Algorithm::Sha256, BODY)
        );
        assert_eq!(manifest.descriptor.size, BODY.len() as u64);
    }

    #[test]
    fn a_claim_in_another_algorithm_is_checked_in_its_own() {
        let sha256 = Digest::of(Algorithm::Sha256, BODY);
        let sha512 = Digest::of(Algorithm::Sha512, BODY);
        let manifest = verify(answer(INDEX, Some(sha256)), &Reference::Digest(sha512));
        assert_eq!(manifest.expect("a manifest").descriptor.digest, sha512);
    }

    #[test]
    fn false_claims_and_other_content_are_refused() {
        let other = Digest::of(Algorithm::Sha256, b"other");
        let wrong = |result| matches!(result, Err(Error::WrongDigest { .. }));
        assert!(wrong(verify(answer(INDEX, Some(other)), &tag())));
        assert!(wrong(verify(
            answer(INDEX, None),
            &Reference::Digest(other)
        )));
    }

    #[test]
    fn a_type_that_is_none_is_refused() {
        for content_type in ["", "text/html; charset=utf-8", "nonsense"] {
            let refused = verify(answer(content_type, None), &tag());
            assert!(matches!(refused, Err(Error::Manifest(_))), "{content_type}");
        }
    }
}
