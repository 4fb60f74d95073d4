//! When a new connection is dialled: not while one that is about to be free will do.
//!
//! The HTTP client dials at once where no connection is free, and the one whose answer has just been read to its end is
//! free only when the task that drives it has had its turn. On a busy machine that takes milliseconds, and the next
//! request would leave one more connection behind than are needed.

use std::error::Error as StdError;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::futures::TaskLocalFuture;
use tokio::time::sleep;
use tower_layer::Layer;
use tower_service::Service;

/// How long a connection that is coming back is waited for: some time slices of a busy machine. Where it does not come,
/// since upstream closes after each answer, that is a twenty-fifth of the shortest run of a large blob.
const PATIENCE: Duration = Duration::from_millis(10);

tokio::task_local! {
    /// Whether a connection is coming back for the request that this is part of.
    static COMES_BACK: bool;
}

/// `request`, for which a connection comes back or does not.
pub(super) fn knowing<F: Future>(comes_back: bool, request: F) -> TaskLocalFuture<bool, F> {
    COMES_BACK.scope(comes_back, request)
}

/// Whether this is part of a request that still waits for the connection that is coming back. Once it has that, the client
/// goes on dialling apart from the request.
fn is_expected() -> bool {
    COMES_BACK.try_with(|comes_back| *comes_back) == Ok(true)
}

/// Has a dialler be patient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience;

/// A dialler that leaves time to a connection that is coming back, and does not dial where that came.
#[derive(Debug, Clone)]
pub(super) struct Patient<S>(S);

/// What went wrong, as the HTTP client has it.
type BoxError = Box<dyn StdError + Send + Sync>;

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, dialler: S) -> Patient<S> {
        Patient(dialler)
    }
}

impl<S, T> Service<T> for Patient<S>
where
    S: Service<T, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send + 'static,
    T: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: T) -> Self::Future {
        if !is_expected() {
            return Box::pin(self.0.call(target));
        }
        // The one that is ready goes along.
        let next = self.0.clone();
        let mut dialler = mem::replace(&mut self.0, next);
        Box::pin(async move {
            sleep(PATIENCE).await;
            if !is_expected() {
                return Err("another connection came back".into());
            }
            dialler.call(target).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::{Ready, ready};
    use tokio::time::Instant;

    use super::*;

    /// Counts how often it was called.
    #[derive(Clone, Default)]
    struct Dialler(Arc<AtomicUsize>);

    impl Service<()> for Dialler {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            ready(Ok(()))
        }
    }

    fn patient() -> (Patient<Dialler>, impl Fn() -> usize) {
        let dialler = Dialler::default();
        let count = Arc::clone(&dialler.0);
        let dialled = move || count.load(Ordering::Relaxed);
        (Patience.layer(dialler), dialled)
    }

    #[test]
    fn who_expects_no_connection_dials_at_once() {
        let (mut patient, dialled) = patient();
        let done = patient.call(()).now_or_never();
        assert!(matches!(done, Some(Ok(()))));
        assert_eq!(dialled(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_come_back_is_dialled_in_the_end() {
        let (mut patient, dialled) = patient();
        let start = Instant::now();
        let dialling = knowing(true, async { patient.call(()).await });
        dialling.await.expect("dialled");
        assert!(start.elapsed() >= PATIENCE);
        assert_eq!(dialled(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn where_it_came_back_nothing_is_dialled() {
        let (mut patient, dialled) = patient();
        let mut dialling = None;
        let request = async {
            let begun = dialling.insert(patient.call(()));
            assert!(begun.now_or_never().is_none());
        };
        knowing(true, request).await;
        // As the client does: it goes on by itself.
        let ended = dialling.expect("begun").await;
        assert!(ended.is_err());
        assert_eq!(dialled(), 0);
    }
}
