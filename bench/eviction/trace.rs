//! Image pulls of a month, made up but always the same: what a mirror in front of a cluster and its builds sees.
//!
//! * Images stand on a few base images, share their layers, and are popular by Zipf's law.
//! * A release gives an image new top layers; its roll-out pulls those on some nodes within minutes.
//! * New nodes come and go, more by day, and pull whole images by popularity.
//! * A nightly job pulls a fixed set of large images once a day.
//! * Builds pull images that nobody asks for again but for a retry.
//!
//! Every pull asks for manifest, configuration and layers in turn. Sizes are those of public images by and large: a few
//! KiB for what describes, layers from a hundred KiB to some hundred MiB with most bytes in few of them.

/// Somebody asks for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// In seconds.
    pub(super) at: u32,
    pub(super) blob: u32,
    pub(super) bytes: u64,
}

const DAYS: u32 = 30;
const HOUR: u32 = 3600;
const BASES: usize = 12;
const IMAGES: usize = 300;
const NIGHTLY: usize = 15;

/// The trace, in order of time.
pub(super) fn trace() -> Vec<Request> {
    let mut maker = Maker {
        random: Random(1),
        blobs: Vec::new(),
        requests: Vec::new(),
    };
    let bases: Vec<Vec<u32>> = (0..BASES).map(|_| maker.layers(2, 4)).collect();
    let mut images: Vec<Image> = (0..IMAGES).map(|_| maker.image(&bases)).collect();
    let nightly: Vec<Image> = (0..NIGHTLY).map(|_| maker.image(&bases)).collect();
    // The clock begins late enough for a minute before it to be thinkable.
    for hour in 1..=DAYS * 24 {
        let start = hour * HOUR;
        let is_day = (8..20).contains(&(hour % 24));
        for _ in 0..if is_day { 4 } else { 1 } {
            let at = start + maker.random.below(HOUR);
            let chosen = maker.random.zipf(IMAGES);
            let top = maker.layers(1, 3);
            let image = &mut images[chosen];
            image.release(top, &mut maker.blobs, &mut maker.random);
            let nodes = 1 + maker.random.below(12);
            for _ in 0..nodes {
                let later = maker.random.below(300);
                maker.pull(&image.changed(), at + later);
            }
        }
        for _ in 0..if is_day { 12 } else { 4 } {
            let at = start + maker.random.below(HOUR);
            let chosen = maker.random.zipf(IMAGES);
            maker.pull(&images[chosen].all(), at);
        }
        for _ in 0..if is_day { 3 } else { 1 } {
            let at = start + maker.random.below(HOUR);
            let built = maker.image(&bases);
            maker.pull(&built.all(), at);
            if maker.random.below(4) == 0 {
                maker.pull(&built.all(), at + 900);
            }
        }
        if hour % 24 == 2 {
            for image in &nightly {
                let at = start + maker.random.below(HOUR);
                maker.pull(&image.all(), at);
            }
        }
    }
    maker.requests.sort_by_key(|request| request.at);
    maker.requests
}

struct Image {
    /// Manifest and configuration.
    described: [u32; 2],
    base: Vec<u32>,
    top: Vec<u32>,
}

impl Image {
    fn all(&self) -> Vec<u32> {
        [&self.described[..], &self.base, &self.top].concat()
    }

    /// What a node that has the release before does not have.
    fn changed(&self) -> Vec<u32> {
        [&self.described[..], &self.top].concat()
    }

    fn release(&mut self, top: Vec<u32>, blobs: &mut Vec<u64>, random: &mut Random) {
        self.described = described(blobs, random);
        // What stands lowest of the image's own layers seldom changes.
        let kept = self.top.len().min(1);
        self.top.truncate(kept);
        self.top.extend(top);
    }
}

/// A new manifest and a new configuration.
fn described(blobs: &mut Vec<u64>, random: &mut Random) -> [u32; 2] {
    [2000, 8000].map(|bytes| {
        blobs.push(bytes + u64::from(random.below(2000)));
        u32::try_from(blobs.len() - 1).unwrap_or(u32::MAX)
    })
}

struct Maker {
    random: Random,
    /// Their sizes.
    blobs: Vec<u64>,
    requests: Vec<Request>,
}

impl Maker {
    fn image(&mut self, bases: &[Vec<u32>]) -> Image {
        let base = bases[self.random.zipf(bases.len())].clone();
        let top = self.layers(1, 5);
        Image {
            described: described(&mut self.blobs, &mut self.random),
            base,
            top,
        }
    }

    /// From `least` to `most` new layers.
    fn layers(&mut self, least: u32, most: u32) -> Vec<u32> {
        let count = least + self.random.below(most - least + 1);
        let layer = |_| {
            // From 2^17 to 2^28 bytes, each power as likely as the next.
            let power = 17 + self.random.below(11);
            let part = u64::from(self.random.below(1024));
            self.blobs.push((1 << power) + ((part << power) >> 10));
            u32::try_from(self.blobs.len() - 1).unwrap_or(u32::MAX)
        };
        (0..count).map(layer).collect()
    }

    fn pull(&mut self, blobs: &[u32], at: u32) {
        for (at, blob) in (at..).zip(blobs) {
            let bytes = self.blobs[*blob as usize];
            let blob = *blob;
            self.requests.push(Request { at, blob, bytes });
        }
    }
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): the same numbers whatever library is in the tree.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).unwrap_or(0)
    }

    /// A rank from 0, the n-th in proportion to 1/n.
    fn zipf(&mut self, ranks: usize) -> usize {
        // In whole numbers, so that it is the same on every machine.
        let weight = |rank: usize| 1_000_000 / (rank as u64 + 1);
        let all: u64 = (0..ranks).map(weight).sum();
        let mut at = self.next() % all;
        for rank in 0..ranks {
            if at < weight(rank) {
                return rank;
            }
            at -= weight(rank);
        }
        0
    }
}
