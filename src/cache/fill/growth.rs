//! Whether one more connection helps. Pure: bytes and times are parameters.

use std::time::Duration;

/// Most connections for one blob. Registries and CDNs tolerate a handful from one client; browsers use six.
pub(super) const CONNECTIONS_MAX: usize = 4;

/// Smallest blob, in bytes, for which a second connection is worth its handshake.
pub(super) const PARALLEL_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Smallest blob, in bytes, for which a second connection is worth it where the first asked for everything: that one is
/// closed when it meets the second, and what is in its buffers by then, some MiB, comes twice. It must stay below a
/// hundredth.
pub(super) const UNBOUNDED_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// A connection this fast, in bytes per second, is not limited by anything that another one would help against: it
/// fills a link of more than a gigabit.
const FAST_ENOUGH: u64 = 150 * 1024 * 1024;

/// The time over which a rate is measured. Shorter, and a burst of buffers looks like speed.
pub(super) const MEASURE: Duration = Duration::from_millis(250);

/// When less than this is left at the present rate, a further connection comes too late.
const LEFT_MIN: Duration = Duration::from_secs(1);

/// A connection has helped if it brought at least this part of what each of the others has.
const GAIN_MIN: f64 = 0.4;

/// What has been measured so far.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// The rate with one connection fewer, in bytes per second, while the last one is on trial.
    before: Option<u64>,
    /// Set once a further connection has not helped.
    enough: bool,
}

impl Growth {
    /// A further connection failed where the others did not.
    pub(super) fn stop(&mut self) {
        self.enough = true;
    }

    /// Whether to open one more connection, after `received` bytes came within `elapsed` (at least [`MEASURE`])
    /// through `connections`, of a blob of `size` bytes of which `left` are still to come.
    pub(super) fn wants_more(
        &mut self,
        connections: usize,
        received: u64,
        elapsed: Duration,
        size: u64,
        left: u64,
    ) -> bool {
        if connections == 0 || elapsed.is_zero() {
            return false;
        }
        let rate = per_second(received, elapsed);
        let n = connections as u64;
        if let Some(before) = self.before.take() {
            let each = before / n.saturating_sub(1).max(1);
            #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
            let gained = rate.saturating_sub(before) as f64 >= each as f64 * GAIN_MIN;
            self.enough |= !gained;
        }
        let more = !self.enough
            && size >= PARALLEL_BYTES_MIN
            && connections < CONNECTIONS_MAX
            && rate / n < FAST_ENOUGH
            && left > rate.saturating_mul(LEFT_MIN.as_secs());
        if more {
            self.before = Some(rate);
        }
        more
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let micros = u64::try_from(elapsed.as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    bytes.saturating_mul(1_000_000) / micros
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Asks about a large blob at a rate in MiB/s.
    fn ask(growth: &mut Growth, connections: usize, rate: u64) -> bool {
        growth.wants_more(connections, rate * MIB / 4, MEASURE, 1024 * MIB, 1000 * MIB)
    }

    #[test]
    fn a_slow_connection_gets_company_as_long_as_that_helps() {
        let mut growth = Growth::default();
        assert!(ask(&mut growth, 1, 40));
        assert!(ask(&mut growth, 2, 80));
        assert!(ask(&mut growth, 3, 118));
        assert!(!ask(&mut growth, 4, 160), "four are enough");
    }

    #[test]
    fn a_connection_that_brought_nothing_was_the_last() {
        let mut growth = Growth::default();
        assert!(ask(&mut growth, 1, 100));
        assert!(!ask(&mut growth, 2, 105));
        assert!(!ask(&mut growth, 2, 20));
    }

    #[test]
    fn fast_connections_small_blobs_and_the_last_second_stay_alone() {
        assert!(!ask(&mut Growth::default(), 1, 400));
        let more = |size, left| Growth::default().wants_more(1, MIB, MEASURE, size, left);
        assert!(more(100 * MIB, 90 * MIB));
        assert!(!more(20 * MIB, 19 * MIB));
        assert!(!more(100 * MIB, 3 * MIB));
    }
}
