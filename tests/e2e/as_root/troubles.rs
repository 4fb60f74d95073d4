//! An upstream in trouble of any kind: what a client still gets, and how soon it is answered.

use std::time::Duration;

use crate::harness::catalogue::Catalogue;
use crate::harness::mirror::Mirror;
use crate::harness::refusal::Refusal;
use crate::harness::upstream::Upstream;

/// How soon the first answer has to be there while upstream is in trouble.
const FIRST: Duration = Duration::from_secs(1);

/// How soon the others have to be there: half of them, since the client is busy on the same two cores.
const THEN: Duration = Duration::from_millis(20);

/// How many registries a mirror of these tests knows.
const REGISTRIES: usize = 2;

/// How an upstream is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    RefusesConnections,
    Fails,
    LimitsTheRate,
    IsSilent,
}

impl Trouble {
    const ALL: [Self; 4] = [
        Self::RefusesConnections,
        Self::Fails,
        Self::LimitsTheRate,
        Self::IsSilent,
    ];

    /// What is answered where the registries were; `None` where nobody is there.
    const fn answer(self) -> Option<u16> {
        match self {
            Self::RefusesConnections => None,
            Self::Fails => Some(503),
            Self::LimitsTheRate => Some(429),
            Self::IsSilent => Some(Refusal::SILENCE),
        }
    }
}

/// What `pull` does with a client that has nothing works with the registry `namespace`, and with it in any trouble, of
/// which the mirror knows nothing before. `repository` is one that it pulls the tag `1.0` of there.
pub(super) fn pulls_in_any_trouble(
    namespace: &str,
    repository: &str,
    pull: impl Fn(&Mirror, &Catalogue),
) {
    let directory = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(directory.path());
    let catalogue = upstream.catalogue.clone();
    pull(
        &upstream.mirror_that_asks_every_time(directory.path()),
        &catalogue,
    );
    upstream.stop();
    let mut stand_in = None;
    for trouble in Trouble::ALL {
        if let Some(answer) = trouble.answer() {
            let stand_in = stand_in.get_or_insert_with(|| upstream.refuse(answer));
            stand_in.answer(answer);
        }
        let mut mirror = upstream.mirror_that_asks_every_time(directory.path());
        pull(&mirror, &catalogue);
        let times = mirror.answer_times();
        assert!(slowest(&times) <= FIRST, "{trouble:?}: {times:?}");
        if trouble == Trouble::IsSilent {
            // Each registry that is silent is waited for once.
            let waited = times.iter().filter(|time| **time > FIRST / 2).count();
            assert!((1..=REGISTRIES).contains(&waited), "{times:?}");
        }

        // Whoever asks wears it out, or its time-out strikes.
        mirror.wait_until(|mirror| {
            mirror.asks_for_tag(namespace, repository);
            mirror.leaves_alone(namespace)
        });
        let before = mirror.answer_times().len();
        for _ in 0..11 {
            assert_eq!(mirror.asks_for_tag(namespace, repository), 200);
        }
        let alone = &mirror.answer_times()[before..];
        assert_eq!(alone.len(), 11);
        assert!(median(alone) <= THEN, "{trouble:?}: {alone:?}");
        // With a registry that is silent an orderly end takes seconds.
        mirror.kill();
    }
}

fn slowest(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
