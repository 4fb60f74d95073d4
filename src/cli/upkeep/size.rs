//! Sizes as people write and read them.

/// The units that sizes are told in, each 1024 of the one before.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a size has a unit, such as 500MiB, 100GiB or 2TiB")]
pub struct SizeError;

/// The bytes of a size with its unit.
///
/// # Errors
/// It is none.
pub fn bytes_of(text: &str) -> Result<u64, SizeError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| SizeError)?;
    let power = UNITS.iter().position(|known| *known == unit.trim());
    let bytes = power.and_then(|power| number.checked_mul(1 << (10 * power)));
    bytes.ok_or(SizeError)
}

/// Bytes in the unit that leaves a number of at most four digits, with one behind the point.
pub fn in_words(bytes: u64) -> String {
    let mut power = 0;
    while power + 1 < UNITS.len() && bytes >> (10 * power) >= 1024 {
        power += 1;
    }
    let unit = 1_u128 << (10 * power);
    if power == 0 {
        return format!("{bytes} B");
    }
    let tenths = u128::from(bytes) * 10 / unit;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("500MiB", 500 << 20),
            ("100 GiB", 100 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(bytes_of(text), Ok(bytes), "{text}");
        }
        for text in ["", "5", "GiB", "-1GiB", "1.5GiB", "1GB", "99999999999TiB"] {
            assert_eq!(bytes_of(text), Err(SizeError), "{text}");
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 << 20, "1.5 GiB"),
            (5000 << 40, "5000.0 TiB"),
        ] {
            assert_eq!(in_words(bytes), text);
        }
    }
}
