use std::fs::File;
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;

use futures_util::stream;

use super::*;

type Told = Arc<Mutex<Vec<(u64, End)>>>;

/// The body with what it tells at its end, and a guard to watch.
fn watched(body: Body) -> (Body, Told, Weak<()>) {
    let told = Told::default();
    let (teller, guard) = (Arc::clone(&told), Arc::new(()));
    let watch = Arc::downgrade(&guard);
    let body = body
        .retain(guard)
        .on_end(move |bytes, end| teller.lock().unwrap().push((bytes, end)));
    (body, told, watch)
}

fn source(chunks: &[Result<&'static str, &'static str>], length: Option<u64>) -> Body {
    let chunks: Vec<_> = chunks.iter().map(|chunk| chunk.map(Bytes::from)).collect();
    Body::stream(stream::iter(chunks), length)
}

/// The next chunk, of a file at most three bytes.
fn next(body: &mut Body) -> Option<Result<Chunk, BodyError>> {
    let mut cx = Context::from_waker(Waker::noop());
    match body.poll_chunk(&mut cx, 3) {
        Poll::Ready(chunk) => chunk,
        Poll::Pending => panic!("the chunks are there"),
    }
}

/// Gives a body to its end, which must be as expected, told once, and let go of the guard.
#[track_caller]
fn check(body: Body, text: Result<&str, &str>, given: u64, end: End) {
    let (mut body, told, guard) = watched(body);
    let mut bytes = Vec::new();
    let found = loop {
        match next(&mut body) {
            Some(Ok(Chunk::Bytes(chunk))) => {
                bytes.extend_from_slice(&chunk);
                body.given(chunk.len() as u64);
            }
            Some(Ok(Chunk::File(segment))) => panic!("{segment:?} in a body without files"),
            Some(Err(error)) => break Err(error.to_string()),
            None => break Ok(String::from_utf8(bytes).unwrap()),
        }
    };
    let text = text.map(str::to_owned).map_err(str::to_owned);
    assert_eq!(found, text);
    assert_eq!(*told.lock().unwrap(), [(given, end)]);
    assert_eq!(guard.strong_count(), 0);
}

#[test]
fn whole_bodies_end_well() {
    check(Body::empty(), Ok(""), 0, End::Ended);
    check(Body::full("abc"), Ok("abc"), 3, End::Ended);
}

#[test]
fn streams_end_as_declared_or_fail() {
    let ab = [Ok("a"), Ok("b")];
    check(source(&ab, None), Ok("ab"), 2, End::Ended);
    check(source(&ab, Some(2)), Ok("ab"), 2, End::Ended);
    let short = "the source of the body ended 1 bytes early";
    check(source(&ab, Some(3)), Err(short), 2, End::Failed);
    let long = "the source of the body gave 1 bytes too many";
    check(source(&[Ok("ab")], Some(1)), Err(long), 0, End::Failed);
    let failed = [Ok("a"), Err("lost")];
    let failure = "the source of the body failed";
    check(source(&failed, Some(2)), Err(failure), 1, End::Failed);
    check(source(&failed, None), Err(failure), 1, End::Failed);
}

#[test]
fn the_declared_end_is_told_as_soon_as_it_is_given() {
    let (mut body, told, _guard) = watched(source(&[Ok("ab")], Some(2)));
    assert!(next(&mut body).unwrap().is_ok());
    assert!(told.lock().unwrap().is_empty());
    body.given(2);
    assert_eq!(*told.lock().unwrap(), [(2, End::Ended)]);
}

#[test]
fn a_body_that_is_dropped_before_its_end_was_cancelled() {
    let (body, told, guard) = watched(source(&[Ok("a")], Some(1)));
    assert_eq!(guard.strong_count(), 1);
    drop(body);
    assert_eq!(*told.lock().unwrap(), [(0, End::Cancelled)]);
    assert_eq!(guard.strong_count(), 0);
}

#[test]
fn a_body_that_is_skipped_ended_well() {
    let (body, told, guard) = watched(Body::full("abc"));
    assert_eq!(body.skipped().length(), Some(0));
    assert_eq!(*told.lock().unwrap(), [(0, End::Ended)]);
    assert_eq!(guard.strong_count(), 0);
}

fn segment(offset: u64, length: u64) -> Segment {
    let file = Arc::new(File::open("/dev/null").unwrap());
    Segment {
        file,
        offset,
        length,
    }
}

/// Takes the next chunk, which must be this stretch.
#[track_caller]
fn check_segment(body: &mut Body, offset: u64, length: u64) {
    match next(body) {
        Some(Ok(Chunk::File(it))) => assert_eq!((it.offset, it.length), (offset, length)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_stretch_of_a_file_is_taken_in_bites() {
    let chunks = [segment(10, 7), segment(0, 0), segment(40, 1)].map(Ok::<_, io::Error>);
    let (mut body, told, _guard) = watched(Body::stream(stream::iter(chunks), Some(8)));
    for (offset, length) in [(10, 3), (13, 3), (16, 1), (0, 0), (40, 1)] {
        check_segment(&mut body, offset, length);
        body.given(length);
    }
    assert!(next(&mut body).is_none());
    assert_eq!(*told.lock().unwrap(), [(8, End::Ended)]);
}

#[test]
fn what_is_put_back_comes_next() {
    let chunks = [Ok::<_, io::Error>(segment(10, 7))];
    let mut body = Body::stream(stream::iter(chunks), Some(7));
    check_segment(&mut body, 10, 3);
    body.given(1);
    body.put_back(segment(11, 2));
    check_segment(&mut body, 11, 3);
    body.given(3);
    check_segment(&mut body, 14, 3);
}

#[test]
fn a_stretch_that_goes_beyond_the_declared_bytes_is_not_given() {
    let chunks = [Ok::<_, io::Error>(segment(10, 7))];
    let (mut body, told, _guard) = watched(Body::stream(stream::iter(chunks), Some(6)));
    assert!(matches!(
        next(&mut body),
        Some(Err(BodyError::Long { surplus: 1 }))
    ));
    assert_eq!(*told.lock().unwrap(), [(0, End::Failed)]);
}

#[test]
fn a_file_that_cannot_be_read_fails_the_body() {
    let chunks = [Ok::<_, io::Error>(segment(10, 7))];
    let (mut body, told, _guard) = watched(Body::stream(stream::iter(chunks), Some(7)));
    check_segment(&mut body, 10, 3);
    body.failed(io::ErrorKind::UnexpectedEof.into());
    drop(body);
    assert_eq!(*told.lock().unwrap(), [(0, End::Unreadable)]);
}
