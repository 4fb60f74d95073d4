//! How much a client may send, how long it may take, and how long the end may last.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Bounds of the server. The fields may be set; what is no field follows from the protocol.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once. Further ones wait in the kernel's backlog, so that nobody who is served pays.
    pub connections: usize,
    /// Connections one client may have open at once, by its address. Further ones are told so and closed.
    pub connections_per_client: usize,
    /// Time from the first byte of a request (on a new connection: from its acceptance) to the end of its head.
    pub head_timeout: Duration,
    /// Time a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// Time without a byte that the client takes while there are bytes to send. Not a total: a slow link is fine.
    pub write_idle_timeout: Duration,
    /// Time between turning not ready and accepting no more, in which a load balancer takes us out.
    pub lame_duck: Duration,
    /// Time that responses under way get to complete after that.
    pub drain: Duration,
}

impl Limits {
    /// Longest request target. Registries have names of up to 255 bytes, and signed queries stay below 4 kB.
    pub const TARGET_BYTES: usize = 8 * 1024;

    /// Longest head of a request, its target included. The longest honest part is a bearer token, up to about 8 kB.
    pub const HEAD_BYTES: usize = 16 * 1024;

    /// Most header fields of a request: what hyper has by default, kept because naming another number costs an
    /// allocation per request.
    pub const HEADERS: usize = 100;

    /// Most connections by default, whatever the number of descriptors allows.
    pub const CONNECTIONS_MAX: usize = 20_000;

    /// Connections that are open only to be told that they are too many. Further ones are closed without a word.
    pub(super) const REFUSALS: usize = 64;

    /// Part of all connections that one client may have by default. More than one client can ever need, and however much
    /// one takes, there is as much for all the others.
    const CLIENT_PART: usize = 2;

    /// Descriptors a connection needs at worst: its socket, the file it reads, and a socket to an upstream.
    const DESCRIPTORS_PER_CONNECTION: u64 = 3;

    /// Fewest connections by default, however few descriptors there are.
    const CONNECTIONS_MIN: usize = 16;

    fn default_connections() -> usize {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(descriptors / Self::DESCRIPTORS_PER_CONNECTION)
            .unwrap_or(usize::MAX)
            .clamp(Self::CONNECTIONS_MIN, Self::CONNECTIONS_MAX)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let connections = Self::default_connections();
        Self {
            connections,
            connections_per_client: connections / Self::CLIENT_PART,
            // What others publish; an honest head is one packet.
            head_timeout: Duration::from_secs(10),
            // nginx's; containerd and Go's client drop theirs after 30 to 90 s, and ask again when we were first.
            idle_timeout: Duration::from_secs(75),
            write_idle_timeout: Duration::from_mins(1),
            // None: at a desk the end should be quick. Behind a load balancer, its notice period.
            lame_duck: Duration::ZERO,
            // Kubernetes kills 30 s after asking by default, so a little less.
            drain: Duration::from_secs(25),
        }
    }
}
