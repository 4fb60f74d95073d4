//! Every way to ask, by every mode, with and without a link, after a revocation and with upstream gone: the answer, and
//! whether upstream was asked.

use super::members::{Content, HERE, Kind, Members, Mode, THERE};
use crate::harness::mirror::Mirror;
use crate::harness::upstream::Upstream;

/// What is known when the question comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It was pulled from this very repository a moment ago.
    Fresh,
    /// It was pulled from another one.
    None,
    /// It was pulled from this one, and since then the right to it was taken back; upstream was not asked yet.
    Revoked,
    /// It was pulled from this one, and upstream is gone since.
    Down,
}

/// Longer than `authz_ttl`, shorter than the time a tag holds.
const LATER_SECONDS: i64 = 10 * 60;

struct Case {
    mode: Mode,
    link: Link,
    registry: Upstream,
    members: Members,
    content: Content,
    mirror: Mirror,
}

impl Case {
    async fn new(mode: Mode, link: Link) -> Self {
        let registry = Upstream::start().await;
        let members = Members::default();
        for user in ["robot", "alice"] {
            for name in [HERE, THERE] {
                members.admit(user, name);
            }
        }
        members.stand(&registry);
        let content = Content::put(&registry);
        let mirror = mode.setup(&registry, "").start().await;
        let case = Self {
            mode,
            link,
            registry,
            members,
            content,
            mirror,
        };
        for kind in [
            Kind::Get,
            Kind::Manifest,
            Kind::Child,
            Kind::Tag,
            Kind::Tags,
            Kind::Referrers,
        ] {
            let request = case.content.request(kind, HERE);
            let request = mode.authorize(request, "alice");
            case.mirror.send(request).await.expect(200);
        }
        case.mirror.wait_until_stored(&case.content.digest()).await;
        match link {
            Link::Fresh | Link::None => {}
            Link::Revoked => {
                case.members.dismiss_all();
                case.mirror.clock.advance(LATER_SECONDS);
            }
            Link::Down => {
                case.registry.stop().await;
                case.mirror.clock.advance(LATER_SECONDS);
            }
        }
        case.registry.forget();
        case
    }

    async fn check(&self, kind: Kind) {
        let (mode, link) = (self.mode, self.link);
        let name = if link == Link::None { THERE } else { HERE };
        let request = self.content.request(kind, name);
        let answer = self.mirror.send(mode.authorize(request, "alice")).await;
        let what = format!("{mode:?} {link:?} {kind:?}: {answer:?}");
        let (status, body) = self.content.expected(kind);
        // Lists have no HEAD; they are asked for again as they are.
        let is_list = matches!(kind, Kind::Tags | Kind::Referrers);
        let is_blob = matches!(kind, Kind::Head | Kind::Get | Kind::Range);
        let expected = match link {
            Link::Revoked if mode.is_by_caller() => 401,
            Link::Revoked => 403,
            // A caller's right is not believed any longer; the mirror's own goes on.
            Link::Down if mode.is_by_caller() => 502,
            Link::Fresh | Link::None | Link::Down => status,
        };
        assert_eq!(answer.status, expected, "{what}");
        if expected == status {
            assert!(body.is_none_or(|body| answer.body == body), "{what}");
        }
        let log = self.registry.log();
        let heads = log.iter().filter(|asked| asked.method == "HEAD").count();
        match link {
            Link::Fresh => assert!(log.is_empty(), "{what}: {log:?}"),
            Link::None if is_blob => {
                assert!(heads > 0, "{what}: {log:?}");
                assert_eq!(
                    self.registry.body_bytes("/v2/team/other/blobs/*"),
                    0,
                    "{what}"
                );
            }
            // It is asked for in the repository that it is to come from.
            Link::None => assert!(!log.is_empty(), "{what}"),
            Link::Revoked => {
                assert!(heads > 0 || (is_list && !log.is_empty()), "{what}: {log:?}");
                for asked in &log {
                    assert!(asked.path() == "/token" || asked.sent() < 1000, "{what}");
                }
            }
            Link::Down => {}
        }
    }
}

async fn table(mode: Mode) {
    for link in [Link::Fresh, Link::None, Link::Revoked, Link::Down] {
        for kind in Kind::ALL {
            Case::new(mode, link).await.check(kind).await;
        }
    }
}

#[tokio::test]
async fn auto_serves_by_the_callers_right_where_the_mirror_has_none() {
    table(Mode::Auto).await;
}

#[tokio::test]
async fn shared_serves_by_the_right_of_the_mirror() {
    table(Mode::Shared).await;
}

#[tokio::test]
async fn verify_serves_by_the_callers_right_alone() {
    table(Mode::Verify).await;
}

#[tokio::test]
async fn authenticated_serves_known_clients_by_the_right_of_the_mirror() {
    table(Mode::Authenticated).await;
}
