//! A mark on a stored blob that nobody who changes it leaves in place.
//!
//! What was verified is to be served without being read again; but a stranger, or a file system after a crash, may
//! have cut, emptied or changed it. So a blob that was verified has a modification time whose nanoseconds are computed
//! from its digest and its size. Whoever writes to the file, cuts it or puts another in its place changes that time,
//! and `fstat`, which is called for every blob that is opened anyway, shows it. It survives `cp -a`, `rsync -t` and
//! `mv`; a copy that lost it is verified once and sealed again.
//!
//! It is no secret: it finds damage, and those who know it may as well run this program.
//!
//! The access time beside it is the last use, with a note of those who evict in its nanoseconds.

use std::os::fd::AsFd;

use rustix::fs::{Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io;

use crate::oci::Digest;

/// When a blob was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastUse {
    /// In seconds since 1970.
    pub at: u64,
    /// What those who evict remember of it; any number where the kernel has set the time.
    pub note: u32,
}

/// The nanoseconds for the modification time of a blob that was verified. Never none, which is what file systems give
/// that keep whole seconds only.
pub(super) fn nanoseconds(digest: &Digest, size: u64) -> i64 {
    let mut front = [0; 8];
    front.copy_from_slice(&digest.as_bytes()[..8]);
    // Fibonacci hashing: every bit of both reaches the upper half of the product.
    let mixed =
        (u64::from_le_bytes(front) ^ size.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::try_from((mixed >> 32) % 999_999_999).unwrap_or(0) + 1
}

/// Whether a file is as it was when it was verified.
pub(super) fn is_whole(stat: &Stat, digest: &Digest) -> bool {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    i128::from(stat.st_mtime_nsec) == i128::from(nanoseconds(digest, size))
}

/// Seals a file of `size` bytes that was verified, and has been written to for the last time.
pub(super) fn seal(file: impl AsFd, digest: &Digest) -> io::Result<()> {
    let stat = rustix::fs::fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let last_modification = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: nanoseconds(digest, size),
    };
    let last_access = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access,
        last_modification,
    };
    rustix::fs::futimens(file, &times)
}

/// When a file was last used.
pub(super) fn last_use(stat: &Stat) -> LastUse {
    LastUse {
        at: u64::try_from(stat.st_atime).unwrap_or(0),
        note: u32::try_from(stat.st_atime_nsec).unwrap_or(0),
    }
}

/// The times of a file that is used: nothing but the last use changes.
pub(super) fn times_of(last_use: LastUse) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: i64::try_from(last_use.at).unwrap_or(0),
            tv_nsec: i64::from(last_use.note),
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn another_size_or_another_digest_is_another_seal() {
        let mut seals = std::collections::HashSet::new();
        for n in 0..1000_u64 {
            let digest = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
            for size in [0, 1, 2, 4096, 1 << 32, n] {
                let seal = nanoseconds(&digest, size);
                assert!((1..1_000_000_000).contains(&seal));
                seals.insert(seal);
            }
        }
        // Of 5997 pairs, some two in a hundred thousand million meet.
        assert!(seals.len() > 5980, "{}", seals.len());
    }
}
