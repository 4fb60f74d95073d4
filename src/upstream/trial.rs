//! What holds of every answer of a registry, whatever stands in it: what tests and fuzz targets try in the same way. Part
//! of neither the program nor its documentation.
#![expect(clippy::expect_used, reason = "a trial fails by panicking")]

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::challenge::{CHALLENGES_MAX, challenges};

/// Reads the challenges of an answer with these lines. They are bounded; however broken, the lines do not hide a good one
/// that follows.
///
/// # Panics
/// Unless that holds.
pub fn challenge<'a>(lines: impl IntoIterator<Item = &'a [u8]>) {
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, line);
        }
    }
    let before = challenges(&headers);
    assert!(before.len() <= CHALLENGES_MAX);
    let good = HeaderValue::from_static(r#"Bearer realm="https://a.example/t",service="a b""#);
    headers.append(WWW_AUTHENTICATE, good);
    let after = challenges(&headers);
    if before.len() == CHALLENGES_MAX {
        assert_eq!(before, after, "what is too much is left out");
        return;
    }
    let (last, others) = after.split_last().expect("there is one");
    assert_eq!(others, before);
    assert!(last.is("bearer"));
    assert_eq!(last.parameter("realm"), Some("https://a.example/t"));
    assert_eq!(last.parameter("service"), Some("a b"));
}
