//! Bodies of files under hyper, over a network that takes what it likes, and under a hyper that errs.

use std::io::IoSlice;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncWrite as _, duplex};

use super::*;
use crate::server::conversation::http;
use crate::server::line::BITE_BYTES;
use crate::server::socket::Socket;
use crate::server::trial::{
    Ask, FILE_BYTES, Fault, KINDS, Mood, Moods, Moody, Shown, Slip, a_line, check_answers, content,
    exchange, play, played, requests, slip,
};

/// hyper answers some of them, then gives others a turn: what it has read by then is not lost.
#[test]
fn many_requests_at_once_are_answered_in_order() {
    let (library, mut ends) = library();
    let asks: Vec<Ask> = (0..200).map(|n| Ask::get("memory", n, 1 + n)).collect();
    play(
        &library,
        &mut ends,
        &asks,
        takes(usize::MAX),
        takes(usize::MAX),
    );
}

#[tokio::test]
async fn a_long_file_takes_many_turns() {
    let (library, _ends) = library();
    let asks = [Ask::get("file", 0, FILE_BYTES)];
    let played = played(&library, &asks, takes(usize::MAX), takes(usize::MAX)).await;
    check_answers(&asks, &played.client.received().bytes);
    let turns = played.turns;
    assert!(turns >= FILE_BYTES / BITE_BYTES, "{turns}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client runs beside the connection"
)]
#[tokio::test]
async fn a_connection_that_takes_no_files_gets_them_read() {
    let (library, _ends) = library();
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..4 {
        let asks: Vec<Ask> = (0..24).map(|_| Ask::any(&mut random)).collect();
        let (ours, mut theirs) = duplex(100_000);
        let exchange = exchange(&library, &a_line(false));
        let connection = http().serve_connection(TokioIo::new(ours), exchange);
        let text = requests(&asks);
        let client = tokio::spawn(async move {
            theirs.write_all(text.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            answer
        });
        timeout(PATIENCE, connection).await.unwrap().unwrap();
        check_answers(&asks, &client.await.unwrap());
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_after_it_was_looked_at_breaks_the_connection() {
    let (library, _ends) = library();
    let shorter = tempfile::tempfile().unwrap();
    shorter.write_all_at(&content(0, 100), 0).unwrap();
    let line = a_line(true);
    let (moody, client) = Moody::new("", takes(1), takes(60));
    let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    let mut segment = library.segment(0, 200);
    segment.file = Arc::new(shorter);
    let placeholder = line.queue(segment, false);
    let mut left = &placeholder[..];
    let error = loop {
        match write(&mut socket, &[left]) {
            Poll::Ready(Ok(n)) => left = &left[n..],
            Poll::Ready(Err(error)) => break error,
            Poll::Pending => panic!("it always takes some"),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(client.received().bytes, content(0, 100));
}

fn write(socket: &mut Socket<Moody>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
    let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(socket).poll_write_vectored(&mut cx, &slices)
}

#[tokio::test]
async fn a_turn_is_over_after_one_bite() {
    let (library, _ends) = library();
    let line = a_line(true);
    let (moody, _client) = Moody::new("", takes(1), takes(usize::MAX));
    let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    for _ in 0..2 {
        let placeholder = line.queue(library.segment(0, BITE_BYTES), false);
        line.begin_turn();
        assert!(matches!(
            write(&mut socket, &[&placeholder]),
            Poll::Ready(Ok(_))
        ));
        let next = line.queue(library.segment(0, BITE_BYTES), false);
        // However often it is asked.
        for _ in 0..3 {
            assert!(write(&mut socket, &[&next]).is_pending());
        }
        assert!(line.has_segments());
        line.begin_turn();
        assert!(matches!(write(&mut socket, &[&next]), Poll::Ready(Ok(_))));
    }
}

fn takes(bytes: usize) -> Moods {
    Moods::only([Mood::Takes(bytes)])
}

/// Sizes around everything that is a limit somewhere.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        1_u64..70_000,
        (0_u64..6, -2_i64..3).prop_map(|(n, off)| (n * BITE_BYTES).saturating_add_signed(off)),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let kind = prop_oneof![
        40 => proptest::sample::select(&KINDS[..KINDS.len() - 1]),
        1 => Just(KINDS[KINDS.len() - 1]),
    ];
    (prop::bool::weighted(0.1), kind, 0..FILE_BYTES, size()).prop_map(
        |(is_head, kind, offset, length)| {
            Ask::new(is_head, kind, offset.min(FILE_BYTES - length), length)
        },
    )
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        2 => Just(Mood::Waits),
        3 => (1_usize..50).prop_map(Mood::Takes),
        3 => (1_usize..20_000).prop_map(Mood::Takes),
        2 => Just(Mood::Takes(usize::MAX)),
    ]
}

/// Of one request, mostly all of it.
fn read_of_one() -> impl Strategy<Value = Mood> {
    prop_oneof![
        6 => Just(Mood::Request),
        1 => Just(Mood::Waits),
        1 => (1_usize..200).prop_map(Mood::Takes),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Reset),
        Just(Fault::NoBytes),
        Just(Fault::FileEnds),
        Just(Fault::Disk)
    ]
}

fn a_slip() -> impl Strategy<Value = Slip> {
    prop_oneof![
        (1_usize..400).prop_map(Slip::Skips),
        (1_usize..400).prop_map(Slip::GoesBack),
        (1_usize..400).prop_map(Slip::Shortens),
        Just(Slip::Copies),
        Just(Slip::Drops),
        Just(Slip::Delays),
        Just(Slip::Flattens),
    ]
}

fn shown() -> impl Strategy<Value = Shown> {
    // Many of one length, as the bites of a long file are.
    let length = prop_oneof![Just(500_u64), 1_u64..2000];
    ("[a-z]{0,20}", length).prop_map(|(head, length)| Shown { head, length })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_network_takes_the_bytes_are_right(
        asks in vec(ask(), 1..8), reads in vec(mood(), 0..6), writes in vec(mood(), 1..12),
    ) {
        let (library, mut ends) = library();
        play(&library, &mut ends, &asks, Moods::new(reads), Moods::new(writes));
    }

    #[test]
    fn what_came_before_is_answered_as_it_was(
        asks in vec(ask(), 1..6), reads in vec(read_of_one(), 1..6), writes in vec(mood(), 1..12),
    ) {
        let (library, mut ends) = library();
        let again = [&asks[..], &asks[..], &asks[..]].concat();
        let reads = reads.into_iter().chain([Mood::Request]);
        play(&library, &mut ends, &again, Moods::only(reads), Moods::new(writes));
    }

    #[test]
    fn whatever_fails_of_what_came_before_all_bytes_until_then_are_right(
        ask in ask(), writes in vec(mood(), 0..40), fault in fault(),
    ) {
        let (library, mut ends) = library();
        let writes = writes.into_iter().chain([Mood::Fails(fault)]);
        play(&library, &mut ends, &vec![ask; 8], Moods::only([Mood::Request]), Moods::new(writes));
    }

    #[test]
    fn whatever_fails_all_bytes_until_then_are_right(
        asks in vec(ask(), 1..8), writes in vec(mood(), 0..40), fault in fault(),
    ) {
        let (library, mut ends) = library();
        let writes = writes.into_iter().chain([Mood::Fails(fault)]);
        play(&library, &mut ends, &asks, Moods::new([]), Moods::new(writes));
    }

    #[test]
    fn an_error_about_a_placeholder_never_shows(
        responses in vec(shown(), 2..5), writes in vec(mood(), 1..8), after in 0_usize..20, made in a_slip(),
    ) {
        let (library, _ends) = library();
        slip(&library, &responses, Moods::new(writes), after, made);
    }
}

#[test]
fn the_content_has_no_zero() {
    assert!(!content(0, FILE_BYTES).contains(&0));
}
