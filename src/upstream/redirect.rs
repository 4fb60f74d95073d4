//! Where a redirect may lead. Redirects are followed by hand, because the usual rules re-attach credentials, leave
//! https, or go to private addresses.

use reqwest::StatusCode;
use reqwest::Url;
use reqwest::header::{HeaderMap, LOCATION};

use super::guard::host_of;

/// Most redirects that are followed for one request. registry.k8s.io needs two; a loop needs an end.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Longest `Location` that is followed, in bytes. Signed URLs of object stores stay below 4 KiB.
const LOCATION_BYTES_MAX: usize = 16 * 1024;

/// Whether `status` sends the same request elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

/// The URL that an answer from `from` with these `headers` leads to. Its path and query stay as they were written:
/// signatures cover them.
///
/// # Errors
/// Why it is not followed, without path and query.
pub(super) fn target(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = headers
        .get(LOCATION)
        .ok_or("a redirect without a Location")?
        .to_str()
        .map_err(|_| "a redirect whose Location is not text")?;
    if location.is_empty() || location.len() > LOCATION_BYTES_MAX {
        return Err("a redirect whose Location is empty or too long".to_owned());
    }
    let url = from
        .join(location)
        .map_err(|error| format!("a redirect whose Location is not a URL: {error}"))?;
    let host = host_of(&url);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("a redirect to {host} with user info"));
    }
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") if !host.is_empty() => Ok(url),
        _ => Err(format!(
            "a redirect to {host} that is not reached over https"
        )),
    }
}

/// Whether a credential for `from` may be shown to `to`: only where scheme, host and port are the same.
pub(super) fn is_same_origin(from: &Url, to: &Url) -> bool {
    from.scheme() == to.scheme()
        && from.host() == to.host()
        && from.port_or_known_default() == to.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(from: &str, location: &str, expected: Option<&str>) {
        let from = from.parse().expect("a URL");
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(location).expect("a value"));
        let found = target(&from, &headers).ok();
        assert_eq!(found.as_ref().map(Url::as_str), expected, "{location}");
    }

    #[test]
    fn a_redirect_is_followed_as_it_was_written() {
        let from = "https://r.example/v2/a/blobs/sha256:0?x=1";
        for location in [
            "https://cdn.example/shard//docker/sha256%3Aabc/data?se=2024-07-17T23%3A35%3A00Z&sig=a%2Bb",
            "https://cdn.example/ghcr1/blobs/sha256:abc?se=1",
            "https://cdn.example:8443/x",
        ] {
            check(from, location, Some(location));
        }
        check(
            from,
            "/artifacts-downloads/x?y",
            Some("https://r.example/artifacts-downloads/x?y"),
        );
        check(from, "../c", Some("https://r.example/v2/a/c"));
        check(from, "//cdn.example/x", Some("https://cdn.example/x"));
    }

    #[test]
    fn https_is_never_left_and_user_info_never_followed() {
        let from = "https://r.example/v2/";
        for location in [
            "",
            "http://r.example/",
            "ftp://r.example/",
            "file:///etc/passwd",
            "https://user:pw@cdn.example/x",
            "https://user@cdn.example/x",
            "https://",
            "https://[::1/x",
        ] {
            check(from, location, None);
        }
        check(from, &format!("/{}", "x".repeat(LOCATION_BYTES_MAX)), None);
        check(
            "http://r.example/",
            "http://s3.corp/x",
            Some("http://s3.corp/x"),
        );
        check(
            "http://r.example/",
            "https://s3.corp/x",
            Some("https://s3.corp/x"),
        );
        assert!(target(&from.parse().expect("a URL"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn scheme_host_and_port_make_the_origin() {
        let check = |a: &str, b: &str, expected: bool| {
            let (a, b) = (a.parse().expect("a URL"), b.parse().expect("a URL"));
            assert_eq!(is_same_origin(&a, &b), expected, "{a} {b}");
        };
        check("https://r.example/a", "https://R.example:443/b?c", true);
        check("https://r.example/", "https://r.example:8443/", false);
        check("https://r.example/", "http://r.example/", false);
        check("https://r.example/", "https://cdn.r.example/", false);
    }
}
