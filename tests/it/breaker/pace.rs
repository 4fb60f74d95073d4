//! How soon answers come. A test has no machine to itself, so each is held against an answer that asks nobody and is
//! given in the same moment: a tag that never changes, of a registry that is in no trouble.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::TAG;
use crate::harness::client::Answer;
use crate::harness::content::Image;
use crate::harness::upstream::Upstream;
use crate::harness::world::World;

/// How soon the first answer must be there, and all that follow, on a machine that does nothing else.
const FIRST: Duration = Duration::from_secs(1);
const AT_ONCE: Duration = Duration::from_millis(20);

/// How long upstream is waited for where there is something stale to give.
const PATIENCE: Duration = Duration::from_millis(800);

/// How many times as long as a hit an answer may take that does not wait for anybody either, where a hit takes longer
/// than it should.
const AS_LONG_AS_A_HIT: u32 = 4;

/// The registry that is in no trouble.
const WELL: &str = "well.example";

/// Times of answers, and of hits beside them.
pub(super) struct Pace {
    well: Upstream,
    answers: Vec<Duration>,
    hits: Vec<Duration>,
}

impl Pace {
    /// A world in which times are taken.
    pub(super) async fn world() -> (World, Self) {
        let well = Upstream::start().await;
        well.put_image("team/app", "v1", &Image::new(1));
        let keys = "tags: [{ immutable: yes }]";
        let world = World::with(|setup| setup.upstream_with(WELL, &well, keys)).await;
        let mut pace = Self {
            well,
            answers: Vec::new(),
            hits: Vec::new(),
        };
        pace.hit(&world).await;
        pace.forget();
        (world, pace)
    }

    /// Forgets all times.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
        self.hits.clear();
        self.well.forget();
    }

    /// Asks for each of the targets; takes and gives the time of the slowest.
    pub(super) async fn of(
        &mut self,
        world: &World,
        targets: &[String],
        check: impl Fn(Answer),
    ) -> Duration {
        let (mut answer, mut hit) = (Duration::ZERO, Duration::ZERO);
        for target in targets {
            let asked = Instant::now();
            let given = world.mirror.get(target).await;
            answer = answer.max(asked.elapsed());
            check(given);
            hit = hit.max(self.hit(world).await);
        }
        self.answers.push(answer);
        self.hits.push(hit);
        answer
    }

    async fn hit(&self, world: &World) -> Duration {
        let asked = Instant::now();
        let answer = world.mirror.get(&format!("{TAG}?ns={WELL}")).await;
        let took = asked.elapsed();
        answer.expect(200);
        took
    }

    /// Nobody waited for more than a second, but for what keeps hits waiting, too.
    pub(super) fn assert_soon(&self, what: impl Debug) {
        self.assert_within(FIRST, what);
    }

    /// Nobody waited at all: not for half of what patience there is.
    pub(super) fn assert_nobody_waited(&self, what: impl Debug) {
        self.assert_within(PATIENCE / 2, what);
    }

    fn assert_within(&self, most: Duration, what: impl Debug) {
        let (slowest, hit) = (self.answers.iter().max(), self.hits.iter().max());
        let (Some(slowest), Some(hit)) = (slowest, hit) else {
            panic!("{what:?}: no time was taken");
        };
        let allowed = most + AS_LONG_AS_A_HIT * *hit;
        assert!(*slowest <= allowed, "{what:?}: {self}");
    }

    /// Nobody waited, as far as half of them tell: somebody else may be busy on the machine of the test in any moment.
    pub(super) fn assert_at_once(&self, what: impl Debug) {
        let (answer, hit) = (median(&self.answers), median(&self.hits));
        let allowed = AT_ONCE.max(AS_LONG_AS_A_HIT * hit);
        assert!(answer <= allowed, "{what:?}: {self}");
        // What is held against them has asked nobody.
        assert!(self.well.log().is_empty(), "{what:?}");
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, and hits {:?}", self.answers, self.hits)
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
