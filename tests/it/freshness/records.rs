//! Tag records on disk: they outlive the process, and one that cannot be read is a miss.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{AFTER_TTL, TAG, asked, warm};
use crate::harness::content::Image;
use crate::harness::mirror::Mirror;
use crate::harness::world::World;

/// The file of every tag record.
fn records(mirror: &Mirror) -> Vec<PathBuf> {
    let files = mirror.files().into_iter().map(|(path, _)| path);
    files
        .filter(|path| path.starts_with("v1/tags"))
        .map(|path| mirror.directory.path().join(path))
        .collect()
}

/// The one tag record of a mirror that has stopped.
fn record(mirror: &Mirror) -> (PathBuf, Value) {
    let [path] = &*records(mirror) else {
        panic!("one record");
    };
    let content = fs::read(path).expect("a file");
    (
        path.clone(),
        serde_json::from_slice(&content).expect("JSON"),
    )
}

/// Expects that the tag is fetched once more after `damage` to its record, and then is there as before.
async fn is_a_miss(what: &str, damage: impl FnOnce(&PathBuf, Value)) {
    let mut world = warm("").await;
    world.mirror.stop().await;
    let (path, content) = record(&world.mirror);
    damage(&path, content);
    world.mirror = world.mirror.start_again().await;
    let answer = world.mirror.get(TAG).await;
    let status = answer.header("Cache-Status").expect("a status");
    assert!(status.starts_with("entrepot; fwd=miss"), "{what}: {status}");
    assert_eq!(answer.expect(200), Image::new(1).manifest.bytes, "{what}");
    let again = world.mirror.get(TAG).await;
    assert_eq!(
        again.header("Cache-Status"),
        Some("entrepot; hit"),
        "{what}"
    );
    assert_eq!(asked(&world), (0, 1), "{what}");
}

/// F35.
#[tokio::test]
async fn a_record_that_is_corrupt_is_a_miss() {
    for damage in [&b""[..], b"\0\0\0\0", b"{}", b"null", b"[[[[", b"\xff\xfe{"] {
        is_a_miss(&format!("{damage:?}"), |path, _| {
            fs::write(path, damage).expect("written");
        })
        .await;
    }
    is_a_miss("very long", |path, _| {
        fs::write(path, vec![b'{'; 10_000_000]).expect("written");
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_truncated_or_half_written_is_a_miss() {
    for part in [1, 4, 8, 15] {
        is_a_miss(&format!("{part}/16"), |path, _| {
            let content = fs::read(path).expect("a file");
            fs::write(path, &content[..content.len() * part / 16]).expect("written");
        })
        .await;
    }
    is_a_miss("a hole in the middle", |path, _| {
        let mut content = fs::read(path).expect("a file");
        let middle = content.len() / 2;
        content[middle..].fill(0);
        fs::write(path, content).expect("written");
    })
    .await;
}

#[tokio::test]
async fn a_record_of_another_version_is_a_miss() {
    for version in [Value::from(0), 2.into(), "one".into()] {
        is_a_miss(&version.to_string(), |path, mut content| {
            content["version"] = version.clone();
            fs::write(path, content.to_string()).expect("written");
        })
        .await;
    }
}

#[tokio::test]
async fn a_record_about_something_else_is_a_miss() {
    for (key, value) in [
        ("namespace", "other.example"),
        ("repository", "team/other"),
        ("tag", "v2"),
    ] {
        is_a_miss(key, |path, mut content| {
            content[key] = value.into();
            fs::write(path, content.to_string()).expect("written");
        })
        .await;
    }
    is_a_miss("times that are none", |path, mut content| {
        content["checked"] = u64::MAX.into();
        fs::write(path, content.to_string()).expect("written");
    })
    .await;
    is_a_miss("a manifest that is not here", |path, mut content| {
        content["manifest"]["digest"] = Image::new(9).manifest.digest().into();
        fs::write(path, content.to_string()).expect("written");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_file_in_the_place_of_a_record_is_a_miss() {
    is_a_miss("a directory", |path, _| {
        fs::remove_file(path).expect("it goes");
        fs::create_dir(path).expect("a directory");
    })
    .await;
    is_a_miss("a link", |path, _| {
        fs::remove_file(path).expect("it goes");
        std::os::unix::fs::symlink("/etc/passwd", path).expect("a link");
    })
    .await;
}

#[tokio::test]
async fn a_record_that_was_being_written_is_swept_away() {
    let mut world = warm("").await;
    world.mirror.stop().await;
    let half = world.mirror.directory.path().join("v1/ingest");
    fs::create_dir_all(&half).expect("a directory");
    let half = half.join("record.0123456789abcdef");
    fs::write(&half, b"{\"version\":1,\"names").expect("written");
    world.mirror = world.mirror.start_again().await;
    assert!(!half.exists());
    let answer = world.mirror.get(TAG).await;
    assert_eq!(answer.header("Cache-Status"), Some("entrepot; hit"));
}

#[tokio::test]
async fn damage_harms_no_other_tag_and_no_start_without_an_upstream() {
    let mut world = World::new().await;
    for n in 0..4 {
        let tag = format!("t{n}");
        world.upstream.put_image("team/app", &tag, &Image::new(n));
        let target = format!("/v2/team/app/manifests/{tag}");
        world.mirror.get(&target).await.expect(200);
    }
    world.mirror.stop().await;
    world.upstream.stop().await;
    let records = records(&world.mirror);
    assert_eq!(records.len(), 4);
    fs::write(&records[0], b"{").expect("written");
    let mirror = world.mirror.start_again().await;
    let mut statuses = Vec::new();
    for n in 0..4 {
        let target = format!("/v2/team/app/manifests/t{n}");
        statuses.push(mirror.get(&target).await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 502]);
}

#[tokio::test]
async fn a_record_without_a_version_is_read_as_the_first_were() {
    let mut world = warm("").await;
    world.mirror.stop().await;
    let (path, mut content) = record(&world.mirror);
    let keys = content.as_object_mut().expect("an object");
    assert!(keys.remove("version").is_some() && keys.remove("since").is_some());
    fs::write(path, content.to_string()).expect("written");
    world.upstream.stop().await;
    let mirror = world.mirror.start_again().await;
    let answer = mirror.get(TAG).await;
    assert_eq!(answer.header("Cache-Status"), Some("entrepot; hit"));
}

#[tokio::test]
async fn a_record_says_since_when_a_tag_points_there_and_when_that_was_confirmed() {
    let mut world = warm("").await;
    let times = |mirror: &Mirror| {
        let (_, content) = record(mirror);
        let time = |key: &str| content[key].as_u64().expect("a time");
        (time("since"), time("checked"))
    };
    world.mirror.clock.advance(AFTER_TTL);
    world.mirror.get(TAG).await.expect(200);
    world.mirror.stop().await;
    let (since, confirmed) = times(&world.mirror);
    assert!(confirmed - since >= AFTER_TTL.unsigned_abs());

    let mirror = world.mirror.start_again().await;
    world.mirror = mirror;
    world.mirror.clock.advance(3 * AFTER_TTL);
    world.mirror.get(TAG).await.expect(200);
    world.mirror.stop().await;
    let (still, later) = times(&world.mirror);
    assert!(still == since && later > confirmed);

    world.mirror = world.mirror.start_again().await;
    world.upstream.put_image("team/app", "v1", &Image::new(2));
    world.mirror.clock.advance(6 * AFTER_TTL);
    world.mirror.get(TAG).await.expect(200);
    world.mirror.stop().await;
    let (moved, seen) = times(&world.mirror);
    assert!(moved > later && moved == seen);
}
