//! `Link`: where a list goes on (RFC 8288). Of what upstream writes there only the query is used, and asked of the same
//! repository at the same endpoint: so no link leads to another host, and those of registries that do not know what
//! they are called from outside work, too (Quay writes whole URLs, Artifactory forgets the front of its path).

use reqwest::header::{HeaderMap, LINK};

/// Longest query that is taken over, in bytes. Those with a tag and a number are short; some registries pass an
/// encrypted state around.
const QUERY_BYTES_MAX: usize = 2048;

/// The query of the first link that leads to the next page. None where there is no such link, or where it has no query
/// that could lead anywhere.
pub(super) fn next_query(headers: &HeaderMap) -> Option<&str> {
    let lines = headers
        .get_all(LINK)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let target = lines.flat_map(links).find(|link| link.is_next)?.target;
    let target = target.split('#').next().unwrap_or_default();
    let (_, query) = target.split_once('?')?;
    (!query.is_empty() && query.len() <= QUERY_BYTES_MAX).then_some(query)
}

/// One link of a header line.
struct Link<'a> {
    target: &'a str,
    is_next: bool,
}

/// The links of one line. What does not fit the grammar ends it.
fn links(line: &str) -> impl Iterator<Item = Link<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (_, from_target) = rest.split_once('<')?;
        let (target, after) = from_target.split_once('>')?;
        let parameters = outside_quotes(after, ',').next().unwrap_or_default();
        rest = after.get(parameters.len()..).unwrap_or_default();
        Some(Link {
            target,
            is_next: outside_quotes(parameters, ';').any(says_next),
        })
    })
}

/// The parts of `text` between those `separator`s that stand outside of quotes.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// Whether a parameter is `rel`, and `next` is among the relations it names.
fn says_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel")
        && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn check(lines: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(LINK, HeaderValue::from_str(line).expect("a value"));
        }
        assert_eq!(next_query(&headers), expected, "{lines:?}");
    }

    #[test]
    fn only_the_query_of_a_link_is_used() {
        let query = Some("n=2&last=x");
        check(&[r#"</v2/a/tags/list?n=2&last=x>; rel="next""#], query);
        check(
            &[r#"<https://quay.io/v2/a/tags/list?n=2&last=x>; rel="next""#],
            query,
        );
        check(&[r#"<?n=2&last=x>; rel="next""#], query);
        check(&["</v2/a/tags/list?n=2&last=x>;rel=next"], query);
        check(&[r#"<a?n=2&last=x#there>; REL="prev NEXT""#], query);
        check(
            &[r#"<a?n=2&last=x&orderby=>; rel="next""#],
            Some("n=2&last=x&orderby="),
        );
    }

    #[test]
    fn the_right_one_of_several_links_is_found() {
        let query = Some("n=2");
        check(&[r#"<a?p>; rel="prev", <b?n=2>; rel="next""#], query);
        check(&[r#"<a?p>; rel="prev""#, r#"<b?n=2>; rel="next""#], query);
        check(
            &[r#"<a?p,q>; title="x, <y?z>; rel=next"; rel=last, <b?n=2>; rel=next"#],
            query,
        );
    }

    #[test]
    fn what_leads_nowhere_is_no_link() {
        check(&[], None);
        check(&[""], None);
        check(&["n=2"], None);
        check(&["<a?n=2"], None);
        check(&["<a?n=2>"], None);
        check(&[r#"<a?n=2>; rel="prev""#], None);
        check(&[r#"<a>; rel="next""#], None);
        check(&[r#"<a?>; rel="next""#], None);
        let long = format!(r#"<a?{}>; rel="next""#, "x".repeat(QUERY_BYTES_MAX + 1));
        check(&[&long], None);
    }
}
