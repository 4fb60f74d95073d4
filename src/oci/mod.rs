//! The vocabulary of the OCI distribution and image specifications: parsed, checked values. No I/O, no async, no clock.
//!
//! Everything that enters the program as text becomes one of these types at the door, so below the door a digest is
//! never a string and a name has always been held against the grammar.

mod namespace;
pub use namespace::{Namespace, NamespaceError};

mod name;
pub use name::{NameError, RepositoryName};

mod repository_pattern;
pub use repository_pattern::{PatternError, RepositoryPattern, RepositoryPatterns};

mod reference;
pub use reference::{Reference, ReferenceError, Tag};

mod digest;
pub use digest::{Algorithm, Digest, DigestError, Hasher};

mod media_type;
pub use media_type::{MANIFEST_ACCEPT, MediaType, MediaTypeError};

mod descriptor;
pub use descriptor::Descriptor;

mod manifest;
pub use manifest::{ManifestError, check_manifest, described_blobs, described_manifests};

mod list_error;
pub use list_error::ListError;

mod tag_list;
pub use tag_list::{TAGS_MAX, TagList};

mod referrers;
pub use referrers::{INDEX_MEDIA_TYPE, Referrer, Referrers, ReferrersPage};

mod error;
pub use error::{ErrorBody, ErrorCode};
