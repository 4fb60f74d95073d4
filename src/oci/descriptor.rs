//! What a piece of content is, without the content (image-spec, descriptor.md).

use serde::{Deserialize, Serialize};

use super::{Digest, MediaType};

/// Media type, digest and size of some content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What kind of document it is.
    pub media_type: MediaType,
    /// What its bytes hash to.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}
