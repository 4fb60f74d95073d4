//! Upstreams that are left alone for a while: who is served meanwhile, who is asked, and what brings them back.

mod fills;
mod limits;
mod outages;
mod pace;
mod quota;
mod silence;

use crate::harness::world::{REGISTRY, World};

const TAG: &str = "/v2/team/app/manifests/v1";

/// Just more than the time for which a tag is believed, in seconds.
const AFTER_TTL: i64 = 15 * 60 + 1;

/// The value of a metric of an upstream; `None` where it has none.
async fn metric(world: &World, name: &str, upstream: &str) -> Option<u64> {
    let line = format!("entrepot_{name}{{upstream=\"{upstream}\"}} ");
    let text = world.mirror.metrics().await;
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    value.map(|value| value.parse().expect("a number"))
}

/// Whether the upstream of the world is left alone.
async fn is_left_alone(world: &World) -> bool {
    metric(world, "upstream_breakers_open", REGISTRY).await == Some(1)
}
