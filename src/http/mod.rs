//! What the server and whoever answers its requests say to each other. Knows no socket and no OCI.

mod body;
pub use body::{Body, BodyError, End};

mod chunk;
pub use chunk::{Chunk, Segment};

mod memo;
pub use memo::Memo;

mod reply;
pub use reply::{PreparedHead, Reply, write_field};

mod service;
pub use service::{Answer, Caller, Rejection, Service};

mod shares;
pub use shares::{Share, Shares};
