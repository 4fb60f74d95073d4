//! `Range` and `If-Range`: the part that was asked for, and no other.
#![no_main]

use entrepot::registry::trial;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The range, the size of the blob, and `If-Range`.
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let range = lines.next().unwrap_or_default();
    let size = lines.next().and_then(|size| str::from_utf8(size).ok());
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(1000);
    trial::range(range, lines.next(), size, "e");
});
