//! What is known of the cache, beside the mirror that runs on it.

use std::fs;
use std::time::Duration;

use entrepot::cache::{Inventory, PruneRule};
use entrepot::storage::Local;

use crate::harness::clock;
use crate::harness::content::{Image, bytes};
use crate::harness::mirror::Mirror;
use crate::harness::world::{Way, World};

fn look(mirror: &Mirror) -> (Local, Inventory) {
    let local = Local::open(mirror.directory.path()).expect("ours");
    let inventory = Inventory::read(&local).expect("readable");
    (local, inventory)
}

/// How many blobs the two images have: two manifests, two configurations, four layers of their own and one of both.
const ALL: usize = 9;

/// Waits until everything that is stored is known to be of a repository: records are written behind the answers.
async fn wait_until_known(mirror: &Mirror) -> (Local, Inventory) {
    loop {
        let (local, inventory) = look(mirror);
        let usage = inventory.usage();
        if usage.unknown.blobs == 0 && usage.total.blobs == ALL as u64 {
            return (local, inventory);
        }
        tokio::task::yield_now().await;
    }
}

/// Two images of two repositories that share a layer.
async fn two_images() -> (World, [Image; 2]) {
    let world = World::new().await;
    let mut images = [Image::new(1), Image::new(2)];
    let shared = bytes(9, 50_000);
    for image in &mut images {
        *image = image.with_layer(shared.clone());
    }
    for (name, image) in ["team/a", "team/b"].into_iter().zip(&images) {
        world.upstream.put_image(name, "v1", image);
        let pull = |rest: &str| Way::Default.target(rest);
        world.mirror.pull(pull, name, "v1", image).await;
    }
    (world, images)
}

#[tokio::test]
async fn what_two_repositories_share_is_counted_once() {
    let (world, images) = two_images().await;
    let n_blobs: usize = images.iter().map(|image| image.blobs.len() + 1).sum();
    assert_eq!(n_blobs - 1, ALL);
    let (_, inventory) = wait_until_known(&world.mirror).await;
    let usage = inventory.usage();
    let [namespace] = &*usage.namespaces else {
        panic!("{usage:?}");
    };
    let [a, b] = &*namespace.repositories else {
        panic!("{usage:?}");
    };
    assert_eq!(
        (a.repository.as_str(), b.repository.as_str()),
        ("team/a", "team/b")
    );
    assert_eq!(namespace.all, usage.total);
    assert_eq!(a.all.bytes + b.all.bytes, usage.total.bytes + 50_000);
    for repository in [a, b] {
        assert_eq!(repository.all.bytes - repository.alone.bytes, 50_000);
    }
}

#[tokio::test]
async fn f32_the_other_image_is_pulled_after_one_that_it_shares_a_layer_with_has_gone() {
    let (world, images) = two_images().await;
    let (local, inventory) = wait_until_known(&world.mirror).await;
    let rule = PruneRule {
        repositories: vec!["team/a".parse().expect("a pattern")],
        ..PruneRule::default()
    };
    let now = world.mirror.clock.now();
    let dry = inventory.prune(&local, &rule, now, true).expect("told");
    let pruned = inventory.prune(&local, &rule, now, false).expect("gone");
    assert_eq!(dry, pruned);
    // Its manifest, and all it has but the layer of both.
    assert_eq!(pruned.gone.blobs, images[0].blobs.len() as u64);
    world.upstream.stop().await;
    let pull = |rest: &str| Way::Default.target(rest);
    world.mirror.pull(pull, "team/b", "v1", &images[1]).await;
}

#[tokio::test]
async fn what_nobody_used_for_longest_goes_first_and_no_more_than_is_said() {
    let (world, _) = two_images().await;
    let (local, inventory) = wait_until_known(&world.mirror).await;
    let total = inventory.usage().total;
    let rule = |to_bytes, unused_for| PruneRule {
        to_bytes,
        unused_for,
        ..PruneRule::default()
    };
    let now = world.mirror.clock.now();
    let prune = |rule, now| inventory.prune(&local, &rule, now, true).expect("told");
    let hour = Duration::from_hours(1);
    assert_eq!(prune(rule(None, Some(hour)), now).gone.blobs, 0);
    assert_eq!(prune(rule(None, Some(hour)), now + 2 * hour).gone, total);
    assert_eq!(prune(rule(Some(total.bytes), None), now).gone.blobs, 0);
    let half = prune(rule(Some(total.bytes / 2), None), now);
    assert!(
        half.left.bytes <= total.bytes / 2 && half.left.blobs > 0,
        "{half:?}"
    );
}

#[tokio::test]
async fn f35_records_that_are_damaged_or_missing_keep_no_mirror_from_starting() {
    for damage in [
        None,
        Some(&b""[..]),
        Some(b"{"),
        Some(b"null"),
        Some(&[0xff; 4096]),
    ] {
        let mut world = World::new().await;
        let image = Image::new(1);
        world.upstream.put_image("team/app", "v1", &image);
        let pull = |rest: &str| Way::Default.target(rest);
        world.mirror.pull(pull, "team/app", "v1", &image).await;
        world.mirror.stop().await;
        for (path, _) in world.mirror.files() {
            let path = world.mirror.directory.path().join(path);
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match damage {
                    Some(content) => fs::write(path, content).expect("ours"),
                    None => fs::remove_file(path).expect("ours"),
                }
            }
        }
        let mirror = world.mirror.start_again().await;
        mirror.pull(pull, "team/app", "v1", &image).await;
        let blobs = world.upstream.requests("GET", "/v2/team/app/blobs/*");
        let _ = look(&mirror);
        assert!(
            blobs.len() <= image.blobs.len(),
            "blobs are what they are without records"
        );
    }
}

#[tokio::test]
async fn the_mirror_notices_within_a_minute_what_was_pruned_beside_it() {
    let (world, _) = two_images().await;
    let (local, inventory) = wait_until_known(&world.mirror).await;
    let bytes = |n: u64| format!("entrepot_cache_objects{{kind=\"blob\"}} {n}");
    wait_for_line(&world.mirror, &bytes(ALL as u64)).await;
    let rule = PruneRule {
        to_bytes: Some(0),
        ..PruneRule::default()
    };
    // What was stored in the last minute may not have its name yet, as far as a look through the cache knows.
    world.mirror.clock.advance(120);
    let pruned = inventory.prune(&local, &rule, world.mirror.clock.now(), false);
    assert_eq!(pruned.expect("gone").left.blobs, 0);
    clock::pass(60).await;
    wait_for_line(&world.mirror, &bytes(0)).await;
}

async fn wait_for_line(mirror: &Mirror, line: &str) {
    while !mirror.metrics().await.lines().any(|found| found == line) {
        tokio::task::yield_now().await;
    }
}
