//! An upstream and a mirror before it, and the ways in.

use super::content::Image;
use super::mirror::{Mirror, Setup};
use super::upstream::Upstream;

/// The name of the registry that most tests pull from.
pub const REGISTRY: &str = "registry.example";

/// How a request names the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `?ns=registry.example`
    Namespace,
    /// `/v2/registry.example/…`
    Path,
    /// Not at all.
    Default,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Namespace, Self::Path, Self::Default];

    /// The target for what follows `/v2/` at the registry.
    pub fn target(self, rest: &str) -> String {
        match self {
            Self::Namespace => format!("/v2/{rest}?ns={REGISTRY}"),
            Self::Path => format!("/v2/{REGISTRY}/{rest}"),
            Self::Default => format!("/v2/{rest}"),
        }
    }
}

/// What the mirror has to go by when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was never asked for this before.
    Cold,
    /// It was.
    Warm,
    /// It was, and the upstream is gone.
    Down,
}

/// One upstream and one mirror.
pub struct World {
    /// `registry.example`, and the default upstream too.
    pub upstream: Upstream,
    /// The mirror before it.
    pub mirror: Mirror,
}

impl World {
    /// An empty upstream, an empty mirror.
    pub async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    /// The same, with more in the configuration.
    pub async fn with(more: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = Upstream::start().await;
        let setup = more(Setup::new().upstream(REGISTRY, &upstream));
        let mirror = setup.start().await;
        Self { upstream, mirror }
    }

    /// The same, with one line at the top level of the configuration.
    pub async fn with_line(line: &str) -> Self {
        Self::with(|setup| setup.line(line)).await
    }
}

/// Checks an answer for every way in: never asked before, asked before, and with the upstream gone. Each way has a
/// world of its own.
pub async fn everywhere(prepare: impl Fn(&Upstream), check: impl AsyncFn(&Mirror, Way, State)) {
    for way in Way::ALL {
        let world = World::new().await;
        prepare(&world.upstream);
        check(&world.mirror, way, State::Cold).await;
        check(&world.mirror, way, State::Warm).await;
        world.upstream.stop().await;
        check(&world.mirror, way, State::Down).await;
    }
}

impl Mirror {
    /// Pulls an image as a client does, and compares every byte. `target` makes a target of what follows `/v2/`.
    pub async fn pull(
        &self,
        target: impl Fn(&str) -> String,
        name: &str,
        tag: &str,
        image: &Image,
    ) {
        let digest = image.manifest.digest();
        let head = self.head(&target(&format!("{name}/manifests/{tag}"))).await;
        assert_eq!(
            head.header("Docker-Content-Digest"),
            Some(&*digest),
            "{head:?}"
        );
        head.expect(200);
        let manifest = self
            .get(&target(&format!("{name}/manifests/{digest}")))
            .await;
        assert_eq!(manifest.expect(200), image.manifest.bytes);
        for blob in &image.blobs {
            let digest = super::content::sha256(blob);
            let pulled = self.get(&target(&format!("{name}/blobs/{digest}"))).await;
            assert_eq!(pulled.expect(200), *blob);
        }
    }
}
