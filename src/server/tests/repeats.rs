//! Requests that came before: hyper reads each of them once.

use super::*;
use crate::http::{Memo, Reply};

/// Has everything at hand but `/later`, and remembers where in memory each request was.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<usize>>>);

impl Service for Witness {
    fn at_hand(&self, request: &Arc<Request<()>>, _: &Arc<Caller>) -> Option<Reply> {
        if request.uri().path() == "/later" {
            return None;
        }
        let count = request.extensions().get::<Memo>().map(|memo| {
            let before = memo.get::<u32>().map_or(0, |n| *n);
            memo.set(before + 1);
            before
        });
        self.0.lock().unwrap().push(Arc::as_ptr(request).addr());
        let text = match count {
            Some(before) => format!("known {before}"),
            None => "new".to_owned(),
        };
        Some(Response::new(Body::full(text)).into())
    }

    fn call(&self, _: Arc<Request<()>>, _: Arc<Caller>) -> Answer {
        Answer::Here(Response::new(Body::full("later")))
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = rejection.status();
        response
    }
}

/// A server, and what its service has seen.
#[expect(clippy::disallowed_methods, reason = "the server runs beside its test")]
fn witnessed() -> (SocketAddr, Witness) {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let (address, witness) = (socket.local_addr().unwrap(), Witness::default());
    let serving = serve(
        vec![plain(socket)],
        Limits::default(),
        witness.clone(),
        Metrics::new(),
        std::future::pending(),
    );
    tokio::spawn(serving);
    (address, witness)
}

/// Sends `request` on an open connection, and gives the body of the answer.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.expect("a length").parse::<usize>().unwrap() {
                assert!(head.contains("\r\ndate: "), "{head}");
                return body.to_owned();
            }
        }
        let n = timeout(PATIENCE, stream.read_buf(&mut answer)).await;
        assert_ne!(n.unwrap().unwrap(), 0, "the connection ended: {text}");
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

#[tokio::test]
async fn a_request_is_read_once_for_all_connections() {
    let (address, witness) = witnessed();
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let request = get("/a");
    assert_eq!(ask(&mut first, &request).await, "new");
    assert_eq!(ask(&mut first, &request).await, "known 0");
    assert_eq!(ask(&mut second, &request).await, "known 1");
    assert_eq!(ask(&mut first, &request).await, "known 2");
    let seen = witness.0.lock().unwrap().clone();
    assert_eq!(seen[1], seen[2]);
    assert_eq!(seen[1], seen[3]);
}

#[tokio::test]
async fn between_known_requests_there_may_be_others() {
    let (address, _) = witnessed();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answers = Vec::new();
    for target in ["/a", "/later", "/b", "/a", "/later", "/b"] {
        answers.push(ask(&mut stream, &get(target)).await);
    }
    assert_eq!(
        answers,
        ["new", "later", "new", "known 0", "later", "known 0"]
    );
}

#[tokio::test]
async fn a_known_request_in_two_parts_or_with_more_behind_it_is_answered_all_the_same() {
    let (address, _) = witnessed();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = get("/a");
    for _ in 0..2 {
        ask(&mut stream, &request).await;
    }
    let (front, back) = request.split_at(request.len() - 2);
    stream.write_all(front.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(ask(&mut stream, back).await, "new");
    let two = format!("{request}{}", get("/b"));
    stream.write_all(two.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while answer.matches("\r\n\r\n").count() < 2 || !answer.ends_with("new") {
        let mut bytes = [0; 1024];
        let n = timeout(PATIENCE, stream.read(&mut bytes)).await;
        answer.push_str(str::from_utf8(&bytes[..n.unwrap().unwrap()]).unwrap());
    }
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
}

#[tokio::test]
async fn the_head_of_an_answer_is_the_same_whoever_writes_it() {
    let (address, _) = witnessed();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut heads = Vec::new();
    for _ in 0..2 {
        let request = "HEAD /a HTTP/1.1\r\nHost: a.example\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let n = timeout(PATIENCE, stream.read_buf(&mut answer)).await;
            assert_ne!(n.unwrap().unwrap(), 0);
        }
        let answer = String::from_utf8(answer).unwrap();
        let mut lines: Vec<_> = answer
            .lines()
            .filter(|line| !line.starts_with("date: "))
            .map(str::to_owned)
            .collect();
        lines.sort();
        heads.push(lines);
    }
    // What the two bodies have would differ by their lengths: "new" and "known 0".
    let length = |head: &[String]| {
        head.iter()
            .position(|it| it.starts_with("content-length: "))
    };
    let (new, known) = (length(&heads[0]).unwrap(), length(&heads[1]).unwrap());
    assert_eq!(heads[0][new], "content-length: 3");
    assert_eq!(heads[1][known], "content-length: 7");
    heads[0].remove(new);
    heads[1].remove(known);
    assert_eq!(heads[0], heads[1]);
}

#[tokio::test]
async fn who_says_the_connection_ends_is_answered_and_it_does() {
    let (address, _) = witnessed();
    let closing = "GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, &get("/b")).await;
        stream.write_all(closing.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}
