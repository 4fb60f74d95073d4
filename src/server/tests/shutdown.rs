//! The end. Time is tokio's and stands still but for the deadlines.

use tokio::time::{Instant, sleep_until};

use super::*;

fn limits(lame_duck: u64, drain: u64) -> Limits {
    Limits {
        connections: 100,
        lame_duck: Duration::from_secs(lame_duck),
        drain: Duration::from_secs(drain),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn not_ready_at_once_and_serving_until_the_delay_is_over() {
    let mut server = start(limits(5, 30));
    let mut resting = server.connect().await;
    resting.send(get("/")).await;
    resting.until("hello").await;
    let start = Instant::now();
    server.stop();
    tokio::task::yield_now().await;
    let answer = server.exchange(get_and_close("/readyz")).await;
    assert_eq!(statuses(&answer), ["503"]);
    let answer = server.exchange(get_and_close("/livez")).await;
    assert_eq!(statuses(&answer), ["200"]);
    let answer = server.exchange(get_and_close("/")).await;
    assert_eq!(statuses(&answer), ["200"]);
    assert_eq!(resting.rest().await, "");
    assert!(start.elapsed() >= Duration::from_secs(5));
    let address = server.address;
    assert_eq!(server.drained().await, Drained::Completely);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn responses_under_way_complete() {
    let mut server = start(limits(0, 30));
    let mut client = server.connect().await;
    client.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    let start = Instant::now();
    server.stop();
    sleep_until(start + Duration::from_secs(29)).await;
    server.toy.gate.notify_one();
    let answer = client.rest().await;
    assert!(answer.ends_with("slow"));
    assert!(answer.contains("connection: close\r\n"));
    assert_eq!(server.drained().await, Drained::Completely);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_complete_in_time_is_closed_with_a_fin_and_counted() {
    let mut server = start(limits(0, 30));
    let mut first = server.connect().await;
    first.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    let mut second = server.connect().await;
    second.send(get("/slow")).await;
    server.toy.waiting.notified().await;
    let start = Instant::now();
    server.stop();
    assert_eq!(first.rest().await, "");
    assert_eq!(second.rest().await, "");
    assert!(start.elapsed() >= Duration::from_secs(30));
    drop((first, second));
    assert_eq!(server.drained().await, Drained::Aborted { n: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_cannot_hold_up_the_end() {
    let mut server = start(limits(0, 30));
    let mut client = server.connect().await;
    client.send(get("/")).await;
    client.until("hello").await;
    let start = Instant::now();
    server.stop();
    assert_eq!(server.drained().await, Drained::Completely);
    assert!(start.elapsed() < Duration::from_secs(3));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_server_ends_everything_at_once() {
    let mut server = start(limits(0, 30));
    let mut client = server.connect().await;
    client.send(get("/endless")).await;
    client.until("xxxx").await;
    server.stop();
    let start = Instant::now();
    server.task.abort();
    assert_eq!(server.end().await.1, End::Cancelled);
    assert_eq!(start.elapsed(), Duration::ZERO);
}
