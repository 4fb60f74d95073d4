//! How fast the cache is read once more.

use std::time::Duration;

use tokio::time::sleep;

/// Slower than this it never goes, in bytes in a second: a disk that cannot spare that is no disk to serve from.
const SLOWEST: u64 = 1024 * 1024;

/// So many bytes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace(u64);

impl Pace {
    /// No more than `bytes_per_second`.
    pub(super) fn at(bytes_per_second: u64) -> Self {
        Self(bytes_per_second.max(1))
    }

    /// As slow as lets `bytes` be read in `time`, and no faster than `bytes_per_second_max`.
    pub(super) fn spread(bytes: u64, time: Duration, bytes_per_second_max: u64) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let needed = bytes.saturating_mul(1000) / millis;
        Self::at(needed.max(SLOWEST).min(bytes_per_second_max))
    }

    /// How long `bytes` take.
    fn time_for(self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.0)
    }

    /// Waits for as long as `bytes` take that were read just now.
    pub(super) async fn wait_after(self, bytes: u64) {
        let time = self.time_for(bytes);
        if !time.is_zero() {
            sleep(time).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[track_caller]
    fn check(bytes: u64, seconds: u64, max: u64, expected: u64) {
        let time = Duration::from_secs(seconds);
        assert_eq!(Pace::spread(bytes, time, max), Pace(expected));
    }

    #[test]
    fn it_takes_the_time_there_is_and_keeps_to_its_bound() {
        check(100 * MIB, 10, 64 * MIB, 10 * MIB);
        check(1000 * MIB, 10, 64 * MIB, 64 * MIB);
        check(MIB, 1000, 64 * MIB, MIB);
        check(MIB, 1000, MIB / 2, MIB / 2);
        check(0, 0, 0, 1);
        assert_eq!(Pace::at(MIB).time_for(MIB), Duration::from_secs(1));
        assert_eq!(Pace::at(u64::MAX).time_for(MIB), Duration::ZERO);
    }
}
