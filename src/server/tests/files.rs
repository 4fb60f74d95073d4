//! Bodies of files, byte by byte, through the sockets of this kernel.

use std::collections::HashMap;

use rustix::net::sockopt;

use super::*;
use crate::server::line::BITE_BYTES;
use crate::server::trial::{Ask, FILE_BYTES, check_answers, content, requests};

/// A library that runs.
struct Open {
    address: SocketAddr,
    library: Library,
    ends: Ends,
    metrics: Metrics,
}

#[expect(clippy::disallowed_methods, reason = "the server runs beside its test")]
fn open() -> Open {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (library, ends) = library();
    let metrics = Metrics::new();
    tokio::spawn(serve(
        vec![plain(listener)],
        Limits {
            connections: 1000,
            ..Limits::default()
        },
        library.clone(),
        metrics.clone(),
        std::future::pending(),
    ));
    Open {
        address,
        library,
        ends,
        metrics,
    }
}

impl Open {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks all this on one connection, without waiting for answers.
    async fn check(&self, asks: &[Ask]) {
        let mut client = self.connect().await;
        client.write_all(requests(asks).as_bytes()).await.unwrap();
        check_answers(asks, &rest(&mut client).await);
    }

    async fn end(&mut self) -> (u64, End) {
        timeout(PATIENCE, self.ends.recv()).await.unwrap().unwrap()
    }
}

/// Everything until the end, which must be a FIN.
async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut answer)).await;
    read.expect("the server closes")
        .expect("it closes with a FIN");
    answer
}

/// Reads until `enough` of the answer is there.
async fn read_until(client: &mut TcpStream, answer: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) {
    while !enough(answer) {
        let read = timeout(PATIENCE, client.read_buf(answer)).await.unwrap();
        assert_ne!(read.unwrap(), 0, "after {} bytes", answer.len());
    }
}

#[tokio::test]
async fn one_connection_gives_bodies_of_all_kinds_one_after_the_other() {
    let library = open();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..4 {
        let mut client = library.connect().await;
        for n in 0..60 {
            let ask = Ask::any(&mut random);
            client.write_all(ask.request("").as_bytes()).await.unwrap();
            // Whatever comes before the answer to this is the answer to the one before.
            let mark = Ask::get("memory", n, 7);
            client.write_all(mark.request("").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let end = [b"content-length: 7\r\n".as_slice(), &content(n, 7)];
            read_until(&mut client, &mut answer, |answer| {
                let tail = &answer[answer.len().saturating_sub(120)..];
                answer.ends_with(end[1]) && tail.windows(19).any(|it| it == end[0])
            })
            .await;
            check_answers(&[ask, mark], &answer);
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let library = open();
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..12 {
        let asks: Vec<Ask> = (0..24).map(|_| Ask::any(&mut random)).collect();
        library.check(&asks).await;
    }
}

#[tokio::test]
async fn odd_ranges_are_exact() {
    let library = open();
    let around = [0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073];
    let mut asks = Vec::new();
    for offset in around {
        for length in around.into_iter().chain([524_287, 524_288, 524_289]) {
            asks.push(Ask::get("file", offset, length));
            asks.push(Ask::get("file", FILE_BYTES - length, length));
        }
    }
    asks.push(Ask::get("file", 0, FILE_BYTES));
    library.check(&asks).await;
}

#[tokio::test]
async fn slow_clients_and_fast_ones_get_the_same_bytes() {
    let library = open();
    let slow = async |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let asks: Vec<Ask> = (0..4).map(|_| Ask::any(&mut random)).collect();
        let mut client = library.connect().await;
        sockopt::set_socket_recv_buffer_size(&client, 50_000).unwrap();
        client.write_all(requests(&asks).as_bytes()).await.unwrap();
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 9_973]);
        loop {
            let read = timeout(PATIENCE, client.read(&mut buffer)).await;
            match read.unwrap().unwrap() {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
            tokio::task::yield_now().await;
        }
        check_answers(&asks, &answer);
    };
    let fast = async {
        for _ in 0..10 {
            library.check(&[Ask::get("file", 0, FILE_BYTES)]).await;
        }
    };
    futures_util::future::join(futures_util::future::join_all((0..8).map(slow)), fast).await;
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_harm_nobody() {
    let mut library = open();
    let mut random = fastrand::Rng::with_seed(3);
    let mut left = 0;
    for n in 0..400 {
        let mut client = library.connect().await;
        let asks: Vec<Ask> = (0..3).map(|_| Ask::any(&mut random)).collect();
        client.write_all(requests(&asks).as_bytes()).await.unwrap();
        let mut some = vec![0; random.usize(..200_000)];
        if client.read_exact(&mut some).await.is_ok() {
            left += 1;
        }
        drop(client);
        if n % 20 == 0 {
            library.check(&[Ask::any(&mut random)]).await;
        }
    }
    assert!(left > 50, "{left}");
    while !library
        .metrics
        .render()
        .contains("entrepot_connections 0\n")
    {
        tokio::task::yield_now().await;
    }
    let mut ends: HashMap<&str, u32> = HashMap::new();
    while let Ok((_, end)) = library.ends.try_recv() {
        *ends.entry(end.as_str()).or_default() += 1;
    }
    assert!(ends["cancelled"] > 20, "{ends:?}");
    assert!(!ends.contains_key("failed"), "{ends:?}");
    assert_eq!(Arc::strong_count(&library.library.file), 2);
}

#[tokio::test]
async fn a_file_that_is_cut_short_in_the_middle_is_a_short_body() {
    let mut library = open();
    let mut client = library.connect().await;
    let ask = Ask::get("endless", 0, 0);
    client.write_all(ask.request("").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    read_until(&mut client, &mut answer, |answer| answer.len() > 1 << 20).await;
    // To nothing: of a page that is cut in two the kernel clears the rest, also of those that are on their way.
    library.library.file.set_len(0).unwrap();
    answer.extend(rest(&mut client).await);
    let (bytes, end) = library.end().await;
    assert_eq!(end, End::Unreadable);
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let body = &answer[head..];
    assert!(body.len() as u64 <= bytes);
    let expected = content(0, FILE_BYTES);
    for round in body.chunks(expected.len()) {
        assert!(round == &expected[..round.len()], "wrong bytes");
    }
}

#[tokio::test]
async fn a_file_that_is_shorter_than_it_said_is_a_short_body() {
    let mut library = open();
    let file = &library.library.file;
    file.set_len(BITE_BYTES + 100_000).unwrap();
    let mut client = library.connect().await;
    let ask = Ask::get("file", 0, 2_000_000);
    client.write_all(ask.request("").as_bytes()).await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n"));
    // What lies before the stretch in which it ends is sent.
    assert!(answer.ends_with(&content(0, BITE_BYTES)));
    assert_eq!(library.end().await, (BITE_BYTES, End::Unreadable));
}

#[tokio::test]
async fn a_file_that_is_not_in_memory_is_read_without_anybody_waiting() {
    let library = open();
    let file = &library.library.file;
    file.sync_all().unwrap();
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(file, 0, None, advice).unwrap();
    let asks = [
        Ask::get("file", 77, FILE_BYTES - 77),
        Ask::get("memory", 0, 10),
    ];
    library.check(&asks).await;
}

#[tokio::test]
async fn what_was_sent_is_told_once() {
    let mut library = open();
    for (ask, bytes) in [
        (Ask::get("file", 1, 1_000_000), 1_000_000),
        (Ask::get("parts", 1, 1_000_000), 1_000_000),
        (Ask::get("chunked", 1, 1_000_000), 1_000_000),
        (Ask::get("unchanged", 0, 0), 0),
    ] {
        library.check(&[ask]).await;
        assert_eq!(library.end().await, (bytes, End::Ended));
    }
    assert!(library.ends.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_a_file_is_closed() {
    let mut library = open();
    let mut client = library.connect().await;
    let ask = Ask::get("endless", 0, 0);
    client.write_all(ask.request("").as_bytes()).await.unwrap();
    let start = tokio::time::Instant::now();
    let (bytes, end) = library.end().await;
    assert_eq!(end, End::Cancelled);
    assert!(bytes < 64 << 20, "{bytes}");
    let late = start.elapsed().checked_sub(Duration::from_mins(1)).unwrap();
    assert!(late < Duration::from_millis(5), "{late:?}");
}
