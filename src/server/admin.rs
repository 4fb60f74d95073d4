//! What is answered on every listener before the service sees it. None of it depends on an upstream or the storage:
//! else one upstream's outage would take every mirror out of service.

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::Phase;
use crate::http::Body;
use crate::metrics::Metrics;

/// The answer, if the target is one of ours.
pub(super) fn answer(
    request: &Request<()>,
    phase: &watch::Receiver<Phase>,
    metrics: &Metrics,
) -> Option<Response<Body>> {
    let page = match request.uri().path() {
        "/livez" => Page::Live,
        "/readyz" => Page::Ready,
        "/metrics" => Page::Metrics,
        _ => return None,
    };
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match page {
        _ if !readable => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are allowed here\n",
        ),
        Page::Live => text(StatusCode::OK, "ok\n"),
        Page::Ready if *phase.borrow() == Phase::Serving => text(StatusCode::OK, "ok\n"),
        Page::Ready => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        Page::Metrics => with_type(Metrics::CONTENT_TYPE, Body::full(metrics.render())),
    };
    if !readable {
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
    }
    Some(response)
}

enum Page {
    Live,
    Ready,
    Metrics,
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = with_type("text/plain; charset=utf-8", Body::full(text));
    *response.status_mut() = status;
    response
}

fn with_type(media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, target: &str, phase: Phase) -> Option<u16> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap();
        let (_phase, phase) = watch::channel(phase);
        answer(&request, &phase, &Metrics::new()).map(|response| response.status().as_u16())
    }

    #[test]
    fn ready_until_the_end_begins_and_live_throughout() {
        for (phase, ready) in [
            (Phase::Serving, 200),
            (Phase::LameDuck, 503),
            (Phase::Draining, 503),
            (Phase::Aborting, 503),
        ] {
            assert_eq!(status(Method::GET, "/readyz", phase), Some(ready));
            assert_eq!(status(Method::HEAD, "/livez?verbose", phase), Some(200));
        }
    }

    #[test]
    fn nothing_but_reading_is_allowed() {
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            assert_eq!(status(method, "/metrics", Phase::Serving), Some(405));
        }
    }

    #[test]
    fn other_targets_are_left_to_the_service() {
        for target in ["/", "/v2/", "/livez/", "/metricsx", "/v2/livez"] {
            assert_eq!(status(Method::GET, target, Phase::Serving), None);
        }
    }
}
