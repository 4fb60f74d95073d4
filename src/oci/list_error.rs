//! Why an answer is not the list that was asked for.

/// Why some bytes are no list of tags or referrers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not JSON of the right form.
    #[error("it is no list: {0}")]
    Json(String),
    /// The field with the list is missing, so it is another document.
    #[error("it is no list: it has no `{0}`")]
    Field(&'static str),
}
