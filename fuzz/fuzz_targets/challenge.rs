//! `WWW-Authenticate`, line by line: whatever stands there hides no good challenge.
#![no_main]

use entrepot::upstream::trial;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trial::challenge(bytes.split(|&byte| byte == b'\n'));
});
