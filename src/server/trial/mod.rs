//! The connection between a network that takes what it likes and a hyper that errs: what tests and fuzz targets try in
//! the same way. Part of neither the program nor its documentation.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a trial fails by panicking"
)]
#![cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "tests use more of it than fuzz targets"
    )
)]

mod library;
mod network;
mod slips;

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::network::Client;
use super::conversation::Conversation;
use super::exchange::Exchange;
use super::line::Line;
use super::reads::Reads;
use super::repeats::Repeats;
use super::socket::Socket;
use super::{Limits, Phase, Server, Standing};
use crate::http::{Caller, Shares};
use crate::metrics::Metrics;

pub use self::library::{Ask, Ends, FILE_BYTES, KINDS, Library};
pub use self::network::{Fault, Mood, Moods};
pub use self::slips::{Shown, Slip, slip};

pub(in crate::server) use self::library::{ENDLESS, check_answers, content, requests};
pub(in crate::server) use self::network::Moody;

/// Longer than any deadline of the server, for trials that would hang otherwise.
const PATIENCE: Duration = Duration::from_mins(5);

/// What came of a row of requests.
pub(in crate::server) struct Played {
    pub(in crate::server) client: Client,
    pub(in crate::server) turns: u64,
    has_failed: bool,
    is_written: bool,
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// The line of a connection that sends the bytes of files itself if it `takes_files`.
pub(in crate::server) fn a_line(takes_files: bool) -> Arc<Line> {
    Arc::new(Line::new(takes_files, Reads::default(), Metrics::new()))
}

/// What answers on a connection.
pub(in crate::server) fn exchange(library: &Library, line: &Arc<Line>) -> Exchange<Library> {
    let (_, phase) = watch::channel(Phase::Serving);
    let server = Arc::new(Server {
        shares: Shares::new(1),
        refusals: Arc::new(Semaphore::new(1)),
        service: library.clone(),
        limits: Limits::default(),
        metrics: Metrics::new(),
        reads: Reads::default(),
        repeats: Repeats::default(),
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

/// Has these requests answered over a network of these moods.
pub(in crate::server) async fn played(
    library: &Library,
    asks: &[Ask],
    reads: Moods,
    writes: Moods,
) -> Played {
    let (moody, client) = Moody::new(&requests(asks), reads, writes);
    let line = a_line(true);
    let socket = Socket::new(moody, Arc::clone(&line), &Limits::default());
    let exchange = exchange(library, &line);
    let mut conversation = Conversation::new(socket, exchange, Arc::clone(&line));
    let mut turns = 0;
    let ended = poll_fn(|cx| {
        turns += 1;
        conversation.poll(cx)
    });
    let ended = timeout(PATIENCE, ended).await.expect("it ends");
    Played {
        client,
        turns,
        has_failed: ended.is_err(),
        is_written: !line.has_segments(),
    }
}

/// Has these requests answered over a network of these moods, and panics unless the client got what it was to get: all
/// of it, or up to the byte at which the network or the file failed, and then the connection has ended. Whatever came
/// of a body is told once. `ends` are those of `library`.
///
/// # Panics
/// See above.
pub fn play(library: &Library, ends: &mut Ends, asks: &[Ask], reads: Moods, writes: Moods) {
    let before = library.answered();
    let played = runtime().block_on(played(library, asks, reads, writes));
    let received = played.client.received();
    if received.is_cut {
        assert!(played.has_failed, "the connection goes on");
        library::check_beginning(asks, &received.bytes);
    } else {
        let breaks = asks.iter().any(Ask::breaks);
        assert_eq!(played.has_failed, breaks);
        assert!(breaks || played.is_written, "a file is left over");
        assert!(breaks || !received.is_corked, "the end is held back");
        check_answers(asks, &received.bytes);
    }
    let mut told = 0;
    while ends.try_recv().is_ok() {
        told += 1;
    }
    assert_eq!(told, library.answered() - before, "ends that were told");
}
