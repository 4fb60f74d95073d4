//! Bodies of files under hyper, over a network that takes what it likes, and under a hyper that errs.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tokio::sync::{Semaphore, watch};

use super::library::{Ask, FILE_BYTES, Library, check_answers, content, requests};
use super::*;
use crate::http::{Segment, Shares};
use crate::server::connection::http;
use crate::server::exchange::Exchange;
use crate::server::line::{BITE_BYTES, Line};
use crate::server::reads::Reads;
use crate::server::socket::Socket;
use crate::server::wire::Wire;
use crate::server::{Phase, Server, Standing};

/// A network that takes, one write after the other, so many bytes, and none for a while where there is a 0.
struct Moody {
    requests: VecDeque<u8>,
    moods: Vec<usize>,
    writes: usize,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Moody {
    fn new(requests: &str, moods: &[usize]) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let taken = Arc::default();
        let moody = Self {
            requests: requests.bytes().collect(),
            moods: moods.to_vec(),
            writes: 0,
            taken: Arc::clone(&taken),
        };
        (moody, taken)
    }

    /// How many bytes it takes next.
    fn mood(&self) -> usize {
        self.moods[self.writes % self.moods.len()]
    }

    fn accept(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mood = self.mood();
        self.writes += 1;
        if mood == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes = &bytes[..mood.min(bytes.len())];
        self.taken.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

impl AsyncRead for Moody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.requests.is_empty() {
            return Poll::Pending;
        }
        let n = buffer.remaining().min(self.requests.len());
        buffer.put_slice(&self.requests.drain(..n).collect::<Vec<u8>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Moody {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.accept(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = joined(slices, self.mood());
        self.accept(cx, &bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire for Moody {
    fn poll_send_more(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = joined(slices, self.mood());
        self.accept(cx, &bytes)
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Segment,
    ) -> Poll<io::Result<usize>> {
        let length = usize::try_from(segment.length).unwrap();
        let mut bytes = vec![0; length.min(self.mood().max(1))];
        let read = segment.file.read_at(&mut bytes, segment.offset).unwrap();
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        self.accept(cx, &bytes[..read])
    }
}

/// The first bytes of these slices.
fn joined(slices: &[IoSlice<'_>], mut most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        let length = slice.len().min(most);
        bytes.extend_from_slice(&slice[..length]);
        most -= length;
    }
    bytes
}

fn exchange(library: &Library, line: &Arc<Line>) -> Exchange<Library> {
    let (_, phase) = watch::channel(Phase::Serving);
    let server = Arc::new(Server {
        shares: Shares::new(1),
        refusals: Arc::new(Semaphore::new(1)),
        service: library.clone(),
        limits: Limits::default(),
        metrics: Metrics::new(),
        reads: Reads::default(),
        phase,
    });
    let caller = Caller {
        peer: (Ipv4Addr::LOCALHOST, 1).into(),
        listener: 0,
        is_encrypted: false,
        client: None,
    };
    Exchange::new(server, caller, Standing::Welcome, Arc::clone(line))
}

/// What a moody network gets from hyper for these requests, and in how many turns.
async fn answers(library: &Library, asks: &[Ask], moods: &[usize]) -> (Vec<u8>, u64) {
    let (moody, taken) = Moody::new(&requests(asks), moods);
    let line = Arc::new(Line::with_files());
    let socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    let exchange = exchange(library, &line);
    let mut connection = http().serve_connection(TokioIo::new(socket), exchange);
    let mut turns = 0;
    let ended = poll_fn(|cx| {
        turns += 1;
        line.begin_turn();
        connection.poll_without_shutdown(cx)
    });
    timeout(PATIENCE, ended).await.unwrap().unwrap();
    let taken = taken.lock().unwrap().clone();
    (taken, turns)
}

#[tokio::test]
async fn a_long_file_takes_many_turns() {
    let (library, _ends) = Library::new();
    let asks = [Ask::get("file", 0, FILE_BYTES)];
    let (answer, turns) = answers(&library, &asks, &[usize::MAX]).await;
    check_answers(&asks, &answer);
    assert!(turns >= FILE_BYTES / BITE_BYTES, "{turns}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client runs beside the connection"
)]
#[tokio::test]
async fn a_connection_that_takes_no_files_gets_them_read() {
    let (library, _ends) = Library::new();
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..4 {
        let asks: Vec<Ask> = (0..24).map(|_| Ask::any(&mut random)).collect();
        let (ours, mut theirs) = duplex(100_000);
        let exchange = exchange(&library, &Arc::default());
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
    let (library, _ends) = Library::new();
    let shorter = tempfile::tempfile().unwrap();
    shorter.write_all_at(&content(0, 100), 0).unwrap();
    let line = Arc::new(Line::with_files());
    let (moody, taken) = Moody::new("", &[60]);
    let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    let mut segment = library.segment(0, 200);
    segment.file = Arc::new(shorter);
    let placeholder = line.queue(segment);
    let mut left = &placeholder[..];
    let error = loop {
        match write(&mut socket, &[left]) {
            Poll::Ready(Ok(n)) => left = &left[n..],
            Poll::Ready(Err(error)) => break error,
            Poll::Pending => panic!("it always takes some"),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(*taken.lock().unwrap(), content(0, 100));
}

fn write(socket: &mut Socket<Moody>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
    let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(socket).poll_write_vectored(&mut cx, &slices)
}

#[tokio::test]
async fn a_turn_is_over_after_one_bite() {
    let (library, _ends) = Library::new();
    let line = Arc::new(Line::with_files());
    let (moody, _taken) = Moody::new("", &[usize::MAX]);
    let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    for _ in 0..2 {
        let placeholder = line.queue(library.segment(0, BITE_BYTES));
        line.begin_turn();
        assert!(matches!(
            write(&mut socket, &[&placeholder]),
            Poll::Ready(Ok(_))
        ));
        let next = line.queue(library.segment(0, BITE_BYTES));
        // However often it is asked.
        for _ in 0..3 {
            assert!(write(&mut socket, &[&next]).is_pending());
        }
        assert!(line.has_segments());
        line.begin_turn();
        assert!(matches!(write(&mut socket, &[&next]), Poll::Ready(Ok(_))));
    }
}

/// What an erring hyper does to a placeholder before it is shown.
#[derive(Debug, Clone, Copy)]
enum Error {
    /// Takes more of it for written than was.
    Skips(usize),
    /// Takes some of what was written for unwritten, or makes one up.
    GoesBack(usize),
    /// Wants less of it than there is.
    Shortens(usize),
    /// Copies it.
    Copies,
    /// Forgets it.
    Drops,
}

fn error() -> impl Strategy<Value = Error> {
    prop_oneof![
        (1_usize..400).prop_map(Error::Skips),
        (1_usize..400).prop_map(Error::GoesBack),
        (1_usize..400).prop_map(Error::Shortens),
        Just(Error::Copies),
        Just(Error::Drops),
    ]
}

impl Error {
    /// Does it to the part of `whole` that begins at `at`. Gives what is shown instead, if it differs at all.
    fn made(self, whole: &Bytes, at: usize) -> Option<Bytes> {
        let left = whole.slice(at..);
        match self {
            Self::Skips(n) => (n < left.len()).then(|| left.slice(n..)),
            Self::GoesBack(n) => at.checked_sub(n).map(|at| whole.slice(at..)),
            Self::Shortens(n) => (n < left.len()).then(|| left.slice(..left.len() - n)),
            Self::Copies => Some(Bytes::copy_from_slice(&left)),
            Self::Drops => Some(Bytes::from_static(b"next head")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_network_takes_the_bytes_are_right(
        seed: u64,
        moods in proptest::collection::vec(
            prop_oneof![Just(0_usize), 1_usize..50, 1_usize..20_000, Just(usize::MAX)], 1..12
        ),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        // Some bytes are taken sooner or later, and not one by one.
        let moods = [&moods[..], &[20_000]].concat();
        let asks: Vec<Ask> = (0..5).map(|_| Ask::any(&mut random)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (library, _ends) = Library::new();
        let (answer, _) = runtime.block_on(answers(&library, &asks, &moods));
        check_answers(&asks, &answer);
    }

    #[test]
    fn an_error_about_a_placeholder_never_shows(
        heads in proptest::collection::vec("[a-z]{0,20}", 2..5),
        // Many of one length, as the bites of a long file are.
        lengths in proptest::collection::vec(prop_oneof![Just(500_u64), 1_u64..2000], 4),
        moods in proptest::collection::vec(1_usize..900, 1..8),
        after in prop_oneof![Just(0_usize), 0_usize..20],
        error in error(),
    ) {
        let (library, _ends) = Library::new();
        let line = Arc::new(Line::with_files());
        let (moody, taken) = Moody::new("", &moods);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let mut socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
        let (mut shown, mut expected) = (VecDeque::new(), Vec::new());
        for (head, &length) in heads.iter().zip(&lengths) {
            shown.push_back((Bytes::from(head.clone()), 0));
            shown.push_back((line.queue(library.segment(length, length)), 0));
            expected.extend_from_slice(head.as_bytes());
            expected.extend(content(length, length));
        }
        let mut made = false;
        for n in 0.. {
            shown.retain(|(bytes, at)| *at < bytes.len());
            // Once, when the first of what is to be written is a placeholder, as its content tells.
            if n >= after && !made && let Some((bytes, at)) = shown.front_mut()
                && bytes.first() == Some(&0) && let Some(other) = error.made(bytes, *at)
            {
                (*bytes, *at, made) = (other, 0, true);
            }
            if shown.is_empty() {
                break;
            }
            let slices: Vec<&[u8]> = shown.iter().map(|(bytes, at)| &bytes[*at..]).collect();
            let Poll::Ready(written) = write(&mut socket, &slices) else {
                panic!("it always takes some");
            };
            let Ok(mut written) = written else {
                prop_assert!(made);
                break;
            };
            prop_assert!(!made);
            for (bytes, at) in &mut shown {
                let n = written.min(bytes.len() - *at);
                (*at, written) = (*at + n, written - n);
            }
        }
        let taken = taken.lock().unwrap();
        prop_assert!(expected.starts_with(&taken));
        prop_assert!(made || *taken == expected);
    }
}

#[test]
fn the_content_has_no_zero() {
    assert!(!content(0, FILE_BYTES).contains(&0));
}
