//! Whether one more connection helps. Pure: bytes and times are parameters.

use std::time::Duration;

/// Smallest blob, in bytes, for which a second connection is worth its handshake.
pub(super) const PARALLEL_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Smallest blob, in bytes, for which a second connection is worth it where the first asked for everything: that one is
/// closed when it meets the second, and what is in its buffers by then, some MiB, comes twice. It must stay below a
/// hundredth.
pub(super) const UNBOUNDED_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// A connection this fast, in bytes per second, is not limited by anything that another one would help against: it
/// fills a link of more than a gigabit.
const FAST_ENOUGH: u64 = 150 * 1024 * 1024;

/// A connection whose bytes are waited for during less than this part of the time is not what holds up the fill: the
/// processor or the disk does, and further connections would only cost them more.
const STARVED_MIN: f64 = 0.5;

/// The time over which a rate is measured. Shorter, and a burst of buffers looks like speed.
pub(super) const MEASURE: Duration = Duration::from_millis(200);

/// When less than this is left at the present rate, a further connection comes too late.
const LEFT_MIN: Duration = Duration::from_secs(1);

/// A connection has helped if it brought at least this part of what each of the others has.
const GAIN_MIN: f64 = 0.4;

/// Connections that brought at least this part each leave no doubt that more of them help.
const GAIN_FULL: f64 = 0.8;

/// What was seen during the last while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// How many were at work.
    pub(super) connections: usize,
    /// How many bytes came through them.
    pub(super) received: u64,
    /// For how long they were waited for with nothing else to do, added up.
    pub(super) starved: Duration,
    /// How long the while was; at least [`MEASURE`].
    pub(super) elapsed: Duration,
}

impl Measured {
    /// Bytes per second, through all connections.
    fn rate(&self) -> u64 {
        per_second(self.received, self.elapsed)
    }

    /// What each of the connections that came since `before` brought, as a part of what each had brought then.
    fn gain_over(&self, before: Self) -> f64 {
        let added = self.connections.saturating_sub(before.connections).max(1);
        #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
        let [each, gained] = [
            before.rate() as f64 / before.connections.max(1) as f64,
            self.rate().saturating_sub(before.rate()) as f64 / added as f64,
        ];
        gained / each.max(1.0)
    }

    /// The part of the time during which a connection was waited for.
    fn share_starved(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "there are a handful")]
        let connections = self.connections.max(1) as f64;
        self.starved.as_secs_f64() / (self.elapsed.as_secs_f64() * connections)
    }
}

/// What is known from earlier measurements.
#[derive(Debug)]
pub(super) struct Growth {
    /// Most connections for one blob.
    connections_max: usize,
    /// What was measured before the last connections came, while those are on trial.
    before: Option<Measured>,
    /// Set once further connections have not helped.
    enough: bool,
}

impl Growth {
    /// Nothing measured yet, of a blob that may have so many connections.
    pub(super) fn up_to(connections_max: usize) -> Self {
        Self {
            connections_max,
            before: None,
            enough: false,
        }
    }

    /// A further connection failed where the others did not.
    pub(super) fn stop(&mut self) {
        self.enough = true;
    }

    /// How many more connections to open for a blob of `size` bytes of which `left` are still to come: one to see
    /// whether it helps, and as many as there are where those that came last brought all they could.
    pub(super) fn wants_more(&mut self, measured: Measured, size: u64, left: u64) -> usize {
        let n = measured.connections;
        if n == 0 || measured.elapsed.is_zero() {
            return 0;
        }
        let gain = self.before.take().map(|before| measured.gain_over(before));
        self.enough |= gain.is_some_and(|gain| gain < GAIN_MIN);
        let rate = measured.rate();
        let more = !self.enough
            && size >= PARALLEL_BYTES_MIN
            && rate / (n as u64) < FAST_ENOUGH
            && measured.share_starved() >= STARVED_MIN
            && left > rate.saturating_mul(LEFT_MIN.as_secs());
        if !more || n >= self.connections_max {
            return 0;
        }
        self.before = Some(measured);
        let all_helped = gain.is_some_and(|gain| gain >= GAIN_FULL);
        (if all_helped { n } else { 1 }).min(self.connections_max - n)
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

    /// Connections that are waited for most of the time, at a rate in MiB/s in all.
    fn measured(connections: u32, rate: u64) -> Measured {
        Measured {
            connections: connections as usize,
            received: rate * MIB / 5,
            starved: MEASURE.mul_f64(0.9) * connections,
            elapsed: MEASURE,
        }
    }

    /// Asks about a large blob.
    fn ask(growth: &mut Growth, connections: u32, rate: u64) -> usize {
        growth.wants_more(measured(connections, rate), 1024 * MIB, 1000 * MIB)
    }

    #[test]
    fn a_slow_connection_gets_company_as_long_as_that_helps() {
        let mut growth = Growth::up_to(4);
        assert_eq!(ask(&mut growth, 1, 40), 1);
        assert_eq!(ask(&mut growth, 2, 64), 1, "it brought something");
        assert_eq!(ask(&mut growth, 3, 100), 1, "one place is left");
        assert_eq!(ask(&mut growth, 4, 140), 0, "four are enough");
    }

    #[test]
    fn a_connection_that_brought_all_it_could_is_followed_by_two() {
        let mut growth = Growth::up_to(4);
        assert_eq!(ask(&mut growth, 1, 40), 1);
        assert_eq!(ask(&mut growth, 2, 78), 2);
    }

    #[test]
    fn a_connection_that_brought_nothing_was_the_last() {
        let mut growth = Growth::up_to(4);
        assert_eq!(ask(&mut growth, 1, 100), 1);
        assert_eq!(ask(&mut growth, 2, 105), 0);
        assert_eq!(ask(&mut growth, 2, 20), 0);
    }

    #[test]
    fn fast_connections_small_blobs_and_the_last_second_stay_alone() {
        assert_eq!(ask(&mut Growth::up_to(4), 1, 400), 0);
        let more = |size, left| Growth::up_to(4).wants_more(measured(1, 4), size, left);
        assert_eq!(more(100 * MIB, 90 * MIB), 1);
        assert_eq!(more(20 * MIB, 19 * MIB), 0);
        assert_eq!(more(100 * MIB, 3 * MIB), 0);
    }

    #[test]
    fn who_is_not_waited_for_gets_no_company() {
        let busy = Measured {
            starved: MEASURE.mul_f64(0.3) * 2,
            ..measured(2, 80)
        };
        assert_eq!(Growth::up_to(4).wants_more(busy, 1024 * MIB, 1000 * MIB), 0);
    }
}
