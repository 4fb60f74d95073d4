//! Certificates of listeners.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// The warnings about a listener whose certificate is good from the first day of one year to that of another.
fn warnings([from, until]: [i32; 2]) -> Vec<String> {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["mirror.example".to_owned()]).expect("names");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let files = Files::new(&[("tls.crt", &certificate), ("tls.key", &key.serialize_pem())]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(files.path("tls.key"), mode).expect("its owner may");
    let directory = files.directory().display();
    let pair = format!("certificate: {directory}/tls.crt, key: {directory}/tls.key");
    let yaml = format!("listen: [{{ address: '[::]:3443', tls: {{ {pair} }} }}]");
    let warnings = Config::from_yaml(&yaml).expect("well-formed").warnings;
    let directory = format!("{directory}/");
    let warnings = warnings.iter().map(|text| text.replace(&directory, ""));
    warnings.collect()
}

#[test]
fn f42_a_certificate_out_of_its_time_is_warned_about_and_no_reason_not_to_start() {
    assert_eq!(warnings([2020, 2090]), [""; 0]);
    let over = "the certificate tls.crt was good until 2021-01-01T00:00:00Z";
    assert_eq!(warnings([2020, 2021]), [over]);
    let early = "the certificate tls.crt is good from 2090-01-01T00:00:00Z on only";
    assert_eq!(warnings([2090, 2091]), [early]);
}
