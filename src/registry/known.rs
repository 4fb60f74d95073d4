//! Routes as they were read before: what one client asks for, the others ask for as well.
//!
//! A route depends on the request and the configuration alone, and a registry has one configuration as long as it lives.
//! So what is known here is never wrong; it only saves to read the same names again.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::{Equivalent, HashMap};
use hyper::Method;

use super::route::{Inbound, Route};
use super::ways::{Door, Ways};

/// Most routes that are known, at a kilobyte each. When there are more, all are forgotten: the few that everybody asks for
/// are soon known again.
const ROUTES_MAX: usize = 1024;

/// Longest target that is remembered, in bytes. Longer ones are none that everybody asks for.
const TARGET_BYTES_MAX: usize = 512;

/// Routes by what they were read from.
#[derive(Debug, Default)]
pub(super) struct KnownRoutes(RwLock<HashMap<Kept, Arc<Route>>>);

/// All of a request that its route depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked<'a> {
    target: &'a str,
    listener: usize,
    /// Where it means anything.
    host: Option<&'a str>,
}

/// The same for good.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    target: Box<str>,
    listener: usize,
    host: Option<Box<str>>,
}

impl Kept {
    fn asked(&self) -> Asked<'_> {
        Asked {
            target: &self.target,
            listener: self.listener,
            host: self.host.as_deref(),
        }
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl Equivalent<Kept> for Asked<'_> {
    fn equivalent(&self, kept: &Kept) -> bool {
        *self == kept.asked()
    }
}

impl<'a> Asked<'a> {
    /// What is asked, if it is something that is remembered.
    fn of(inbound: &Inbound<'a>, ways: &Ways) -> Option<Self> {
        let Inbound {
            method,
            target,
            door: Door { listener, host },
        } = *inbound;
        let target = target.path_and_query()?.as_str();
        let is_read = method == Method::GET || method == Method::HEAD;
        (is_read && target.len() <= TARGET_BYTES_MAX).then_some(Self {
            target,
            listener,
            host: host.filter(|_| ways.hear_hosts()),
        })
    }
}

impl KnownRoutes {
    /// The route of this request, if it is known.
    pub(super) fn find(&self, inbound: &Inbound<'_>, ways: &Ways) -> Option<Arc<Route>> {
        let asked = Asked::of(inbound, ways)?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&asked).map(Arc::clone)
    }

    /// Keeps the route that was read from this request.
    pub(super) fn keep(&self, inbound: &Inbound<'_>, ways: &Ways, route: &Arc<Route>) {
        let Some(asked) = Asked::of(inbound, ways) else {
            return;
        };
        let kept = Kept {
            target: asked.target.into(),
            listener: asked.listener,
            host: asked.host.map(Into::into),
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ROUTES_MAX {
            known.clear();
        }
        known.insert(kept, Arc::clone(route));
    }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;

    use super::*;
    use crate::registry::route::parse;
    use crate::registry::route::tests::directory;

    struct Bench {
        known: KnownRoutes,
        ways: Ways,
    }

    impl Bench {
        fn new(ways: Ways) -> Self {
            let known = KnownRoutes::default();
            Self { known, ways }
        }

        /// Whether the route is known, and the right one; it is afterwards.
        fn is_known(&self, method: &Method, target: &str, door: Door<'_>) -> bool {
            let target: Uri = target.parse().expect("a target");
            let inbound = Inbound {
                method,
                target: &target,
                door,
            };
            let read = parse(inbound, &self.ways, &directory());
            let known = self.known.find(&inbound, &self.ways);
            if let Some(known) = &known {
                assert_eq!(Ok(&**known), read.as_ref(), "{target} at {door:?}");
            }
            if let Ok(route) = read {
                self.known.keep(&inbound, &self.ways, &Arc::new(route));
            }
            known.is_some()
        }
    }

    fn door(listener: usize, host: &str) -> Door<'_> {
        let host = Some(host);
        Door { listener, host }
    }

    const TARGET: &str = "/v2/team/app/manifests/v1";

    #[test]
    fn a_route_is_known_to_whoever_comes_the_same_way() {
        let ways = Ways {
            listeners: vec![None, Some("quay.io".parse().expect("a namespace"))],
            domain: Some("mirror.example".parse().expect("a namespace")),
            ..Ways::default()
        };
        let bench = Bench::new(ways);
        let is_known = |target, listener, host| {
            let door = door(listener, host);
            let by_head = bench.is_known(&Method::HEAD, target, door);
            let by_get = bench.is_known(&Method::GET, target, door);
            assert!(by_get, "it was kept");
            by_head
        };
        assert!(!is_known(TARGET, 0, "localhost"));
        assert!(is_known(TARGET, 0, "localhost"));
        assert!(!is_known(TARGET, 1, "localhost"));
        assert!(!is_known(TARGET, 0, "ghcr.io.mirror.example"));
        let elsewhere = "/v2/team/app/manifests/v1?ns=quay.io";
        assert!(!is_known(elsewhere, 0, "localhost"));
        assert!(is_known(TARGET, 0, "ghcr.io.mirror.example"));
    }

    #[test]
    fn hosts_that_mean_nothing_are_not_told_apart() {
        let bench = Bench::new(Ways::default());
        assert!(!bench.is_known(&Method::GET, TARGET, door(0, "a.example")));
        assert!(bench.is_known(&Method::GET, TARGET, door(0, "b.example")));
    }

    #[test]
    fn what_changes_something_is_never_known() {
        let bench = Bench::new(Ways::default());
        assert!(!bench.is_known(&Method::GET, TARGET, door(0, "a")));
        assert!(!bench.is_known(&Method::PUT, TARGET, door(0, "a")));
        assert!(!bench.is_known(&Method::PUT, TARGET, door(0, "a")));
    }

    #[test]
    fn however_much_is_asked_for_no_more_is_known_than_may_be() {
        let bench = Bench::new(Ways::default());
        for n in 0..3 * ROUTES_MAX {
            let target = format!("/v2/team/app/manifests/v{n}");
            bench.is_known(&Method::GET, &target, door(0, "a"));
            let known = bench.known.0.read().expect("nobody panicked").len();
            assert!(known <= ROUTES_MAX, "{known}");
        }
        let long = format!("{TARGET}?n={}", "9".repeat(TARGET_BYTES_MAX));
        assert!(!bench.is_known(&Method::GET, &long, door(0, "a")));
        assert!(!bench.is_known(&Method::GET, &long, door(0, "a")));
    }
}
