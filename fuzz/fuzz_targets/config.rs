//! A configuration file: it is one, or every problem is named; twice the same.
#![no_main]

use entrepot::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let read = || Config::from_yaml(text).map(|config| format!("{config:?}"));
    match (read(), read()) {
        (Ok(first), Ok(second)) => assert_eq!(first, second),
        (Err(first), Err(second)) => {
            let told = first.to_string();
            assert!(!told.trim().is_empty());
            assert_eq!(told, second.to_string());
        }
        (first, second) => panic!("{first:?} and {second:?}"),
    }
});
