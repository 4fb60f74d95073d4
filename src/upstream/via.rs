//! The mirrors that a request went through on its way here (RFC 9110, section 7.6.3), so that a circle of mirrors
//! is noticed instead of waiting for itself.

use std::fmt::Write as _;

use reqwest::header::HeaderValue;

/// Longest chain that is sent on, in bytes: some forty mirrors. A longer one is taken for a circle.
const CHAIN_BYTES_MAX: usize = 2048;

/// The `Via` chain of the request that asks.
#[derive(Debug, Clone, Default)]
pub struct Via(Option<String>);

impl Via {
    /// Reads the values of the `Via` header lines, first line first. What is not visible text is left out.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut chain = String::new();
        for value in values.into_iter().filter_map(|value| value.to_str().ok()) {
            let separator = if chain.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(chain, "{separator}{value}");
        }
        Self((!chain.is_empty()).then_some(chain))
    }

    /// Whether the mirror called `pseudonym` is in the chain, or the chain is too long to be anything but a circle.
    pub(super) fn has(&self, pseudonym: &str) -> bool {
        let received_by = |entry: &str| entry.split_ascii_whitespace().nth(1) == Some(pseudonym);
        self.0
            .as_deref()
            .is_some_and(|chain| chain.len() > CHAIN_BYTES_MAX || chain.split(',').any(received_by))
    }

    /// The value to send on: the chain with `pseudonym` at its end. What was parsed is visible text, so there always is
    /// one.
    pub(super) fn through(&self, pseudonym: &str) -> Option<HeaderValue> {
        let value = match &self.0 {
            Some(chain) => format!("{chain}, 1.1 {pseudonym}"),
            None => format!("1.1 {pseudonym}"),
        };
        HeaderValue::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(lines: &[&'static str]) -> Via {
        let values: Vec<_> = lines
            .iter()
            .map(|line| HeaderValue::from_static(line))
            .collect();
        Via::parse(&values)
    }

    #[test]
    fn the_chain_grows_by_one() {
        let check = |lines, expected: &str| {
            let value = via(lines).through("entrepot-1").expect("visible text");
            assert_eq!(value, expected);
        };
        check(&[], "1.1 entrepot-1");
        check(
            &["1.0 fred, 1.1 p.example.net", "2 x (comment)"],
            "1.0 fred, 1.1 p.example.net, 2 x (comment), 1.1 entrepot-1",
        );
    }

    #[test]
    fn a_circle_is_noticed() {
        assert!(!via(&[]).has("entrepot-1"));
        assert!(!via(&["1.1 entrepot-12"]).has("entrepot-1"));
        assert!(via(&["1.0 fred", "1.1 entrepot-1, 1.1 x"]).has("entrepot-1"));
        assert!(Via(Some("1.1 x, ".repeat(1000))).has("entrepot-1"));
    }
}
