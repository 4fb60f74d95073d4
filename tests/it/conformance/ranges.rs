//! A4: ranges of blobs, of which the mirror has everything, nothing, or what has come so far.

use crate::harness::client::Request;
use crate::harness::content::{Image, KIB, MIB, bytes, sha256};
use crate::harness::gate::Gate;
use crate::harness::mirror::Mirror;
use crate::harness::upstream::{Body, Upstream};
use crate::harness::world::{State, Way, World, everywhere};

/// The length of the blob that the rows are about, in bytes.
const LENGTH: usize = 2048;

/// What a row expects.
#[derive(Clone, Copy)]
enum Expected {
    /// 206 with these bytes, the last one included.
    Part(usize, usize),
    /// 200 with the whole blob.
    Whole,
    /// 416.
    Unsatisfiable,
}

use Expected::{Part, Unsatisfiable, Whole};

const ROWS: &[(&str, Expected)] = &[
    ("bytes=500-1499", Part(500, 1499)),
    ("bytes=500-", Part(500, 2047)),
    ("bytes=-500", Part(1548, 2047)),
    ("bytes=2000-5000", Part(2000, 2047)),
    ("bytes=500-0", Unsatisfiable),
    ("bytes=5000-10000", Unsatisfiable),
    ("bytes=2048-", Unsatisfiable),
    ("bytes=-0", Unsatisfiable),
    ("bytes=0-", Part(0, 2047)),
    ("bytes=0-0", Part(0, 0)),
    ("bytes=2047-2047", Part(2047, 2047)),
    ("bytes=-5000", Part(0, 2047)),
    ("bytes=0-99999999999999999999", Part(0, 2047)),
    ("bytes=", Unsatisfiable),
    ("bytes=abc", Unsatisfiable),
    ("bytes=1-2-3", Unsatisfiable),
    ("items=0-5", Whole),
    ("bytes=0-1,5-6", Whole),
];

/// Blob `seed` of the rows.
fn blob(seed: usize) -> bytes::Bytes {
    bytes(seed as u64, LENGTH)
}

async fn check(mirror: &Mirror, target: &str, seed: usize, range: &str, expected: Expected) {
    let content = blob(seed);
    let digest = sha256(&content);
    let answer = mirror
        .send(Request::get(target).header("Range", range))
        .await;
    let said = |header| answer.header(header).map(str::to_owned);
    let content_range = said("Content-Range");
    match expected {
        Part(first, last) => {
            let named = format!("bytes {first}-{last}/{LENGTH}");
            let length = (last - first + 1).to_string();
            assert_eq!(content_range, Some(named), "{range}: {answer:?}");
            assert_eq!(said("Content-Length"), Some(length), "{range}");
            assert_eq!(said("Docker-Content-Digest"), Some(digest), "{range}");
            assert_eq!(answer.expect(206), content.slice(first..=last), "{range}");
        }
        Whole => {
            assert_eq!(content_range, None, "{range}");
            assert_eq!(answer.expect(200), content, "{range}");
        }
        Unsatisfiable => {
            assert_eq!(
                content_range,
                Some(format!("bytes */{LENGTH}")),
                "{range}: {answer:?}"
            );
            assert_eq!(answer.status, 416, "{range}");
        }
    }
}

#[tokio::test]
async fn a4_every_row_holds() {
    let prepare = |upstream: &Upstream| {
        for seed in 0..ROWS.len() {
            upstream.put_blob("team/app", blob(seed));
        }
    };
    everywhere(prepare, async |mirror, way, state| {
        for (seed, (range, expected)) in ROWS.iter().enumerate() {
            let digest = sha256(&blob(seed));
            let target = way.target(&format!("team/app/blobs/{digest}"));
            check(mirror, &target, seed, range, *expected).await;
            // A range of some does not bring all; what is asked for with the upstream gone is here for sure.
            if state == State::Warm {
                mirror.get(&target).await.expect(200);
                check(mirror, &target, seed, range, *expected).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a4_two_hundred_overlapping_ranges_are_one_body() {
    let world = World::new().await;
    let digest = world.upstream.put_blob("team/app", blob(0));
    let target = Way::Default.target(&format!("team/app/blobs/{digest}"));
    let ranges = vec!["0-"; 200].join(",");
    for _ in 0..2 {
        check(&world.mirror, &target, 0, &format!("bytes={ranges}"), Whole).await;
    }
}

#[tokio::test]
async fn a4_a_range_of_a_head_is_ignored() {
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", blob(0));
    };
    let digest = sha256(&blob(0));
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/blobs/{digest}"));
        for range in ["bytes=500-1499", "bytes=5000-"] {
            let head = mirror
                .send(Request::head(&target).header("Range", range))
                .await;
            assert_eq!(head.header("Content-Length"), Some("2048"));
            head.expect(200);
        }
        mirror.get(&target).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a4_a_range_of_nothing_is_nothing() {
    let digest = sha256(b"");
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", "");
    };
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/blobs/{digest}"));
        let answer = mirror
            .send(Request::get(&target).header("Range", "bytes=0-"))
            .await;
        assert_eq!(answer.expect(200), "");
    })
    .await;
}

#[tokio::test]
async fn a4_a_condition_goes_before_the_range() {
    let prepare = |upstream: &Upstream| {
        upstream.put_blob("team/app", blob(0));
    };
    let digest = sha256(&blob(0));
    let etag = format!("\"{digest}\"");
    everywhere(prepare, async |mirror, way, _| {
        let target = way.target(&format!("team/app/blobs/{digest}"));
        let ranged = Request::get(&target).header("Range", "bytes=0-9");
        let fresh = ranged.clone().header("If-None-Match", &etag);
        assert_eq!(mirror.send(fresh).await.status, 304);
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (if_range, status) in [(&*etag, 206), ("\"other\"", 200), (date, 200)] {
            let answer = mirror
                .send(ranged.clone().header("If-Range", if_range))
                .await;
            assert_eq!(answer.status, status, "{if_range}");
        }
        mirror.get(&target).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a4_a_range_of_a_manifest_is_ignored() {
    let image = Image::new(1);
    let prepare = |upstream: &Upstream| upstream.put_image("team/app", "v1", &image);
    everywhere(prepare, async |mirror, way, _| {
        for range in ["bytes=0-", "bytes=5-9", "bytes=99999-"] {
            let target = way.target("team/app/manifests/v1");
            let answer = mirror
                .send(Request::get(&target).header("Range", range))
                .await;
            assert_eq!(answer.expect(200), image.manifest.bytes);
        }
    })
    .await;
}

#[tokio::test]
async fn a4_parts_of_a_cold_blob_are_exact_and_cost_one_body() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");
    let part = async |first: usize, last: usize| {
        let range = format!("bytes={first}-{last}");
        let answer = world
            .mirror
            .send(Request::get(&target).header("Range", range))
            .await;
        assert_eq!(answer.expect(206), content.slice(first..=last));
    };
    let length = content.len();
    let parts = async {
        tokio::join!(
            part(0, 9),
            part(100 * KIB, 200 * KIB),
            part(MIB - 5, MIB + 5),
            part(2 * MIB, 3 * MIB),
            part(length - 10, length - 1),
            part(0, length - 1),
        )
    };
    let open = async {
        gate.reached().await;
        gate.open();
    };
    tokio::join!(parts, open);
    world.mirror.get(&target).await.expect(200);
    let sent = world.upstream.body_bytes("*");
    assert!(sent * 100 <= length as u64 * 101, "{sent} of {length}");
}

#[tokio::test]
async fn a4_the_head_of_a_far_part_does_not_wait_for_the_bytes() {
    let world = World::new().await;
    let content = bytes(1, 4 * MIB);
    let gate = Gate::closed();
    let body = Body::new(content.clone()).stall_at(MIB, &gate);
    let digest = world.upstream.put_blob("team/app", body);
    let target = format!("/v2/team/app/blobs/{digest}");
    let far = Request::get(&target).header("Range", "bytes=3000000-3000099");
    let pull = far.open(world.mirror.address).await;
    assert_eq!(pull.status, 206);
    gate.open();
    assert_eq!(
        pull.finish().await.expect(206),
        content.slice(3_000_000..=3_000_099)
    );
}
