//! The registry as it is configured now.

use std::sync::Arc;

use hyper::{Request, Response};
use tokio::sync::watch;

use super::error::Error;
use super::{Registry, response};
use crate::http::{Answer, Body, Caller, Rejection, Reply, Service};

/// A registry whose configuration may change while it answers: every request is answered to its end by the one that
/// was there when it came. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CurrentRegistry(watch::Sender<Arc<Registry>>);

impl CurrentRegistry {
    /// Answers by `registry` for now.
    pub fn new(registry: Registry) -> Self {
        Self(watch::Sender::new(Arc::new(registry)))
    }

    /// Answers the requests that come from now on by `registry`.
    pub fn replace(&self, registry: Registry) {
        self.0.send_replace(Arc::new(registry));
    }

    fn now(&self) -> Arc<Registry> {
        Arc::clone(&self.0.borrow())
    }
}

impl Service for CurrentRegistry {
    fn at_hand(&self, request: &Arc<Request<()>>, caller: &Arc<Caller>) -> Option<Reply> {
        // Whoever replaces it waits for this, which does not wait.
        self.0.borrow().at_hand(request, caller)
    }

    fn call(&self, request: Arc<Request<()>>, caller: Arc<Caller>) -> Answer {
        self.now().answer(request, caller)
    }

    fn reject(&self, rejection: Rejection) -> Response<Body> {
        response::failure(&Error::Rejected(rejection), None)
    }
}
