//! `entrepot node verify --listen`: looks at a node again and again, and tells Prometheus what it finds.
//!
//! A node's configuration changes while its mirror runs: an upgrade of the runtime brings a new `config.toml`, somebody
//! adds a folder that hides `_default`. So what was right when it was set up is looked at for as long as it is used.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Request, Response, StatusCode};
use tokio::time::{MissedTickBehavior, interval};

use super::{Finding, Mirror, Node};
use crate::http::{Answer, Body, Caller, Rejection, Service};
use crate::metrics::Metrics;
use crate::server::{self, Limits, Listener};

/// Time from one look to the next. A look reads a handful of small files; Prometheus asks about as often.
const EVERY: Duration = Duration::from_secs(30);

/// Longest time that answers under way have at the end: pages are small, and a pod waits for this.
const DRAIN: Duration = Duration::from_secs(2);

/// Answers everything but the administrative paths: there is nothing else.
#[derive(Debug)]
struct Nothing;

impl Service for Nothing {
    fn call(&self, _: Arc<Request<()>>, _: Arc<Caller>) -> Answer {
        Answer::Here(with_status(StatusCode::NOT_FOUND))
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        with_status(rejection.status())
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Looks at `node` until `shutdown` is ready, and answers `/metrics`, `/livez` and `/readyz` on `listener` meanwhile. What
/// is found is given to `tell` whenever it is not what was found before.
///
/// Dropping the future ends it at once.
pub async fn watch(
    node: &Node,
    mirror: &Mirror,
    listener: Listener,
    tell: impl FnMut(&[Finding]),
    shutdown: impl Future<Output = ()>,
) {
    let metrics = Metrics::new();
    let limits = Limits {
        drain: DRAIN,
        ..Limits::default()
    };
    let serving = server::serve(vec![listener], limits, Nothing, metrics.clone(), shutdown);
    tokio::select! {
        _ = serving => {}
        never = look(node, mirror, &metrics, tell) => match never {},
    }
}

/// Looks every [`EVERY`].
async fn look(
    node: &Node,
    mirror: &Mirror,
    metrics: &Metrics,
    mut tell: impl FnMut(&[Finding]),
) -> Infallible {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Vec::new();
    loop {
        ticks.tick().await;
        let found = match node.verify(mirror) {
            Ok(findings) => findings,
            Err(error) => vec![Finding::Problem(error.to_string())],
        };
        // Where nothing can be said, nobody should be told that all is well.
        let is_fine = |finding: &Finding| matches!(finding, Finding::Fine(_));
        metrics.node_mirror_configured(mirror.url(), found.iter().all(is_fine));
        if found != before {
            tell(&found);
            before = found;
        }
    }
}
