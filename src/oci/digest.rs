//! `<algorithm>:<hex>`: what a blob is called, and how its bytes are held against that name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// How many hex digits the longest digest has.
const HEX_DIGITS_MAX: usize = 128;

/// The digest algorithms this program verifies. A digest of any other algorithm is refused at the door, because
/// bytes that cannot be verified are never served (image-spec, descriptor.md "Digests").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, which every registry uses.
    Sha256,
    /// `sha512`, which the specification registers too.
    Sha512,
}

impl Algorithm {
    /// The name before the colon, and the directory below `blobs/`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Every algorithm, for those who lay out one directory each.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];
}

/// A verified-to-be-well-formed digest: `Copy`, fixed size, and free of anything a path could trip over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// The 32 bytes of a SHA-256.
    Sha256([u8; 32]),
    /// The 64 bytes of a SHA-512.
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:`.
    #[error("a digest looks like sha256:<64 hex digits>")]
    NoAlgorithm,
    /// The algorithm is not one this program can verify.
    #[error("only sha256 and sha512 digests are served")]
    UnknownAlgorithm,
    /// The part after the colon has the wrong length.
    #[error("{algorithm} takes {expected} hex digits, not {found}")]
    WrongLength {
        /// The algorithm named.
        algorithm: &'static str,
        /// Hex digits it takes.
        expected: usize,
        /// Hex digits there were.
        found: usize,
    },
    /// The part after the colon is not lower-case hex. Upper case is refused rather than folded: image-spec says
    /// `[A-F]` MUST NOT be used, and folding would give one blob two names.
    #[error("a digest is written in lower-case hex")]
    NotLowerHex,
}

impl Digest {
    /// The digest of `bytes`, by `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which algorithm this digest is of.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.to_string()
            .split_off(self.algorithm().as_str().len() + 1)
    }
}

fn parse_hex<const N: usize>(algorithm: Algorithm, hex: &str) -> Result<[u8; N], DigestError> {
    if hex.len() != N * 2 {
        return Err(DigestError::WrongLength {
            algorithm: algorithm.as_str(),
            expected: N * 2,
            found: hex.len(),
        });
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(DigestError::NotLowerHex),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        match algorithm {
            "sha256" => parse_hex(Algorithm::Sha256, hex).map(Self::Sha256),
            "sha512" => parse_hex(Algorithm::Sha512, hex).map(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        // Every answer has it twice: written at once, and not digit by digit.
        let mut hex = [0; HEX_DIGITS_MAX];
        let hex = &mut hex[..2 * self.as_bytes().len()];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        f.write_str(str::from_utf8(hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A digest in the making: bytes go in as they arrive, the digest comes out at the end.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 so far.
    Sha256(sha2::Sha256),
    /// SHA-512 so far.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Hasher(sha256)",
            Self::Sha512(_) => "Hasher(sha512)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, expected: &Result<(), DigestError>) {
        assert_eq!(&text.parse::<Digest>().map(drop), expected, "{text}");
    }

    #[test]
    fn the_empty_blob_has_its_well_known_digest() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
    }

    #[test]
    fn a_digest_prints_as_it_was_written() {
        let sha512 = format!("sha512:{}", "0f".repeat(64));
        for text in [EMPTY, &sha512] {
            assert_eq!(
                text.parse::<Digest>().expect("well-formed").to_string(),
                text
            );
        }
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_digest() {
        let hex = &EMPTY["sha256:".len()..];
        let length = |found| DigestError::WrongLength {
            algorithm: "sha256",
            expected: 64,
            found,
        };
        check(EMPTY, &Ok(()));
        check(hex, &Err(DigestError::NoAlgorithm));
        check(
            &format!("sha256:{}", hex.to_uppercase()),
            &Err(DigestError::NotLowerHex),
        );
        check(
            &format!("sha256:{}B855", &hex[..60]),
            &Err(DigestError::NotLowerHex),
        );
        check(
            &format!("SHA256:{hex}"),
            &Err(DigestError::UnknownAlgorithm),
        );
        check(
            &format!("md5:{}", &hex[..32]),
            &Err(DigestError::UnknownAlgorithm),
        );
        check(
            &format!("sha1:{}", &hex[..40]),
            &Err(DigestError::UnknownAlgorithm),
        );
        check(
            &format!("blake3:{hex}"),
            &Err(DigestError::UnknownAlgorithm),
        );
        check("sha256:", &Err(length(0)));
        check(&format!("sha256:{}", &hex[1..]), &Err(length(63)));
        check(&format!("sha256:{hex}0"), &Err(length(65)));
        check(&format!("sha256:{hex}{hex}"), &Err(length(128)));
        check("sha256:../../x", &Err(length(7)));
        check("sha256:baddigeststring", &Err(length(15)));
        check(
            &format!("sha512:{hex}"),
            &Err(DigestError::WrongLength {
                algorithm: "sha512",
                expected: 128,
                found: 64,
            }),
        );
    }
}
