//! Against directories of the machine.

use std::os::unix::fs::symlink;

use bytes::Bytes;

use super::*;

fn open() -> (tempfile::TempDir, Local) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let local = Local::open(directory.path()).expect("a writable directory");
    (directory, local)
}

fn store(local: &Local, content: &'static [u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, content);
    let ingest = local
        .ingest(&digest, Some(content.len() as u64))
        .expect("an ingest file");
    let (head, tail) = content.split_at(content.len() / 2);
    let chunks = [
        Bytes::from_static(head),
        Bytes::new(),
        Bytes::from_static(tail),
    ];
    ingest.write_at(&chunks, 0).expect("written");
    ingest.publish(Audience::Everybody).expect("published");
    digest
}

fn read(blob: &StoredBlob) -> Vec<u8> {
    let mut content = Vec::new();
    (&*blob.file).read_to_end(&mut content).expect("read");
    content
}

fn files_below(directory: &Path, name: &str) -> usize {
    std::fs::read_dir(directory.join("v1").join(name)).map_or(0, Iterator::count)
}

#[test]
fn a_published_blob_is_found_by_its_digest() {
    let (_directory, local) = open();
    for content in [&b"some bytes"[..], b""] {
        let digest = store(&local, content);
        let blob = local.blob(&digest).expect("readable").expect("there");
        assert_eq!(
            (blob.size, read(&blob)),
            (content.len() as u64, content.to_vec())
        );
    }
    assert!(
        local
            .blob(&Digest::of(Algorithm::Sha256, b"other"))
            .expect("readable")
            .is_none()
    );
}

#[test]
fn a_blob_that_is_not_published_leaves_nothing() {
    let (directory, local) = open();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    drop(local.ingest(&digest, Some(1)).expect("an ingest file"));
    assert_eq!(files_below(directory.path(), "ingest"), 0);
    assert!(local.blob(&digest).expect("readable").is_none());
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let (directory, local) = open();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let living = local.ingest(&digest, Some(1)).expect("an ingest file");
    std::fs::write(directory.path().join("v1/ingest/dead"), b"half").expect("written");
    Local::open(directory.path()).expect("opened beside the living");
    assert_eq!(files_below(directory.path(), "ingest"), 1);
    living
        .write_at(&[Bytes::from_static(b"x")], 0)
        .expect("written");
    living.publish(Audience::Entitled).expect("published");
}

#[test]
fn what_a_stranger_puts_in_place_of_a_blob_is_a_miss() {
    let (directory, local) = open();
    let digest = store(&local, b"some bytes");
    let path = directory
        .path()
        .join(layout::blob(&digest, Audience::Everybody).path());
    let missing = || local.blob(&digest).expect("no error").is_none();

    std::fs::remove_file(&path).expect("removed");
    symlink("/etc/passwd", &path).expect("linked");
    assert!(missing(), "a symbolic link is not followed");
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("made");
    assert!(missing(), "a directory is no blob");
    std::fs::remove_dir(&path).expect("removed");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    assert!(missing(), "a FIFO is not waited for");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, b"").expect("written");
    assert!(missing(), "an empty file is not the content");
}

#[test]
fn what_cannot_be_read_is_discarded_and_what_took_its_place_is_not() {
    let (_directory, local) = open();
    let digest = store(&local, b"some bytes");
    let found = || local.blob(&digest).expect("readable");
    let first = found().expect("there");
    store(&local, b"some bytes");
    local
        .discard(&digest, &first.file)
        .expect("another one stands there");
    let second = found().expect("there");
    local.discard(&digest, &second.file).expect("removed");
    assert!(found().is_none());
    local.discard(&digest, &second.file).expect("gone already");
}

#[test]
fn what_becomes_everybodys_is_not_kept_twice() {
    let (directory, local) = open();
    let content = b"some bytes";
    let digest = Digest::of(Algorithm::Sha256, content);
    let ingest = local.ingest(&digest, None).expect("an ingest file");
    ingest
        .write_at(&[Bytes::from_static(content)], 0)
        .expect("written");
    ingest.publish(Audience::Entitled).expect("published");
    let audience = || {
        let blob = local.blob(&digest).expect("readable");
        blob.expect("there").audience
    };
    assert_eq!(audience(), Audience::Entitled);
    store(&local, content);
    assert_eq!(audience(), Audience::Everybody);
    let private = layout::blob(&digest, Audience::Entitled).path();
    assert!(!directory.path().join(private).exists());
}

#[test]
fn a_blob_without_its_seal_is_verified_first() {
    let (directory, local) = open();
    let digest = store(&local, b"some bytes");
    let path = directory
        .path()
        .join(layout::blob(&digest, Audience::Everybody).path());
    let times = std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let unseal = || {
        let file = File::options().write(true).open(&path).expect("there");
        file.set_times(times).expect("ours");
    };
    unseal();
    assert!(local.blob(&digest).expect("readable").is_none());
    assert!(local.verified_blob(&digest).expect("readable").is_some());
    assert!(
        local.blob(&digest).expect("readable").is_some(),
        "it is sealed again"
    );

    std::fs::write(&path, b"SOME BYTES").expect("written");
    assert!(local.blob(&digest).expect("readable").is_none());
    assert!(local.verified_blob(&digest).expect("readable").is_none());
    assert!(!path.exists(), "it was not the blob");
}

#[test]
fn what_belongs_to_somebody_else_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: only root can give files away");
        return;
    }
    let (directory, local) = open();
    let digest = store(&local, b"some bytes");
    let path = directory
        .path()
        .join(layout::blob(&digest, Audience::Everybody).path());
    std::os::unix::fs::chown(&path, Some(12345), None).expect("given away");
    assert!(local.blob(&digest).expect("readable").is_none());

    let ours = directory.path().join(layout::VERSION);
    std::os::unix::fs::chown(&ours, Some(12345), None).expect("given away");
    let error = Local::open(directory.path()).expect_err("it is a stranger's");
    assert!(
        matches!(error, OpenError::Stranger { owner: 12345, .. }),
        "{error}"
    );
    // The directory itself may be anybody's, as long as it can be written to.
    std::os::unix::fs::chown(&ours, Some(0), None).expect("taken back");
    std::os::unix::fs::chown(directory.path(), Some(12345), None).expect("given away");
    Local::open(directory.path()).expect("it can be written to");
}

#[test]
fn a_directory_emptied_by_a_stranger_costs_misses_only() {
    let (directory, local) = open();
    let digest = store(&local, b"some bytes");
    let held = local.blob(&digest).expect("readable").expect("there");
    std::fs::remove_dir_all(directory.path().join("v1")).expect("emptied");
    assert!(local.blob(&digest).expect("no error").is_none());
    assert_eq!(read(&held), b"some bytes");
    store(&local, b"some bytes");
    assert!(local.blob(&digest).expect("readable").is_some());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let error = Local::open(&file.join("cache")).expect_err("a file is no directory");
    assert!(error.to_string().contains("file/cache"), "{error}");
}
