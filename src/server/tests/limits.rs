//! How long a client may take, and how many there may be. Time is tokio's and stands still but for the deadlines.

use rustix::net::sockopt;
use tokio::time::{Instant, advance};

use super::*;

fn default_limits() -> Limits {
    Limits {
        connections: 100,
        ..Limits::default()
    }
}

/// Whether `elapsed` is the deadline, give or take the timer's millisecond.
#[track_caller]
fn check_deadline(elapsed: Duration, deadline: Duration) {
    let late = elapsed.checked_sub(deadline);
    assert!(
        late.is_some_and(|late| late < Duration::from_millis(5)),
        "{elapsed:?} instead of {deadline:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed() {
    let server = start(default_limits());
    let start = Instant::now();
    assert_eq!(server.connect().await.rest().await, "");
    check_deadline(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_closed_at_its_deadline() {
    let server = start(default_limits());
    let mut client = server.connect().await;
    server.shows("entrepot_connections 1").await;
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    for _ in 0..9 {
        advance(Duration::from_secs(1)).await;
        client.send("X: y\r\n").await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.rest().await, "");
    check_deadline(start.elapsed(), Duration::from_secs(10));
    assert!(server.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_rest_between_requests_but_not_for_ever() {
    let server = start(default_limits());
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send(get("/")).await;
        client.until("hello").await;
        advance(Duration::from_secs(74)).await;
    }
    client.send(get("/")).await;
    client.until("hello").await;
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    check_deadline(start.elapsed(), Duration::from_secs(75));
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_the_same_deadline_as_the_first() {
    let server = start(default_limits());
    let mut client = server.connect().await;
    client.send(get("/")).await;
    client.until("hello").await;
    advance(Duration::from_secs(30)).await;
    let start = Instant::now();
    client.send("GET / HT").await;
    assert_eq!(client.rest().await, "");
    check_deadline(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn half_a_head_behind_a_request_does_not_last() {
    let server = start(default_limits());
    let mut client = server.connect().await;
    client.send([&get("/"), "GET / HT"].concat()).await;
    client.until("hello").await;
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() <= Duration::from_secs(86));
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_its_time() {
    let server = start(default_limits());
    let mut client = server.connect().await;
    client.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    advance(Duration::from_hours(1)).await;
    server.toy.gate.notify_one();
    assert!(client.until("slow").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed() {
    let mut server = start(default_limits());
    let mut client = server.connect().await;
    client.send(get("/endless")).await;
    let start = Instant::now();
    let (bytes, end) = server.end().await;
    assert_eq!(end, End::Cancelled);
    assert!(bytes < 64 << 20, "{bytes}");
    check_deadline(start.elapsed(), Duration::from_mins(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_its_time_is_served() {
    // While something blocks, the clock moves only when it is told to, however long the kernel takes to deliver.
    let (_until_the_end, end) = std::sync::mpsc::channel::<()>();
    let _blocked = tokio::task::spawn_blocking(move || end.recv());
    let mut server = start(default_limits());
    let mut client = server.connect().await;
    // What lies in the kernel is less than is read at once, so that the server has to write each time.
    sockopt::set_socket_recv_buffer_size(&client.0, 50_000).unwrap();
    client.send(get("/endless")).await;
    let mut buffer = vec![0; 8 << 20];
    for _ in 0..5 {
        client.0.read_exact(&mut buffer).await.unwrap();
        tokio::task::yield_now().await;
        advance(Duration::from_secs(59)).await;
    }
    assert!(server.ends.try_recv().is_err());
}

#[tokio::test]
async fn those_over_the_number_of_connections_wait_their_turn() {
    let server = start(Limits {
        connections: 2,
        ..Limits::default()
    });
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    let mut third = server.connect().await;
    for client in [&mut first, &mut second] {
        client.send(get("/")).await;
        client.until("hello").await;
    }
    third.send(get_and_close("/third")).await;
    second.send(get("/second")).await;
    second.until("hello").await;
    assert_eq!(server.seen(), ["GET /", "GET /", "GET /second"]);
    drop(first);
    assert_eq!(statuses(&third.rest().await), ["200"]);
    let limited = r#"entrepot_accept_errors_total{reason="limit"} "#;
    assert!(server.metrics.render().contains(limited));
}

fn two_for_each_client() -> Limits {
    Limits {
        connections: 100,
        connections_per_client: 2,
        ..Limits::default()
    }
}

#[tokio::test]
async fn one_client_too_many_connections_is_told_so() {
    let server = start(two_for_each_client());
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for client in [&mut first, &mut second] {
        client.send(get("/")).await;
        client.until("hello").await;
    }
    for _ in 0..3 {
        let mut third = server.connect().await;
        third.send(get("/third")).await;
        let answer = third.rest().await;
        assert_eq!(statuses(&answer), ["429"]);
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
    let counted = r#"entrepot_accept_errors_total{reason="client"} 3"#;
    assert!(server.metrics.render().contains(counted));
    // What it has goes on, and what it gives back it has again.
    first.send(get("/first")).await;
    first.until("hello").await;
    drop(second);
    let served = async {
        loop {
            let mut again = server.connect().await;
            again.send(get_and_close("/again")).await;
            if statuses(&again.rest().await) == ["200"] {
                break;
            }
        }
    };
    timeout(PATIENCE, served).await.unwrap();
    assert!(!server.seen().contains(&"GET /third".to_owned()));
}

#[tokio::test]
async fn those_who_are_told_that_they_are_too_many_are_no_more_than_so_many() {
    let server = start(two_for_each_client());
    let mut open = Vec::new();
    for _ in 0..2 + Limits::REFUSALS {
        open.push(server.connect().await);
    }
    server
        .shows(&format!("entrepot_connections {}", 2 + Limits::REFUSALS))
        .await;
    let mut beyond = server.connect().await;
    assert_eq!(beyond.rest().await, "", "it is closed without a word");
    open[0].send(get("/")).await;
    open[0].until("hello").await;
}
