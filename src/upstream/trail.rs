//! The way to one blob, as far as it was learned by asking for it.
//!
//! A registry that redirects is asked once; what follows goes to where it led. That is no cache of redirects, whatever
//! their headers allow: a trail lives as long as one handle on one blob, and ends where it stops working.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Url;

use super::guard::host_of;

/// Where redirects led, to the byte: signatures cover path and query.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) url: Url,
    /// Whether it was shown who asks, so that it may not work without.
    pub(super) was_shown: bool,
}

impl fmt::Debug for Target {
    /// Not the URL, which is as good as a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(host_of(&self.url))
    }
}

/// The way to one blob. Endpoints are counted in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Trail(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    /// The endpoint to ask first.
    first: usize,
    /// Where each endpoint redirected to last.
    places: HashMap<usize, Place>,
    /// Connections that were read to the end of their answer, and that nobody has asked for since.
    returning: usize,
}

#[derive(Debug)]
enum Place {
    /// There, and it can be asked right away.
    At(Target),
    /// Somewhere that wants to know who asks. Only the registry is shown that.
    Closed,
}

impl Trail {
    /// The endpoint to ask first, of `endpoints`: the one that gave something last.
    pub(super) fn first(&self, endpoints: usize) -> usize {
        self.learned().first.checked_rem(endpoints).unwrap_or(0)
    }

    /// Where `endpoint` redirected to last, unless that stopped working.
    pub(super) fn target(&self, endpoint: usize) -> Option<Target> {
        match self.learned().places.get(&endpoint) {
            Some(Place::At(target)) => Some(target.clone()),
            Some(Place::Closed) | None => None,
        }
    }

    /// `url`, where `endpoint` redirected to, refuses: it is too old, or it wants to know who asks.
    pub(super) fn refused(&self, endpoint: usize, url: &Url) {
        if let Some(target) = self.forget(endpoint, url)
            && target.was_shown
        {
            self.learned().places.insert(endpoint, Place::Closed);
        }
    }

    /// `url` does not work any more. Returns what is forgotten: nothing where another worker has learned of a new
    /// place meanwhile.
    pub(super) fn forget(&self, endpoint: usize, url: &Url) -> Option<Target> {
        let mut learned = self.learned();
        match learned.places.remove(&endpoint)? {
            Place::At(target) if target.url == *url => Some(target),
            other @ (Place::At(_) | Place::Closed) => {
                learned.places.insert(endpoint, other);
                None
            }
        }
    }

    /// Whether a connection is coming back that nobody else has asked for. It is the caller's from then on.
    pub(super) fn take_returning(&self) -> bool {
        let mut learned = self.learned();
        let left = learned.returning.checked_sub(1);
        learned.returning = left.unwrap_or(0);
        left.is_some()
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one answer came from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) trail: Arc<Trail>,
    pub(super) endpoint: usize,
    /// Where the endpoint redirected to.
    pub(super) target: Option<Target>,
}

impl Origin {
    /// It gives what was asked for, so it is asked first from now on.
    pub(super) fn gives(&self) {
        let mut learned = self.trail.learned();
        learned.first = self.endpoint;
        let Some(target) = &self.target else { return };
        let is_closed = matches!(learned.places.get(&self.endpoint), Some(Place::Closed));
        if !(is_closed && target.was_shown) {
            let place = Place::At(target.clone());
            learned.places.insert(self.endpoint, place);
        }
    }

    /// It gave everything, so that its connection can be used again.
    pub(super) fn gave_all(&self) {
        self.trail.learned().returning += 1;
    }

    /// It does not give what it should, or no more of it. The endpoint is asked for a new way; one that gave
    /// nothing at all leaves the first place to the next.
    pub(super) fn fails(&self, gave_something: bool) {
        if let Some(target) = &self.target {
            self.trail.forget(self.endpoint, &target.url);
        }
        let mut learned = self.trail.learned();
        if !gave_something && learned.first == self.endpoint {
            learned.first = self.endpoint.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, was_shown: bool) -> Target {
        let url = url.parse().expect("a URL");
        Target { url, was_shown }
    }

    fn origin(trail: &Arc<Trail>, endpoint: usize, target: Option<Target>) -> Origin {
        let trail = Arc::clone(trail);
        Origin {
            trail,
            endpoint,
            target,
        }
    }

    #[test]
    fn what_was_learned_since_is_not_forgotten() {
        let trail = Arc::new(Trail::default());
        let (old, new) = (target("https://a/?1", false), target("https://b/?2", false));
        let early = origin(&trail, 0, Some(old.clone()));
        early.gives();
        assert_eq!(trail.target(0), Some(old.clone()));
        assert_eq!(trail.target(1), None);
        origin(&trail, 0, Some(new.clone())).gives();
        early.fails(true);
        trail.refused(0, &old.url);
        assert_eq!(trail.target(0), Some(new.clone()));
        trail.refused(0, &new.url);
        assert_eq!(trail.target(0), None);
    }

    #[test]
    fn what_is_closed_to_visitors_is_not_tried_again() {
        let trail = Arc::new(Trail::default());
        let shown = target("https://r/x", true);
        let closed = origin(&trail, 0, Some(shown.clone()));
        closed.gives();
        trail.refused(0, &shown.url);
        closed.gives();
        assert_eq!(trail.target(0), None);
        let open = target("https://cdn/x", false);
        origin(&trail, 0, Some(open.clone())).gives();
        assert_eq!(trail.target(0), Some(open));
    }

    #[test]
    fn an_endpoint_that_gives_nothing_is_not_asked_first_again() {
        let trail = Arc::new(Trail::default());
        origin(&trail, 1, None).gives();
        assert_eq!(trail.first(2), 1);
        origin(&trail, 1, None).fails(true);
        assert_eq!(trail.first(2), 1);
        origin(&trail, 1, None).fails(false);
        assert_eq!(trail.first(2), 0);
        assert_eq!(trail.first(0), 0);
    }

    #[test]
    fn a_signature_is_not_printed() {
        let signed = target("https://cdn.example/x?sig=hunter2", false);
        assert_eq!(format!("{signed:?}"), "cdn.example");
    }
}
