//! For how long a tag is believed, and what becomes of it when upstream cannot say.

mod clocks;
mod ignored;
mod moving;
mod outages;
mod records;
mod refusals;
mod rules;

use crate::harness::client::{Answer, Request};
use crate::harness::content::Image;
use crate::harness::world::World;

const TAG: &str = "/v2/team/app/manifests/v1";

/// Less than the time for which a tag is believed, in seconds, which is up to a tenth shorter than is said.
const BEFORE_TTL: i64 = 15 * 60 * 9 / 10;

/// Just more than the time for which a tag is believed, in seconds.
const AFTER_TTL: i64 = 15 * 60 + 1;

/// Just more than the time for which it may stand in after that, in seconds.
const AFTER_STALE: i64 = 7 * 24 * 60 * 60 + AFTER_TTL;

/// A world whose mirror has `team/app:v1`.
async fn warm(line: &str) -> World {
    let world = World::with_line(line).await;
    world.upstream.put_image("team/app", "v1", &Image::new(1));
    world.mirror.get(TAG).await.expect(200);
    world.upstream.forget();
    world
}

/// How many HEADs and GETs there were.
fn asked(world: &World) -> (usize, usize) {
    let count = |method| world.upstream.requests(method, "*").len();
    (count("HEAD"), count("GET"))
}

/// Expects that an answer is stale, and says so.
fn expect_stale(answer: &Answer) {
    let warning = answer.header("Warning").expect("a warning");
    assert!(
        warning.starts_with("299 - \"") && warning.contains("stale"),
        "{warning}"
    );
    assert!(warning.len() <= 4096);
    let status = answer.header("Cache-Status").expect("a status");
    assert!(
        status.starts_with("entrepot; hit; ttl=-") && status.contains("detail=stale-"),
        "{status}"
    );
    assert!(answer.header("Age").is_some());
}

/// Asks for the stale tag and expects it, with a warning.
async fn is_stale(world: &World) {
    for method in ["GET", "HEAD"] {
        let answer = world.mirror.send(Request::new(method, TAG)).await;
        expect_stale(&answer);
        let body = answer.expect(200);
        assert!(method == "HEAD" || body == Image::new(1).manifest.bytes);
    }
}
