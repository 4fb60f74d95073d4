//! From when until when a certificate is good. One that is not is served all the same, since nobody has a better one;
//! but the operator should hear of it before the clients complain.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::certificate::{SEQUENCE, element};

/// Tags of DER (X.690 section 8).
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, where it says one (RFC 5280 section 4.1).
const VERSION: u8 = 0xa0;

/// What is wrong with `certificate` at the time `now`, as the end of a sentence.
pub(super) fn objection(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<String> {
    let [from, until] = validity(certificate)?;
    let said = humantime::format_rfc3339_seconds;
    if now < from {
        Some(format!("is good from {} on only", said(from)))
    } else if until < now {
        Some(format!("was good until {}", said(until)))
    } else {
        None
    }
}

/// When it begins and ends; `None` where it does not say so as it should (RFC 5280 section 4.1.2.5).
fn validity(certificate: &[u8]) -> Option<[SystemTime; 2]> {
    let (SEQUENCE, certificate, _) = element(certificate)? else {
        return None;
    };
    let (SEQUENCE, mut fields, _) = element(certificate)? else {
        return None;
    };
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Serial number, algorithm, and who issued it.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (SEQUENCE, times, _) = element(fields)? else {
        return None;
    };
    let (tag, from, rest) = element(times)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some([from, time(tag, until)?])
}

fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            (format!("{century}{year}"), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let written = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    humantime::parse_rfc3339(&written).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn at(year: i32, month: u8) -> SystemTime {
        date_time_ymd(year, month, 1).into()
    }

    #[test]
    fn a_certificate_is_good_between_its_times() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Times after 2049 are written in another way.
        for (from, until) in [(2020, 2030), (2049, 2050), (2060, 2070)] {
            (params.not_before, params.not_after) =
                (date_time_ymd(from, 2, 1), date_time_ymd(until, 3, 1));
            let certificate = params.self_signed(&key).unwrap();
            let objection = |now| objection(certificate.der(), now);
            assert_eq!(objection(at(from, 2)), None);
            assert_eq!(objection(at(until, 3)), None);
            let early = format!("is good from {from}-02-01T00:00:00Z on only");
            assert_eq!(objection(at(from, 1)), Some(early));
            let late = format!("was good until {until}-03-01T00:00:00Z");
            let after = at(until, 3) + Duration::from_secs(1);
            assert_eq!(objection(after), Some(late));
        }
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        for end in 0..100 {
            assert_eq!(validity(&der[..end]), None);
        }
        assert_eq!(time(UTC_TIME, b"991332256199Z"), None);
        assert_eq!(time(UTC_TIME, b"Z"), None);
        assert_eq!(time(0x04, b"20200101000000Z"), None);
    }
}
